"""Runs a command: an error becomes one line and an exit code."""

import atexit
import errno
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from types import ModuleType

from dr import UsageError
from dr.core import distributed, processes

TRAIN_MEMORY = (  # the remedy when memory runs out in training
    "reduce -b and use --set accumulate=N, use --set grad_checkpointing=true, or reduce --set image_size=PIXELS"
)
_OPTIONAL = {
    "openvino": "openvino",
    "onnx": "onnx onnxscript",
    "onnxscript": "onnx onnxscript",
    "openpyxl": "openpyxl",
}
_DISK = {errno.ENOSPC: "disk full", errno.EDQUOT: "disk quota exceeded", errno.EROFS: "read-only file system"}


def _describe(error: Exception, *, go_on: str, memory: str) -> str | None:
    """One line for an error that the user can fix; None for an internal error."""
    text = str(error)
    if isinstance(error, UsageError):
        return text
    if isinstance(error, BrokenPipeError):
        return f"the reader of the output has exited; {go_on}"
    if isinstance(error, ModuleNotFoundError) and (error.name or "dr").partition(".")[0] != "dr":
        return f"{error.name} is not installed; use the environment of `make env`, or {_install(error.name)}"
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in _DISK):
        reason = _DISK.get(error.errno, "permission denied")
        return f"{error.filename or 'output'}: {reason}; fix that and {go_on}"
    # torch's own errors are recognised by name: torch is not imported here
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if no_memory or any(words in text for words in ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")):
        return f"out of memory; {memory}, and {go_on}"
    if text.startswith("DataLoader worker"):
        return (
            "a DataLoader worker was killed, possibly for lack of shared memory; reduce --workers (0 disables them), "
            f"then {go_on}"
        )
    if distributed.lost_a_peer(error):
        return f"another rank failed; see its log for the cause, then {go_on}"
    return None


def _install(module: str) -> str:
    """The command that installs a missing module: an optional one by its name, else the requirements."""
    return f"pip install {_OPTIONAL.get(module.partition('.')[0], '-r requirements.txt')}"


@contextmanager
def importing(library: str | None = None) -> Iterator[None]:
    """For libraries that take seconds to import: garbage collection would take a third of that. A line names the
    `library` that is waited for."""
    if library and distributed.is_main and "torch" not in sys.modules:
        print(f"loading {library} ...", flush=True)  # not to stderr, where an error is one line
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _open_devnull() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _leave(ended: list[int], *, program: ModuleType, process: int) -> None:
    """Ends `process` with the exit code in `ended`. Registered with atexit before main's imports, so it runs last; it
    saves the second in which Python would destroy the objects of torch."""
    if not ended or os.getpid() != process or sys.modules["__main__"] is not program:
        return  # --help, a forked process, or a program that runs the command within itself
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # Python reports it
    os._exit(ended[0])


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived, which schedulers and containers send before they kill."""


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises _Terminated: otherwise it would leave the loading processes and their folders behind. Not with
    several ranks: torchrun ends ranks that wait in C++ for a failed one, where no exception can be raised."""
    if distributed.world_size > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        # the signal may reach loading processes, too, and torch would raise an error about their exit
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, lambda *_: None)
        for process in active_children():  # at once: they would report what they could not send
            process.kill()
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_main(
    main: Callable[[], int], *, go_on: str, memory: str = "reduce --batch_size", owns_process: bool = False
) -> None:
    """Runs a command's main and exits with its code.

    0: done. 1: done, but images could not be read or runs failed. 2: usage error, explained in one line. 3: internal
    error, with a traceback. 130: stopped with Ctrl-C. 143: by SIGTERM. `go_on` is the remedy that restarts the command,
    `memory` the one when memory runs out. With `owns_process` the process ends at exit without destroying its objects.
    Of several ranks the main one prints and may exit with 1.
    """
    sys.stdout = sys.stdout or os.fdopen(_open_devnull(), "w")  # None if closed before the start
    sys.stderr = sys.stderr or os.fdopen(_open_devnull(), "w")
    processes.command_starts()
    ended: list[int] = []
    if owns_process:
        atexit.register(_leave, ended, program=sys.modules["__main__"], process=os.getpid())
    try:
        with _sigterm_as_ctrl_c(), distributed.silence_other_ranks():
            code = main()
        distributed.destroy()
        code = code if distributed.is_main else 0  # torchrun ends the other ranks when one exits with another code
    except KeyboardInterrupt as exc:
        if distributed.is_main:
            print(f"\nstopped; {go_on}", file=sys.stderr)
        code = 143 if isinstance(exc, _Terminated) else 130
    except Exception as exc:
        if isinstance(exc, BrokenPipeError):
            os.dup2(_open_devnull(), sys.stdout.fileno())  # flushing the rest would fail at exit
        message = _describe(exc, go_on=go_on, memory=memory)
        prefix = distributed.error_prefix(exc)
        if not distributed.is_main:
            print(file=sys.stderr)  # this line holds the main rank's progress bar
        if message is None:
            print(prefix, end="", file=sys.stderr)
            traceback.print_exc()
        else:
            # a name from the command line or of a file may hold line breaks
            print(f"error: {prefix}{' '.join(message.splitlines())}", file=sys.stderr)
        code = 3 if message is None else 2
    ended.append(code)
    sys.exit(code)
