import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dr import UsageError
from dr.core import device, distributed


def test_a_missing_device_is_refused():
    with pytest.raises(UsageError, match="device cuda:7: torch finds no such device"):
        device.accelerator("cuda:7")


def test_each_of_several_processes_uses_its_own_device(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", 2)
    for name in ("cuda:1", "mps"):
        with pytest.raises(UsageError, match=f"--device {name}: cannot be shared by 2 processes; use auto, cpu or"):
            device.accelerator(name)


def test_half_precision_without_a_gpu_is_refused():
    with pytest.raises(UsageError, match="precision fp16 needs a GPU"):
        device.accelerator("cpu", precision="fp16")


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [("cuda", (9, 0), "bf16"), ("cuda", (8, 0), "bf16"), ("cuda", (7, 0), "fp16"), ("cuda", (6, 0), "fp16"),
     ("cuda", (5, 2), "fp32"), ("cpu", {"amx_bf16": True}, "bf16"), ("cpu", {"avx512_bf16": True}, "bf16"),
     ("cpu", {"avx2": True}, "fp32"), ("mps", None, "fp32")],
)  # fmt: skip
def test_precision_is_the_fastest_that_the_device_supports(monkeypatch, kind, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capability, raising=False)
    assert device.best_precision(torch.device(kind)) == expected


FAULTS = """
import resource, torch
from dr.core import device

device.accelerator("cpu", precision="fp32")
def faults_of(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of(10)  # the first ones settle where in the heap such a block is
print(faults_of(10))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_a_cpu_process_keeps_freed_memory():
    """Otherwise the kernel clears every page again, half the time of a training step. Runs in its own process, because
    memory freed by other tests changes where a block is allocated."""
    faults = subprocess.check_output([sys.executable, "-c", FAULTS], text=True, cwd=Path(__file__).parents[2])
    assert int(faults) < 2**24 * 4 / 4096  # pages of one such tensor


def test_variables_of_cluster_schedulers_start_no_other_processes(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "PMI_SIZE"):
        monkeypatch.setenv(name, "4")
    assert device.accelerator("cpu").num_processes == 1
    assert os.environ["WORLD_SIZE"] == "4"
