"""NAME/predictions_val.csv and predictions_test.csv: a row for each image of a split, with truth, grade, score and
probabilities, where pseudo-labels, error lists and stacking start."""

from pathlib import Path

import numpy as np
import pandas as pd

from dr.core import files
from dr.datasets.preprocessed import PreprocessedData
from dr.inference.checkpoint import Checkpoint
from dr.inference.decision import probability_columns
from dr.inference.records import GradedSplit
from dr.training.run_files import RunFiles

COLUMNS = ("id", "path", "fold", "truth", "grade", "score")  # and a probability for each class


def table(best: Checkpoint, graded: GradedSplit, images: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """A split, its label table (N rows) and its probabilities (N, K) -> the predictions, with COLUMNS.

    `id` is the name of the image in its source, `path` the preprocessed file; `fold` is K/N where the images were held
    out as a fold, else missing; `truth` and `grade` are indices of `best.classes`.
    """
    paths = images["path"]
    stems = pd.Series([Path(path).stem for path in paths], index=images.index)
    named = images.get("original", stems)
    fold = best.data.fold if graded.name == "test" else None
    columns = {
        "id": named.where(named != "", stems).to_numpy(),
        "path": paths.to_numpy(),
        "fold": None if fold is None else f"{fold.number}/{fold.of}",
        "truth": graded.truth,
        "grade": graded.grades,
        "score": best.objective.scores(graded.predictions).round(6),
    }
    by_class = pd.DataFrame(probabilities.round(6), columns=probability_columns(len(best.classes)))
    return pd.concat([pd.DataFrame(columns), by_class], axis=1)


def write(paths: RunFiles, best: Checkpoint, *, data: PreprocessedData, crossed: np.ndarray) -> None:
    """Writes the predictions of validation and test. `crossed` (R, N, K): probabilities of validation by calibrations
    fitted to its other half; those of the test are by the calibration of the whole validation."""
    for graded in best.graded_splits():
        inputs = best.objective.calibration_input(graded.predictions)
        probabilities = crossed.mean(axis=0) if graded.name == "val" else best.calibration.probabilities(inputs)
        rows = table(best, graded, getattr(data, graded.name), probabilities)
        files.write_csv(paths.predictions(graded.name), rows)
