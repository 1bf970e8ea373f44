"""One epoch: a pass over the training images, then predictions and metrics of the validation images."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from dr import UsageError
from dr.core import device, distributed
from dr.core.progress import track
from dr.datasets.loader import loader
from dr.datasets.preprocessed import PreprocessedData
from dr.datasets.torch_datasets import EpochSampler, EvaluationImages, TrainingImages
from dr.grading import evaluation, registry
from dr.grading.targets import smoothed_targets
from dr.inference.forward import Scorer, infer, mean_predictions
from dr.recipes.schema import Recipe
from dr.training.state import Run

MAX_NAMES = 3  # of images or classes in one line

MixImages = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def build_loaders(
    recipe: Recipe, data: PreprocessedData, *, sampler: EpochSampler, workers: int, pin: bool
) -> tuple[DataLoader, DataLoader]:
    """-> this process's training batches, in the sampler's order, and its validation batches.

    A smaller last training batch is dropped unless it is the only one. Raises UsageError where there are fewer training
    images than one batch for each process.
    """
    training = TrainingImages(data, recipe)
    needed = distributed.world_size * recipe.batch_size
    if distributed.world_size > 1 and len(training) < needed:
        raise UsageError(
            f"{len(training)} training images, but {distributed.world_size} processes with batches of "
            f"{recipe.batch_size} need {needed}; reduce --batch_size"
        )
    batches = loader(
        training,
        batch_size=recipe.batch_size,
        workers=workers,
        pin=pin,
        sampler=sampler,
        drop_last=len(training) > recipe.batch_size,  # one or two images are too few for batch statistics
    )
    validation = EvaluationImages(data.root, data.val, recipe)
    return batches, loader(validation, batch_size=2 * recipe.batch_size, workers=workers, pin=pin)


def build_mix(recipe: Recipe, num_classes: int) -> MixImages:
    """-> images (N, 3, P, P) uint8, grades (N,) -> images and smoothed targets (N, K): MixUp, CutMix, or images as they
    are. Mixing draws from torch's generator, which a resumed run restores."""
    mixers = []
    if recipe.mixup is not None:
        mixers.append(v2.MixUp(alpha=recipe.mixup, num_classes=num_classes))
    if recipe.cutmix is not None:
        mixers.append(v2.CutMix(alpha=recipe.cutmix, num_classes=num_classes))
    smoothing = smoothed_targets(recipe, num_classes)

    def mix(images: torch.Tensor, grades: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not mixers:
            return images, smoothing.to(grades.device)[grades]
        mixer = mixers[int(torch.randint(len(mixers), ()))] if len(mixers) > 1 else mixers[0]
        images, targets = mixer(images.float(), grades)
        return images, targets.float() @ smoothing.to(grades.device)

    return mix


def _check_finite(loss: float, batch: dict, paths: list[Path]) -> float:
    if not math.isfinite(loss):
        indices = batch["index"].tolist()
        names = ", ".join(paths[i].name for i in indices[:MAX_NAMES]) + (", ..." if len(indices) > MAX_NAMES else "")
        raise UsageError(f"the loss of the batch {names} is not finite; reduce lr, or check these images")
    return loss


def _outputs(run: Run, images: torch.Tensor) -> torch.Tensor:
    try:
        return run.model(images).float()
    except ValueError as exc:
        if "more than 1 value per channel" not in str(exc):
            raise
        raise UsageError(
            f"a batch of {len(images)} image at {run.recipe.image_size} pixels is too small for batch normalisation; "
            "increase --batch_size or --set image_size, or add images"
        ) from exc


def train_epoch(run: Run, batches: DataLoader) -> tuple[float, float]:
    """One pass -> mean loss over the images of all processes, and mean learning rate of the updates. Raises UsageError
    at a loss that is not finite.

    The gradient of an update is the mean over its batches, also for the last update, which may have fewer: accelerate's
    own accumulation would divide by the full number.
    """
    run.model.train()
    mix = build_mix(run.recipe, run.objective.num_classes)
    used = run.accelerator.device
    total, count, rates = 0.0, 0, []
    for number, batch in enumerate(track(batches, desc=f"epoch {run.epoch + 1}", unit="batches", leave=False)):
        position = number % run.recipe.accumulate
        group = min(run.recipe.accumulate, len(batches) - number + position)  # batches of this update
        complete = position + 1 == group
        # gradients are exchanged between processes once per update
        with contextlib.nullcontext() if complete else run.accelerator.no_sync(run.model):
            images, targets = mix(batch["image"].to(used, non_blocking=True), batch["grade"].to(used))
            losses = run.objective.loss(_outputs(run, images), targets)
            total += _check_finite(losses.sum().item(), batch, batches.dataset.paths)
            count += len(losses)
            run.accelerator.backward(losses.mean() / group)
        if complete:
            run.update()
            rates.append(run.optimizer.param_groups[0]["lr"])
        run.batch_done()
    totals, counts = zip(*distributed.all_gather((total, count)), strict=True)
    return sum(totals) / sum(counts), sum(rates) / len(rates)


def validate(run: Run, batches: DataLoader) -> tuple[np.ndarray, float]:
    """-> predictions (N, P) in the order of the label table, and their mean loss."""
    broadcast(run.evaluated.state_dict())  # the main process's network, which is saved: running statistics differ
    scorer = Scorer(run.evaluated, run.objective)
    _, outputs = infer([scorer], batches, accelerator=run.accelerator)
    if not torch.isfinite(outputs[0]).all():
        raise UsageError("a validation score is not finite: training diverged; reduce lr, or use --set precision=fp32")
    # computed once: machines may differ in the last bit, and a plateau must be the same for all
    loss = distributed.broadcast(lambda: run.objective.mean_loss(outputs[0][0], batches.dataset.grades))
    return mean_predictions([scorer], outputs), loss


def selection_value(row: dict, monitor: str) -> float:
    """A row of the history -> the value that the best epoch maximises, by the recipe's `monitor`."""
    if monitor == "last":
        return row["epoch"]
    return -row[monitor] if monitor == "val_loss" else row[monitor]


def run_epoch(run: Run, batches: DataLoader, val_batches: DataLoader) -> tuple[np.ndarray, np.ndarray | None]:
    """Trains and validates once and adds a row to `run.history` -> predictions (N, P), thresholds (K-1,) or None."""
    started = time.time()
    train_loss, lr = train_epoch(run, batches)
    device.release_freed_memory()
    predictions, val_loss = validate(run, val_batches)
    truth = val_batches.dataset.grades
    metrics, thresholds = distributed.broadcast(
        lambda: evaluation.evaluate(
            predictions,
            truth,
            objective=run.objective,
            rule=run.recipe.thresholds,
            seed=run.recipe.seed,
            referable_from=registry.referable_from(run.data.classes),
        )
    )
    run.after_epoch(val_loss)
    run.epoch += 1
    losses = {"epoch": run.epoch, "train_loss": train_loss, "val_loss": val_loss, "lr": lr}
    if math.isnan(selection_value(losses | metrics, run.recipe.monitor)):
        raise UsageError(
            f"recipe: monitor {run.recipe.monitor} is not defined for these validation images, perhaps all of one "
            "class; use --set monitor=val_loss"
        )
    run.history.append(losses | metrics | {"seconds": time.time() - started})
    return predictions, thresholds
