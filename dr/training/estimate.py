"""How long a run will take, from the time of its first batches."""

import time
from collections.abc import Callable

from dr.core import distributed
from dr.core.progress import announce
from dr.inference.forward import TTA_VIEWS
from dr.training.state import Run

BATCHES = 3  # after which the time is estimated; the first, which waits for loading processes, is not counted
FORWARD = 1 / 3  # of the time of a training step: its backward pass takes twice as long
SHORTEST_S = 60.0  # shorter runs print nothing
LONG_ON_CPU_S = 6 * 3600.0
_FOR_CPUS = "tf_efficientnet_lite"  # the backbones of the recipes for CPUs


def run_seconds(run: Run, *, batches: int, batch_s: float) -> float:
    """The time that a run has left, in seconds, with `batches` of `batch_s` seconds an epoch: its training, validation
    after each epoch, and at the end the TTA of validation and test."""
    recipe, data = run.recipe, run.data
    image_s = FORWARD * batch_s / recipe.batch_size / distributed.world_size
    views = len(TTA_VIEWS[recipe.tta])
    at_end = (len(data.val) if views > 1 else 0) + (0 if data.test is None else len(data.test))
    epochs = recipe.epochs - run.epoch
    return epochs * (batches * batch_s + len(data.val) * image_s) + views * at_end * image_s


def duration(seconds: float) -> str:
    """'3 min', '1.5 h', '42 h'."""
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36000 else f"{seconds / 3600:.0f} h"


def lines(run: Run, *, batches: int, seconds: float) -> list[str]:
    """The estimate in one line, none for a short run; with a hint where a CPU takes very long."""
    if seconds < SHORTEST_S:
        return []
    epochs, device = run.recipe.epochs - run.epoch, run.accelerator.device.type
    epochs = f"{epochs} epoch{'s' if epochs > 1 else ''}"
    text = [f"estimated time: {duration(seconds)} for {epochs} on {device} ({batches:,} batches an epoch)"]
    if device == "cpu" and seconds > LONG_ON_CPU_S:
        small = run.recipe.backbone.startswith(_FOR_CPUS)
        remedy = "reduce --epochs or --set image_size" if small else "-r lite0 is the recipe for CPUs"
        text.append(f"note: more than {LONG_ON_CPU_S / 3600:.0f} hours on a CPU; {remedy}, or use a GPU")
    return text


def first_batches(run: Run, batches: int) -> Callable[[], None]:
    """-> a function to be called after each batch of an epoch with so many: it prints the estimate once, after the
    first BATCHES."""
    times: list[float] = []

    def batch_done() -> None:
        if len(times) == BATCHES or batches < BATCHES:
            return
        times.append(time.monotonic())
        if len(times) == BATCHES and distributed.is_main:
            batch_s = (times[-1] - times[0]) / (BATCHES - 1)
            left = run_seconds(run, batches=batches, batch_s=batch_s)
            for line in lines(run, batches=batches, seconds=left):
                announce(line)

    return batch_done
