"""A zip or an unpacked folder through one interface. Members are only ever read, never unpacked to disk."""

import os
import posixpath
import re
import stat
import struct
import unicodedata
import zipfile
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dr import UsageError

MAX_MEMBER_BYTES = 2 << 30
MAX_EXPANSION = 200  # unpacked : packed; photographs are about 1 : 1, label tables rarely beyond 20 : 1
LOCAL_HEADER = "<4s22xHH"  # signature, and the lengths of name and extra field (APPNOTE.TXT 4.3.7)
# What reading a member takes of its ZipInfo, which is sixteen times as large
PLACE = np.dtype([("header_offset", "u8"), ("compress_size", "u8"), ("file_size", "u8"), ("CRC", "u4"),
                  ("compress_type", "u2")])  # fmt: skip
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
OTHER_KINDS = frozenset({".avif", ".bmp", ".dcm", ".gif", ".heic", ".jfif", ".jp2", ".webp"})  # of pictures, not read
# Resource forks of macOS (`._x.png`, __MACOSX), what is in hidden folders, thumbnails that a Synology makes
_ASIDE = re.compile(r"(?:^|/)(?:\._|(?:\.[^/]+|__MACOSX|@eaDir)/)")


def is_aside(name: str) -> bool:
    """Whether a program put a member there for itself: nobody means it when they give the archive."""
    return _ASIDE.search(name) is not None


def is_image(name: str) -> bool:
    """Whether a member's name ends like a photograph's, in any case, and it is not `is_aside`."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_aside(name)


def other_pictures(names: Iterable[str]) -> list[str]:
    """The members that are pictures which are not read, for their ending."""
    endings = ((name, posixpath.splitext(name)[1].lower()) for name in names)
    return [name for name, ending in endings if ending in OTHER_KINDS and not is_aside(name)]


def passed_over(example: str, count: int) -> str:
    """`other_pictures` in words."""
    if count == 1:
        return f"the picture {example} was not looked at, for its kind; save it as PNG"
    return f"{count:,} pictures of other kinds were not looked at, such as {example}; save them as PNG"


def composed(text: str) -> str:
    """Letters with accents as one character each (NFC): macOS writes names of files with two."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def stem(name: str) -> str:
    """'train/a.b.png' -> 'a.b'. As text: every part of a path that pathlib ever saw takes memory to the end."""
    return composed(posixpath.splitext(posixpath.basename(name))[0])


def _refuse_unsafe(path: Path, info: zipfile.ZipInfo) -> None:
    # orig_filename: zipfile rewrites backslashes and cuts at NUL in filename
    name = info.orig_filename
    outside = name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name)
    if outside or "\0" in name:
        raise UsageError(f"{path}: member {name!r} points outside the archive; do not use this file")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UsageError(f"{path}: member {name!r} is a symbolic link; pack the archive again with real files")
    if info.flag_bits & 0x1:
        raise UsageError(f"{path}: it is encrypted (member {name!r}); unpack it with its password and give the folder")
    expansion = info.file_size / max(1, info.compress_size)
    if info.file_size > MAX_MEMBER_BYTES or (expansion > MAX_EXPANSION and info.file_size > 1 << 20):
        raise UsageError(
            f"{path}: member {name!r} would expand {expansion:,.0f} times to {info.file_size:,} bytes; "
            "do not use this file"
        )


def _refuse_unreadable(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that may not be read, and its photographs would be missed by nobody


def _is_utf8(name: str) -> bool:
    """Whether the operating system gave a name whose bytes are text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Member:
    """A file, or one member of a zip, which is read without the list of all others: another process needs no more."""

    path: Path  # of the file, or of the zip
    info: zipfile.ZipInfo | None = None

    def read(self) -> bytes:
        """Its bytes. Raises OSError when they cannot be read or fail their checksum."""
        if self.info is None:
            return self.path.read_bytes()
        name = self.info.filename
        try:
            with self.path.open("rb") as file:
                file.seek(self.info.header_offset)
                signature, *lengths = struct.unpack(LOCAL_HEADER, file.read(struct.calcsize(LOCAL_HEADER)))
                if signature != b"PK\3\4":
                    raise zipfile.BadZipFile
                file.seek(sum(lengths), os.SEEK_CUR)
                with zipfile.ZipExtFile(file, "r", self.info) as member:
                    # a size, or a member that lies about its own could fill the memory
                    return member.read(self.info.file_size)
        # NotImplementedError: of a compression that zipfile does not know
        except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error) as exc:
            raise OSError(f"the archive is damaged at {name}") from exc
        except Exception as exc:  # zlib.error and lzma.LZMAError share no base class with the above
            raise OSError(f"{name} cannot be unpacked: {exc}") from exc


@dataclass(frozen=True)
class Held:
    """A member whose bytes are in memory already."""

    data: bytes

    def read(self) -> bytes:
        return self.data


class Archive:
    """Members of a zip or of a folder, by their name with forward slashes; of a folder only `names` where given.

    Raises UsageError for a path that is missing, not a zip, truncated, encrypted or unsafe.
    """

    def __init__(self, path: str | Path, *, names: list[str] | None = None):
        self.path = Path(path)
        self._places = np.empty(0, PLACE)  # of a zip's members, in the order of their names
        if not self.path.exists():
            raise UsageError(f"{self.path}: there is no such file or folder; give the path of the archive")
        if names is None:
            names = self._folder_names() if self.path.is_dir() else self._checked_zip_names()
        self.names = names

    def _folder_names(self) -> list[str]:
        names, seen = [], set()
        for folder, subfolders, files in os.walk(self.path, followlinks=True, onerror=_refuse_unreadable):
            real = Path(folder).resolve()
            if real in seen:  # a link that leads back up
                subfolders.clear()
                continue
            seen.add(real)
            names += [(Path(folder) / name).relative_to(self.path).as_posix() for name in files]
        for name in names:
            if not name.isascii() and is_image(name) and not _is_utf8(name):
                raise UsageError(f"{self.path}: the name of the file {name!r} is not UTF-8; rename it")
        return sorted(names)

    def _checked_zip_names(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                start = file.read(2)
        except OSError as exc:
            raise UsageError(f"{self.path}: it cannot be read ({exc.strerror}); give a file that can") from exc
        try:
            with zipfile.ZipFile(self.path) as packed:
                infos = packed.infolist()
            for info in infos:  # some programs on Windows pack folders with backslashes
                info.filename = info.filename.replace("\\", "/")
            infos.sort(key=lambda info: info.filename)
            places = np.array([tuple(getattr(info, field) for field in PLACE.names) for info in infos], PLACE)
        except (zipfile.BadZipFile, OSError, NotImplementedError, OverflowError, ValueError, struct.error) as exc:
            remedy = "download it again, or give an unpacked folder"
            if self.path.suffix.lower() == ".csv" or is_image(self.path.name):
                remedy = "give the folder that it lies in"
            reason = "truncated or damaged" if start == b"PK" else "not a zip archive"
            raise UsageError(f"{self.path}: it is {reason}; {remedy}") from exc
        for info in infos:
            _refuse_unsafe(self.path, info)
        files = np.array([not info.is_dir() for info in infos], bool)
        names = [info.filename for info in infos if not info.is_dir()]
        if len(set(names)) < len(names):
            raise UsageError(f"{self.path}: two members have the same name; pack the archive again")
        self._places = places[files]
        return names

    def member(self, name: str) -> Member:
        """One member, to be read here or in another process. Raises OSError where a zip has none of that name."""
        if self.path.is_dir():
            return Member(self.path / name)
        number = bisect_left(self.names, name)
        if self.names[number : number + 1] != [name]:
            raise OSError(f"{name} is not in the archive")
        info = zipfile.ZipInfo(name)
        for field, value in zip(PLACE.names, self._places[number].tolist(), strict=True):
            setattr(info, field, value)
        return Member(self.path, info)

    def read(self, name: str) -> bytes:
        """The bytes of one member. Raises OSError when they cannot be read or fail their checksum."""
        return self.member(name).read()

    def size(self, name: str) -> int:
        """Bytes of one member; 0 of one that is not there."""
        if self.path.is_dir():
            file = self.path / name
            return file.stat().st_size if file.exists() else 0
        number = bisect_left(self.names, name)
        return int(self._places[number]["file_size"]) if self.names[number : number + 1] == [name] else 0

    def images(self) -> list[str]:
        """Names of the members that end like photographs."""
        return [name for name in self.names if is_image(name)]
