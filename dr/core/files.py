"""Files that are complete or missing, never partial: written beside, then renamed; and locks."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dr import UsageError

if TYPE_CHECKING:
    import pandas as pd  # 40 MiB, which the worker processes of data.py do not need


@contextmanager
def _lock(path: Path, *, wait: bool, held: str) -> Iterator[None]:
    """Locks the hidden file `.NAME.lock` beside `path`. Raises UsageError(`held`) if another process holds it,
    unless `wait`.

    The lock ends with the process, also when it is killed; forked processes do not hold it. The holder removes the file
    at the end. A killed process leaves an empty file, which the next holder locks and removes. On a file system that
    cannot lock or create the file, no process is kept out.
    """
    from filelock import FileLock, Timeout  # not above: the worker processes of data.py import this module

    mark = path.with_name(f".{path.name}.lock")
    lock = FileLock(mark, timeout=-1 if wait else 0, poll_interval=0.02)
    with ExitStack() as stack:
        try:
            lock.acquire()
            stack.callback(lock.release)
        except Timeout as exc:
            raise UsageError(held) from exc
        except OSError:  # network file systems without locks, read-only folders
            pass
        else:
            if os.name != "nt":  # on Windows filelock removes it; elsewhere a waiting process notices that it is gone
                stack.callback(mark.unlink, missing_ok=True)
        yield


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes that call this function out of `folder`. Raises UsageError if another one is in it."""
    held = f"{folder}: another process writes to it; wait until it ends, or choose another folder"
    with _lock(folder, wait=False, held=held):
        yield


@contextmanager
def lock_file(path: Path, *, wait: bool) -> Iterator[None]:
    """Keeps other processes that call this function from the file `path`. If another one has it, waits or raises
    UsageError."""
    with _lock(path, wait=wait, held=f"{path}: another process writes it; wait until it ends, or pass another --name"):
        yield


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to. Renames it to `path` at the end, removes it after an error."""
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
    """Creates a missing folder and writes a test file: a read-only folder must not be noticed after hours of work.
    Raises UsageError if it cannot be created, OSError if it is read-only."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise UsageError(f"{path}: a file blocks this folder; choose another") from exc
    except FileNotFoundError as exc:  # /proc, for example, creates no folders
        raise UsageError(f"{path}: the folder cannot be created; choose another") from exc
    own = path / f".writable.{os.getpid()}"  # by process: others may test the folder at the same time
    write_bytes(own, b"")
    own.unlink()
    return path


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replaces the file by `data`, atomically."""
    with atomic_write(path) as part:
        part.write_bytes(data)


def write_json(path: str | Path, content: dict) -> None:
    """Writes `content` as indented UTF-8 JSON, atomically."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_csv(path: str | Path, table: "pd.DataFrame") -> None:
    """Writes `table` with a header and without its index, line ends as LF on every system, atomically."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
