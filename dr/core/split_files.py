"""A zip that was cut into parts (X.zip.001, X.zip.002, ...), read as one stream without a joined copy on disk."""

import io
import os
import re
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath

from dr import UsageError

# 7-Zip: X.zip.001; the command split: X.zip.partaa, X.zip.aa, X.zipaa, X.zip.00
_PART = re.compile(r"(?P<whole>.+\.zip)(?P<mark>[._-]?(?:part)?[._-]?)(?P<place>\d{1,4}|[a-z]{2})", re.IGNORECASE)
_SEGMENT = re.compile(r"(?P<stem>.+)\.z(?P<place>\d{2,3})", re.IGNORECASE)  # Info-ZIP, WinZip: X.z01, X.z02, X.zip
_END = struct.Struct("<4sH")  # of the end record: signature, number of this disk (APPNOTE.TXT 4.3.16)
# What may be the labels of a split zip beside it; a .txt is mostly a readme or a list of checksums
_LABELS = frozenset({".csv", ".tsv", ".xlsx", ".zip"})
MAX_NAMES = 3  # in one line; the others are counted


@dataclass(frozen=True)
class SplitFile:
    """The parts of a file, in order. `path` is that of the whole file, which need not exist; `ends` are the bytes up to
    the end of each part."""

    path: Path
    parts: tuple[Path, ...]
    ends: tuple[int, ...]

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The whole file as a stream of bytes, as Path.open gives it."""
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: parts are only read, with 'rb'")
        return io.BufferedReader(_JoinedParts(self))

    def doubts(self) -> str:
        """Why the joined file may not be a zip, as the fault and remedy of a message."""
        with self.parts[0].open("rb") as file:
            if file.read(2) != b"PK":
                first = self.parts[0].name
                return f"{first} is not the beginning of a zip archive; download it again, or add the parts before it"
        sizes = [end - start for start, end in zip((0, *self.ends), self.ends, strict=False)]
        short = [part.name for part, size in zip(self.parts[:-1], sizes, strict=False) if size < max(sizes)]
        if short:
            return f"{_shown(short)} smaller than the other parts; download again"
        last = self.parts[-1].name
        return f"truncated or damaged; add the parts after {last} if there are any, or download the parts again"


class _JoinedParts(io.RawIOBase):
    """The bytes of a `SplitFile`, of which one part at a time is open."""

    def __init__(self, split: SplitFile):
        self._split, self._position = split, 0
        self._number: int | None = None  # of the open part
        self._part: io.FileIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._split.ends[-1]}[whence]
        if base + offset < 0:
            raise OSError(f"{self._split.path}: position {base + offset} is before its beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:
        number = bisect_right(self._split.ends, self._position)
        if number == len(self._split.ends):
            return 0
        if number != self._number:
            self._close_part()
            self._part, self._number = io.FileIO(self._split.parts[number]), number
        self._part.seek(self._position - (self._split.ends[number - 1] if number else 0))
        # not beyond the recorded end: a part that has grown since would shift those after it
        count = self._part.readinto(memoryview(buffer)[: self._split.ends[number] - self._position])
        self._position += count
        return count

    def _close_part(self) -> None:
        if self._part is not None:
            self._part.close()

    def close(self) -> None:
        self._close_part()
        super().close()


def find_split(path: str | Path) -> SplitFile | None:
    """The path of one part, or of the whole where only parts exist -> the split zip; None for another path.

    Raises UsageError if a part is missing, and for archives of X.z01, X.z02, X.zip, whose parts cannot be joined.
    """
    path = Path(path)
    if path.is_dir():
        return None
    _refuse_segments(path)
    match = _PART.fullmatch(path.name)
    if path.exists() and (match is None or _is_whole(path, _number(match["place"]))):
        return None
    places = _places(path, match)
    numbers = {_number(place): part for place, part in places.items()}
    if not numbers or (path.exists() and path not in numbers.values()):
        return None
    alike = min(places, key=len)  # 9 of 9 and 10: the missing one is written without zeros
    any_part = places[alike]
    if alike.isalpha() and min(numbers) >= 26:  # X.zip.gz and X.zip.xz are no parts, which begin with aa, ab
        return None
    first = 0 if alike.isalpha() or 0 in numbers else 1
    whole = path.with_name(match["whole"] if match else path.name)
    given = _number(match["place"]) if match else 0  # a part that the user names must exist, too
    missing = sorted({*range(first, max(given, *numbers) + 1)} - {*numbers})
    if missing:
        names = [f"{any_part.name.removesuffix(alike)}{_place(number, alike)}" for number in missing]
        raise UsageError(f"{path}: {_shown(names)} missing; put all parts of {whole.name} into one folder")
    parts = tuple(numbers[number] for number in sorted(numbers))
    return SplitFile(whole, parts, tuple(accumulate(part.stat().st_size for part in parts)))


def find_split_in(folder: Path, names: Iterable[str]) -> SplitFile | None:
    """The only split zip in a folder of these files (relative paths) that holds no images; None if there is none.

    Raises UsageError for several, and for other files beside it that could be its labels.
    """
    wholes: dict[str, str] = {}
    others = []
    for name in names:
        pure = PurePosixPath(name)
        part, segment = _PART.fullmatch(pure.name), _SEGMENT.fullmatch(pure.name)
        if pure.name.startswith("."):
            continue
        if part or segment:
            whole = part["whole"] if part else f"{segment['stem']}.zip"
            wholes.setdefault(str(pure.with_name(whole)), name)
        elif pure.suffix.lower() in _LABELS:
            others.append(name)
    others = [name for name in others if name not in wholes]
    if not wholes:
        return None
    if len(wholes) == 1 and not others:
        return find_split(folder / next(iter(wholes.values())))
    shown = ", ".join([*wholes, *others][:MAX_NAMES]) + (", ..." if len(wholes) + len(others) > MAX_NAMES else "")
    raise UsageError(
        f"{folder}: no images, but the parts of a zip beside other files ({shown}); unpack them there, or pass the "
        "path of one archive"
    )


def exists(path: str | Path) -> bool:
    """Whether a path exists, or parts of it do. Raises UsageError if a part is missing."""
    return Path(path).exists() or find_split(path) is not None


def is_part(path: str | Path) -> bool:
    """Whether a file has the name of a part of a zip."""
    name = Path(path).name
    return any(pattern.fullmatch(name) for pattern in (_PART, _SEGMENT))


def _is_whole(path: Path, number: int) -> bool:
    """Whether a file with the name of a part is a zip of its own, as the X.zip.2 of a repeated download is."""
    with path.open("rb") as file:
        # 0 or 1 may be the first part, or the only one
        return number > 1 and file.read(4) == b"PK\3\4" and zipfile.is_zipfile(path)


def _places(path: Path, match: re.Match[str] | None) -> dict[str, Path]:
    """{place: part} of the parts beside `path` that are counted alike. Raises UsageError if there are two countings and
    the path, which is that of the whole, does not say which."""
    whole = match["whole"] if match else path.name
    groups: dict[tuple[str, bool], dict[str, Path]] = {}
    for other in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        found = _PART.fullmatch(other.name)
        if found and found["whole"] == whole and other.is_file():
            groups.setdefault((found["mark"], found["place"].isdigit()), {})[found["place"]] = other
    if match:
        groups = {key: group for key, group in groups.items() if key == (match["mark"], match["place"].isdigit())}
    if len(groups) > 1:
        names = [next(iter(group.values())).name for group in groups.values()]
        raise UsageError(f"{path}: parts of two kinds ({', '.join(sorted(names))}); pass the first part of one of them")
    places = next(iter(groups.values()), {})
    widths = {len(place) for place in places if place[0] == "0" and len(place) > 1}
    return {place: part for place, part in places.items() if not widths or len(place) in widths}


def _number(place: str) -> int:
    """'002' -> 2, 'ab' -> 1."""
    if place.isdigit():
        return int(place)
    first, second = (ord(letter) - ord("a") for letter in place.lower())
    return 26 * first + second


def _place(number: int, alike: str) -> str:
    """2 -> '002', counted as `alike`."""
    if alike.isdigit():
        return f"{number:0{len(alike)}}"
    return "".join(chr(ord("a") + digit) for digit in divmod(number, 26))


def _shown(names: list[str]) -> str:
    """['X.zip.002'] -> 'X.zip.002 is'."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"{', '.join(names[:MAX_NAMES])}{more} {'is' if len(names) == 1 else 'are'}"


def _refuse_segments(path: Path) -> None:
    """Raises UsageError for X.z01, X.z02, X.zip: their members are found by the number of a part, which zipfile does
    not read."""
    match = _SEGMENT.fullmatch(path.name)
    if not match and (path.suffix.lower() != ".zip" or not path.is_file() or _disk(path) == 0):
        return
    stem = match["stem"] if match else path.stem
    beside = {other.name for other in path.parent.iterdir()} if path.parent.is_dir() else set()
    found = [each for name in beside if (each := _SEGMENT.fullmatch(name)) and each["stem"] == stem]
    if match and not found:
        return  # the path does not exist
    places = {int(each["place"]) for each in found}
    last = next((path.with_name(name) for name in beside if name.lower() == f"{stem}.zip".lower()), None)
    count = max(0 if last is None else _disk(last), *places, 0)
    missing = [f"{stem}.z{number:02}" for number in range(1, count + 1) if number not in places]
    missing += [f"{stem}.zip"] if last is None else []
    fault = f"{_shown(missing)} missing; put all parts into one folder, and" if missing else "one of several parts;"
    raise UsageError(f"{path}: {fault} join them with: zip -s 0 {stem}.zip --out whole.zip; then pass whole.zip")


def _disk(path: Path) -> int:
    """The number of the part in which a zip ends: 0 for a whole one, and for a file without an end record."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - (1 << 16) - 22))
            tail = file.read()
    except OSError:
        return 0  # the reader of the archive reports it
    place = tail.rfind(b"PK\5\6")
    disk = _END.unpack_from(tail, place)[1] if 0 <= place <= len(tail) - _END.size else 0
    return 0 if disk == 0xFFFF else disk  # zip64 has it in another record
