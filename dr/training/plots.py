"""The plots NAME/*.png of a finished run."""

import numpy as np
import pandas as pd

from dr import SPLIT_NAMES
from dr.grading import metrics
from dr.inference.checkpoint import Checkpoint
from dr.inference.forward import TTA_VIEWS
from dr.pages import plots, score_plots
from dr.pages.style import MOST_CLASSES
from dr.training.run_files import RunFiles
from dr.training.state import Run


def draw(run: Run, best: Checkpoint, crossed: np.ndarray, *, paths: RunFiles) -> None:
    """crossed: probabilities (R, N, K) of validation by calibrations fitted to its other half. Confusion matrices, and
    score histograms where there are thresholds, for at most MOST_CLASSES classes."""
    views, names = len(TTA_VIEWS[run.recipe.tta]), run.data.classes
    plots.learning_curves(pd.DataFrame(run.history), best=best.epoch, path=paths.plot("curves"), views=views)
    graded = best.graded_splits()
    for split in graded if len(names) <= MOST_CLASSES else ():
        matrix = metrics.confusion(split.truth, split.grades, len(names))
        path = paths.plot("confusion" if split.name == "val" else f"{split.name}_confusion")
        fitted = ", thresholds fitted to them" if split.fitted else ""
        title = f"{paths.name}: {SPLIT_NAMES[split.name]}, {len(split.truth):,} images{fitted}"
        plots.confusion_matrices(matrix, path=path, classes=names, title=title)
    val = graded[0]
    if best.thresholds is not None and len(names) <= MOST_CLASSES:
        scores, thresholds = run.objective.scores(val.predictions), np.array(best.thresholds)
        score_plots.score_histograms(scores, val.truth, thresholds, path=paths.plot("scores"), classes=names)
    score_plots.reliability(crossed, val.truth, path=paths.plot("reliability"), classes=names)
