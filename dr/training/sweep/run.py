"""Trials, trained one after the other -> NAME__sweep.csv and .md with a row for each run."""

import csv
import hashlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from dr import UsageError
from dr.core import distributed
from dr.recipes.schema import Recipe
from dr.training.run_files import RunFiles
from dr.training.sweep.plan import Trial
from dr.training.sweep.table import FIGURES, MAJORITY, markdown

# a hash of both and of the weights to start from: a run is finished where the table has a row with its own
MADE_FROM = "recipe_and_data"
MEASURED = (
    "best_epoch",
    *(f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")),
    *MAJORITY.values(),
    "minutes",
)
COLUMNS = (*MEASURED, "error", "name", MADE_FROM)  # those of NAME__sweep.csv behind the swept choices
NETWORK = (
    *("backbone", "pretrained", "head", "dropout", "activation", "stem", "pooling", "stochastic_depth", "shakedrop"),
    *("image_size", "crop_size", "grad_checkpointing"),
)


def _made_from(recipe: Recipe, fingerprint: str) -> str:
    from dr.core import files

    start = [files.sha256(recipe.pretrained)] if Path(recipe.pretrained).is_file() else []
    text = json.dumps([recipe.to_dict(), fingerprint, *start], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier NAME__sweep.csv, none where there is no such file. Raises UsageError."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, restval=""))
    if not all({"error", "name", MADE_FROM} <= row.keys() for row in rows):
        raise UsageError(f"{path}: it is not the table of a sweep; move it, or give another --name")
    return rows


def _write(prefix: str, rows: list[dict[str, str]], others: list[dict[str, str]], text: str) -> None:
    import pandas as pd

    from dr.core import files

    present = dict.fromkeys(key for row in [*rows, *others] for key in row)
    columns = [key for key in present if key not in COLUMNS] + [key for key in COLUMNS if key in present]
    files.write_csv(f"{prefix}.csv", pd.DataFrame([*rows, *others], columns=columns))
    files.write_bytes(f"{prefix}.md", text.encode())


def _check_machine(trials: list[Trial], device_name: str) -> None:
    """Raises UsageError for a device, a backbone or weights that are not there: better told now than hours later."""
    from dr.core import device
    from dr.networks import build as models
    from dr.networks import surgery

    for precision in {trial.recipe.precision for trial in trials}:
        device.accelerator(device_name, precision=precision)
    networks = {tuple(getattr(trial.recipe, key) for key in NETWORK): trial.recipe for trial in trials}
    for recipe in networks.values() if distributed.is_main else ():
        model = models.build(recipe, num_outputs=1)
        models.check(model, recipe, num_outputs=1)
        if recipe.grad_checkpointing:
            surgery.checkpoint_gradients(model.backbone, recipe.backbone)


def _can_go_on(paths: RunFiles, recipe: Recipe, fingerprint: str) -> bool:
    """Whether a run of the same recipe and data was stopped and left its checkpoints."""
    from dr.networks import build as models
    from dr.training.state import mismatch

    if not paths.can_be_resumed():
        return False
    start = Path(recipe.pretrained)
    if start.is_file() and start.stat().st_mtime > paths.last.stat().st_mtime:  # it started from other weights
        return False
    try:
        saved = models.load_tensors(paths.last)
    except UsageError:  # damaged: it is kept as `previous`, and the run starts anew
        return False
    return mismatch(saved, recipe=recipe, fingerprint=fingerprint) is None


def _trained(trial: Trial, *, data: Any, folder: str, **options) -> dict[str, str]:
    """Trains -> what the table says of the run: its figures, or the error that ended it."""
    import torch

    from dr.training import loop as training
    from dr.training import runs_csv

    go_on = _can_go_on(RunFiles(Path(folder), trial.name), trial.recipe, data.fingerprint)
    named = {"name": trial.name, MADE_FROM: _made_from(trial.recipe, data.fingerprint)}
    options |= {"go_on": go_on, "recorded": trial.recorded}
    try:
        row = training.train(trial.recipe, data=data, folder=folder, name=trial.name, **options)
    except Exception as exc:  # whatever it is, other combinations may well be trained
        error = " ".join(str(exc).split())
        if distributed.world_size > 1:
            raise  # one may have failed alone, and the others wait for it: that ends the sweep
        if not isinstance(exc, (UsageError, torch.OutOfMemoryError)):
            traceback.print_exc()
            error = f"{type(exc).__name__}: {error}"
        print(f"failed: {error}")
        return trial.chosen | {"error": error} | named
    print(*runs_csv.summary_lines(row), sep="\n")
    measured = {key: str(row[key]) for key in MEASURED if row.get(key) is not None}
    return trial.chosen | measured | {"error": ""} | named


def _finished(trials: list[Trial], before: list[dict[str, str]], fingerprint: str) -> dict[str, dict[str, str]]:
    """-> the rows of trials that an earlier sweep has finished, by the trial's name."""
    known = {row[MADE_FROM]: row for row in before if not row["error"]}
    rows = {}
    for trial in trials:
        if row := known.get(_made_from(trial.recipe, fingerprint)):
            rows[trial.name] = trial.chosen | {key: row[key] for key in COLUMNS if key in row}
    return rows


def train_all(
    trials: list[Trial], *, data: Any, folder: str, name: str, command: str, device_name: str = "auto", workers: int = 2
) -> list[dict[str, str]]:
    """Trains every trial that the table has no finished row of, and writes the table after each, below the `command`
    -> its rows, as text, in the order of the trials. A run that fails is a row with its `error`, to be tried again the
    next time; one that was stopped goes on after its last whole epoch. Raises UsageError for what no run could do
    without."""
    from dr.core import files

    prefix = str(Path(folder) / f"{name}__sweep")
    before = _read(Path(f"{prefix}.csv"))
    rows = _finished(trials, before, data.fingerprint)
    names = {trial.name for trial in trials} | {row["name"] for row in rows.values()}
    others = [row for row in before if row["name"] not in names]  # of an earlier sweep: they may be asked for again
    _check_machine([trial for trial in trials if trial.name not in rows], device_name)
    if distributed.is_main:
        files.writable_folder(folder)

    for number, trial in enumerate(trials, start=1):
        known = trial.name in rows
        print(f"run {number} of {len(trials)}: {trial.name}{', finished before' if known else ''}")
        if not known:
            rows[trial.name] = _trained(trial, data=data, folder=folder, device_name=device_name, workers=workers)
        done = [rows[trial.name] for trial in trials if trial.name in rows]
        if distributed.is_main:
            _write(prefix, done, others, markdown(trials, done, name=name, command=command))
    return done


def report_failures(rows: list[dict[str, str]]) -> int:
    """Names each run that failed on stderr -> the exit code of the sweep."""
    failed = [row for row in rows if row["error"]]
    for row in failed:
        print(f"not trained: {row['name']}: {row['error']}", file=sys.stderr)
    return 1 if failed else 0
