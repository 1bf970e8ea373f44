"""Mean predictions of several networks -> grades, probabilities, doubt: the columns of details.csv."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dr.grading.objective import Objective
from dr.imaging import novelty

IDENTITY = ("patient", "eye")  # of DICOM images, where their headers state them
MEASURES = ("brightness", "sharpness", "cut_off")


@dataclass(frozen=True)
class Decision:
    """Mean predictions (M, P), grades (M,), probabilities (M, K) or None, and whether these are calibrated; thresholds
    (K-1,) of each network and the sentence that names their source. Without thresholds these are None, and a grade is
    the argmax of `decision_values` (M, K)."""

    predictions: np.ndarray
    grades: np.ndarray
    probabilities: np.ndarray | None
    calibrated: bool
    thresholds: Sequence[np.ndarray | None]
    thresholds_source: str | None
    decision_values: np.ndarray | None

    @property
    def mean_thresholds(self) -> np.ndarray | None:
        """(K-1,), the mean over the networks; None without thresholds."""
        return None if self.thresholds[0] is None else np.mean(self.thresholds, axis=0)


def probability_columns(count: int) -> list[str]:
    """K classes -> probability_0, ..., probability_(K-1)."""
    return [f"probability_{k}" for k in range(count)]


def details_table(
    records: Mapping[int, dict],
    index: np.ndarray,
    decision: Decision,
    *,
    objective: Objective,
    classes: Sequence[str],
) -> pd.DataFrame:
    """Records of all images by index, `index` (M,) of the graded ones, their decision -> the columns of details.csv, a
    row for each record, in the order of their index."""
    scores = objective.scores(decision.predictions)
    doubt = objective.doubt(
        scores, decision.grades, thresholds=decision.mean_thresholds, decision_values=decision.decision_values
    )
    columns = {"score": scores.round(4), "grade": decision.grades, "doubt": doubt.round(4)}
    graded = pd.DataFrame(columns, index=index)
    probabilities = []
    if decision.probabilities is not None:
        probabilities = probability_columns(objective.num_classes)
        values = pd.DataFrame(decision.probabilities.round(4), index=index, columns=probabilities)
        graded = pd.concat([graded, values], axis=1)
    graded["class"] = [classes[grade] for grade in decision.grades]
    details = pd.DataFrame.from_dict(dict(records), orient="index").sort_index()
    details = details.join(graded.astype({"grade": "Int64"}))
    distance = [novelty.DISTANCE] if novelty.DISTANCE in details else []
    identity = ["file", *(name for name in IDENTITY if name in details)]
    order = [*identity, "score", "grade", "class", *probabilities, "doubt", *MEASURES, *distance, "flags", "error"]
    return details.reindex(columns=order)
