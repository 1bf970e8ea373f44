"""Tables that were packed one by one (trainLabels.csv.zip, labels.csv.gz), unpacked in memory within limits."""

import gzip
import io
import posixpath
import zipfile
import zlib
from collections.abc import Callable

from dr import UsageError
from dr.sources.archive import MAX_EXPANSION, MAX_MEMBER_BYTES, NOT_A_ZIP, is_ignored, refuse_unsafe

GZIP, ZIP = b"\x1f\x8b", (b"PK\3\4", b"PK\5\6")  # the first bytes; of an empty zip the latter


def gunzip(data: bytes, *, name: str) -> bytes:
    """The content of a gzip. Raises UsageError if it is damaged or would expand beyond the limits of an archive."""
    limit = min(MAX_MEMBER_BYTES, max(1 << 20, MAX_EXPANSION * len(data)))
    try:
        with gzip.open(io.BytesIO(data)) as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as exc:
        raise UsageError(f"{name}: truncated or damaged; download it again, or unpack it") from exc
    if len(content) > limit:
        raise UsageError(f"{name}: would expand to more than {limit:,} bytes; do not use this file")
    return content


def open_zip(data: bytes, *, name: str) -> zipfile.ZipFile:
    """A zip in memory, whose members all lie within the limits of an archive. Raises UsageError."""
    try:
        packed = zipfile.ZipFile(io.BytesIO(data))
    except NOT_A_ZIP as exc:
        raise UsageError(f"{name}: truncated or damaged; download it again, or save it as CSV") from exc
    for info in packed.infolist():
        refuse_unsafe(name, info)
    return packed


def unzip_table(data: bytes, *, name: str, is_table: Callable[[str], bool]) -> tuple[str, bytes]:
    """A zip with one table, other files aside -> (name of the table in it, its bytes).

    A .txt counts only if it is alone: beside another table it is a readme. Raises UsageError.
    """
    with open_zip(data, name=name) as packed:
        members = [info.filename for info in packed.infolist() if not info.is_dir() and not is_ignored(info.filename)]
        tables = [member for member in members if is_table(member)]
        tables = [member for member in tables if posixpath.splitext(member)[1].lower() != ".txt"] or tables
        if len(tables) != 1:
            shown = ", ".join((tables or members)[:3]) + (", ..." if len(tables or members) > 3 else "")
            fault = f"{len(tables)} tables in it" if tables else "no table in it"
            raise UsageError(f"{name}: {fault} ({shown or 'it is empty'}); unpack it, and keep the one with the labels")
        try:
            return tables[0], packed.read(tables[0])
        except Exception as exc:  # zlib.error, lzma.LZMAError and BadZipFile share no base class
            raise UsageError(f"{name}: {tables[0]} is damaged; download it again") from exc
