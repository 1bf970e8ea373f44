"""Which device runs the network, and in which precision: what the device does well."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from dr import UsageError
from dr.core import distributed

# what accelerate.utils.get_int_from_env looks for in PartialState
STRAY = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE",
         "RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")  # fmt: skip


def _check_device(name: str) -> torch.device | None:
    """'auto' -> None; else the device, once a tensor has been put on it. Raises UsageError."""
    if name == "auto":
        return None
    if distributed.world_size > 1:
        if name not in ("cpu", "cuda"):
            raise UsageError(
                f"--device {name}: each of {distributed.world_size} processes has its own; give auto, cpu or cuda"
            )
        name = name if name == "cpu" else f"cuda:{distributed.local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise UsageError(
            f"--device {name}: this machine has no such device that torch can use; try auto or cpu"
        ) from exc
    return device


def best_precision(device: torch.device) -> str:
    """The fastest precision that a device computes well: bf16 on NVIDIA Ampere and later and on CPUs with AMX or
    AVX512-BF16, fp16 on NVIDIA GPUs from Pascal on, else fp32."""
    if device.type == "cuda":
        major = torch.cuda.get_device_capability(device)[0]
        return "bf16" if major >= 8 else "fp16" if major >= 6 else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()  # before torch 2.12


# mallopt's, as glibc's malloc.h numbers them: bytes free at the end of the heap before they are given back, -1 for
# never; bytes asked for beyond need; how many blocks may be mapped each for itself
_MALLOC = {-1: -1, -2: 2**28, -4: 0}


def _retain_freed_memory() -> None:
    """Lets this process, and those forked from it, keep the memory that they free. glibc gives large blocks back to the
    kernel, which clears them page by page when the next layer asks again: half the time of a training step on a CPU
    (`python -m benchmarks --rows small_step`). Nothing where there is no glibc."""
    if platform.libc_ver()[0] == "glibc":
        for option, value in _MALLOC.items():
            ctypes.CDLL(None).mallopt(option, value)


def release_freed_memory() -> None:
    """What was kept goes back to the kernel at once: processes that are forked next would hold on to a copy of it."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def accelerator(device: str, *, precision: str = "auto", on_cpu: str | None = None) -> Accelerator:
    """The one place where device and precision are chosen, and where the processes of torchrun are joined: by NCCL on
    GPUs, one each, by gloo on CPUs. A CPU takes `on_cpu`, where given, in place of `precision`. Raises UsageError for a
    device that is not there or does not know the precision."""
    os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    AcceleratorState._reset_state(reset_partial_state=True)  # in a notebook the stage before may have used another
    chosen = _check_device(device) or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device != "auto" and chosen.type != "cpu" and distributed.world_size == 1:  # of several, each takes the next
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    if on_cpu is not None and chosen.type == "cpu":
        precision = on_cpu
    if precision == "auto":
        precision = best_precision(chosen)
    if precision == "fp16" and chosen.type == "cpu":
        raise UsageError("precision fp16 needs a GPU; use bf16, fp32 or auto, or --device cuda")
    if chosen.type == "cuda" and torch.cuda.device_count() < distributed.local_world_size:
        raise UsageError(
            f"{distributed.local_world_size} processes were started, but there are {torch.cuda.device_count()} GPUs; "
            f"give torchrun --nproc_per_node {torch.cuda.device_count()}"
        )
    if chosen.type not in ("cuda", "cpu") and distributed.world_size > 1:
        raise UsageError(
            f"{distributed.world_size} processes were started, which cannot share {chosen.type}; give --device cpu"
        )
    if chosen.type == "cpu":
        _retain_freed_memory()
    distributed.init("nccl" if chosen.type == "cuda" else "gloo")
    with contextlib.nullcontext() if distributed.world_size > 1 else _alone():
        return Accelerator(cpu=chosen.type == "cpu", mixed_precision="no" if precision == "fp32" else precision)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hides from accelerate what schedulers of clusters leave in every process: it would wait for others."""
    left = {name: os.environ.pop(name) for name in STRAY if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(left)
