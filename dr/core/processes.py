"""Processes that end with their parent."""

import os
import threading
from multiprocessing import parent_process


def end_with_parent() -> None:
    """Ends this child process when its parent is killed. A killed parent closes no queue, so a child that waits for one
    would wait for ever."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
