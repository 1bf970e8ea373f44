"""Stage 2: prepared folder + recipe -> NAME__best.pt, NAME__last.pt, NAME__history.csv, pictures, a row in runs.csv."""

import math
import time
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm

from dr import GRADES, UsageError, checkpoint, device, evaluation, files, metrics, models, report, thresholds
from dr.dataset import EpochSampler, Prepared, TrainingPhotographs, ValidationPhotographs, loader
from dr.inference import Scorer, infer
from dr.recipes import Recipe
from dr.run import Run, content, resume, save_last, start

CHOSEN_BY = "macro_f1_cross_fitted"
ENDINGS = ("best.pt", "last.pt", "history.csv", "curves.png", "confusion.png", "scores.png")


def _loaders(recipe: Recipe, data: Prepared, *, workers: int, pin: bool) -> tuple[DataLoader, DataLoader]:
    """-> batches of training, whose sampler has an `epoch` to set, and of validation."""
    training = TrainingPhotographs(data, augmentation=recipe.augmentation, size_px=recipe.image_size, seed=recipe.seed)
    batches = loader(
        training,
        batch_size=recipe.batch_size,
        workers=workers,
        pin=pin,
        sampler=EpochSampler(training.grades, sampling=recipe.sampling, seed=recipe.seed),
        drop_last=len(training) > recipe.batch_size,  # a rest of one or two photographs would spoil batch statistics
    )
    validation = ValidationPhotographs(data, size_px=recipe.image_size)
    return batches, loader(validation, batch_size=2 * recipe.batch_size, workers=workers, pin=pin)


# --- one epoch ----------------------------------------------------------------------------------


def _finite(loss: float, batch: dict, paths: list[Path]) -> float:
    if not math.isfinite(loss):
        names = ", ".join(paths[i].name for i in batch["index"].tolist())
        raise UsageError(f"the loss is not finite at the batch {names}; lower lr, or look at these photographs")
    return loss


def _train_epoch(run: Run, batches: DataLoader) -> float:
    """One pass -> mean loss over its photographs. Raises UsageError at a loss that is not finite."""
    batches.sampler.epoch = run.epoch
    run.model.train()
    total, count = 0.0, 0
    for batch in tqdm(batches, desc=f"epoch {run.epoch + 1}", unit=" batches", leave=False):
        if run.scheduler is not None:
            run.scheduler.step_update(run.updates)
        outputs = run.model(batch["image"].to(run.accelerator.device, non_blocking=True))
        losses = run.objective.loss(outputs.float(), batch["grade"].to(run.accelerator.device))
        total, count = total + _finite(losses.sum().item(), batch, batches.dataset.paths), count + len(losses)
        run.accelerator.backward(losses.mean())
        if run.recipe.clip_norm is not None:
            run.accelerator.clip_grad_norm_(run.model.parameters(), run.recipe.clip_norm)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.updates += 1
        if run.ema:
            run.ema.update(run.bare_model, step=run.updates)
    return total / count


def _validate(run: Run, batches: DataLoader) -> tuple[np.ndarray, float]:
    """-> scores (N,) in the order of the label table, and their mean loss."""
    _, scores = infer([Scorer(run.evaluated, run.objective)], batches, accelerator=run.accelerator)
    if not np.isfinite(scores).all():
        raise UsageError("a validation score is not finite: training diverged; lower lr, or --set precision=fp32")
    losses = run.objective.loss(torch.from_numpy(scores)[:, None], torch.from_numpy(batches.dataset.grades))
    return scores, losses.mean().item()


def _epoch(run: Run, batches: DataLoader, val_batches: DataLoader) -> tuple[np.ndarray, np.ndarray]:
    """Trains and validates once, with a row in `run.history` -> scores (N,), optimal cuts (K-1,)."""
    started = time.time()
    train_loss = _train_epoch(run, batches)
    scores, val_loss = _validate(run, val_batches)
    figures, cuts = evaluation.evaluate(scores, val_batches.dataset.grades, seed=run.recipe.seed)
    run.epoch += 1
    lr = run.optimizer.param_groups[0]["lr"]
    losses = {"epoch": run.epoch, "train_loss": train_loss, "val_loss": val_loss, "lr": lr}
    run.history.append(losses | figures | {"seconds": time.time() - started})
    return scores, cuts


def _line(row: dict, *, epochs: int) -> str:
    recall = [format(row[f"recall_{grade}"], ".2f") for grade in range(len(GRADES))]
    return (
        f"epoch {row['epoch']}/{epochs}  loss {row['train_loss']:.3f} val {row['val_loss']:.3f}  "
        f"macro-F1 rounded {row['macro_f1_rounded']:.3f} optimal {row['macro_f1_optimal']:.3f} "
        f"cross-fitted {row['macro_f1_cross_fitted']:.3f}  kappa {row['kappa']:.3f}  accuracy {row['accuracy']:.3f}  "
        f"recall {' '.join(recall)}  {row['seconds']:.0f} s"
    )


# --- the stage ----------------------------------------------------------------------------------


def _keep_previous(folder: Path, name: str) -> None:
    """A new run under an old name does not destroy hours of work: the old files get `previous` and a number."""
    old = [folder / f"{name}__{ending}" for ending in ENDINGS if (folder / f"{name}__{ending}").exists()]
    number = next(n for n in count(1) if not any((folder / f"{name}__previous_{n}__{end}").exists() for end in ENDINGS))
    for path in old:
        path.replace(folder / f"{name}__previous_{number}__{path.name.removeprefix(f'{name}__')}")


def _save_best(path: Path, fields: dict, *, epoch: int, scores: np.ndarray, truth: np.ndarray, seed: int) -> None:
    """`fields` with the intervals of its metrics and the validation scores that they come from."""
    intervals = evaluation.intervals(scores, truth, np.array(fields["cuts"]), seed=seed)
    measured = {**fields["metrics"], "epoch": epoch, "intervals": intervals}
    validation = {"scores": torch.from_numpy(scores), "truth": torch.from_numpy(truth)}
    checkpoint.save(path, {**fields, "metrics": measured, "validation": validation})


def _pictures(prefix: str, run: Run, *, best: dict) -> None:
    scores, truth = (best["validation"][key].numpy() for key in ("scores", "truth"))
    cuts = np.array(best["cuts"])
    report.learning_curves(pd.DataFrame(run.history), path=Path(f"{prefix}__curves.png"))
    matrix = metrics.confusion(truth, thresholds.cut(scores, cuts))
    report.confusion_matrices(matrix, path=Path(f"{prefix}__confusion.png"))
    report.score_histograms(scores, truth, cuts, path=Path(f"{prefix}__scores.png"))


def _summary(run: Run, *, best: dict) -> dict:
    """The part of a row of runs.csv that says how good the best epoch is and what computed it."""
    measured = dict(best["metrics"])
    epoch, intervals = measured.pop("epoch"), measured.pop("intervals")
    for name, (low, high) in intervals.items():
        measured |= {f"{name}_low": low, f"{name}_high": high}
    used = run.accelerator.device
    return {
        "backbone": run.recipe.backbone,
        "best_epoch": epoch,
        **measured,
        "minutes": round(sum(row["seconds"] for row in run.history) / 60, 2),
        "device": torch.cuda.get_device_name(used) if used.type == "cuda" else used.type,
        "precision": run.accelerator.mixed_precision,
        **{f"version_{name}": version for name, version in best["versions"].items()},
        "data_fingerprint": run.data.fingerprint,
    }


def _append_run(path: Path, row: dict) -> None:
    now = pd.DataFrame([{key: "" if value is None else str(value) for key, value in row.items()}])
    before = [pd.read_csv(path, dtype=str, keep_default_na=False)] if path.is_file() else []
    files.write_csv(path, pd.concat([*before, now], ignore_index=True))


def train(
    recipe: Recipe,
    *,
    data: Prepared,
    folder: str,
    name: str,
    device_name: str = "auto",
    workers: int = 2,
    go_on: bool = False,
    recorded: dict[str, str] | None = None,
) -> dict:
    """Trains, keeps the epoch with the highest cross-fitted macro-F1 -> its row of runs.csv, with `recorded` added.

    With `go_on` the run continues from folder/NAME__last.pt. Raises UsageError. Not deterministic on a GPU: atomics in
    cuDNN's backward pass.
    """
    if Path(name).name != name:
        raise UsageError(f"--name {name}: it is the first part of file names and may hold no path")
    accelerator = device.accelerator(device_name, precision=recipe.precision)
    save_to = files.writable_folder(folder)
    set_seed(recipe.seed)
    batches, val_batches = _loaders(recipe, data, workers=workers, pin=accelerator.device.type == "cuda")
    run = start(recipe, data=data, accelerator=accelerator, updates_per_epoch=len(batches), pretrained=not go_on)
    prefix = f"{save_to / name}"
    last, best = Path(f"{prefix}__last.pt"), Path(f"{prefix}__best.pt")
    if go_on:
        resume(last, run)
        models.load_tensors(best)  # it is needed at the end: better told now
    else:
        _keep_previous(save_to, name)

    while run.epoch < recipe.epochs:
        highest = max((row[CHOSEN_BY] for row in run.history), default=-math.inf)
        scores, cuts = _epoch(run, batches, val_batches)
        row = run.history[-1]
        fields = content(run, cuts=cuts, metrics=row)
        if row[CHOSEN_BY] > highest:
            truth = val_batches.dataset.grades
            _save_best(best, fields, epoch=run.epoch, scores=scores, truth=truth, seed=recipe.seed)
        save_last(last, run, fields)
        files.write_csv(f"{prefix}__history.csv", pd.DataFrame(run.history))
        tqdm.write(_line(row, epochs=recipe.epochs))

    chosen = models.load_tensors(best)
    _pictures(prefix, run, best=chosen)
    finished = {"name": name, "finished": time.strftime("%Y-%m-%d %H:%M:%S")}
    row = finished | (recorded or {}) | _summary(run, best=chosen)
    _append_run(save_to / "runs.csv", row)
    return row
