"""runs.csv, a row for each finished run, and such a row as lines of text."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dr.core import distributed, files
from dr.grading import baseline, registry
from dr.inference.checkpoint import Checkpoint
from dr.inference.forward import TTA_VIEWS
from dr.training import summary as page_summary
from dr.training.run_files import RunFiles, runs_csv_path
from dr.training.state import Run

MISSED = "missed_classes"  # column: the classes that none of their images was graded as


def _columns(best: Checkpoint, split: str, *, prefix: str = "") -> dict[str, float | str]:
    """The metrics of a split as columns NAME, NAME_low and NAME_high, NAME_class instead of the index of a class."""
    values = best.metrics.get(split, {})
    of_class = {metric.class_index: metric.class_column(split) for metric in registry.for_split(split)}
    columns: dict[str, float | str] = {
        f"{prefix}{name}": value for name, value in values.items() if name not in of_class
    }
    for name, (low, high) in best.intervals.get(split, {}).items():
        columns |= {f"{prefix}{name}_low": low, f"{prefix}{name}_high": high}
    columns |= {of_class[name]: best.classes[int(value)] for name, value in values.items() if name in of_class}
    missed = page_summary.missed_classes(best).get(split)
    return columns | ({f"{prefix}{MISSED}": page_summary.missed_text(missed)} if missed else {})


def summary(run: Run, *, best: Checkpoint) -> dict:
    """The columns of runs.csv on the best epoch, its metrics and what computed them."""
    device, fold = run.accelerator.device, best.data.fold
    return {
        "backbone": run.recipe.backbone,
        "classes": len(run.data.classes),
        "selected_by": best.selected_by or "",
        "best_epoch": best.epoch,
        "tta_views": len(TTA_VIEWS[run.recipe.tta]),
        "fold": "" if fold is None else f"{fold.number}/{fold.of}",
        **_columns(best, "val"),
        **_columns(best, "test", prefix="test_"),
        "minutes": round(run.seconds / 60, 2),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": distributed.world_size,
        "precision": run.accelerator.mixed_precision,
        **{f"version_{name}": version for name, version in best.versions.items()},
        "data_fingerprint": run.data.fingerprint,
    }


def _read(path: Path) -> pd.DataFrame:
    """runs.csv, all columns as text; without rows where it is missing or empty."""
    if path.is_file() and path.stat().st_size:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    return pd.DataFrame({"name": []}, dtype=str)


def append_run(path: Path, row: dict) -> None:
    """Adds the row to runs.csv. It replaces the row with its name: that of the same run before it was resumed, or of
    one whose files were removed."""
    now = pd.DataFrame([{key: "" if value is None else str(value) for key, value in row.items()}])
    with files.lock_file(path, wait=True):  # runs with one folder may finish together
        before = _read(path)
        others = before[before["name"] != row["name"]] if "name" in before else before
        files.write_csv(path, pd.concat([others, now], ignore_index=True).fillna(""))


def keep_previous(paths: RunFiles) -> None:
    """Renames the files of an earlier run with this name (`RunFiles.keep_previous`), and its row of runs.csv alike."""
    previous, path = paths.keep_previous(), runs_csv_path(paths.folder)
    if previous is None:
        return
    with files.lock_file(path, wait=True):
        table = _read(path)
        if paths.name in table.get("name", pd.Series(dtype=str)).tolist():
            files.write_csv(path, table.assign(name=table["name"].replace(paths.name, previous)))


def _text(row: dict, metric: registry.Metric, split: str) -> str:
    column = metric.column(split)
    text = registry.interval_text(*(row[f"{column}{end}"] for end in ("", "_low", "_high")))
    return f"{metric.short} {text} {row.get(metric.class_column(split), '')}".rstrip()


def summary_lines(row: dict) -> list[str]:
    """A row of runs.csv -> lines: the best epoch, the test or a note that none was evaluated, the classes that are
    never found, and whether the accuracy exceeds the majority-class baseline."""

    def metrics(split: str) -> str:
        shown = [m for m in registry.headline(split) if not np.isnan(row.get(m.column(split), np.nan))]
        return ", ".join(_text(row, metric, split) for metric in shown)

    tta = f" with {row['tta_views']} TTA views" if row["tta_views"] > 1 else ""
    lines = [f"best epoch {row['best_epoch']}{tta}: {metrics('val')}, trained in {row['minutes']:.1f} minutes"]
    if "test_loss" in row:
        lines.append(f"test: {metrics('test')}, loss {row['test_loss']:.3f}")
    elif row["selected_by"]:
        lines.append(
            "note: this epoch was selected on the validation set, so its metrics are optimistic; use a test set or "
            "--fold 1/5 for an unbiased estimate"
        )
    return lines + [f"note: {line}" for split in registry.EVALUATED_SPLITS for line in _notes(row, split)]


def _notes(row: dict, split: str) -> list[str]:
    prefix = registry.COLUMN_PREFIXES[split]
    accuracy, majority, missed = (row.get(f"{prefix}{name}") for name in ("accuracy", "majority", MISSED))
    lines = [page_summary.missed_line(split, missed)] if missed else []
    if baseline.below_majority(accuracy, majority):
        kappa = registry.unbiased("kappa", split)
        skilled_by = kappa.label if row[f"{kappa.column(split)}_low"] > 0 else None
        lines.append(baseline.note(split, accuracy, majority, skilled_by=skilled_by))
    return lines
