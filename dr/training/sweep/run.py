"""Trains the trials of a sweep one after the other -> NAME/sweep.csv and NAME/sweep.md with one row per run."""

import csv
import dataclasses
import hashlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from dr import UsageError
from dr.core import distributed
from dr.grading import baseline
from dr.recipes.schema import Recipe
from dr.training.options import RunOptions
from dr.training.run_files import RunFiles
from dr.training.sweep.plan import FOLD, Trial
from dr.training.sweep.table import markdown, metric_columns

# column: a hash of recipe, data and initial weights; a trial is finished if the table has a row with its hash
FINGERPRINT = "fingerprint"
NETWORK = (  # options that decide the network
    *("backbone", "pretrained", "head", "dropout", "activation", "stem", "pooling", "stochastic_depth", "shakedrop"),
    *("image_size", "crop_size", "grad_checkpointing"),
)


def _measured() -> list[str]:
    """The columns of a run's row of runs.csv that its row of the sweep repeats."""
    metrics = [f"{key}{end}" for key in metric_columns() for end in ("", "_low", "_high", "_class")]
    return ["best_epoch", *metrics, *baseline.MAJORITY.values(), "minutes"]


def _columns() -> list[str]:
    """The columns of NAME/sweep.csv that follow the swept options."""
    return [*_measured(), "error", "name", FINGERPRINT]


def _fingerprint(recipe: Recipe, data_fingerprint: str) -> str:
    from dr.core import files

    weights = [files.sha256(recipe.pretrained)] if Path(recipe.pretrained).is_file() else []
    text = json.dumps([recipe.to_dict(), data_fingerprint, *weights], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier NAME/sweep.csv, none without one. Raises UsageError."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, restval=""))
    if not all({"error", "name", FINGERPRINT} <= row.keys() for row in rows):
        raise UsageError(f"{path}: not the table of a sweep; move it, or use another --name")
    return rows


def _write(paths: RunFiles, rows: list[dict[str, str]], others: list[dict[str, str]], text: str) -> None:
    import pandas as pd

    from dr.core import files

    present = dict.fromkeys(key for row in [*rows, *others] for key in row)
    last = _columns()
    columns = [key for key in present if key not in last] + [key for key in last if key in present]
    paths.run_folder.mkdir(exist_ok=True)
    files.write_csv(paths.sweep_csv, pd.DataFrame([*rows, *others], columns=columns))
    files.write_bytes(paths.sweep_md, text.encode())


def _check_machine(trials: list[Trial], device_name: str) -> None:
    """Raises UsageError for a missing device, backbone or file of weights, before hours of training."""
    from dr.core import device
    from dr.networks.build import build, check
    from dr.networks.surgery import checkpoint_gradients

    for precision in {trial.recipe.precision for trial in trials}:
        device.accelerator(device_name, precision=precision)
    networks = {tuple(getattr(trial.recipe, key) for key in NETWORK): trial.recipe for trial in trials}
    for recipe in networks.values() if distributed.is_main else ():
        network = build(recipe, num_outputs=1)
        check(network, recipe, num_outputs=1)
        if recipe.grad_checkpointing:
            checkpoint_gradients(network.backbone, recipe.backbone)


def _can_resume(paths: RunFiles, recipe: Recipe, data_fingerprint: str) -> bool:
    """Whether a run with the same recipe and data was stopped and left its checkpoints."""
    from dr.inference.checkpoint import Checkpoint
    from dr.training.resume import mismatch

    if not paths.can_be_resumed():
        return False
    weights = Path(recipe.pretrained)
    if weights.is_file() and weights.stat().st_mtime > paths.last.stat().st_mtime:  # it started from others
        return False
    try:
        saved = Checkpoint.load(paths.last, network=False)
    except UsageError:  # damaged: kept as NAME__previous_N, and the run starts again
        return False
    return mismatch(saved, recipe=recipe, fingerprint=data_fingerprint) is None


def _data_of(trials: list[Trial], data: Any) -> dict[str, Any]:
    """-> the data of each trial by its name: a fold of `data` where folds are swept. Raises UsageError."""
    from dr.datasets.folds import fold

    if any(trial.fold for trial in trials) and data.fold is not None:
        raise UsageError("--sweep fold: --fold already holds out a fold; leave out --fold")
    return {trial.name: data if trial.fold is None else fold(data, *trial.fold) for trial in trials}


def _train_trial(trial: Trial, *, data: Any, options: RunOptions) -> dict[str, str]:
    """Trains -> the row of the run: its metrics, or the error that ended it."""
    import torch

    from dr.training import loop, runs_csv

    resume = _can_resume(RunFiles(options.folder, trial.name), trial.recipe, data.fingerprint)
    identity = {"name": trial.name, FINGERPRINT: _fingerprint(trial.recipe, data.fingerprint)}
    options = dataclasses.replace(options, name=trial.name, resume=resume, recorded=trial.recorded)
    try:
        row = loop.train(trial.recipe, data=data, options=options)
    except Exception as exc:  # of any kind: other combinations may succeed
        error = " ".join(str(exc).split())
        if distributed.world_size > 1:
            raise  # one process may have failed alone, and the others wait for it: the sweep ends
        if not isinstance(exc, (UsageError, torch.OutOfMemoryError)):
            traceback.print_exc()
            error = f"{type(exc).__name__}: {error}"
        print(f"failed: {error}")
        return trial.swept | {"error": error} | identity
    print(*runs_csv.summary_lines(row), sep="\n")
    measured = {key: str(row[key]) for key in _measured() if row.get(key) is not None}
    return trial.swept | measured | {"error": ""} | identity


def _finished(trials: list[Trial], earlier: list[dict[str, str]], data_of: dict[str, Any]) -> dict[str, dict[str, str]]:
    """-> the rows of trials that an earlier sweep has finished, by the trial's name."""
    known = {row[FINGERPRINT]: row for row in earlier if not row["error"]}
    columns, rows = _columns(), {}
    for trial in trials:
        if row := known.get(_fingerprint(trial.recipe, data_of[trial.name].fingerprint)):
            rows[trial.name] = trial.swept | {key: row[key] for key in columns if key in row}
    return rows


def train_all(trials: list[Trial], *, data: Any, options: RunOptions, command: str) -> list[dict[str, str]]:
    """Trains every trial without a finished row in the table, and writes the table, headed by the `command`, after each
    -> its rows as text, in the order of the trials.

    A failed run becomes a row with its `error` and is repeated by the next sweep; a stopped run continues after its
    last finished epoch. Raises UsageError for what every run needs and is missing.
    """
    from dr.core import files

    paths = RunFiles(options.folder, options.name)
    paths.check_folder()
    earlier = _read(paths.sweep_csv)
    data_of = _data_of(trials, data)
    rows = _finished(trials, earlier, data_of)
    names = {trial.name for trial in trials} | {row["name"] for row in rows.values()}
    others = [row for row in earlier if row["name"] not in names]  # a later sweep may need them
    _check_machine([trial for trial in trials if trial.name not in rows], options.device)
    if distributed.is_main:
        files.writable_folder(options.folder)

    for number, trial in enumerate(trials, start=1):
        known = trial.name in rows
        print(f"run {number} of {len(trials)}: {trial.name}{', already finished' if known else ''}", flush=True)
        if not known:
            rows[trial.name] = _train_trial(trial, data=data_of[trial.name], options=options)
        done = [rows[trial.name] for trial in trials if trial.name in rows]
        if distributed.is_main:
            _write(paths, done, others, markdown(trials, done, name=options.name, command=command))
    if distributed.is_main:
        _keep_out_of_fold(paths, trials, done)
    return done


def _keep_out_of_fold(paths: RunFiles, trials: list[Trial], rows: list[dict[str, str]]) -> None:
    """Writes NAME/oof.csv of a sweep over nothing but folds and seeds: that of its finished runs, which is the same for
    all of them."""
    from dr.core import files

    tables = [RunFiles(paths.folder, row["name"]).oof for row in rows if not row["error"]]
    existing = [table for table in tables if table.is_file()]
    if {FOLD} <= trials[0].swept.keys() <= {FOLD, "seed"} and existing:
        files.write_bytes(paths.oof, existing[-1].read_bytes())


def report_failures(rows: list[dict[str, str]]) -> int:
    """Prints each failed run to stderr -> the exit code of the sweep."""
    failed = [row for row in rows if row["error"]]
    for row in failed:
        print(f"not trained: {row['name']}: {row['error']}", file=sys.stderr)
    return 1 if failed else 0
