"""Checkpoints that grade together: whether they may, their class prevalence, probabilities and thresholds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dr import UsageError
from dr.grading import calibration, evaluation
from dr.inference.checkpoint import Checkpoint
from dr.inference.records import HeldOut
from dr.recipes.schema import Recipe


def load(paths: Sequence[str]) -> list[Checkpoint]:
    """Raises UsageError for checkpoints whose predictions cannot be averaged."""
    for number, path in enumerate(paths):
        if Path(path).resolve() in [Path(before).resolve() for before in paths[:number]]:
            raise UsageError(f"{path}: named twice; name each checkpoint once")
    loaded = [Checkpoint.load(path) for path in paths]
    for checkpoint in loaded[1:]:
        _check_alike(checkpoint, loaded[0])
    return loaded


def _check_alike(checkpoint: Checkpoint, first: Checkpoint) -> None:
    objectives = checkpoint.recipe.objective, first.recipe.objective
    for what, own, other in (("classes", checkpoint.classes, first.classes), ("objective", *objectives)):
        if own != other:
            raise UsageError(
                f"{checkpoint.path}: its {what} ({own}) differs from that of {first.path} ({other}), so predictions "
                "cannot be averaged; run predict.py with each checkpoint alone"
            )
    if checkpoint.objective.has_thresholds != first.objective.has_thresholds:
        raise UsageError(
            f"{checkpoint.path} and {first.path}: one decides by thresholds, the other by the most probable grade; run "
            "predict.py with each checkpoint alone"
        )


def comparable(recipe: Recipe) -> Recipe:
    """The recipe without its seed and without what was measured on the images of one fold."""
    measured = {"mean": None, "std": None} if recipe.normalisation == "dataset" else {}
    return dataclasses.replace(recipe, seed=0, **measured)


def folds(checkpoints: Sequence[Checkpoint]) -> list[HeldOut] | None:
    """The predictions for the images that each held out, by fold, if all are different folds of one dataset and
    recipe; otherwise None."""
    held_out = [checkpoint.held_out for checkpoint in checkpoints]
    if len(checkpoints) < 2 or None in held_out:
        return None
    sets = {(part.fold.of, part.fold.fingerprint) for part in held_out}
    numbers = {part.fold.number for part in held_out}
    recipes = [comparable(checkpoint.recipe) for checkpoint in checkpoints]
    if len(sets) > 1 or len(numbers) < len(held_out) or any(recipe != recipes[0] for recipe in recipes):
        return None
    return sorted(held_out, key=lambda part: part.fold.number)


def validation(checkpoints: Sequence[Checkpoint]) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """-> predictions (N, P) and truth (N,) to fit decisions to, for each checkpoint: the pooled out-of-fold predictions
    of folds of one dataset, otherwise its own validation. None where a checkpoint keeps none."""
    held_out = folds(checkpoints)
    if held_out is not None:
        pooled = tuple(np.concatenate([getattr(part, name) for part in held_out]) for name in ("predictions", "truth"))
        return [pooled] * len(checkpoints)
    own = [checkpoint.validation for checkpoint in checkpoints]
    return None if None in own else [(kept.predictions, kept.truth) for kept in own]


def class_prevalence(checkpoints: Sequence[Checkpoint]) -> np.ndarray | None:
    """The share of each class (K,) in the validation images of all checkpoints, with half an image for an absent class.
    Images that folds hold out are mostly from training, which data.py may have balanced. None where a checkpoint keeps
    no validation."""
    if any(checkpoint.validation is None for checkpoint in checkpoints):
        return None
    truth = np.concatenate([checkpoint.validation.truth for checkpoint in checkpoints])
    counts = np.maximum(np.bincount(truth, minlength=len(checkpoints[0].classes)), 0.5)
    return counts / counts.sum()


def probabilities(checkpoints: Sequence[Checkpoint], predictions: np.ndarray) -> np.ndarray | None:
    """predictions (N, P) -> calibrated probabilities (N, K) for the class prevalence of validation. None where a
    checkpoint has no calibration."""
    calibrated_probabilities = calibrated(checkpoints, predictions)
    prevalence = class_prevalence(checkpoints)
    if folds(checkpoints) is None or prevalence is None:
        return calibrated_probabilities
    truth = validation(checkpoints)[0][1]
    held_out = np.maximum(np.bincount(truth, minlength=len(prevalence)), 0.5) / len(truth)
    return calibration.reweighted(calibrated_probabilities, prevalence / held_out)


def calibrated(checkpoints: Sequence[Checkpoint], predictions: np.ndarray) -> np.ndarray | None:
    """As `probabilities`, for the class prevalence of the images that decisions are fitted to. Folds of one dataset
    share one calibration, fitted to the pooled out-of-fold predictions; otherwise the probabilities of the checkpoints'
    own calibrations are averaged."""
    objective = checkpoints[0].objective
    inputs = objective.calibration_input(predictions)
    if folds(checkpoints) is not None:
        pooled, truth = validation(checkpoints)[0]
        pooled_inputs = objective.calibration_input(pooled)
        return calibration.fit(pooled_inputs, truth, num_classes=objective.num_classes).probabilities(inputs)
    fitted = [checkpoint.calibration for checkpoint in checkpoints]
    return None if None in fitted else np.mean([each.probabilities(inputs) for each in fitted], axis=0)


def thresholds(checkpoints: Sequence[Checkpoint]) -> tuple[list[np.ndarray | None], str | None]:
    """-> thresholds (K-1,) for each checkpoint, and a line on their origin; None without thresholds.

    Folds of one dataset share thresholds that the recipe's rule fits to the pooled out-of-fold scores, weighted to the
    class prevalence of validation. Otherwise each checkpoint keeps its own.
    """
    first = checkpoints[0]
    own = [None if each.thresholds is None else np.array(each.thresholds) for each in checkpoints]
    if first.thresholds is None:
        return own, None
    held_out, source = folds(checkpoints), f"mean of {len(own)} checkpoints"
    if all(checkpoint.recipe.thresholds == "round" for checkpoint in checkpoints):
        source = "scores are rounded, nothing was fitted"
    elif held_out is not None:
        own, source = _refitted(checkpoints, held_out)
    elif len(own) == 1:
        source = f"from {first.path}"
    return own, f"thresholds {' '.join(f'{value:.3f}' for value in np.mean(own, axis=0))}: {source}"


def _refitted(checkpoints: Sequence[Checkpoint], held_out: Sequence[HeldOut]) -> tuple[list[np.ndarray], str]:
    first, prevalence = checkpoints[0], class_prevalence(checkpoints)
    predictions, truth = validation(checkpoints)[0]
    fitted = evaluation.fit_thresholds(
        predictions, truth, objective=first.objective, rule=first.recipe.thresholds, prevalence=prevalence
    )
    numbers = ", ".join(str(part.fold.number) for part in held_out)
    weighted = "" if prevalence is None else ", weighted to the class prevalence of validation"
    source = f"fitted to {len(truth)} out-of-fold scores of folds {numbers} of {held_out[0].fold.of}{weighted}"
    return [fitted] * len(checkpoints), source
