"""The processes that torchrun starts for one command: their ranks, and collective operations.

Without torchrun the only process is the main rank, and every operation returns its own value. torch is imported only
if there are several processes.
"""

import contextlib
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

_STARTED = "LOCAL_RANK" in os.environ  # not WORLD_SIZE, which some schedulers set in every process
world_size = int(os.environ["WORLD_SIZE"]) if _STARTED else 1
rank = int(os.environ["RANK"]) if _STARTED else 0
local_world_size = int(os.environ["LOCAL_WORLD_SIZE"]) if _STARTED else 1
local_rank = int(os.environ["LOCAL_RANK"]) if _STARTED else 0
is_main = rank == 0  # the one that decides, writes files and prints
# above 0 after a restart by torchrun --max-restarts
restart_count = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))

# The other ranks wait while the main one fits thresholds or draws, and while the slowest preprocesses its share.
# They do not wait for a dead rank: torchrun ends them.
TIMEOUT = timedelta(hours=12)
GRACE_S = 15.0  # within this time torchrun ends the other processes after one has failed


def init(backend: str) -> None:
    """Joins the process group, unless it is joined already. `backend`: gloo for CPUs, nccl for GPUs."""
    if world_size > 1:
        import torch.distributed as dist

        if not dist.is_initialized():
            # after a restart torchrun may keep its store, with the addresses of the ended processes
            store, rank, count = next(dist.rendezvous("env://", timeout=TIMEOUT))
            store = dist.PrefixStore(f"attempt {restart_count}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)


def destroy() -> None:
    """Leaves the group that `init` joined."""
    if world_size > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def broadcast(make: Callable[[], T]) -> T:
    """-> on all ranks, the value that `make` returns on the main rank, which alone calls it."""
    if world_size == 1:
        return make()
    import torch.distributed as dist

    values = [make() if is_main else None]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def all_gather(own: T) -> list[T]:
    """-> on all ranks, the values of all ranks in their order."""
    if world_size == 1:
        return [own]
    import torch.distributed as dist

    values: list = [None] * world_size
    dist.all_gather_object(values, own)
    return values


@contextlib.contextmanager
def silence_other_ranks():
    """Discards the output and progress bars of all ranks but the main one."""
    with contextlib.ExitStack() as stack:
        if not is_main:
            devnull = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123  a device, not a file
            stack.enter_context(contextlib.redirect_stdout(devnull))
            stack.enter_context(contextlib.redirect_stderr(devnull))
        yield


def error_prefix(error: Exception) -> str:
    """-> the prefix of the error message of this rank. Returns only on ranks that must report the error.

    The main rank reports an error of all ranks at once; torchrun then ends the others while they wait here. A rank that
    still runs after GRACE_S is the only one with the error. A rank that lost its connection to a failed one waits, too,
    and is ended: its error would hide the cause.
    """
    if world_size > 1 and (not is_main or lost_a_peer(error)):
        time.sleep(GRACE_S)
    return "" if is_main else f"process {rank} of {world_size}: "


def lost_a_peer(error: Exception) -> bool:
    """Whether the error means that another rank has ended: torch.distributed has no common class for these."""
    if world_size == 1:
        return False
    named = type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError")
    return named or any(words in str(error) for words in ("gloo", "Connection closed by peer", "Connection reset"))
