"""Processes that end with their parent."""

import os
import threading
from multiprocessing import parent_process


def end_with_parent() -> None:
    """This process, which is a child, will end when its parent is killed, which closes no queue: a child that waits for
    one, to be read from or to be emptied, would wait for ever."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
