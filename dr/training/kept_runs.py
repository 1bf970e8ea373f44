"""The runs of runs.csv whose checkpoints are still there, and those that are folds of one dataset and recipe."""

from pathlib import Path

import pandas as pd

from dr import UsageError
from dr.grading import registry
from dr.inference.checkpoint import Checkpoint
from dr.inference.ensemble import comparable
from dr.training.run_files import RunFiles
from dr.training.sweep.table import metric_value


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of runs.csv, as text. Raises UsageError where it is missing or no table of train.py."""
    if not path.is_file():
        raise UsageError(f"{path}: not found; train first, or pass the folder with --save")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError:  # empty, or not a table
        table = pd.DataFrame()
    for column in ("name", registry.SELECTION, "data_fingerprint"):
        if column not in table:
            raise UsageError(f"{path}: no column {column}, so not a table of train.py; move it")
    return table.to_dict("records")


def checkpoint_of(folder: Path, row: dict[str, str]) -> Checkpoint:
    """The checkpoint of the run in this row, with its predictions. Raises UsageError where they are not kept."""
    path = RunFiles(folder, row["name"]).best
    if not path.is_file():
        raise UsageError("its checkpoint was deleted or renamed")
    kept = Checkpoint.load(path, network=False)
    value = kept.metrics.get("val", {}).get(registry.SELECTION)
    same = (kept.data.fingerprint, value) == (row["data_fingerprint"], metric_value(row, registry.SELECTION))
    if kept.validation is None or not same:
        raise UsageError("the checkpoint with its name belongs to another run")
    return kept


def fold_set(checkpoint: Checkpoint) -> tuple | None:
    """What folds of one dataset and recipe share, to compare; None for a run without a tested fold."""
    fold = checkpoint.data.fold
    if fold is None or "test" not in checkpoint.predictions:
        return None
    return fold.of, fold.fingerprint, checkpoint.classes, comparable(checkpoint.recipe)
