"""What an image lacks of requirements.txt, as wheels; its own torch, built for its GPUs, is never replaced.

python notebooks/wheels.py download DIR    with internet: gathers the wheels that this image lacks
python notebooks/wheels.py install DIR     without internet: installs from them what this image lacks
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).parent.parent / "requirements.txt"
THE_IMAGES_OWN = {"torch", "torchvision"}
ALSO_GIVE_CV2 = ("opencv-python", "opencv-contrib-python")


def requirements(text: str) -> list[Requirement]:
    """The lines of a requirements.txt that hold on this Python."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    wanted = [Requirement(line) for line in lines if line]
    return [one for one in wanted if one.marker is None or one.marker.evaluate()]


def compare(wanted: list[Requirement], installed: dict[str, str]) -> tuple[list[str], list[str], list[str]]:
    """requirements, {name: version} -> what is to be installed, what must stay as it is, what to tell. Raises
    SystemExit where there is no torch."""
    missing, kept, notes = [], [], []
    for one in wanted:
        name = canonicalize_name(one.name)
        version = installed.get(name)
        fits = version is not None and one.specifier.contains(version, prereleases=True)
        if name in THE_IMAGES_OWN and version is None:
            raise SystemExit(f"error: this image has no {name}; choose one with PyTorch")
        if name in THE_IMAGES_OWN and not fits:
            notes.append(f"note: {name} {version} of this image is kept; tested was {one.specifier}")
        elif name == "opencv-python-headless" and not fits:
            fits = any(one.specifier.contains(installed[n], prereleases=True) for n in ALSO_GIVE_CV2 if n in installed)
        if fits or name in THE_IMAGES_OWN:
            kept += [f"{name}=={version}"] if version else []
        else:
            missing.append(f"{one.name}{one.specifier}")
    return missing, kept, notes


def _pip(*arguments: str) -> None:
    finished = subprocess.run([sys.executable, "-m", "pip", *arguments], check=False)
    if finished.returncode:
        raise SystemExit(f"error: pip {arguments[0]} ended with exit code {finished.returncode}; its reason is above")


def install(folder: Path, missing: list[str], constraints: Path) -> None:
    """Installs from the wheels of `folder` alone."""
    if not folder.is_dir():
        raise SystemExit(f"error: {folder}: there is no such folder; make it with: wheels.py download, on internet")
    _pip("install", "--quiet", "--no-index", "--find-links", str(folder), "-c", str(constraints), *missing)


def download(folder: Path, missing: list[str], constraints: Path) -> None:
    """Gathers what pip would install here, with what that needs in turn, as wheels in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    report = constraints.with_name("report.json")
    _pip("install", "--quiet", "--dry-run", "--report", str(report), "-c", str(constraints), *missing)
    found = [one["metadata"] for one in json.loads(report.read_text())["install"]]
    _pip("wheel", "--quiet", "--no-deps", "-w", str(folder), *(f"{one['name']}=={one['version']}" for one in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["download", "install"])
    parser.add_argument("folder", type=Path, metavar="DIR")
    args = parser.parse_args()
    installed = {canonicalize_name(one.name): one.version for one in distributions()}
    missing, kept, notes = compare(requirements(REQUIREMENTS.read_text()), installed)
    print(*notes, f"missing here: {', '.join(missing) or 'nothing'}", sep="\n", flush=True)
    if missing:
        with tempfile.TemporaryDirectory() as scratch:
            constraints = Path(scratch) / "constraints.txt"
            constraints.write_text("\n".join(kept) + "\n")
            {"install": install, "download": download}[args.action](args.folder, missing, constraints)


if __name__ == "__main__":
    main()
