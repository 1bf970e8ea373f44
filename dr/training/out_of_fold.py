"""NAME/oof.csv: the predictions for all images of cross-validation, each by the network that was not trained on it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dr import UsageError
from dr.core import files
from dr.datasets.folds import fingerprint
from dr.inference.checkpoint import Checkpoint
from dr.training.kept_runs import checkpoint_of, fold_set, read_rows
from dr.training.prediction_tables import COLUMNS
from dr.training.run_files import RunFiles, run_of, runs_csv_path


def out_of_fold(checkpoints: Sequence[str | Path]) -> pd.DataFrame:
    """The paths NAME__best.pt of different folds of one dataset and recipe -> their predictions_test.csv in one table,
    the folds in order. Raises UsageError for other checkpoints, and where a table is missing."""
    if isinstance(checkpoints, (str, Path)) or not len(checkpoints):
        raise UsageError("out_of_fold: pass a list of checkpoints, one of each fold")
    runs = {run_of(path): Checkpoint.load(path, network=False) for path in checkpoints}
    first, one = next(iter(runs.items()))
    for paths, checkpoint in runs.items():
        if fold_set(checkpoint) is None:
            raise UsageError(f"{paths.best}: trained without --fold; pass a checkpoint of each fold")
        if fold_set(checkpoint) != fold_set(one):
            raise UsageError(f"{paths.best} and {first.best}: not folds of one dataset and recipe; pass those that are")
    by_fold: dict[int, RunFiles] = {}
    for paths, checkpoint in runs.items():
        other = by_fold.setdefault(checkpoint.data.fold.number, paths)
        if other is not paths:
            raise UsageError(f"{paths.best} and {other.best}: the same fold; pass one of them")
    return pd.concat([_read(by_fold[number], runs[by_fold[number]]) for number in sorted(by_fold)], ignore_index=True)


def _read(paths: RunFiles, checkpoint: Checkpoint) -> pd.DataFrame:
    """predictions_test.csv of a run. Raises UsageError where it is missing or not that of the checkpoint."""
    path = paths.predictions("test")
    try:
        table = pd.read_csv(path, dtype={"id": str, "path": str, "fold": str}, keep_default_na=False)
    except FileNotFoundError as exc:
        raise UsageError(f"{path}: not found; train this fold again") from exc
    except ValueError as exc:
        raise UsageError(f"{path}: damaged; train this fold again") from exc
    if not {*COLUMNS} <= {*table} or table["truth"].tolist() != checkpoint.predictions["test"].truth.tolist():
        raise UsageError(f"{path}: not the predictions of {paths.best.name}; train this fold again")
    return table


def write(paths: RunFiles, best: Checkpoint) -> None:
    """Joins the finished run of a fold with those of the other folds in its folder, of several runs of one fold the
    last one, and writes the table as oof.csv of each of them. Without a fold it writes nothing."""
    wanted, fold = fold_set(best), best.data.fold
    if wanted is None:
        return
    fingerprints = {fingerprint(fold.fingerprint, number, fold.of): number for number in range(1, fold.of + 1)}
    path = runs_csv_path(paths.folder)
    with files.lock_file(path.with_name("oof.csv"), wait=True):  # folds may finish together
        tables: dict[int, tuple[RunFiles, pd.DataFrame]] = {}
        for row in sorted(read_rows(path), key=lambda row: row.get("finished", "")):
            number = fingerprints.get(row["data_fingerprint"])
            if number is None or row.get("backbone") != best.recipe.backbone:
                continue
            run = RunFiles(paths.folder, row["name"])
            try:
                checkpoint = checkpoint_of(paths.folder, row)
                if fold_set(checkpoint) == wanted:
                    tables[number] = run, _read(run, checkpoint)
            except UsageError:  # deleted, or of an earlier version: the table names the folds that it has
                continue
        joined = pd.concat([tables[number][1] for number in sorted(tables)], ignore_index=True)
        for run, _ in tables.values():
            files.write_csv(run.oof, joined)
