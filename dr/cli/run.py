"""The command line of all scripts: flags read and checked, errors turned into one line and an exit code."""

import argparse
import atexit
import errno
import gc
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path
from types import ModuleType

from dr import UsageError
from dr.cli.flags import DEFAULT_NAME, FLAGS
from dr.core import distributed

RUN_FLAGS = ("recipe", "overrides", "epochs", "batch_size", "pretrained", "seed", "sweep", "fold", "resume")
TRAIN_MEMORY = (  # what to do when it runs out in training
    "give a smaller -b together with --set accumulate=N, --set grad_checkpointing=true, or a smaller --set "
    "image_size=PIXELS"
)
_DISK = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "it is read-only"}
_NOT_THERE = {  # what is told of a path that is not there, and what to do, by flag
    "zip_main": "there is no such file or folder; give the path of the archive",
    "zip_2015": "there is no such file or folder; give the path of the 2015 archive with -a, or -a none to do without",
    "data": "there is no such folder; run data.py first, or name the folder it wrote with --data",
    "pretrained": "there is no such file of weights; give --pretrained a path, imagenet or none",
    "resume": "there is nothing to resume; start without --resume",
    "model": "there is no such file of weights; run train.py first, or name a checkpoint with --model",
    "images": "there is no such file or folder; name the photographs with --images",
    "submission": "there is no such file; give --submission a sample_submission.csv, or the zip that holds it",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors: one line, as everywhere else."""

    def error(self, message: str):
        raise UsageError(f"{message}; see {self.prog} --help")


def parser(script: str, *, description: str) -> argparse.ArgumentParser:
    """The command line of data.py, train.py or predict.py. Wrong flags raise UsageError."""
    made = Parser(f"{script}.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for names, options in FLAGS[script]:
        told = "(default" in options["help"] or options.get("default") in (None, [])
        shown = "" if told else " (default: %(default)s)"
        made.add_argument(*names, **{**options, "help": options["help"] + shown})
    return made


def name_of(recipe: str | None) -> str:
    """What the files of a run are called where no name is given."""
    return DEFAULT_NAME if recipe is None else Path(recipe).stem


def command(script: str) -> str:
    """What was typed, to be typed again."""
    return shlex.join(["python", script, *sys.argv[1:]])


def check_at_least(lowest: int, **flags: int | None) -> None:
    """Raises UsageError for a flag that is given and below `lowest`."""
    for name, value in flags.items():
        if value is not None and value < lowest:
            raise UsageError(f"--{name} must be at least {lowest}, got {value}")


def check_alone(flag: str, args: argparse.Namespace, others: Iterable[str]) -> None:
    """Raises UsageError for one of `others` beside a flag that would make nothing of it."""
    for other in others:
        given = getattr(args, other)
        if given is not None and given is not False and given != []:
            other = "set" if other == "overrides" else other
            raise UsageError(f"--{other} changes nothing of what --{flag} writes; leave it out, or leave out --{flag}")


def check_there(**paths: Iterable[str | Path | None]) -> None:
    """Raises UsageError for a path of a flag that does not exist: told here, before torch or pandas are imported."""
    for flag, given in paths.items():
        for path in given:
            if path is not None and not Path(path).exists():
                raise UsageError(f"{path}: {_NOT_THERE[flag]}")


def check_outside(directory: str, sources: Iterable[str | None]) -> None:
    """Raises UsageError for a folder to be written that lies in one of `sources`: what is written would be read as
    photographs the next time."""
    for path in sources:
        if path is not None and Path(path).is_dir() and Path(directory).resolve().is_relative_to(Path(path).resolve()):
            raise UsageError(f"-d {directory}: it lies in {path}, where photographs are read; choose a folder outside")


def _told(error: Exception, *, go_on: str, memory: str) -> str | None:
    """One line about an error that the user can mend; None for a mistake of the program."""
    text = str(error)
    if isinstance(error, UsageError):
        return text
    if isinstance(error, BrokenPipeError):
        return f"what read the output has ended; {go_on}"
    if isinstance(error, ModuleNotFoundError) and (error.name or "dr").partition(".")[0] != "dr":
        return f"{error.name} is not installed; use the environment of `make env`, or pip install -r requirements.txt"
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in _DISK):
        reason = _DISK.get(error.errno, "permission denied")
        return f"{error.filename or 'writing'}: {reason}; change that and {go_on}"
    # torch's own kinds are known by name: it is not imported here
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if no_memory or any(words in text for words in ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")):
        return f"memory ran out; {memory}, and {go_on}"
    if text.startswith("DataLoader worker"):
        return (
            f"a loading process was ended, perhaps for want of shared memory; give fewer --workers, or 0, and {go_on}"
        )
    if distributed.lost_a_peer(error):
        return f"another process ended, and says why where it was started; {go_on}"
    return None


@contextmanager
def importing() -> Iterator[None]:
    """For libraries that take seconds: no garbage is looked for in what they make, which would be a third of them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _leave(ended: list[int], *, program: ModuleType, process: int) -> None:
    """At exit, after all that main's imports have registered: ends `process` with the code in `ended`. Python would
    take torch apart first, object by object, for a second."""
    if not ended or os.getpid() != process or sys.modules["__main__"] is not program:
        return  # --help, a forked process, or a program that has run the command within itself
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # Python tells it
    os._exit(ended[0])


class _Ended(KeyboardInterrupt):
    """By SIGTERM, which schedulers and containers send before they kill."""


@contextmanager
def _ends_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM raises _Ended: by itself it would leave the processes that load photographs, and their folders. Not in
    one of several processes: torchrun ends those that wait in C++ for one that failed, where no exception is raised."""
    if distributed.world_size > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        # the signal may have reached loading processes, too, and torch would raise about their end
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, lambda *_: None)
        for process in active_children():  # at once: they would tell of what they were about to send
            process.kill()
        raise _Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(
    main: Callable[[], int], *, go_on: str, memory: str = "give a smaller --batch_size", owns_process: bool = False
) -> None:
    """Runs a script's main and exits with its code: 0 done, 1 finished with photographs that could not be read or runs
    that failed, 2 the user must change something, 3 a mistake of the program, 130 stopped with Ctrl-C, 143 by SIGTERM.
    `go_on` says how to start again, `memory` what to do when it runs out; with `owns_process` the process ends at
    exit without being taken apart. Of several processes one speaks, and one exits with 1."""
    sys.stdout = sys.stdout or os.fdopen(_nowhere(), "w")  # None where it was closed before the start
    sys.stderr = sys.stderr or os.fdopen(_nowhere(), "w")
    ended: list[int] = []
    if owns_process:
        atexit.register(_leave, ended, program=sys.modules["__main__"], process=os.getpid())
    try:
        with _ends_as_by_ctrl_c(), distributed.silence_other_ranks():
            code = main()
        distributed.destroy()
        code = code if distributed.is_main else 0  # at a code that is not 0 torchrun ends those that are not ready
    except KeyboardInterrupt as exc:
        if distributed.is_main:
            print(f"\nstopped; {go_on}", file=sys.stderr)
        code = 143 if isinstance(exc, _Ended) else 130
    except Exception as exc:
        if isinstance(exc, BrokenPipeError):
            os.dup2(_nowhere(), sys.stdout.fileno())  # what it still holds would fail at the end
        told = _told(exc, go_on=go_on, memory=memory)
        place = distributed.error_prefix(exc)
        if not distributed.is_main:
            print(file=sys.stderr)  # the main process's progress bar stands in this line
        if told is None:
            print(place, end="", file=sys.stderr)
            traceback.print_exc()
        else:
            print(f"error: {place}{told}", file=sys.stderr)
        code = 3 if told is None else 2
    ended.append(code)
    sys.exit(code)
