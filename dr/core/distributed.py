"""The processes that torchrun started for one command: which of them this one is, and what they hand to each other.

Started without torchrun there is one process, which is handed its own things back; torch is imported only where there
are several.
"""

import contextlib
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

_STARTED = "LOCAL_RANK" in os.environ  # a WORLD_SIZE alone is what some schedulers leave in every process
world_size = int(os.environ["WORLD_SIZE"]) if _STARTED else 1
rank = int(os.environ["RANK"]) if _STARTED else 0
local_world_size = int(os.environ["LOCAL_WORLD_SIZE"]) if _STARTED else 1
local_rank = int(os.environ["LOCAL_RANK"]) if _STARTED else 0
is_main = rank == 0  # the one that decides, writes files and prints
restart_count = int(
    os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
)  # above 0: torchrun --max-restarts started all again

# The others wait while the main process fits cuts or draws, and while the slowest prepares its share. A process that
# dies is not waited for: torchrun ends the others.
TIMEOUT = timedelta(hours=12)
GRACE_S = 15.0  # within which torchrun has ended a process, after another one has failed


def init(backend: str) -> None:
    """Joins the processes, unless they are: by gloo on CPUs, by nccl on GPUs."""
    if world_size > 1:
        import torch.distributed as dist

        if not dist.is_initialized():
            # torchrun may keep its store when it starts all again, with the addresses of those that are gone
            store, rank, count = next(dist.rendezvous("env://", timeout=TIMEOUT))
            store = dist.PrefixStore(f"attempt {restart_count}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)


def destroy() -> None:
    """Leaves in order what `meet` joined."""
    if world_size > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def broadcast(make: Callable[[], T]) -> T:
    """What `make` returns in the main process, in each of them; it is called there alone."""
    if world_size == 1:
        return make()
    import torch.distributed as dist

    made = [make() if is_main else None]
    dist.broadcast_object_list(made, src=0)
    return made[0]


def all_gather(own: T) -> list[T]:
    """What each process gives, in the order of their ranks, in each of them."""
    if world_size == 1:
        return [own]
    import torch.distributed as dist

    given: list = [None] * world_size
    dist.all_gather_object(given, own)
    return given


@contextlib.contextmanager
def silence_other_ranks():
    """Nothing of what the other processes print is seen, nor their progress bars."""
    with contextlib.ExitStack() as stack:
        if not is_main:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123  no file, a device
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def error_prefix(error: Exception) -> str:
    """What stands before the words about an error, once it is clear that it is this process that has to tell it.

    An error that all meet is told by the main process, at once; torchrun then ends the others while they wait here. One
    that is still there after a while met it alone. Of the others, those that wait for it lose their connection, which
    is not worth telling: they are ended as well.
    """
    if world_size > 1 and (not is_main or lost_a_peer(error)):
        time.sleep(GRACE_S)
    return "" if is_main else f"process {rank} of {world_size}: "


def lost_a_peer(error: Exception) -> bool:
    """Whether this is how torch.distributed says that another process is gone."""
    if world_size == 1:
        return False
    named = type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError")
    return named or any(words in str(error) for words in ("gloo", "Connection closed by peer", "Connection reset"))
