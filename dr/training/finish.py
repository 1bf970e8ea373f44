"""What a finished run leaves: the best checkpoint with its intervals and its test, its pictures, card and table."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from dr import UsageError
from dr.core import distributed, files
from dr.datasets.loader import loader
from dr.datasets.preprocessed import PreprocessedData
from dr.datasets.torch_datasets import EvaluationImages, read_image
from dr.grading import calibration, evaluation, metrics, objectives
from dr.imaging import novelty
from dr.inference import checkpoint
from dr.inference.forward import TTA_VIEWS, Scorer, decide, infer, mean_predictions
from dr.networks import build as models
from dr.training import model_card, summary
from dr.training import plots as run_pictures
from dr.training.run_files import RunFiles
from dr.training.state import Run, other_choice


def _validation(run: Run, predictions: np.ndarray) -> dict[str, torch.Tensor]:
    """predictions (N, P) in the order of the label table -> what a checkpoint keeps of them."""
    return {
        "predictions": torch.from_numpy(predictions),
        "truth": torch.from_numpy(run.data.val["diagnosis"].to_numpy(copy=True)),
    }


def save_best(paths: RunFiles, fields: dict, *, predictions: np.ndarray, run: Run) -> None:
    """`fields` with the validation predictions that its metrics come from, and the card of what they say."""
    content = {**fields, "validation": _validation(run, predictions)}
    checkpoint.save(paths.best, content)
    model_card.write(paths.card, content, name=paths.name, data=run.data)


def _look(
    chosen: checkpoint.Checkpoint, data: PreprocessedData, side: str, *, accelerator: Accelerator, workers: int
) -> tuple[Scorer, torch.Tensor, np.ndarray]:
    """The photographs of one side through the recipe's views -> the network, its outputs (V, N, num_outputs), truth."""
    photographs = EvaluationImages(data.root, getattr(data, side), chosen.recipe)
    batches = loader(photographs, batch_size=2 * chosen.recipe.batch_size, workers=workers, pin=False)
    scorer = Scorer(chosen.network.to(accelerator.device), chosen.objective)
    _, outputs = infer([scorer], batches, accelerator=accelerator, views=TTA_VIEWS[chosen.recipe.tta])
    return scorer, outputs[0], photographs.grades


def _refit(run: Run, best: Path, fields: dict, *, workers: int) -> dict:
    """Where predictions come from several views, the cuts are fitted to such predictions too -> fields to replace."""
    chosen = checkpoint.read(fields, best)
    scorer, outputs, truth = _look(chosen, run.data, "val", accelerator=run.accelerator, workers=workers)
    predictions = mean_predictions([scorer], [outputs])
    figures, thresholds = distributed.broadcast(
        lambda: evaluation.evaluate(
            predictions, truth, objective=run.objective, rule=run.recipe.thresholds, seed=run.recipe.seed
        )
    )
    return {
        "thresholds": None if thresholds is None else thresholds.tolist(),
        "metrics": fields["metrics"] | figures,
        "validation": _validation(run, predictions),
    }


def _refit_kept(run: Run, paths: RunFiles, *, workers: int) -> None:
    """As `_refit`, the cuts of the epochs that were kept."""
    kept = [paths.epoch(epoch) for epoch in run.recipe.keep_epochs if epoch <= run.epoch]
    fitting = evaluation.fits_thresholds(run.objective, run.recipe.thresholds)
    for path in distributed.broadcast(
        lambda: [one for one in kept if fitting and one.is_file()]
    ):  # one may have been moved
        fields = distributed.broadcast(lambda path=path: dict(models.load_tensors(path)))
        fields |= _refit(run, path, fields, workers=workers)
        if distributed.is_main:
            checkpoint.save(path, {key: value for key, value in fields.items() if key != "validation"})


def _test(
    chosen: checkpoint.Checkpoint, data: PreprocessedData, *, accelerator: Accelerator, workers: int
) -> tuple[dict, dict[str, torch.Tensor]]:
    """The test photographs, seen this once, by the best checkpoint with its views and cuts -> figures with their
    intervals and the loss of the plain view; predictions (N, P), truth (N,) and grades (N,)."""
    scorer, outputs, truth = _look(chosen, data, "test", accelerator=accelerator, workers=workers)
    thresholds = None if chosen.thresholds is None else np.array(chosen.thresholds)
    predictions, grades = decide([scorer], [outputs], thresholds=[thresholds], by=chosen.recipe.tta_by)
    class_scores = objectives.class_scores(chosen.objective, predictions)
    figures = {
        "loss": objectives.mean_loss(chosen.objective, outputs[0], truth),
        **evaluation.measure(truth, grades, class_scores),
        "majority": metrics.majority(truth),
        "intervals": distributed.broadcast(
            lambda: evaluation.measured_intervals(truth, grades, class_scores, seed=chosen.recipe.seed)
        ),
    }
    seen = {"predictions": predictions, "truth": truth, "grades": grades}  # grades that were voted follow from nothing
    return figures, {name: torch.from_numpy(array) for name, array in seen.items()}


def _training(data: PreprocessedData) -> dict:
    """-> `training`, what the training photographs look like, of at most novelty.MOST of them, as a checkpoint keeps
    it; nothing of fewer than two."""
    paths = data.train["path"].to_numpy()
    if len(paths) < 2:
        return {}
    chosen = paths[np.linspace(0, len(paths) - 1, min(len(paths), novelty.MOST)).round().astype(int)]
    measured = [novelty.measure(read_image(data.root / path)[..., ::-1]) for path in chosen]
    return {"training": novelty.fit(np.array(measured)).to_dict()}


def _of_validation(run: Run, fields: dict) -> tuple[dict, np.ndarray]:
    """-> what a checkpoint holds of a finished run beside `fields`: intervals, the share of the most frequent class,
    the calibration and its error, what training photographs look like; and the probabilities (R, N, K) of validation by
    calibrations of its other half."""
    predictions, truth = (fields["validation"][key].numpy() for key in ("predictions", "truth"))
    objective, seed = run.objective, run.recipe.seed
    thresholds = None if fields["thresholds"] is None else np.array(fields["thresholds"])
    intervals = evaluation.intervals(
        predictions, truth, objective=objective, thresholds=thresholds, rule=run.recipe.thresholds, seed=seed
    )
    evidence, classes = calibration.evidence(objective, predictions), objective.num_classes
    crossed = calibration.cross_fitted(evidence, truth, num_classes=classes, seed=seed)
    by_sample = crossed.swapaxes(0, 1)
    intervals["ece"] = calibration.mean_error_interval(by_sample, truth, seed=seed)
    added = {
        "intervals": intervals,
        "majority": metrics.majority(truth),
        "ece": calibration.mean_error(by_sample, truth),
    }
    fitted = calibration.fit(evidence, truth, num_classes=classes).to_dict()
    return {"metrics": fields["metrics"] | added, "calibration": fitted, **_training(run.data)}, crossed


def _classes(run: Run, side: summary.Side) -> pd.DataFrame:
    """-> rows of NAME__classes.csv: how good each class is on one side, and its row of the confusion matrix. Where the
    cuts were fitted to the same photographs, `side` says that the figures flatter."""
    class_scores = objectives.class_scores(run.objective, side.predictions)
    figures = {
        name: values.round(4) for name, values in metrics.per_class(side.truth, side.grades, class_scores).items()
    }
    names = run.data.classes
    matrix = metrics.confusion(side.truth, side.grades, len(names))
    predicted = {f"predicted_{k}": matrix[:, k] for k in range(len(names))}
    told = "val, to which the cuts were fitted" if side.fitted else side.name
    return pd.DataFrame({"side": told, "class": names, **figures, **predicted})


def finish(run: Run, paths: RunFiles, *, workers: int) -> dict:
    """Adds intervals, the share of the most frequent class and, where there is one, the test to the best checkpoint,
    draws its pictures -> its fields. All processes look at photographs, the main one decides and writes."""
    fields = distributed.broadcast(lambda: dict(models.load_tensors(paths.best)))
    if fields["data"]["fingerprint"] != run.data.fingerprint or other_choice(fields["recipe"], run.recipe):
        raise UsageError(f"{paths.best}: another run has written it meanwhile; give each run a --name of its own")
    if run.recipe.tta != "none":
        fields |= _refit(run, paths.best, fields, workers=workers)
        _refit_kept(run, paths, workers=workers)
    added, crossed = distributed.broadcast(lambda: _of_validation(run, fields))
    fields |= added
    if run.data.test is not None:
        chosen = checkpoint.read(fields, paths.best)  # the test is with the cuts that are saved
        tested, fields["test"] = _test(chosen, run.data, accelerator=run.accelerator, workers=workers)
        fields["metrics"]["test"] = tested
    if distributed.is_main:
        checkpoint.save(paths.best, fields)
        run_pictures.draw(run, fields, crossed, paths=paths)
        model_card.write(paths.card, fields, name=paths.name, data=run.data)
        files.write_csv(paths.classes, pd.concat([_classes(run, side) for side in summary.sides(fields)]))
    return fields
