"""Several checkpoints that grade together: whether they may, and by which cuts."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dr import UsageError
from dr.grading import calibration, evaluation
from dr.inference import checkpoint
from dr.inference.checkpoint import Checkpoint, HeldOut
from dr.recipes.schema import Recipe


def load(paths: Sequence[str]) -> list[Checkpoint]:
    """Raises UsageError for checkpoints whose predictions cannot be averaged."""
    for place, path in enumerate(paths):
        if Path(path).resolve() in [Path(before).resolve() for before in paths[:place]]:
            raise UsageError(f"{path}: it is named twice; name each checkpoint once")
    loaded = [checkpoint.load(path) for path in paths]
    for one in loaded[1:]:
        for what in ("classes", "objective"):
            first, other = (getattr(each, what) for each in (loaded[0], one))
            if what == "objective":
                first, other = type(first).__name__, type(other).__name__
            if first != other:
                raise UsageError(
                    f"{one.path}: its {what} ({other}) is not that of {loaded[0].path} ({first}); "
                    "their predictions cannot be averaged, give them one by one"
                )
        if one.objective.has_thresholds != loaded[0].objective.has_thresholds:
            raise UsageError(
                f"{one.path} and {loaded[0].path}: one decides by cuts, the other by the likeliest grade; "
                "give them one by one"
            )
    return loaded


def without_chance(recipe: Recipe) -> Recipe:
    """Without its seed, and what was measured on the photographs of one fold."""
    measured = {"mean": None, "std": None} if recipe.normalisation == "measured" else {}
    return dataclasses.replace(recipe, seed=0, **measured)


def folds(checkpoints: Sequence[Checkpoint]) -> list[HeldOut] | None:
    """What was held out of each, in the order of the folds, where all are different folds of one set and recipe."""
    held_out = [one.held_out for one in checkpoints]
    if len(checkpoints) < 2 or None in held_out:
        return None
    sets = {(each.fold.of, each.fold.fingerprint) for each in held_out}
    numbers = {each.fold.number for each in held_out}
    recipes = [without_chance(one.recipe) for one in checkpoints]
    if len(sets) > 1 or len(numbers) < len(held_out) or any(recipe != recipes[0] for recipe in recipes):
        return None
    return sorted(held_out, key=lambda each: each.fold.number)


def validation(checkpoints: Sequence[Checkpoint]) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """-> predictions (N, P) and truth (N,) to fit decisions to, for each checkpoint: of folds of one set, for all of
    them those of the photographs that each has held out; else its own. None where a checkpoint keeps none."""
    held_out = folds(checkpoints)
    if held_out is not None:
        pooled = tuple(np.concatenate([getattr(each, name) for each in held_out]) for name in ("predictions", "truth"))
        return [pooled] * len(checkpoints)
    own = [one.validation for one in checkpoints]
    return None if None in own else own


def class_prevalence(checkpoints: Sequence[Checkpoint]) -> np.ndarray | None:
    """The share of each grade among the validation photographs of all (K,), half a photograph of a grade that none has:
    of those that folds hold out the most are of training, where data.py may have balanced the grades. None where a
    checkpoint keeps no validation."""
    if any(one.validation is None for one in checkpoints):
        return None
    truth = np.concatenate([one.validation[1] for one in checkpoints])
    counts = np.maximum(np.bincount(truth, minlength=len(checkpoints[0].classes)), 0.5)
    return counts / counts.sum()


def probabilities(checkpoints: Sequence[Checkpoint], predictions: np.ndarray) -> np.ndarray | None:
    """predictions (N, P) -> calibrated probabilities (N, K) for validation's mix of grades, None where a checkpoint has
    no calibration."""
    likely = calibrated(checkpoints, predictions)
    natural = class_prevalence(checkpoints)
    if folds(checkpoints) is None or natural is None:
        return likely
    truth = validation(checkpoints)[0][1]
    held_out = np.maximum(np.bincount(truth, minlength=likely.shape[1]), 0.5) / len(truth)
    return calibration.reweighted(likely, natural / held_out)


def calibrated(checkpoints: Sequence[Checkpoint], predictions: np.ndarray) -> np.ndarray | None:
    """As `probabilities`, for the mix of the photographs that decisions are fitted to. Folds of one set share the
    calibration that is fitted to all the photographs that each has held out; of others it is the mean of what each
    makes of the predictions."""
    objective = checkpoints[0].objective
    seen = calibration.evidence(objective, predictions)
    if folds(checkpoints) is not None:
        scores, truth = validation(checkpoints)[0]
        scores = calibration.evidence(objective, scores)
        return calibration.fit(scores, truth, num_classes=objective.num_classes).probabilities(seen)
    fitted = [one.calibration for one in checkpoints]
    return None if None in fitted else np.mean([each.probabilities(seen) for each in fitted], axis=0)


def thresholds(checkpoints: Sequence[Checkpoint]) -> tuple[list[np.ndarray | None], str | None]:
    """-> the cuts (K-1,) to grade with, for each checkpoint, and where they are from, in words; None without cuts.

    Folds of one set share the cuts that their recipe's rule fits to the scores of all the photographs that each has
    held out, every photograph once and by a network that has not seen it, weighed to validation's mix of grades; else
    each keeps its own.
    """
    first = checkpoints[0]
    own = [None if one.thresholds is None else np.array(one.thresholds) for one in checkpoints]
    if first.thresholds is None:
        return own, None
    held_out, source = folds(checkpoints), f"the mean of those of {len(own)} checkpoints"
    if all(one.recipe.thresholds == "round" for one in checkpoints):
        source = "scores are rounded, nothing was fitted"
    elif held_out is not None:
        predictions, truth = validation(checkpoints)[0]
        rule, natural = first.recipe.thresholds, class_prevalence(checkpoints)
        fitted = evaluation.fit_thresholds(predictions, truth, objective=first.objective, rule=rule, prevalence=natural)
        own = [fitted] * len(own)
        numbers = ", ".join(str(each.fold.number) for each in held_out)
        these = f"folds {numbers} of {held_out[0].fold.of}"
        weighed = "" if natural is None else ", weighed to validation's mix of grades"
        source = f"fitted to the {len(truth)} out-of-fold scores of {these}{weighed}"
    elif len(own) == 1:
        source = f"those of {first.path}"
    return own, f"cuts {' '.join(f'{value:.3f}' for value in np.mean(own, axis=0))}: {source}"
