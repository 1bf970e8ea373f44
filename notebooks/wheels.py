"""Install the requirements that a Docker image lacks from wheels; its own torch, built for its GPUs, is never replaced.

python notebooks/wheels.py download DIR    with internet: download the wheels that this image lacks
python notebooks/wheels.py install DIR     without internet: install the missing packages from these wheels
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
NEVER_REPLACED = {"torch", "torchvision"}
CV2_ALTERNATIVES = ("opencv-python", "opencv-contrib-python")


def requirements(text: str) -> list[Requirement]:
    """The lines of a requirements.txt that apply to this Python."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    wanted = [Requirement(line) for line in lines if line]
    return [requirement for requirement in wanted if requirement.marker is None or requirement.marker.evaluate()]


def compare(wanted: list[Requirement], installed: dict[str, str]) -> tuple[list[str], list[str], list[str]]:
    """requirements, {name: version} -> requirements to install, pinned packages to keep, notes to print. Raises
    SystemExit if torch or torchvision is missing."""
    missing, kept, notes = [], [], []
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        version = installed.get(name)
        fits = version is not None and requirement.specifier.contains(version, prereleases=True)
        if name in NEVER_REPLACED and version is None:
            raise SystemExit(f"error: this image has no {name}; use an image with PyTorch")
        if name in NEVER_REPLACED and not fits:
            notes.append(f"note: {name} {version} of this image is kept; tested with {requirement.specifier}")
        elif name == "opencv-python-headless" and not fits:
            others = [installed[n] for n in CV2_ALTERNATIVES if n in installed]
            fits = any(requirement.specifier.contains(other, prereleases=True) for other in others)
        if fits or name in NEVER_REPLACED:
            kept += [f"{name}=={version}"] if version else []
        else:
            missing.append(f"{requirement.name}{requirement.specifier}")
    return missing, kept, notes


def _pip(*arguments: str) -> None:
    finished = subprocess.run([sys.executable, "-m", "pip", *arguments], check=False)
    if finished.returncode:
        raise SystemExit(f"error: pip {arguments[0]} failed with exit code {finished.returncode}; see its output above")


def install(folder: Path, missing: list[str], constraints: Path) -> None:
    """Install from the wheels in `folder` alone."""
    if not folder.is_dir():
        raise SystemExit(f"error: {folder}: folder not found; create it with wheels.py download, which needs internet")
    _pip("install", "--quiet", "--no-index", "--find-links", str(folder), "-c", str(constraints), *missing)


def download(folder: Path, missing: list[str], constraints: Path) -> None:
    """Download as wheels to `folder` what pip would install here, dependencies included."""
    folder.mkdir(parents=True, exist_ok=True)
    report = constraints.with_name("report.json")
    _pip("install", "--quiet", "--dry-run", "--report", str(report), "-c", str(constraints), *missing)
    packages = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    _pip(
        "wheel", "--quiet", "--no-deps", "-w", str(folder), *(f"{item['name']}=={item['version']}" for item in packages)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["download", "install"])
    parser.add_argument("folder", type=Path, metavar="DIR")
    args = parser.parse_args()
    installed = {canonicalize_name(package.name): package.version for package in distributions()}
    missing, kept, notes = compare(requirements(REQUIREMENTS.read_text()), installed)
    print(*notes, f"missing here: {', '.join(missing) or 'nothing'}", sep="\n", flush=True)
    if missing:
        with tempfile.TemporaryDirectory() as scratch:
            constraints = Path(scratch) / "constraints.txt"
            constraints.write_text("\n".join(kept) + "\n")
            {"install": install, "download": download}[args.action](args.folder, missing, constraints)


if __name__ == "__main__":
    main()
