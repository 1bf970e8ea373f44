"""Alternatives timed alternately on one machine, so that its other load slows all of them alike."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
MEMORY_INTERVAL = 0.05  # seconds between two readings of memory


@dataclass(frozen=True)
class Times:
    """Seconds of each repeat of one alternative, which processes `count` images (or other items)."""

    seconds: tuple[float, ...]
    count: int = 1

    @property
    def rate(self) -> float:
        """Images per second: that of the median repeat."""
        return self.count / statistics.median(self.seconds)

    def text(self, unit: str) -> str:
        """Median and range: a rate for `unit` "/s", a time for "s"."""
        values = self.seconds if unit == "s" else [self.count / each for each in self.seconds]
        low, middle, high = min(values), statistics.median(values), max(values)
        return f"{middle:.3g} {unit}" + (f" ({low:.3g} to {high:.3g})" if len(values) > 1 else "")


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def alternate(ways: Mapping[str, tuple[Callable[[], object], int]], *, repeats: int) -> dict[str, Times]:
    """{name: (function, number of images it processes)} -> times. All run once before the next repeat begins."""
    rounds = [{name: seconds(function) for name, (function, _) in ways.items()} for _ in range(repeats)]
    return {name: Times(tuple(each[name] for each in rounds), count) for name, (_, count) in ways.items()}


def ratio(ours: Times, other: Times) -> tuple[float, float, float]:
    """The rate of `ours` divided by that of `other`: of the medians, and the lowest and highest of the repeats."""
    pairs = [ours.count / a / (other.count / b) for a, b in zip(ours.seconds, other.seconds, strict=False)]
    return ours.rate / other.rate, min(pairs), max(pairs)


@dataclass
class Command:
    """A finished command: its duration, and the peak memory of it and its child processes together, in bytes (shared
    pages counted once)."""

    seconds: float
    peak: int


def run(*arguments: str | Path, watch_memory: bool = False) -> Command:
    """Run `python ARGUMENTS` in the root of the repository; memory only with `watch_memory`, because reading it costs
    time. Raises CalledProcessError with the end of its stderr."""
    command = [sys.executable, *map(str, arguments)]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        stderr: list[bytes] = []
        reader = threading.Thread(target=lambda: stderr.append(process.stderr.read()))
        reader.start()
        peak = 0
        while watch_memory and process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(MEMORY_INTERVAL)
        process.wait()
        duration = time.perf_counter() - started
        reader.join()
    if process.returncode:
        raise subprocess.CalledProcessError(
            process.returncode, command, stderr=stderr[0].decode(errors="replace")[-2000:]
        )
    return Command(duration, peak)


def _memory(pid: int) -> int:
    """Proportional set size of a process and its descendants, bytes; 0 once it has ended."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
