"""runs.csv, a row for each run that has come to its end, and what such a row says in words."""

from pathlib import Path

import pandas as pd
import torch

from dr.core import distributed, files
from dr.grading import metrics
from dr.inference.forward import TTA_VIEWS
from dr.training import summary as run_facts
from dr.training.state import Run


def _flat(figures: dict, *, prefix: str = "") -> dict:
    """Figures with their `intervals` -> one level: NAME, NAME_low, NAME_high."""
    flat = {f"{prefix}{name}": value for name, value in figures.items() if name not in ("intervals", "test", "epoch")}
    for name, (low, high) in figures["intervals"].items():
        flat |= {f"{prefix}{name}_low": low, f"{prefix}{name}_high": high}
    return flat


def summary(run: Run, *, best: dict) -> dict:
    """The part of a row of runs.csv that says how good the best epoch is and what computed it."""
    measured = best["metrics"]
    tested = _flat(measured["test"], prefix="test_") if "test" in measured else {}
    used = run.accelerator.device
    return {
        "backbone": run.recipe.backbone,
        "classes": len(run.data.classes),
        "selected_by": run_facts.selected_by(best) or "",
        "best_epoch": measured["epoch"],
        "views": len(TTA_VIEWS[run.recipe.tta]),
        "fold": "" if run.data.fold is None else f"{run.data.fold.number}/{run.data.fold.of}",
        **_flat(measured),
        **tested,
        "minutes": round(sum(row["seconds"] for row in run.history) / 60, 2),
        "device": torch.cuda.get_device_name(used) if used.type == "cuda" else used.type,
        "processes": distributed.world_size,
        "precision": run.accelerator.mixed_precision,
        **{f"version_{name}": version for name, version in best["versions"].items()},
        "data_fingerprint": run.data.fingerprint,
    }


def append_run(path: Path, row: dict) -> None:
    """Adds the row to runs.csv, in place of one that differs in nothing but when it was finished: a finished run that
    was resumed."""
    now = pd.DataFrame([{key: "" if value is None else str(value) for key, value in row.items()}])
    with files.lock_file(path, wait=True):  # runs of one folder may end together
        before = [pd.read_csv(path, dtype=str, keep_default_na=False)] if path.is_file() else []
        rows = pd.concat([*before, now], ignore_index=True).fillna("")
        same = rows.drop(columns="finished", errors="ignore").duplicated(keep="last")
        files.write_csv(path, rows[~same])


def summary_lines(row: dict) -> list[str]:
    """A row of runs.csv -> lines for a person: the best epoch, the test or that there is none, and whether it
    beats the most frequent class."""

    def figure(name: str) -> str:
        return f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"

    seen = f", seen in {row['views']} views" if row["views"] > 1 else ""
    lines = [
        f"best epoch {row['best_epoch']}{seen}: macro-F1 cross-fitted {figure('macro_f1_cross_fitted')}, "
        f"kappa {figure('kappa_cross_fitted')}, in {row['minutes']:.1f} minutes"
    ]
    if "test_accuracy" in row:
        lines.append(
            f"test: macro-F1 {figure('test_macro_f1')}, kappa {figure('test_kappa')}, "
            f"accuracy {figure('test_accuracy')}, AUC {figure('test_auc')}, loss {row['test_loss']:.3f}"
        )
    elif row["selected_by"]:
        lines.append(
            "note: the epoch was chosen on these photographs, so the figures flatter; those of a test, or --fold 1/5, "
            "do not"
        )
    for prefix, where in (("", "validation"), ("test_", "test")):
        if f"{prefix}accuracy" in row and row[f"{prefix}accuracy"] <= row[f"{prefix}majority"]:
            skilled = row[f"{prefix}{metrics.KAPPA[where]}_low"] > 0
            lines.append(
                f"note: its {where} accuracy of {row[f'{prefix}accuracy']:.3f} is no better than always answering with "
                f"the most frequent class ({row[f'{prefix}majority']:.3f})"
                f"{', though its kappa shows that it tells classes apart' if skilled else ''}"
            )
    return lines
