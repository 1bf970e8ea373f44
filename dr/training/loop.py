"""Stage 2: prepared folder + recipe -> NAME__best.pt, NAME__last.pt, NAME__history.csv, pictures, a row in runs.csv."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

from dr import UsageError
from dr.core import device, distributed, files
from dr.datasets.loader import loader
from dr.datasets.preprocessed import PreprocessedData, binary
from dr.datasets.torch_datasets import EpochSampler, EvaluationImages, TrainingImages, channel_mean_std
from dr.grading import evaluation, objectives
from dr.inference import checkpoint
from dr.inference.forward import Scorer, infer, mean_predictions
from dr.networks import build as models
from dr.recipes.schema import Recipe
from dr.sources import class_names
from dr.training import finish as outcome
from dr.training import report as run_page
from dr.training import runs_csv
from dr.training.run_files import RunFiles
from dr.training.state import Run, content, random_states, resume, save_last, seen_before, start

NAMED = 3  # photographs or classes in one line


def loaders(
    recipe: Recipe, data: PreprocessedData, *, order: EpochSampler, workers: int, pin: bool
) -> tuple[DataLoader, DataLoader]:
    """-> this process's batches of training, in that order, and of validation. A last batch that is smaller is left
    out, unless it is the only one. Raises UsageError for photographs too few to go round."""
    training = TrainingImages(data, recipe)
    together = distributed.world_size * recipe.batch_size
    if distributed.world_size > 1 and len(training) < together:
        raise UsageError(
            f"{distributed.world_size} processes with batches of {recipe.batch_size} need {together} training "
            f"photographs, here are {len(training)}; give a smaller --batch_size"
        )
    batches = loader(
        training,
        batch_size=recipe.batch_size,
        workers=workers,
        pin=pin,
        sampler=order,
        drop_last=len(training) > recipe.batch_size,  # a rest of one or two photographs would spoil batch statistics
    )
    validation = EvaluationImages(data.root, data.val, recipe)
    return batches, loader(validation, batch_size=2 * recipe.batch_size, workers=workers, pin=pin)


# --- one epoch ----------------------------------------------------------------------------------


def _finite(loss: float, batch: dict, paths: list[Path]) -> float:
    if not math.isfinite(loss):
        indices = batch["index"].tolist()
        names = ", ".join(paths[i].name for i in indices[:NAMED]) + (", ..." if len(indices) > NAMED else "")
        raise UsageError(f"the loss is not finite at the batch {names}; lower lr, or look at these photographs")
    return loss


Mix = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _mix(recipe: Recipe, num_classes: int) -> Mix:
    """images (N, 3, P, P) uint8, grades (N,) -> images, targets (N, K): mixed up, cut and mixed, or as they are, and
    smoothed. Mixing draws from torch's generator, so that a resumed run draws the same."""
    mixers = []
    if recipe.mixup is not None:
        mixers.append(v2.MixUp(alpha=recipe.mixup, num_classes=num_classes))
    if recipe.cutmix is not None:
        mixers.append(v2.CutMix(alpha=recipe.cutmix, num_classes=num_classes))
    smoothing = objectives.smoothing(recipe, num_classes)

    def mix(images: torch.Tensor, grades: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not mixers:
            return images, smoothing.to(grades.device)[grades]
        mixer = mixers[int(torch.randint(len(mixers), ()))] if len(mixers) > 1 else mixers[0]
        images, targets = mixer(images.float(), grades)
        return images, targets.float() @ smoothing.to(grades.device)

    return mix


def _outputs(run: Run, images: torch.Tensor) -> torch.Tensor:
    try:
        return run.model(images).float()
    except ValueError as exc:
        if "more than 1 value per channel" not in str(exc):
            raise
        raise UsageError(
            f"a batch of {len(images)} photograph at {run.recipe.image_size} pixels is too small for batch "
            "normalisation; give a larger --batch_size, more photographs or --set image_size"
        ) from exc


def train_epoch(run: Run, batches: DataLoader) -> tuple[float, float]:
    """One pass -> mean loss over its photographs, of all processes, and mean learning rate of its updates. Raises
    UsageError at a loss that is not finite.

    The gradient of an update is the mean over its batches, also of the last ones, which may be fewer: accelerate's own
    accumulation would divide by the full number.
    """
    run.model.train()
    mix = _mix(run.recipe, run.objective.num_classes)
    to = run.accelerator.device
    total, count, rates = 0.0, 0, []
    for number, batch in enumerate(tqdm(batches, desc=f"epoch {run.epoch + 1}", unit=" batches", leave=False)):
        place = number % run.recipe.accumulate
        group = min(run.recipe.accumulate, len(batches) - number + place)  # batches of this update
        complete = place + 1 == group
        # gradients cross from process to process once for each update
        with contextlib.nullcontext() if complete else run.accelerator.no_sync(run.model):
            images, targets = mix(batch["image"].to(to, non_blocking=True), batch["grade"].to(to))
            losses = run.objective.loss(_outputs(run, images), targets)
            total, count = total + _finite(losses.sum().item(), batch, batches.dataset.paths), count + len(losses)
            run.accelerator.backward(losses.mean() / group)
        if complete:
            run.update()
            rates.append(run.optimizer.param_groups[0]["lr"])
    totals, counts = zip(*distributed.all_gather((total, count)), strict=True)
    return sum(totals) / sum(counts), sum(rates) / len(rates)


def _validate(run: Run, batches: DataLoader) -> tuple[np.ndarray, float]:
    """-> predictions (N, P) in the order of the label table, and their mean loss."""
    broadcast(run.evaluated.state_dict())  # the network that is saved: running statistics are each process's own
    scorer = Scorer(run.evaluated, run.objective)
    _, outputs = infer([scorer], batches, accelerator=run.accelerator)
    if not torch.isfinite(outputs[0]).all():
        raise UsageError("a validation score is not finite: training diverged; lower lr, or --set precision=fp32")
    # computed once: machines may differ in the last bit, and a plateau must be one for all
    loss = distributed.broadcast(lambda: objectives.mean_loss(run.objective, outputs[0][0], batches.dataset.grades))
    return mean_predictions([scorer], outputs), loss


def _epoch(run: Run, batches: DataLoader, val_batches: DataLoader) -> tuple[np.ndarray, np.ndarray | None]:
    """Trains and validates once, with a row in `run.history` -> predictions (N, P), cuts (K-1,) or None."""
    started = time.time()
    train_loss, lr = train_epoch(run, batches)
    device.release_freed_memory()
    predictions, val_loss = _validate(run, val_batches)
    truth = val_batches.dataset.grades
    figures, thresholds = distributed.broadcast(
        lambda: evaluation.evaluate(
            predictions, truth, objective=run.objective, rule=run.recipe.thresholds, seed=run.recipe.seed
        )
    )
    run.after_epoch(val_loss)
    run.epoch += 1
    if math.isnan(_merit(figures | {"val_loss": val_loss, "epoch": run.epoch}, run.recipe.best_by)):
        raise UsageError(
            f"recipe: best_by {run.recipe.best_by} is not defined on these validation photographs, perhaps all of one "
            "class; use --set best_by=val_loss"
        )
    losses = {"epoch": run.epoch, "train_loss": train_loss, "val_loss": val_loss, "lr": lr}
    run.history.append(losses | figures | {"seconds": time.time() - started})
    return predictions, thresholds


def _line(row: dict, *, epochs: int) -> str:
    """A finished epoch in words."""
    names = {"macro_f1_rounded": "rounded", "macro_f1_optimal": "optimal", "macro_f1_cross_fitted": "cross-fitted"}
    macro_f1 = " ".join(f"{word} {row[name]:.3f}" for name, word in names.items() if name in row)
    recall = " ".join(f"{value:.2f}" for name, value in row.items() if name.startswith("recall_"))
    return (
        f"epoch {row['epoch']}/{epochs}  loss {row['train_loss']:.3f} val {row['val_loss']:.3f}  macro-F1 {macro_f1}  "
        f"kappa {row['kappa']:.3f}  accuracy {row['accuracy']:.3f}  auc {row['auc']:.3f}  "
        f"{f'recall {recall}  ' if recall else ''}{row['seconds']:.0f} s"
    )


def _opening(run: Run, batches: DataLoader) -> list[str]:
    """What is about to be trained, and what of it may not be meant, in lines."""
    recipe, data = run.recipe, run.data
    precision = {"no": "fp32"}.get(run.accelerator.mixed_precision, run.accelerator.mixed_precision)
    each = f" in each of {distributed.world_size} processes" if distributed.world_size > 1 else ""
    lines = [
        f"{recipe.backbone} at {recipe.crop_size or recipe.image_size} pixels, {recipe.objective}: {len(data.train):,} "
        f"photographs to train with, {len(data.val):,} to validate; epochs {run.epoch + 1} to {recipe.epochs} of "
        f"{len(batches)} batches of {recipe.batch_size}{each}; {run.accelerator.device}, {precision}"
    ]
    if run.epoch >= recipe.epochs or _impatient(run.history, recipe):
        return [f"{recipe.backbone}: nothing is left to train"]
    if recipe.objective in ("regression", "ordinal") and not class_names.ranked(data.classes):
        names = ", ".join(data.classes[:NAMED]) + (", ..." if len(data.classes) > NAMED else "")
        lines.append(
            f"note: {recipe.objective} takes each class for a step above the one before: {names}; "
            "if they are no steps of one scale, give --set objective=classification"
        )
    return [*lines, *(f"note: {line}" for line in seen_before(run))]


# --- the stage ----------------------------------------------------------------------------------


def _merit(row: dict, best_by: str) -> float:
    """A row of the history -> higher for a better epoch, by a recipe's `best_by`."""
    if best_by == "last":
        return row["epoch"]
    return -row[best_by] if best_by == "val_loss" else row[best_by]


def _save(
    run: Run, paths: RunFiles, *, predictions: np.ndarray, thresholds: np.ndarray | None, random: list[dict]
) -> None:
    """Writes the files of a finished epoch; NAME__best.pt only where there was no better one."""
    *before, row = [_merit(row, run.recipe.best_by) for row in run.history]
    fields = content(run, thresholds=thresholds, metrics=run.history[-1])
    if row > max(before, default=-math.inf) or run.epoch == 1:
        outcome.save_best(paths, fields, predictions=predictions, run=run)
    if run.epoch in run.recipe.keep_epochs:
        checkpoint.save(paths.epoch(run.epoch), fields)
    files.write_csv(paths.history, pd.DataFrame(run.history))
    save_last(paths.last, run, fields, random)


def _impatient(history: list[dict], recipe: Recipe) -> bool:
    """Whether `patience` epochs brought nothing better."""
    merits = [_merit(row, recipe.best_by) for row in history]
    return recipe.patience is not None and bool(merits) and len(merits) - 1 - int(np.argmax(merits)) >= recipe.patience


def _fitted(recipe: Recipe, data: PreprocessedData) -> tuple[Recipe, PreprocessedData]:
    """What a recipe leaves to the data: two classes made of grades, mean and deviation measured."""
    if recipe.objective == "binary":
        data = binary(data, positive_from=recipe.positive_from)
    if recipe.normalisation == "measured":
        mean, std = distributed.broadcast(lambda: channel_mean_std(data, recipe))
        recipe = dataclasses.replace(recipe, mean=mean, std=std)
    return recipe, data


def train(
    recipe: Recipe,
    *,
    data: PreprocessedData,
    folder: str,
    name: str,
    device_name: str = "auto",
    workers: int = 2,
    go_on: bool = False,
    recorded: dict[str, str] | None = None,
) -> dict:
    """Trains, keeps the best epoch by the recipe's `best_by`, tests it once -> its row of runs.csv, with `recorded`
    added.

    With `go_on` the run continues from folder/NAME__last.pt, and so it does where torchrun has started it again. Of
    several processes the main one writes all files, in a folder that all of them see. Raises UsageError. Not
    deterministic on a GPU: atomics in cuDNN's backward pass.
    """
    if Path(name).name != name:
        raise UsageError(f"--name {name}: it is the first part of file names and may hold no path")
    accelerator = device.accelerator(device_name, precision=recipe.precision)
    paths = RunFiles(distributed.broadcast(lambda: files.writable_folder(folder)), name)
    with files.lock_file(paths.last, wait=False) if distributed.is_main else contextlib.nullcontext():
        return _train(
            recipe,
            data=data,
            paths=paths,
            accelerator=accelerator,
            workers=workers,
            go_on=go_on,
            recorded=recorded or {},
        )


def _train(
    recipe: Recipe,
    *,
    data: PreprocessedData,
    paths: RunFiles,
    accelerator: Accelerator,
    workers: int,
    go_on: bool,
    recorded: dict[str, str],
) -> dict:
    recipe, data = _fitted(recipe, data)
    go_on = distributed.broadcast(lambda: go_on or (distributed.restart_count > 0 and paths.interrupted()))
    set_seed(recipe.seed, device_specific=True)
    order = EpochSampler(data.train["diagnosis"].to_numpy(copy=True), sampling=recipe.sampling, seed=recipe.seed)
    pin = accelerator.device.type == "cuda"
    batches, val_batches = loaders(recipe, data, order=order, workers=workers, pin=pin)
    updates = math.ceil(len(batches) / recipe.accumulate)
    run = start(recipe, data=data, accelerator=accelerator, updates_per_epoch=updates, pretrained=not go_on)
    if go_on:
        resume(paths.last, run)
        if not paths.best.is_file():  # it is needed at the end: better told now
            raise UsageError(f"{paths.best}: it is not there; --resume needs it beside {paths.last.name}")
        models.load_tensors(paths.best)
    elif distributed.is_main:
        paths.keep_previous()

    print(*_opening(run, batches), sep="\n")
    while run.epoch < recipe.epochs and not _impatient(run.history, recipe):
        order.epoch = run.epoch
        predictions, thresholds = _epoch(run, batches, val_batches)
        random = random_states(run)
        if distributed.is_main:
            _save(run, paths, predictions=predictions, thresholds=thresholds, random=random)
        tqdm.write(_line(run.history[-1], epochs=recipe.epochs))

    chosen = outcome.finish(run, paths, workers=workers)
    finished = {"name": paths.name, "finished": time.strftime("%Y-%m-%d %H:%M:%S")}
    row = finished | recorded | runs_csv.summary(run, best=chosen)
    if distributed.is_main:
        runs_csv.append_run(paths.folder / "runs.csv", row)
        run_page.write(paths, chosen, data=data, row=row, epochs=run.epoch, device=accelerator.device)
    return row
