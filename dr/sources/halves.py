"""Frames with two retinas as two images each: an archive whose members are their halves."""

import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dr import UsageError
from dr.core import distributed
from dr.core.progress import track
from dr.imaging.decode import UnreadableImage, decode
from dr.imaging.retina import WORKING_SIDE_PX, find_retina
from dr.sources.source import ImageArchive, ReadableMember


def halves_of(name: str) -> tuple[str, str]:
    """'a/b.png' -> 'a/b_1.png', 'a/b_2.png': the left or upper, and the right or lower half."""
    root, suffix = posixpath.splitext(name)
    return f"{root}_1{suffix}", f"{root}_2{suffix}"


def find_frames(archive: ImageArchive, names: Sequence[str], *, workers: int) -> list[str]:
    """The images that show two retinas, sorted. Unreadable images are left out: they are reported when they are
    preprocessed.

    Each process of torchrun searches a part. Threads suffice: OpenCV releases Python's lock.
    """

    def shows_two(name: str) -> bool:
        try:
            image = decode(archive.read(name), min_side_px=WORKING_SIDE_PX)
        except (UnreadableImage, OSError):
            return False
        return find_retina(image).halves is not None

    share = names[distributed.rank :: distributed.world_size]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        seen = track(pool.map(shows_two, share), total=len(share), desc="searching two retinas", unit="images")
        own = [name for name, two in zip(share, seen, strict=True) if two]
    return sorted(name for part in distributed.all_gather(own) for name in part)


@dataclass(frozen=True)
class HalfMember:
    """One half of a frame, cut out losslessly when it is read."""

    frame: ReadableMember
    number: int  # 0 or 1

    def read(self) -> bytes:
        """The bytes of a BMP. Raises OSError when the frame cannot be read."""
        data = self.frame.read()
        try:
            image, small = decode(data), decode(data, min_side_px=WORKING_SIDE_PX)
        except UnreadableImage as exc:
            raise OSError(str(exc)) from exc
        halves = find_retina(small).halves  # as `find_frames` searched it
        if halves is None:
            raise OSError("the file has changed since two retinas were found in it")
        scale = np.divide(image.shape[1::-1], small.shape[1::-1])
        x0, y0, x1, y1 = np.rint(np.multiply(halves[self.number], [*scale, *scale])).astype(int)
        return cv2.imencode(".bmp", image[y0:y1, x0:x1])[1].tobytes()


class HalvesArchive:
    """An archive in which each of `frames` is replaced by its halves, named by `halves_of`. Raises UsageError if an
    image has the name of a half."""

    def __init__(self, archive: ImageArchive, frames: Iterable[str]):
        self.path: Path = archive.path
        self._archive = archive
        self._halves = {half: (frame, i) for frame in frames for i, half in enumerate(halves_of(frame))}
        taken = next((name for name in archive.names if name in self._halves), None)
        if taken is not None:
            frame, _ = self._halves[taken]
            raise UsageError(f"{archive.path}: {taken} has the name of a half of {frame}; rename it, or omit --stereo")
        split = {frame for frame, _ in self._halves.values()}
        self.names = sorted([name for name in archive.names if name not in split] + list(self._halves))

    def size(self, name: str) -> int:
        """Bytes of the file that holds the member."""
        return self._archive.size(self._halves.get(name, (name, 0))[0])

    def member(self, name: str) -> ReadableMember:
        """A half, or another member. Raises OSError if it is missing."""
        if name not in self._halves:
            return self._archive.member(name)
        frame, number = self._halves[name]
        return HalfMember(self._archive.member(frame), number)

    def read(self, name: str) -> bytes:
        """The bytes of one member. Raises OSError when they cannot be read."""
        return self.member(name).read()


def with_halves(names: Sequence[str], frames: Iterable[str]) -> list[str]:
    """Names with each of `frames` replaced by its halves, in order."""
    split = set(frames)
    return [own for name in names for own in (halves_of(name) if name in split else (name,))]
