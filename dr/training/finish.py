"""The end of a run: the best checkpoint with intervals, calibration and test, its plots, card and tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dr import UsageError
from dr.core import distributed, files
from dr.datasets.loader import loader
from dr.datasets.preprocessed import PreprocessedData
from dr.datasets.torch_datasets import EvaluationImages, read_image
from dr.grading import calibration, evaluation, metrics, registry
from dr.imaging import novelty
from dr.inference.checkpoint import Checkpoint
from dr.inference.forward import TTA_VIEWS, Scorer, decide, infer, mean_predictions
from dr.inference.records import GradedSplit, Predictions
from dr.training import model_card, plots, prediction_tables
from dr.training.resume import CHANGEABLE, changed_option
from dr.training.run_files import RunFiles
from dr.training.state import Run


def save_best(paths: RunFiles, best: Checkpoint, *, data: PreprocessedData) -> None:
    """Writes the checkpoint of the best epoch so far, and its card."""
    best.save(paths.best)
    model_card.write(paths.card, best, name=paths.name, data=data)


def finish(run: Run, paths: RunFiles, *, workers: int) -> Checkpoint:
    """Adds intervals, calibration and the test of a run that has one to the best checkpoint, and writes it with its
    plots, card, predictions and classes.csv. All processes infer; the main one decides and writes. Raises
    UsageError."""
    best = distributed.broadcast(lambda: Checkpoint.load(paths.best, network=False))
    changed = changed_option(best.recipe, run.recipe, changeable=CHANGEABLE)
    if best.data.fingerprint != run.data.fingerprint or changed:
        raise UsageError(f"{paths.best}: overwritten by another run; use a --name of its own for each run")
    best = best.replace(recipe=run.recipe)  # a run that went on for more epochs may keep an earlier one
    if run.recipe.tta != "none":
        best = _refitted(best, run, workers=workers)
        _refit_kept_epochs(run, paths, workers=workers)
    added, crossed = distributed.broadcast(lambda: _validation_fields(best, run.data))
    best = best.replace(**added)
    if run.data.test is not None:
        best = _tested(best, run, workers=workers)  # with the thresholds that are saved
    if distributed.is_main:
        best.save(paths.best)
        plots.draw(run, best, crossed, paths=paths)
        model_card.write(paths.card, best, name=paths.name, data=run.data)
        prediction_tables.write(paths, best, data=run.data, crossed=crossed)
        files.write_csv(paths.classes, pd.concat([_class_rows(best, graded) for graded in best.graded_splits()]))
    return best


def _infer(best: Checkpoint, run: Run, split: str, *, workers: int) -> tuple[Scorer, torch.Tensor, np.ndarray]:
    """The images of a split with the TTA of the recipe -> the network, its outputs (V, N, num_outputs), truth (N,)."""
    images = EvaluationImages(run.data.root, getattr(run.data, split), best.recipe)
    batches = loader(images, batch_size=2 * best.recipe.batch_size, workers=workers, pin=False)
    scorer = Scorer(best.network.to(run.accelerator.device), best.objective)
    _, outputs = infer([scorer], batches, accelerator=run.accelerator, views=TTA_VIEWS[best.recipe.tta])
    return scorer, outputs[0], images.grades


def _refitted(best: Checkpoint, run: Run, *, workers: int) -> Checkpoint:
    """With thresholds and validation metrics of predictions with TTA."""
    scorer, outputs, truth = _infer(best, run, "val", workers=workers)
    predictions = mean_predictions([scorer], [outputs])
    measured, thresholds = distributed.broadcast(
        lambda: evaluation.evaluate(
            predictions,
            truth,
            objective=run.objective,
            rule=run.recipe.thresholds,
            seed=run.recipe.seed,
            referable_from=registry.referable_from(best.classes),
        )
    )
    return best.replace(
        thresholds=None if thresholds is None else tuple(thresholds.tolist()),
        metrics={"val": best.metrics["val"] | measured},
        predictions={"val": Predictions(predictions=predictions, truth=truth)},
    )


def _refit_kept_epochs(run: Run, paths: RunFiles, *, workers: int) -> None:
    """As `_refitted`, for the epochs that the recipe keeps."""
    kept = [paths.epoch(epoch) for epoch in run.recipe.keep_epochs if epoch <= run.epoch]
    fitted = evaluation.fits_thresholds(run.objective, run.recipe.thresholds)
    for path in distributed.broadcast(lambda: [each for each in kept if fitted and each.is_file()]):
        _refit_epoch(path, run, workers=workers)


def _refit_epoch(path: Path, run: Run, *, workers: int) -> None:
    kept = distributed.broadcast(lambda: Checkpoint.load(path, network=False))
    refitted = _refitted(kept, run, workers=workers)
    if distributed.is_main:
        refitted.replace(predictions={}).save(path)


def _tested(best: Checkpoint, run: Run, *, workers: int) -> Checkpoint:
    """With the test, which is evaluated this once: predictions, grades, metrics with intervals, and the loss without
    TTA."""
    scorer, outputs, truth = _infer(best, run, "test", workers=workers)
    thresholds = None if best.thresholds is None else np.array(best.thresholds)
    predictions, grades = decide([scorer], [outputs], thresholds=[thresholds], by=best.recipe.tta_by)
    class_scores, referable = best.objective.class_scores(predictions), registry.referable_from(best.classes)
    measured = {
        "loss": best.objective.mean_loss(outputs[0], truth),
        **evaluation.measure(truth, grades, class_scores, referable_from=referable),
        **evaluation.classes_of("test", truth, {"applied": grades[None]}, num_classes=len(best.classes)),
        **evaluation.baselines(truth, "test"),
    }
    intervals = distributed.broadcast(
        lambda: evaluation.measured_intervals(
            truth, grades, class_scores, seed=best.recipe.seed, referable_from=referable
        )
    )
    kept = Predictions(predictions=predictions, truth=truth, grades=grades)  # votes do not follow from the mean
    return best.replace(
        metrics=best.metrics | {"test": measured},
        intervals=best.intervals | {"test": intervals},
        predictions=best.predictions | {"test": kept},
    )


def _training_reference(data: PreprocessedData) -> novelty.Reference | None:
    """What the training images look like, from at most novelty.MAX_IMAGES of them; None with fewer than two."""
    paths = data.train["path"].to_numpy()
    if len(paths) < 2:
        return None
    chosen = paths[np.linspace(0, len(paths) - 1, min(len(paths), novelty.MAX_IMAGES)).round().astype(int)]
    return novelty.fit(np.array([novelty.measure(read_image(data.root / path)[..., ::-1]) for path in chosen]))


def _validation_fields(best: Checkpoint, data: PreprocessedData) -> tuple[dict, np.ndarray]:
    """-> the fields that the end of a run adds to a checkpoint: intervals, majority baseline and calibration error of
    validation, the calibration, what training images look like; and the probabilities (R, N, K) of validation by
    calibrations fitted to its other half."""
    objective, rule, seed = best.objective, best.recipe.thresholds, best.recipe.seed
    predictions, truth = best.validation.predictions, best.validation.truth
    thresholds = None if best.thresholds is None else np.array(best.thresholds)
    intervals = evaluation.intervals(
        predictions,
        truth,
        objective=objective,
        thresholds=thresholds,
        rule=rule,
        seed=seed,
        referable_from=registry.referable_from(best.classes),
    )
    inputs, classes = objective.calibration_input(predictions), objective.num_classes
    crossed = calibration.cross_fitted(inputs, truth, num_classes=classes, seed=seed)
    calibrated, calibrated_intervals = evaluation.calibrated(crossed, truth, seed=seed)
    measured = evaluation.baselines(truth, "val") | calibrated
    added = {
        "metrics": best.metrics | {"val": best.metrics["val"] | measured},
        "intervals": {"val": intervals | calibrated_intervals},
        "calibration": calibration.fit(inputs, truth, num_classes=classes),
        "training_reference": _training_reference(data),
    }
    return added, crossed


def _class_rows(best: Checkpoint, graded: GradedSplit) -> pd.DataFrame:
    """-> rows of NAME/classes.csv: metrics of each class on one split and its row of the confusion matrix.
    `optimistic`: the thresholds were fitted to the same images."""
    class_scores = best.objective.class_scores(graded.predictions)
    values = metrics.per_class(graded.truth, graded.grades, class_scores)
    names = best.classes
    matrix = metrics.confusion(graded.truth, graded.grades, len(names))
    predicted = {f"predicted_{k}": matrix[:, k] for k in range(len(names))}
    rounded = {name: column.round(4) for name, column in values.items()}
    return pd.DataFrame({"split": graded.name, "optimistic": graded.fitted, "class": names, **rounded, **predicted})
