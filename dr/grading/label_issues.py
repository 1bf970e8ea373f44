"""Labels that look wrong, by confident learning (Northcutt et al., J. Artif. Intell. Res. 2021;70:1373) from
predictions for images that the network was not trained on. The library is cleanlab, an extra."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pandas as pd

from dr import UsageError

LIBRARY = "cleanlab"
TRUTH, PROBABILITY = "truth", "probability_"  # columns
IDENTITY = ("id", "path", "fold")  # columns of predictions_val.csv that the issues repeat
REMEDY = f"pip install {LIBRARY}"


def installed() -> bool:
    """Whether cleanlab is installed, without importing it."""
    return importlib.util.find_spec(LIBRARY) is not None


def label_issues(predictions: pd.DataFrame | str | Path) -> pd.DataFrame:
    """A table with the columns `truth` (class 0..K-1) and `probability_0` to `probability_(K-1)`, or the path of its
    CSV (predictions_val.csv, predictions_test.csv or oof.csv of train.py) -> a row for each label that looks wrong, the
    most doubtful first.

    Columns: those of `id`, `path` and `fold` that the table has; `given`, the class of the label; `suggested`, the most
    probable class; `quality`, the probability of the given class, 0..1. The probabilities must come from a network that
    was not trained on these images. Raises UsageError without cleanlab, and for a table that lacks these columns.
    """
    if not installed():
        raise UsageError(f"label_issues: {LIBRARY} is not installed; {REMEDY}")
    place = "label_issues" if isinstance(predictions, pd.DataFrame) else str(predictions)
    table = (predictions if isinstance(predictions, pd.DataFrame) else _read(Path(predictions))).reset_index(drop=True)
    truth, probabilities = _arrays(table, place=place)
    rows, quality = _ranked(truth, probabilities)
    columns = {name: table[name].iloc[rows].to_numpy() for name in IDENTITY if name in table}
    suggested = probabilities[rows].argmax(axis=1)
    return pd.DataFrame(columns | {"given": truth[rows], "suggested": suggested, "quality": quality[rows].round(4)})


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"id": str, "path": str, "fold": str}, keep_default_na=False, na_values=[""])
    except FileNotFoundError as exc:
        raise UsageError(f"{path}: not found; pass predictions_val.csv, predictions_test.csv or oof.csv") from exc
    except (ValueError, OSError) as exc:  # empty, a folder, not text
        raise UsageError(f"{path}: not a CSV table; pass predictions_val.csv, predictions_test.csv or oof.csv") from exc


def _arrays(table: pd.DataFrame, *, place: str) -> tuple[np.ndarray, np.ndarray]:
    """-> truth (N,) int, probabilities (N, K) float64 of rows that sum to 1. Raises UsageError."""
    found = sorted(
        int(name.removeprefix(PROBABILITY)) for name in table if re.fullmatch(f"{PROBABILITY}[0-9]+", str(name))
    )
    if TRUTH not in table or len(found) < 2 or found != list(range(len(found))):
        raise UsageError(
            f"{place}: expected the columns {TRUTH} and {PROBABILITY}0, {PROBABILITY}1, ... of every class"
        )
    if table.empty:
        raise UsageError(f"{place}: the table has no rows")
    columns = [table[TRUTH], *(table[f"{PROBABILITY}{k}"] for k in found)]
    values = np.column_stack([pd.to_numeric(column, errors="coerce").to_numpy(np.float64) for column in columns])
    truth, probabilities = values[:, 0], values[:, 1:]
    if not np.isin(truth, found).all():
        raise UsageError(f"{place}: {TRUTH} must be a class from 0 to {found[-1]} in every row")
    sums = probabilities.sum(axis=1, keepdims=True)
    if not (probabilities >= 0).all() or not np.isclose(sums, 1, atol=0.01).all():  # NaN compares as false
        raise UsageError(
            f"{place}: {PROBABILITY}0 to {PROBABILITY}{found[-1]} must be 0 or more and sum to 1 in every row"
        )
    return truth.astype(np.int64), probabilities / sums


def _ranked(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """truth (N,), probabilities (N, K) -> rows (M,) of the issues, the lowest quality first, and quality (N,)."""
    from cleanlab import filter as confident_learning  # takes a second to import
    from cleanlab import rank

    quality = rank.get_label_quality_scores(truth, probabilities, method="self_confidence")
    if len(np.unique(truth)) < 2:  # there is no other class to confuse with
        return np.empty(0, np.int64), quality
    # as many as confident learning estimates, those of the lowest quality: pruning class by class skips rare classes
    found = confident_learning.find_label_issues(truth, probabilities, filter_by="low_self_confidence", n_jobs=1)
    rows = np.flatnonzero(found & (probabilities.argmax(axis=1) != truth))
    return rows[np.argsort(quality[rows], kind="stable")], quality
