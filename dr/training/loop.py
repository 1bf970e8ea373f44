"""Stage 2: preprocessed folder + recipe -> NAME__best.pt, NAME__last.pt, the folder NAME/ and a row of runs.csv."""

import contextlib
import dataclasses
import math
import time

import numpy as np
import pandas as pd
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from dr import UsageError
from dr.core import device, distributed, files, processes
from dr.datasets.preprocessed import PreprocessedData, binary
from dr.datasets.torch_datasets import EpochSampler, channel_mean_std
from dr.grading import registry
from dr.inference.checkpoint import Checkpoint
from dr.inference.training_state import RandomState
from dr.recipes.schema import Recipe
from dr.sources import class_names
from dr.training import estimate, finish, out_of_fold, report, runs_csv
from dr.training.epoch import build_loaders, run_epoch, selection_value
from dr.training.options import RunOptions
from dr.training.resume import depends_on_epochs, resume
from dr.training.run_files import RunFiles, check_name, runs_csv_path
from dr.training.state import Run, checkpoint, pretraining_overlap, random_states, start, training_state
from dr.training.trackers import check_installed, tracking


def _epoch_line(row: dict, *, epochs: int) -> str:
    """A row of the history -> one line about the epoch."""
    recall = " ".join(f"{value:.2f}" for key, value in row.items() if key.startswith("recall_"))
    return (
        f"epoch {row['epoch']}/{epochs}  loss {row['train_loss']:.3f} val {row['val_loss']:.3f}  "
        f"{registry.epoch_text(row)}  {f'recall {recall}  ' if recall else ''}{row['seconds']:.0f} s"
    )


def _opening_lines(run: Run, batches: DataLoader) -> list[str]:
    """-> what is trained, and notes about what may not be intended."""
    recipe, data = run.recipe, run.data
    if not _is_unfinished(run):
        return [_finished_line(run)]
    precision = {"no": "fp32"}.get(run.accelerator.mixed_precision, run.accelerator.mixed_precision)
    each = f" in each of {distributed.world_size} processes" if distributed.world_size > 1 else ""
    lines = [
        f"{recipe.backbone} at {recipe.crop_size or recipe.image_size} pixels, {recipe.objective}; "
        f"{len(data.train):,} training and {len(data.val):,} validation images; epochs {run.epoch + 1} to "
        f"{recipe.epochs}, {len(batches)} batches of {recipe.batch_size}{each}; {run.accelerator.device}, {precision}"
    ]
    if recipe.objective in ("regression", "ordinal") and not class_names.ranked(data.classes):
        lines.append(
            f"note: {recipe.objective} treats the classes as ordered: {', '.join(data.classes)}; if they are not, use "
            "--set objective=classification"
        )
    if run.epoch == 0 and run.bare_model.initial_weights:
        lines.append(run.bare_model.initial_weights)
    return [*lines, *(f"note: {line}" for line in pretraining_overlap(run))]


def _out_of_patience(history: list[dict], recipe: Recipe) -> bool:
    """Whether the last `patience` epochs brought no improvement."""
    values = [selection_value(row, recipe.monitor) for row in history]
    return recipe.patience is not None and bool(values) and len(values) - 1 - int(np.argmax(values)) >= recipe.patience


def _is_unfinished(run: Run) -> bool:
    return run.epoch < run.recipe.epochs and not _out_of_patience(run.history, run.recipe)


def _finished_line(run: Run) -> str:
    recipe = run.recipe
    if run.epoch < recipe.epochs:
        return f"patience={recipe.patience} ended training after epoch {run.epoch}; --set patience=none continues it"
    more = "" if depends_on_epochs(recipe) else f" after {run.epoch}; --resume -e N trains up to epoch N"
    return f"{recipe.backbone}: no epoch left to train{more}"


def _save(
    run: Run, paths: RunFiles, *, predictions: np.ndarray, thresholds: np.ndarray | None, random: list[RandomState]
) -> None:
    """Writes the files of a finished epoch; NAME__best.pt only if no earlier epoch was as good."""
    *earlier, value = [selection_value(row, run.recipe.monitor) for row in run.history]
    saved = checkpoint(run, paths.last, thresholds=thresholds, predictions=predictions)
    if value > max(earlier, default=-math.inf) or run.epoch == 1:
        finish.save_best(paths, saved, data=run.data)
    saved = saved.replace(predictions={})
    if run.epoch in run.recipe.keep_epochs:
        saved.save(paths.epoch(run.epoch))
    files.write_csv(paths.history, pd.DataFrame(run.history))
    saved.replace(training_state=training_state(run, random)).save(paths.last)


def _fit_to_data(recipe: Recipe, data: PreprocessedData) -> tuple[Recipe, PreprocessedData]:
    """Applies what a recipe leaves to the data: grades merged into two classes, measured mean and deviation. Raises
    UsageError for an objective that treats UNGRADABLE as a grade."""
    if class_names.UNGRADABLE in data.classes and len(data.classes) > 2 and recipe.objective != "classification":
        raise UsageError(
            f"{data.root}: {recipe.objective} treats the classes as ranks, but {class_names.UNGRADABLE!r} is none; use "
            "--set objective=classification"
        )
    if recipe.objective == "binary":
        data = binary(data, positive_from=recipe.positive_from)
    if recipe.normalisation == "dataset":
        mean, std = distributed.broadcast(lambda: channel_mean_std(data, recipe))
        recipe = dataclasses.replace(recipe, mean=mean, std=std)
    return recipe, data


def _start_or_resume(run: Run, paths: RunFiles, *, resumed: bool) -> None:
    """Puts the run in the state of NAME__last.pt or, not `resumed`, renames an earlier run's files. Makes NAME/."""
    if resumed:
        resume(paths.last, run)
        if not paths.best.is_file():  # needed at the end of the run
            raise UsageError(f"{paths.best}: not found; --resume needs it beside {paths.last.name}")
        Checkpoint.load(paths.best)
        if distributed.is_main and _is_unfinished(run):
            paths.classes.unlink(missing_ok=True)  # the mark of a finished run, which now goes on
    elif distributed.is_main:
        runs_csv.keep_previous(paths)
    if distributed.is_main:
        paths.run_folder.mkdir(exist_ok=True)


def _train_epochs(
    run: Run, paths: RunFiles, *, sampler: EpochSampler, batches: DataLoader, val_batches: DataLoader, log: str | None
) -> None:
    """Trains until the last epoch or the end of the recipe's patience; saves, logs and prints after each epoch."""
    print(*_opening_lines(run, batches), sep="\n", flush=True)
    run.batch_done = estimate.first_batches(run, len(batches))
    hyperparameters = run.recipe.to_dict() | {"data_fingerprint": run.data.fingerprint}
    with tracking(log if distributed.is_main else None, paths=paths, hyperparameters=hyperparameters) as log_epoch:
        while _is_unfinished(run):
            sampler.epoch = run.epoch
            predictions, thresholds = run_epoch(run, batches, val_batches)
            random = random_states(run)
            if distributed.is_main:
                _save(run, paths, predictions=predictions, thresholds=thresholds, random=random)
            log_epoch(run.history[-1])
            print(_epoch_line(run.history[-1], epochs=run.recipe.epochs), flush=True)


def _check_writable(paths: RunFiles) -> None:
    files.writable_folder(paths.folder)
    paths.check_folder()


def train(recipe: Recipe, *, data: PreprocessedData, options: RunOptions) -> dict:
    """Trains, keeps the best epoch by the recipe's `monitor` and evaluates it once on the test split -> its row of
    runs.csv.

    A run that torchrun restarts continues from NAME__last.pt, as with `options.resume`. Of several processes only the
    main one writes files, to a folder that all of them share. Raises UsageError. Not deterministic on a GPU: atomics in
    cuDNN's backward pass.
    """
    check_name(options.name)
    check_installed(options.log)
    accelerator = device.accelerator(options.device, precision=recipe.precision)
    paths = RunFiles(options.folder, options.name)
    distributed.broadcast(lambda: _check_writable(paths))
    with files.lock_file(paths.last, wait=False) if distributed.is_main else contextlib.nullcontext():
        return _train(recipe, data=data, paths=paths, accelerator=accelerator, options=options)


def _train(
    recipe: Recipe, *, data: PreprocessedData, paths: RunFiles, accelerator: Accelerator, options: RunOptions
) -> dict:
    began = processes.work_started()
    recipe, data = _fit_to_data(recipe, data)
    resumed = distributed.broadcast(lambda: options.resume or (distributed.restart_count > 0 and paths.interrupted()))
    set_seed(recipe.seed, device_specific=True)
    sampler = EpochSampler(data.train["diagnosis"].to_numpy(copy=True), sampling=recipe.sampling, seed=recipe.seed)
    pin = accelerator.device.type == "cuda"
    batches, val_batches = build_loaders(recipe, data, sampler=sampler, workers=options.workers, pin=pin)
    updates = math.ceil(len(batches) / recipe.accumulate)
    run = start(recipe, data=data, accelerator=accelerator, updates_per_epoch=updates, pretrained=not resumed)
    run.recorded, run.began = options.recorded, began
    kept = resumed and paths.report.is_file()  # NAME__last.pt of a finished run
    _start_or_resume(run, paths, resumed=resumed)
    first = run.epoch
    _train_epochs(run, paths, sampler=sampler, batches=batches, val_batches=val_batches, log=options.log)

    best = finish.finish(run, paths, workers=options.workers)
    finished = {"name": paths.name, "finished": time.strftime("%Y-%m-%d %H:%M:%S")}
    row = finished | dict(options.recorded) | runs_csv.summary(run, best=best)
    if distributed.is_main:
        runs_csv.append_run(runs_csv_path(paths.folder), row)
        out_of_fold.write(paths, best)
        report.write(paths, best, data=data, row=row, epochs=run.epoch, device=accelerator.device)
        # at the very end: a run that is stopped before continues
        if not options.keep_last and not (kept and run.epoch == first):
            paths.last.unlink(missing_ok=True)
    return row
