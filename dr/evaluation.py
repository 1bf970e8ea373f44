"""How good scores are: the figures of an epoch, and their intervals. Arrays in, numbers out."""

import numpy as np

from dr import GRADES, metrics, thresholds


def evaluate(scores: np.ndarray, truth: np.ndarray, *, seed: int) -> tuple[dict[str, float], np.ndarray]:
    """scores (N,), truth (N,) -> (figures, optimal cuts (K-1,)). kappa, accuracy and recall_k are with the optimal
    cuts; macro_f1_cross_fitted and kappa_cross_fitted with cuts fitted to the other half."""
    classes = len(GRADES)
    cuts, optimal = thresholds.best_cuts(scores, truth, classes)
    grades = thresholds.cut(scores, cuts)
    rounded = thresholds.cut(scores, thresholds.rounding_cuts(classes))
    crossed = thresholds.cross_fitted_grades(scores, truth, num_classes=classes, seed=seed)
    figures = {
        "macro_f1_rounded": metrics.macro_f1(truth, rounded, classes),
        "macro_f1_optimal": optimal,
        "macro_f1_cross_fitted": float(np.mean([metrics.macro_f1(truth, fold, classes) for fold in crossed])),
        "kappa": metrics.quadratic_kappa(truth, grades, classes),
        "kappa_cross_fitted": float(np.mean([metrics.quadratic_kappa(truth, fold, classes) for fold in crossed])),
        "accuracy": metrics.accuracy(truth, grades, classes),
    }
    recall = metrics.recall_per_class(truth, grades, classes)
    figures |= {f"recall_{grade}": value for grade, value in enumerate(recall)}
    return {name: float(value) for name, value in figures.items()}, cuts  # NumPy's floats do not load with weights_only


def intervals(scores: np.ndarray, truth: np.ndarray, cuts: np.ndarray, *, seed: int) -> dict[str, list[float]]:
    """95 % bootstrap intervals of the headline figures, the cuts held fixed -> {name: [low, high]}."""
    rounded = thresholds.cut(scores, thresholds.rounding_cuts(len(GRADES)))
    grades = thresholds.cut(scores, cuts)
    crossed = thresholds.cross_fitted_grades(scores, truth, num_classes=len(GRADES), seed=seed).T  # (N, repeats)

    def cross_fitted(truth: np.ndarray, crossed: np.ndarray) -> float:
        return float(np.mean([metrics.macro_f1(truth, fold) for fold in crossed.T]))

    measured = {
        "macro_f1_rounded": (metrics.macro_f1, truth, rounded),
        "macro_f1_optimal": (metrics.macro_f1, truth, grades),
        "macro_f1_cross_fitted": (cross_fitted, truth, crossed),
        "kappa": (metrics.quadratic_kappa, truth, grades),
        "accuracy": (metrics.accuracy, truth, grades),
    }
    return {name: list(metrics.bootstrap_interval(*call, seed=seed)) for name, call in measured.items()}
