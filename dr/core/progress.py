"""Progress of long loops on stderr: a bar on a terminal; in logs, notebooks and CI a line every 10 % or 30 s."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

PERCENT = 10  # a line is due after this much progress ...
INTERVAL_S = 30.0  # ... or after this time, ...
SHORTEST_S = 1.0  # ... but never sooner than this: short epochs need no lines between


class _Lines:
    """As much of tqdm's interface as `track` needs, printing lines."""

    def __init__(self, iterable: Iterable | None, *, total: int | None, initial: int, label: tuple[str, str], **shown):
        self._iterable, self._total, self._shown = iterable, total, shown
        self._desc, self._unit = label
        self._initial = self._done = self._printed = initial
        self._started = self._printed_at = time.monotonic()

    def __iter__(self) -> Iterator:
        with self:
            for item in self._iterable:
                yield item
                self.update()

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        now = time.monotonic()
        if (
            error is None
            and self._shown["leave"]
            and self._printed < self._done
            and now - self._started >= self._shown["delay"]
        ):
            self._print(now)

    def update(self, n: int = 1) -> None:
        """Counts `n` more items and prints a line when one is due."""
        self._done += n
        now = time.monotonic()
        waited, gained = now - self._printed_at, 100 * (self._done - self._printed)
        if self._done == self._total:  # __exit__ prints the final state, if it stays visible
            return
        if waited >= INTERVAL_S or (self._total and gained >= PERCENT * self._total and waited >= SHORTEST_S):
            self._print(now)

    def _print(self, now: float) -> None:
        took = now - self._started
        text = f"{self._desc}: {self._done:,} {self._unit}"
        if self._total:
            text = f"{self._desc}: {100 * self._done // self._total} %, {self._done:,} of {self._total:,} {self._unit}"
        text += f", {tqdm.format_interval(took)} elapsed"
        if self._total and self._initial < self._done < self._total:
            left = took * (self._total - self._done) / (self._done - self._initial)
            text += f", {tqdm.format_interval(left)} left"
        print(text, file=sys.stderr, flush=True)
        self._printed, self._printed_at = self._done, now


def announce(text: str) -> None:
    """Prints a line on stdout while a bar may be shown on the same terminal."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def track(
    iterable: Iterable | None = None,
    *,
    desc: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    leave: bool = True,
    delay: float = 0,
) -> Any:
    """Shows the progress of a loop. Iterate over `track(iterable, ...)`, or call `update(n)` in
    `with track(total=...)`.

    `unit`: plural noun of the items counted; `initial`: items finished before; `leave`: the final state stays visible;
    `delay`: a loop that ends within so many seconds shows nothing.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    shared = {"total": total, "initial": initial, "leave": leave, "delay": delay}
    if sys.stderr.isatty():
        return tqdm(iterable, desc=desc, unit=f" {unit}", disable=initial > 0 and initial == total, **shared)
    return _Lines(iterable, label=(desc, unit), **shared)
