"""The input of the benchmarks: the images of a folder that the user names, or synthetic ones, repeated."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dr import UsageError
from dr.sources.archive import Archive, is_image
from dr.synthetic import demo
from dr.synthetic.drawing import fundus_image

TIMES = 10  # factor by which archives are enlarged
CAMERA_PX = 2600  # side of a synthetic camera original


@dataclass(frozen=True)
class Inputs:
    """The competition archive, the 2015 archive, and camera originals; `synthetic` if they were drawn."""

    main: Path
    extra: Path
    originals: list[Path]
    synthetic: bool


def find(folder: Path | None, *, work: Path) -> Inputs:
    """The two archives and originals/ of `folder`; synthetic ones without it. Raises UsageError if one is missing."""
    synthetic = folder is None
    if synthetic:
        folder = work / "synthetic"
        if not folder.exists():
            demo.make_archives(folder, main=300, extra=300, test=137)
            (folder / "originals").mkdir()
            for i in range(10):
                rng = np.random.default_rng(i)
                image = fundus_image(i % 5, rng=rng, size_px=(CAMERA_PX, CAMERA_PX), laterality="left")
                cv2.imwrite(str(folder / "originals" / f"{i}.jpeg"), image)
    inputs = Inputs(folder / demo.MAIN_ZIP, folder / demo.EXTRA_ZIP, sorted(folder.glob("originals/*")), synthetic)
    for path in (inputs.main, inputs.extra):
        if not path.is_file():
            raise UsageError(f"{path}: not found; pass a folder that contains it, or omit --data")
    if not inputs.originals:
        raise UsageError(f"{folder}/originals: no images; add some camera originals")
    return inputs


def repeat(paths: list[Path], folder: Path, *, count: int) -> Path:
    """Links to `count` images in `folder`: `paths` in turn, each link with its own name -> `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        link = folder / f"{i:05d}{paths[i % len(paths)].suffix}"
        if not link.exists():
            link.symlink_to(paths[i % len(paths)].resolve())
    return folder


def unpack(archive: Path, folder: Path, *, under: str) -> list[Path]:
    """Write the images below `under` of a zip to a flat folder -> their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Archive(archive)
    names = [name for name in source.images() if f"{under}/" in name]
    for name in names:
        (folder / Path(name).name).write_bytes(source.read(name))
    return sorted(folder.iterdir())


def enlarge(archive: Path, out: Path) -> Path:
    """Write a zip with each labelled image TIMES times, each time rotated by another angle so that none is a duplicate,
    and with a row for each in the label table -> its path."""
    if out.exists():
        return out
    source = Archive(archive)
    part = out.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as packed:
        for name in source.names:
            data = source.read(name)
            if name.endswith("submission.csv") or (is_image(name) and "/test/" in name):
                packed.writestr(name, data)
            elif name.endswith(".csv"):
                header, *rows = data.decode().splitlines()
                rows = [f"{i}{row}" for i in range(TIMES) for row in rows if row]
                packed.writestr(name, "\n".join([header, *rows]) + "\n")
            elif is_image(name):
                image, path = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), Path(name)
                for i in range(TIMES):
                    rotated = cv2.imencode(path.suffix, _rotated(image, degrees=360 * i / TIMES))[1]
                    packed.writestr(str(path.with_name(f"{i}{path.name}")), rotated.tobytes())
    part.rename(out)
    return out


def _rotated(image: np.ndarray, *, degrees: float) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.warpAffine(image, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1), (width, height))
