"""Processes that end with their parent, and the time at which the work of a process began."""

import os
import threading
import time
from multiprocessing import parent_process

from dr import IMPORTED_AT

_commands = 0  # that this process has run
_command_started: float | None = None  # until its first work takes it


def end_with_parent() -> None:
    """Ends this child process when its parent is killed. A killed parent closes no queue, so a child that waits for one
    would wait for ever."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def command_starts() -> None:
    """Notes that a command begins: at the start of the process, unless the process has run another command before."""
    global _commands, _command_started
    _command_started = time.monotonic() if _commands else IMPORTED_AT
    _commands += 1


def work_started() -> float:
    """-> the time, by time.monotonic, from which the work that begins now counts. The first work of a command counts
    from its start, with the libraries that it loads; later runs of a sweep, and calls from Python, from now."""
    global _command_started
    started, _command_started = _command_started, None
    return time.monotonic() if started is None else started
