"""runs.csv, a row for each finished run, and such a row as lines of text."""

from pathlib import Path

import pandas as pd
import torch

from dr import SPLIT_NAMES
from dr.core import distributed, files
from dr.grading import registry
from dr.inference.checkpoint import Checkpoint
from dr.inference.forward import TTA_VIEWS
from dr.training.state import Run


def _columns(best: Checkpoint, split: str, *, prefix: str = "") -> dict[str, float]:
    """The metrics of a split as columns NAME, NAME_low and NAME_high."""
    columns = {f"{prefix}{name}": value for name, value in best.metrics.get(split, {}).items()}
    for name, (low, high) in best.intervals.get(split, {}).items():
        columns |= {f"{prefix}{name}_low": low, f"{prefix}{name}_high": high}
    return columns


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
        "minutes": round(sum(row["seconds"] for row in run.history) / 60, 2),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": distributed.world_size,
        "precision": run.accelerator.mixed_precision,
        **{f"version_{name}": version for name, version in best.versions.items()},
        "data_fingerprint": run.data.fingerprint,
    }


def append_run(path: Path, row: dict) -> None:
    """Adds the row to runs.csv. It replaces a row that differs in `finished` alone: that of a finished run that was
    resumed."""
    now = pd.DataFrame([{key: "" if value is None else str(value) for key, value in row.items()}])
    with files.lock_file(path, wait=True):  # runs with one folder may finish together
        before = [pd.read_csv(path, dtype=str, keep_default_na=False)] if path.is_file() else []
        rows = pd.concat([*before, now], ignore_index=True).fillna("")
        same = rows.drop(columns="finished", errors="ignore").duplicated(keep="last")
        files.write_csv(path, rows[~same])


def _text(row: dict, column: str) -> str:
    return registry.interval_text(*(row[f"{column}{end}"] for end in ("", "_low", "_high")))


def summary_lines(row: dict) -> list[str]:
    """A row of runs.csv -> lines: the best epoch, the test or a note that none was evaluated, and whether the accuracy
    exceeds the majority-class baseline."""

    def metrics(split: str) -> str:
        return ", ".join(f"{m.short} {_text(row, m.column(split))}" for m in registry.headline(split))

    tta = f" with {row['tta_views']} TTA views" if row["tta_views"] > 1 else ""
    lines = [f"best epoch {row['best_epoch']}{tta}: {metrics('val')}, trained in {row['minutes']:.1f} minutes"]
    if "test_loss" in row:
        lines.append(f"test: {metrics('test')}, loss {row['test_loss']:.3f}")
    elif row["selected_by"]:
        lines.append(
            "note: this epoch was selected on the validation set, so its metrics are optimistic; use a test set or "
            "--fold 1/5 for an unbiased estimate"
        )
    return lines + [line for split in registry.EVALUATED_SPLITS for line in _below_majority(row, split)]


def _below_majority(row: dict, split: str) -> list[str]:
    accuracy, majority = (row.get(f"{registry.COLUMN_PREFIXES[split]}{name}") for name in ("accuracy", "majority"))
    if accuracy is None or accuracy > majority:
        return []
    kappa_low = row[f"{registry.unbiased('kappa', split).column(split)}_low"]
    skilled = ", but kappa is significantly above 0" if kappa_low > 0 else ""
    return [
        f"note: {SPLIT_NAMES[split]} accuracy {accuracy:.3f} does not exceed the majority-class baseline "
        f"{majority:.3f}{skilled}"
    ]
