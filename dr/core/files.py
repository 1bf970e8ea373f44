"""Files that are either whole or not there: written beside, then renamed."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dr import UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:
    import pandas as pd  # 40 MiB, which the processes that prepare photographs do without


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps `folder` from other processes that ask for it in this way, until the end, a kill included. Where the system
    or the file system cannot lock folders it keeps nobody out. Raises UsageError where another process has it."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise UsageError(f"{folder}: another process fills it; wait for its end, or name another") from exc
        except OSError:  # of file systems of networks
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def lock_file(path: Path, *, wait: bool) -> Iterator[None]:
    """Keeps other processes that ask for it in this way from the file `path`, by a lock on a hidden file beside it,
    until the end, a kill included; processes that are forked meanwhile do not hold it. Where one has it: waits, or
    raises UsageError. Where the system cannot lock files it keeps nobody out."""
    if fcntl is None:
        yield
        return
    mark = path.with_name(f".{path.name}.lock")
    while True:
        file = mark.open("w")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError) as exc:  # POSIX leaves open which
            file.close()
            raise UsageError(f"{path}: another process writes it; wait for its end, or give another --name") from exc
        except OSError:  # of file systems of networks
            break
        try:
            if os.path.samestat(mark.stat(), os.fstat(file.fileno())):
                break
        except FileNotFoundError:
            pass
        file.close()  # whoever had it has removed it: another may have made it anew
    with file:
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; renames it into place at the end, removes it when anything fails."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as exc:
        exc.filename = exc.filename or str(path)  # a full disk is reported without a name
        raise
    finally:
        part.unlink(missing_ok=True)


def writable_folder(path: str | Path) -> Path:
    """Makes the folder where it is missing and tries it with a file, so that hours of work do not end at a folder that
    cannot be written to. Raises UsageError for a file in its place, OSError for one that may not be written to."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise UsageError(f"{path}: there is a file of that name; name a folder") from exc
    except FileNotFoundError as exc:  # of a file system that makes none, as /proc
        raise UsageError(f"{path}: no folder can be made there; name another") from exc
    own = path / f".writable.{os.getpid()}"  # others may try the folder now, too
    write_bytes(own, b"")
    own.unlink()
    return path


def write_bytes(path: str | Path, data: bytes) -> None:
    """`data` as the whole file."""
    with atomic_write(path) as part:
        part.write_bytes(data)


def write_json(path: str | Path, content: dict) -> None:
    """`content` as indented UTF-8 JSON."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_csv(path: str | Path, table: "pd.DataFrame") -> None:
    """`table` with a header and without its index, line ends as LF on every system."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
