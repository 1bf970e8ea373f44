"""The pictures NAME__*.png that a run leaves when it has come to its end."""

import numpy as np
import pandas as pd

from dr.grading import metrics
from dr.inference.forward import TTA_VIEWS
from dr.pages import plots as report
from dr.pages.style import MOST_CLASSES
from dr.training import summary
from dr.training.run_files import RunFiles
from dr.training.state import Run


def draw(run: Run, fields: dict, crossed: np.ndarray, *, paths: RunFiles) -> None:
    """fields: of the best checkpoint; crossed: probabilities (R, N, K) of validation by calibrations of its other
    half. Confusion matrices and, where there are cuts, scores up to MOST_CLASSES."""
    views, best = len(TTA_VIEWS[run.recipe.tta]), fields["metrics"]["epoch"]
    report.learning_curves(pd.DataFrame(run.history), best=best, path=paths.picture("curves"), views=views)
    names, sides = run.data.classes, summary.sides(fields)
    for side in sides if len(names) <= MOST_CLASSES else ():
        matrix = metrics.confusion(side.truth, side.grades, len(names))
        path = paths.picture("confusion" if side.name == "val" else f"{side.name}_confusion")
        fitted = ", cuts fitted to them" if side.fitted else ""
        title = f"{paths.name}: {side.word}, {len(side.truth):,} photographs{fitted}"
        report.confusion_matrices(matrix, path=path, classes=names, title=title)
    validation = sides[0]
    if fields["thresholds"] is not None and len(names) <= MOST_CLASSES:
        scores, thresholds = run.objective.scores(validation.predictions), np.array(fields["thresholds"])
        report.score_histograms(scores, validation.truth, thresholds, path=paths.picture("scores"), classes=names)
    report.reliability(crossed, validation.truth, path=paths.picture("reliability"), classes=names)
