"""A zip or an unpacked folder through one interface. Members are read, never unpacked to disk."""

import copy
import os
import posixpath
import re
import stat
import struct
import unicodedata
import zipfile
from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dr import UsageError
from dr.core.split_files import SplitFile, find_split, find_split_in
from dr.imaging.optional import PACKAGE_OF

MAX_MEMBER_BYTES = 2 << 30
MAX_EXPANSION = 200  # unpacked : packed; images are about 1 : 1, label tables rarely beyond 20 : 1
LOCAL_HEADER = "<4s22xHH"  # signature, lengths of name and extra field (APPNOTE.TXT 4.3.7)
# The fields of a ZipInfo that reading a member needs; a whole ZipInfo is sixteen times as large
MEMBER_FIELDS = np.dtype([("header_offset", "u8"), ("compress_size", "u8"), ("file_size", "u8"), ("CRC", "u4"),
                          ("compress_type", "u2")])  # fmt: skip
# What zipfile raises for a file that is no zip, or a damaged one
NOT_A_ZIP = (zipfile.BadZipFile, OSError, NotImplementedError, OverflowError, ValueError, struct.error)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".jp2", *PACKAGE_OF})
UNSUPPORTED_SUFFIXES = frozenset({".arw", ".avif", ".cr2", ".cr3", ".dng", ".gif", ".nef"})
# Resource forks of macOS (`._x.png`, __MACOSX), hidden folders, thumbnails of Synology devices
_IGNORED = re.compile(r"(?:^|/)(?:\._|(?:\.[^/]+|__MACOSX|@eaDir)/)")


def is_ignored(name: str) -> bool:
    """Whether a program created the member for itself, as thumbnails and resource forks are."""
    return _IGNORED.search(name) is not None


def is_image(name: str) -> bool:
    """Whether a member has the suffix of an image, in any case, and is not `is_ignored`."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_ignored(name)


def unsupported_images(names: Iterable[str]) -> list[str]:
    """The members that are images in a format that is not read."""
    suffixes = ((name, posixpath.splitext(name)[1].lower()) for name in names)
    return [name for name, suffix in suffixes if suffix in UNSUPPORTED_SUFFIXES and not is_ignored(name)]


def unsupported_line(example: str, count: int) -> str:
    """The first of `unsupported_images` and their number -> one line."""
    if count == 1:
        return f"skipped {example}: unsupported image format; convert it to PNG"
    return f"skipped {count:,} images in unsupported formats, such as {example}; convert them to PNG"


def nfc(text: str) -> str:
    """Accented letters as one character each (NFC): macOS writes file names with two."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def stem(name: str) -> str:
    """'train/a.b.png' -> 'a.b'. Without pathlib, which keeps every part of every path in memory."""
    return nfc(posixpath.splitext(posixpath.basename(name))[0])


def refuse_unsafe(place: str | Path, info: zipfile.ZipInfo) -> None:
    """Raises UsageError, which begins with `place`, for a member that leaves the archive, is encrypted or too large, or
    has no name."""
    # orig_filename: zipfile rewrites backslashes in filename and truncates it at NUL
    name = info.orig_filename
    if not name:
        raise UsageError(f"{place}: a member has no name; pack the archive again")
    outside = name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name)
    if outside or "\0" in name:
        raise UsageError(f"{place}: member {name!r} points outside the archive; do not use this file")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UsageError(f"{place}: member {name!r} is a symbolic link; pack the archive again with real files")
    if info.flag_bits & 0x1:
        raise UsageError(f"{place}: encrypted (member {name!r}); unpack it with its password and pass the folder")
    expansion = info.file_size / max(1, info.compress_size)
    if info.file_size > MAX_MEMBER_BYTES or (expansion > MAX_EXPANSION and info.file_size > 1 << 20):
        raise UsageError(
            f"{place}: member {name!r} would expand {expansion:,.0f} times to {info.file_size:,} bytes; "
            "do not use this file"
        )


def _refuse_unreadable(error: OSError) -> None:
    raise error  # os.walk would silently skip a folder without permission, and its images


def _is_utf8(name: str) -> bool:
    """Whether the bytes of a file name are text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Member:
    """A file, or one member of a zip, read without the list of the other members: all that a worker process needs."""

    path: Path | SplitFile  # of the file or of the zip
    info: zipfile.ZipInfo | None = None

    def read(self) -> bytes:
        """The bytes. Raises OSError when they cannot be read or fail their checksum."""
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
                    # at most the declared size: a member with more could fill the memory
                    return member.read(self.info.file_size)
        # NotImplementedError: a compression that zipfile does not know
        except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error) as exc:
            raise OSError(f"the archive is damaged at {name}") from exc
        except Exception as exc:  # zlib.error and lzma.LZMAError share no base class with the above
            raise OSError(f"{name} cannot be unpacked: {exc}") from exc


@dataclass(frozen=True)
class MemoryMember:
    """A member whose bytes are in memory."""

    data: bytes

    def read(self) -> bytes:
        """The bytes."""
        return self.data


class Archive:
    """The members of a zip or folder, named with forward slashes. `names` limits a folder to these.

    A zip may be in parts: `path` is one of them, their name without its end, or a folder of nothing else; the attribute
    `path` is then that of the whole. Raises UsageError if the path is missing, not a zip, truncated, encrypted or
    unsafe, and if a part is missing.
    """

    def __init__(self, path: str | Path, *, names: list[str] | None = None):
        self.path = Path(path)
        self._members = np.empty(0, MEMBER_FIELDS)  # of a zip, in the order of `names`
        self._split = find_split(self.path)
        if self._split is None and not self.path.exists():
            raise UsageError(f"{self.path}: not found; pass the path of an archive or folder")
        if names is None and self.path.is_dir():
            names = self._folder_names()
            self._split = None if any(map(is_image, names)) else find_split_in(self.path, names)
        if self._split is not None:
            self.path, names = self._split.path, None
        self.names = self._checked_zip_names() if names is None else names
        self._images = [name for name in self.names if is_image(name)]

    def _folder_names(self) -> list[str]:
        names, visited = [], set()
        for folder, subfolders, files in os.walk(self.path, followlinks=True, onerror=_refuse_unreadable):
            real = Path(folder).resolve()
            if real in visited:  # a link that leads back up
                subfolders.clear()
                continue
            visited.add(real)
            inner = Path(folder).relative_to(self.path)
            prefix = "" if inner == Path() else f"{inner.as_posix()}/"
            names += [prefix + name for name in files]
        for name in names:
            if not name.isascii() and is_image(name) and not _is_utf8(name):
                raise UsageError(f"{self.path}: the file name {name!r} is not UTF-8; rename it")
        return sorted(names)

    def _checked_zip_names(self) -> list[str]:
        infos = self._infos()
        for info in infos:
            refuse_unsafe(self.path, info)
        files = np.array([not info.is_dir() for info in infos], bool)
        names = [info.filename for info in infos if not info.is_dir()]
        if len(set(names)) < len(names):
            raise UsageError(f"{self.path}: two members have the same name; pack the archive again")
        self._members = self._members[files]
        return names

    def _infos(self) -> list[zipfile.ZipInfo]:
        """All members of the zip, sorted by name; their fields become `_members`. Raises UsageError."""
        try:
            with self._file.open("rb") as file:
                start = file.read(2)
        except OSError as exc:
            raise UsageError(f"{self.path}: cannot be read ({exc.strerror}); check its permissions") from exc
        if self._split is not None and start != b"PK":  # zipfile would take the first part for a program before the zip
            raise UsageError(f"{self.path}: {self._split.doubts()}")
        try:
            with self._file.open("rb") as file, zipfile.ZipFile(file) as packed:
                infos = packed.infolist()
            for info in infos:  # some programs on Windows pack folders with backslashes
                info.filename = info.filename.replace("\\", "/")
            infos.sort(key=lambda info: info.filename)
            fields = [tuple(getattr(info, field) for field in MEMBER_FIELDS.names) for info in infos]
            self._members = np.array(fields, MEMBER_FIELDS)
        except NOT_A_ZIP as exc:
            if self._split is not None:
                raise UsageError(f"{self.path}: {self._split.doubts()}") from exc
            remedy = "download it again, or pass an unpacked folder"
            if self.path.suffix.lower() == ".csv" or is_image(self.path.name):
                remedy = "pass the folder that contains it"
            reason = "truncated or damaged" if start == b"PK" else "not a zip archive"
            raise UsageError(f"{self.path}: {reason}; {remedy}") from exc
        return infos

    @property
    def _file(self) -> Path | SplitFile:
        """What the bytes of the zip are read from."""
        return self.path if self._split is None else self._split

    def member(self, name: str) -> Member:
        """One member, to be read here or in another process. Raises OSError if a zip lacks it."""
        if self.path.is_dir():
            return Member(self.path / name)
        number = self._number(name)
        if number is None:
            raise OSError(f"{name} is not in the archive")
        info = zipfile.ZipInfo(name)
        for field, value in zip(MEMBER_FIELDS.names, self._members[number].tolist(), strict=True):
            setattr(info, field, value)
        return Member(self._file, info)

    def read(self, name: str) -> bytes:
        """The bytes of one member. Raises OSError when they cannot be read or fail their checksum."""
        return self.member(name).read()

    def size(self, name: str) -> int:
        """Bytes of one member, 0 if it is missing."""
        if self.path.is_dir():
            file = self.path / name
            return file.stat().st_size if file.exists() else 0
        number = self._number(name)
        return 0 if number is None else int(self._members[number]["file_size"])

    def _number(self, name: str) -> int | None:
        """The place of a member of a zip in `names`, which are sorted; None if it is missing."""
        number = bisect_left(self.names, name)
        return number if self.names[number : number + 1] == [name] else None

    def without(self, names: Collection[str]) -> "Archive":
        """The same archive without some of its members."""
        other, kept = copy.copy(self), [name not in names for name in self.names]
        other.names = [name for name, keep in zip(self.names, kept, strict=True) if keep]
        other._images = [name for name in self._images if name not in names]
        other._members = self._members[np.array(kept, bool)] if len(self._members) else self._members
        return other

    def images(self) -> list[str]:
        """Names of the members with the suffix of an image. The list is shared: copy it before a change."""
        return self._images
