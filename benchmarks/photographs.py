"""What the benchmarks read: the photographs of a folder that the user names, or made ones, multiplied."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dr import UsageError
from dr.sources.archive import Archive, is_image
from dr.synthetic import demo
from dr.synthetic.drawing import photograph

TIMES = 10  # how many times larger the enlarged archives are
CAMERA_PX = 2600  # the side of a made camera original


@dataclass(frozen=True)
class Photographs:
    """The competition archive, the 2015 archive, and camera originals; `made` where they were drawn."""

    main: Path
    extra: Path
    originals: list[Path]
    made: bool


def find(folder: Path | None, *, work: Path) -> Photographs:
    """The two archives and originals/ of `folder`; without it, drawn ones. Raises UsageError naming what is missing."""
    made = folder is None
    if made:
        folder = work / "made"
        if not folder.exists():
            demo.make_archives(folder, main=300, extra=300, test=137)
            (folder / "originals").mkdir()
            for i in range(10):
                drawn = photograph(i % 5, rng=np.random.default_rng(i), size_px=(CAMERA_PX, CAMERA_PX), side="left")
                cv2.imwrite(str(folder / "originals" / f"{i}.jpeg"), drawn)
    found = Photographs(folder / demo.MAIN_ZIP, folder / demo.EXTRA_ZIP, sorted(folder.glob("originals/*")), made)
    for path in (found.main, found.extra):
        if not path.is_file():
            raise UsageError(f"{path}: there is no such archive; name a folder that holds it, or leave --data out")
    if not found.originals:
        raise UsageError(f"{folder}/originals: it holds no photographs; put some camera originals there")
    return found


def multiplied(paths: list[Path], folder: Path, *, count: int) -> Path:
    """`count` photographs in `folder`: `paths` over and over, each under a name of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        link = folder / f"{i:05d}{paths[i % len(paths)].suffix}"
        if not link.exists():
            link.symlink_to(paths[i % len(paths)].resolve())
    return folder


def unpacked(archive: Path, folder: Path, *, under: str) -> list[Path]:
    """The photographs below `under` of a zip, as files of a flat folder."""
    folder.mkdir(parents=True, exist_ok=True)
    opened = Archive(archive)
    names = [name for name in opened.images() if f"{under}/" in name]
    for name in names:
        (folder / Path(name).name).write_bytes(opened.read(name))
    return sorted(folder.iterdir())


def enlarged(archive: Path, out: Path) -> Path:
    """A zip with each graded photograph TIMES times, turned by another angle each time so that none is a copy, and a
    row for each in the label table."""
    if out.exists():
        return out
    opened = Archive(archive)
    part = out.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as packed:
        for name in opened.names:
            data = opened.read(name)
            if name.endswith("submission.csv") or (is_image(name) and "/test/" in name):
                packed.writestr(name, data)
            elif name.endswith(".csv"):
                header, *rows = data.decode().splitlines()
                rows = [f"{i}{row}" for i in range(TIMES) for row in rows if row]
                packed.writestr(name, "\n".join([header, *rows]) + "\n")
            elif is_image(name):
                photo, path = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), Path(name)
                for i in range(TIMES):
                    turned = cv2.imencode(path.suffix, _turned(photo, degrees=360 * i / TIMES))[1]
                    packed.writestr(str(path.with_name(f"{i}{path.name}")), turned.tobytes())
    part.rename(out)
    return out


def _turned(photo: np.ndarray, *, degrees: float) -> np.ndarray:
    height, width = photo.shape[:2]
    return cv2.warpAffine(photo, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1), (width, height))
