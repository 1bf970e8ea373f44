"""The device that runs the network, and the precision that it computes well."""

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

# the variables that accelerate's PartialState reads
STRAY = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE",
         "RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")  # fmt: skip


def _check_device(name: str) -> torch.device | None:
    """'auto' -> None; another name -> its device, tried with a tensor. Raises UsageError."""
    if name == "auto":
        return None
    if distributed.world_size > 1:
        if name not in ("cpu", "cuda"):
            raise UsageError(
                f"--device {name}: cannot be shared by {distributed.world_size} processes; use auto, cpu or cuda"
            )
        name = name if name == "cpu" else f"cuda:{distributed.local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise UsageError(
            f"device {name}: torch finds no such device on this machine; use auto, cpu, cuda, cuda:1 or mps"
        ) from exc
    return device


def best_precision(device: torch.device) -> str:
    """-> the fastest precision that a device computes well: bf16 on NVIDIA Ampere and later and on CPUs with AMX or
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


# Options of mallopt, by their numbers in glibc's malloc.h: M_TRIM_THRESHOLD (-1: never return memory), M_TOP_PAD (bytes
# requested from the kernel in excess), M_MMAP_MAX (0: map no block by itself)
_MALLOC = {-1: -1, -2: 2**28, -4: 0}


def _retain_freed_memory() -> None:
    """Makes malloc keep freed memory in this process and in those forked from it. By default glibc returns large blocks
    to the kernel, which clears them page by page for the next layer: half the time of a training step on a CPU
    (`python -m benchmarks --rows small_step`). No effect without glibc."""
    if platform.libc_ver()[0] == "glibc":
        for option, value in _MALLOC.items():
            ctypes.CDLL(None).mallopt(option, value)


def release_freed_memory() -> None:
    """Returns kept memory to the kernel: processes forked later would hold a copy of it. No effect without glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def accelerator(device: str, *, precision: str = "auto", on_cpu: str | None = None) -> Accelerator:
    """Selects device and precision, and joins the processes of torchrun: with NCCL on GPUs, one for each process, with
    gloo on CPUs.

    `precision`: auto, bf16, fp16 or fp32; `on_cpu` replaces it on a CPU. Raises UsageError for a device that does not
    exist or does not support the precision.
    """
    os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # another stage in the same notebook may have used another device
    chosen = _check_device(device) or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device != "auto" and chosen.type != "cpu" and distributed.world_size == 1:  # else each rank has its own
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    if on_cpu is not None and chosen.type == "cpu":
        precision = on_cpu
    if precision == "auto":
        precision = best_precision(chosen)
    if precision == "fp16" and chosen.type == "cpu":
        raise UsageError("precision fp16 needs a GPU; use bf16, fp32 or auto, or --device cuda")
    if chosen.type == "cuda" and torch.cuda.device_count() < distributed.local_world_size:
        raise UsageError(
            f"--device {device}: {distributed.local_world_size} processes for {torch.cuda.device_count()} GPUs; "
            f"use torchrun --nproc_per_node {torch.cuda.device_count()}"
        )
    if chosen.type not in ("cuda", "cpu") and distributed.world_size > 1:
        raise UsageError(
            f"--device {device}: {distributed.world_size} processes cannot share {chosen.type}; use --device cpu"
        )
    if chosen.type == "cpu":
        _retain_freed_memory()
    distributed.init("nccl" if chosen.type == "cuda" else "gloo")
    with contextlib.nullcontext() if distributed.world_size > 1 else _alone():
        return Accelerator(cpu=chosen.type == "cpu", mixed_precision="no" if precision == "fp32" else precision)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hides the variables that cluster schedulers set from accelerate, which would wait for other processes."""
    hidden = {name: os.environ.pop(name) for name in STRAY if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
