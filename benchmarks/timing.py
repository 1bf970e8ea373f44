"""Ways to do one thing, timed in turns on one machine, so that what else it does slows all of them alike."""

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
SAMPLED_EVERY = 0.05  # seconds, of memory


@dataclass(frozen=True)
class Times:
    """Seconds of each repeat of one way, which does `count` photographs (or other things)."""

    seconds: tuple[float, ...]
    count: int = 1

    @property
    def rate(self) -> float:
        """Photographs per second, by the median."""
        return self.count / statistics.median(self.seconds)

    def summary_lines(self, unit: str) -> str:
        """Median and range: as a rate for `unit` "/s", as a time for "s"."""
        values = self.seconds if unit == "s" else [self.count / each for each in self.seconds]
        low, middle, high = min(values), statistics.median(values), max(values)
        return f"{middle:.3g} {unit}" + (f" ({low:.3g} to {high:.3g})" if len(values) > 1 else "")


def seconds(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def in_turns(ways: Mapping[str, tuple[Callable[[], object], int]], *, repeats: int) -> dict[str, Times]:
    """{name: (what to do, how many photographs that is)} -> times. All are done once before the next repeat begins."""
    rounds = [{name: seconds(way) for name, (way, _) in ways.items()} for _ in range(repeats)]
    return {name: Times(tuple(each[name] for each in rounds), count) for name, (_, count) in ways.items()}


def ratio(ours: Times, other: Times) -> tuple[float, float, float]:
    """How many times the rate of `other` ours is: of the medians, and the lowest and highest of the repeats."""
    pairs = [ours.count / a / (other.count / b) for a, b in zip(ours.seconds, other.seconds, strict=False)]
    return ours.rate / other.rate, min(pairs), max(pairs)


@dataclass
class Command:
    """A script of the repository, run to its end by itself: what it took, and the most memory that it and the processes
    it started held at one time, in bytes (shared pages counted once)."""

    seconds: float
    peak: int


def run(*arguments: str | Path, watch_memory: bool = False) -> Command:
    """`python ARGUMENTS` in the root of the repository; memory only with `watch_memory`, as looking slows it. Raises
    CalledProcessError with what it said."""
    words = [sys.executable, *map(str, arguments)]
    started = time.perf_counter()
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.append(process.stderr.read()))
        reader.start()
        peak = 0
        while watch_memory and process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(SAMPLED_EVERY)
        process.wait()
        took = time.perf_counter() - started
        reader.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words, stderr=said[0].decode(errors="replace")[-2000:])
    return Command(took, peak)


def _memory(pid: int) -> int:
    """Proportional set size of a process and all below it, bytes; 0 once it has ended."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            memory = member.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
