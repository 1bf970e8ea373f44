"""One photograph after another, read, cropped and written in as many processes as there are cores.

Each of these imports this file: neither pandas nor scipy, which would be 60 MiB of each, is to be imported with it.
"""

import hashlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2

from dr import UsageError
from dr.core import distributed
from dr.core.files import write_bytes
from dr.core.processes import end_with_parent
from dr.imaging import duplicates, fundus
from dr.sources.archive import Archive, Held, Member

JPEG_QUALITY = 95
LONGEST_NAME = 200  # bytes of a photograph's name
WAITING_EACH = 8  # photographs that wait for each process
Task = tuple[str, str, str]  # source, original, member: no more is held of a photograph that waits for its turn

# red lesions are small, and colour is how they are told: it is not subsampled
JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)


@dataclass(frozen=True)
class Job:
    """What holds for all tasks: the folder of the finished photographs, the log that notes each, and what
    `_prepare_one` is told of those of each source."""

    folder: Path
    log: Path
    how: Mapping[str, Mapping]

    def of(self, task: Task, *, archives: Mapping[str, Archive]) -> dict:
        """What a process is given. Two sources may use the same name."""
        source, original, member = task
        key = {"source": source, "original": original, "bytes": archives[source].size(member)}
        out = self.folder / _short(f"{source}_{original}")
        return {**key, "member": archives[source].member(member), "out": out, **self.how[source]}


def _short(name: str) -> str:
    """A name of at most LONGEST_NAME bytes, the end of a longer one replaced by its hash: with what is put around it, a
    file system takes 255."""
    data = name.encode()
    if len(data) <= LONGEST_NAME:
        return name
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{data[: LONGEST_NAME - 17].decode(errors='ignore')}_{digest}"


def _prepare_one(*, member: Member | Held, out: Path, size_px: int, crop: bool, lossless: bool) -> dict:
    """Reads, crops and writes one photograph as `out` with an ending -> its record; a photograph that cannot be used
    gives `error` instead."""
    try:
        prepared, retina, photo = fundus.decode_and_preprocess(member.read(), size_px=size_px, crop=crop)
    except (fundus.UnreadableImage, OSError) as exc:
        return {"error": str(exc)}
    suffix, options = (".png", ()) if lossless or fundus.is_small(photo) else (".jpeg", JPEG)
    out = out.with_name(out.name + suffix)
    write_bytes(out, cv2.imencode(suffix, prepared, options)[1].tobytes())
    measured = fundus.quality(prepared)
    x0, y0, x1, y1 = inside = fundus.inside(prepared, retina, small=lossless or fundus.is_small(photo))
    return {
        "file": out.name,
        "cropped": retina.found is not None,
        "inside": list(inside),
        "hash": duplicates.perceptual_hash(prepared[y0:y1, x0:x1]),
        "frame": [photo.shape[1], photo.shape[0]],
        "box": list(retina.box),
        "flags": fundus.flags(retina, measured),
        **{name: round(value, 2) for name, value in measured.items()},
    }


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    cv2.setNumThreads(1)


def _in_worker(*, source: str, original: str, bytes: int, **options: object) -> dict:
    return {"source": source, "original": original, "bytes": bytes} | _prepare_one(**options)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """For the moment in which processes are started, which inherit it: Ctrl-C is the parent's to handle."""
    if threading.current_thread() is not threading.main_thread():  # only there may the handler be changed
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _prepare_all(tasks: list[Task], *, job: Job, archives: dict[str, Archive], workers: int) -> Iterator[dict]:
    """Tasks -> records in the order in which they are finished. Each process is told where one photograph is: it need
    not list what else the archives hold."""
    told = (job.of(task, archives=archives) for task in tasks)
    if workers <= 1 or len(tasks) < 8:  # starting processes would take longer
        yield from (_in_worker(**options) for options in told)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        waiting: set[Future] = set()
        for options in told:  # a few at a time: what waits, and what it gave, is held in memory
            with _interrupts_ignored():
                waiting.add(pool.submit(_in_worker, **options))
            if len(waiting) == WAITING_EACH * workers:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        yield from (future.result() for future in as_completed(waiting))
    except BrokenProcessPool as exc:
        raise UsageError(
            "a worker was ended from outside, perhaps for want of memory; start again with fewer --workers to go on"
        ) from exc
    finally:
        pool.shutdown(cancel_futures=True)


def _note(log: Path, record: dict) -> None:
    """Notes a finished photograph in prepared.jsonl: it survives the process, if not a power cut."""
    with log.open("a") as lines:
        lines.write("\n" + json.dumps(record))  # the line end first: the line before may have been cut short


def _prepare_share(tasks: list[Task], *, job: Job, archives: dict[str, Archive], workers: int) -> Iterator[dict]:
    """Every N-th task is done here; then come the records of the other processes, which did the others."""
    own = []
    for record in _prepare_all(
        tasks[distributed.rank :: distributed.world_size], job=job, archives=archives, workers=workers
    ):
        if "error" not in record:
            _note(job.log, record)
        if distributed.world_size > 1:
            own.append(record)
        yield record
    for rank, records in enumerate(distributed.all_gather(own)):
        yield from records if rank != distributed.rank else ()


def prepare_all(tasks: list[Task], *, job: Job, archives: dict[str, Archive], workers: int) -> Iterator[dict]:
    """Tasks -> records as they are finished, those of other processes last; what could be used is noted. Called by the
    main process; of several, those that `assist` do their share."""
    distributed.broadcast(lambda: (tasks, job))
    return _prepare_share(tasks, job=job, archives=archives, workers=workers)


def assist(*, archives: dict[str, Archive], workers: int) -> dict:
    """What the other processes do: their share of the tasks, as often as there are any -> the report that the main
    process ends with."""
    while not isinstance(given := distributed.broadcast(dict), dict):
        tasks, job = given
        for _ in _prepare_share(tasks, job=job, archives=archives, workers=workers):
            pass
    return given
