"""Images read, cropped and written in as many worker processes as there are cores.

Every worker imports this module, so it imports neither pandas nor scipy nor torch, 60 MiB in each process.
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
from dr.imaging import duplicates, fundus, quality
from dr.imaging.decode import UnreadableImage
from dr.sources.source import ImageArchive, ReadableMember

JPEG_QUALITY = 95
MAX_NAME_BYTES = 200  # of an image name
QUEUED_PER_WORKER = 8  # images
MIN_TASKS_FOR_POOL = 8  # starting processes takes longer than fewer tasks
Task = tuple[str, str, str]  # source, original, member: small, as many wait for their turn

# no chroma subsampling: red lesions are small and recognised by colour
JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)


@dataclass(frozen=True)
class Job:
    """What all tasks share: the folder for finished images, the log that records each, and for each source the options
    of `_write_image` (size_px, crop, lossless) and the start of its file names."""

    staging: Path
    log: Path
    options: Mapping[str, Mapping]
    prefixes: Mapping[str, str]

    def arguments(self, task: Task, *, archives: Mapping[str, ImageArchive]) -> dict:
        """A task -> the arguments of `_run_task`."""
        source, original, member = task
        key = {"source": source, "original": original, "bytes": archives[source].size(member)}
        out = self.staging / _shortened(f"{self.prefixes[source]}{original}")
        return {**key, "member": archives[source].member(member), "out": out, **self.options[source]}


def _shortened(name: str) -> str:
    """A name of at most MAX_NAME_BYTES; a hash replaces the end of a longer one. With prefix and suffix it stays below
    the 255 bytes of a file system."""
    data = name.encode()
    if len(data) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{data[: MAX_NAME_BYTES - 17].decode(errors='ignore')}_{digest}"


def _write_image(*, member: ReadableMember, out: Path, size_px: int, crop: bool, lossless: bool) -> dict:
    """Reads, crops and writes one image as `out` plus a suffix -> its record, or {"error": reason}."""
    try:
        image, retina, decoded = fundus.decode_and_preprocess(member.read(), size_px=size_px, crop=crop)
    except (UnreadableImage, OSError) as exc:
        return {"error": str(exc)}
    small = lossless or fundus.is_small(decoded)
    suffix, options = (".png", ()) if small else (".jpeg", JPEG)
    out = out.with_name(out.name + suffix)
    write_bytes(out, cv2.imencode(suffix, image, options)[1].tobytes())
    measured = quality.measure(image)
    x0, y0, x1, y1 = box = fundus.comparison_box(image, retina, small=small)
    return {
        "file": out.name,
        "cropped": retina.found is not None,
        "comparison_box": list(box),
        "hash": duplicates.perceptual_hash(image[y0:y1, x0:x1]),
        "frame": [decoded.shape[1], decoded.shape[0]],
        "box": list(retina.box),
        "flags": quality.flags(retina, measured),
        **{name: round(value, 2) for name, value in measured.items()},
    }


def _run_task(*, source: str, original: str, bytes: int, **options: object) -> dict:
    return {"source": source, "original": original, "bytes": bytes} | _write_image(**options)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    cv2.setNumThreads(1)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """While a process starts, which inherits the handler: the parent handles Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may change the handler
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run_in_pool(tasks: list[Task], *, job: Job, archives: Mapping[str, ImageArchive], workers: int) -> Iterator[dict]:
    """Tasks -> records in the order of completion. A worker gets one member at a time, not the list of an archive."""
    arguments = (job.arguments(task, archives=archives) for task in tasks)
    if workers <= 1 or len(tasks) < MIN_TASKS_FOR_POOL:
        yield from (_run_task(**each) for each in arguments)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        waiting: set[Future] = set()
        for each in arguments:  # a few at a time: queued tasks and finished records occupy memory
            with _interrupts_ignored():
                waiting.add(pool.submit(_run_task, **each))
            if len(waiting) == QUEUED_PER_WORKER * workers:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        yield from (future.result() for future in as_completed(waiting))
    except BrokenProcessPool as exc:
        raise UsageError(
            "a worker process was killed, possibly for lack of memory; reduce --workers and run again to continue"
        ) from exc
    finally:
        pool.shutdown(cancel_futures=True)


def _log(log: Path, record: dict) -> None:
    """Appends a finished image to preprocessed.jsonl. The line survives the process, though not a power failure."""
    with log.open("a") as lines:
        lines.write("\n" + json.dumps(record))  # line end first: the previous line may have been cut short


def _run_own_share(
    tasks: list[Task], *, job: Job, archives: Mapping[str, ImageArchive], workers: int
) -> Iterator[dict]:
    """Runs every N-th task on this rank -> its records, then those of the other ranks."""
    own = []
    share = tasks[distributed.rank :: distributed.world_size]
    for record in _run_in_pool(share, job=job, archives=archives, workers=workers):
        if "error" not in record:
            _log(job.log, record)
        if distributed.world_size > 1:
            own.append(record)
        yield record
    for rank, records in enumerate(distributed.all_gather(own)):
        yield from records if rank != distributed.rank else ()


def run_tasks(tasks: list[Task], *, job: Job, archives: Mapping[str, ImageArchive], workers: int) -> Iterator[dict]:
    """Tasks -> records in the order of completion, those of other ranks last; usable images are logged.

    Called on the main rank; the other ranks run `assist`.
    """
    distributed.broadcast(lambda: (tasks, job))
    return _run_own_share(tasks, job=job, archives=archives, workers=workers)


def assist(*, archives: Mapping[str, ImageArchive], workers: int) -> dict:
    """Runs a share of the tasks of each `run_tasks` on the main rank -> the report that the main rank ends with."""
    while not isinstance(message := distributed.broadcast(dict), dict):
        tasks, job = message
        for _ in _run_own_share(tasks, job=job, archives=archives, workers=workers):
            pass
    return message
