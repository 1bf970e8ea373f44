"""What a finished run leaves: the best checkpoint with its intervals and its test, pictures, a row of runs.csv."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from dr import calibration, card, checkpoint, evaluation, files, metrics, models, novelty, objectives, ranks, report
from dr.dataset import EvaluationPhotographs, loader, read_photograph
from dr.inference import VIEWS, Scorer, decide, infer, mean_predictions
from dr.prepared import Prepared
from dr.run import Run
from dr.style import MOST_CLASSES


def _validation(run: Run, predictions: np.ndarray) -> dict[str, torch.Tensor]:
    """predictions (N, P) in the order of the label table -> what a checkpoint keeps of them."""
    return {
        "scores": torch.from_numpy(run.objective.scores(predictions).copy()),
        "predictions": torch.from_numpy(predictions),
        "truth": torch.from_numpy(run.data.val["diagnosis"].to_numpy(copy=True)),
    }


def save_best(path: Path, fields: dict, *, predictions: np.ndarray, run: Run) -> None:
    """`fields` with the validation predictions that its metrics come from, and the card of what they say."""
    content = {**fields, "validation": _validation(run, predictions)}
    checkpoint.save(path, content)
    write_card(path, content, run=run)


def write_card(best: Path, content: dict, *, run: Run) -> None:
    """NAME__card.md beside NAME__best.pt."""
    prefix = str(best).removesuffix("best.pt")
    card.write(f"{prefix}card.md", content, name=Path(prefix).name.removesuffix("__"), data=run.data)


def _look(
    chosen: checkpoint.Checkpoint, data: Prepared, side: str, *, accelerator: Accelerator, workers: int
) -> tuple[Scorer, torch.Tensor, np.ndarray]:
    """The photographs of one side through the recipe's views -> the network, its outputs (V, N, num_outputs), truth."""
    photographs = EvaluationPhotographs(data.root, getattr(data, side), chosen.recipe)
    batches = loader(photographs, batch_size=2 * chosen.recipe.batch_size, workers=workers, pin=False)
    scorer = Scorer(chosen.grader.to(accelerator.device), chosen.objective)
    _, outputs = infer([scorer], batches, accelerator=accelerator, views=VIEWS[chosen.recipe.tta])
    return scorer, outputs[0], photographs.grades


def _refit(run: Run, best: Path, fields: dict, *, workers: int) -> dict:
    """Where predictions come from several views, the cuts are fitted to such predictions too -> fields to replace."""
    chosen = checkpoint.read(fields, best)
    scorer, outputs, truth = _look(chosen, run.data, "val", accelerator=run.accelerator, workers=workers)
    predictions = mean_predictions([scorer], [outputs])
    figures, cuts = ranks.once(
        lambda: evaluation.evaluate(
            predictions, truth, objective=run.objective, rule=run.recipe.cuts, seed=run.recipe.seed
        )
    )
    return {
        "cuts": None if cuts is None else cuts.tolist(),
        "metrics": fields["metrics"] | figures,
        "validation": _validation(run, predictions),
    }


def _test(
    chosen: checkpoint.Checkpoint, data: Prepared, *, accelerator: Accelerator, workers: int
) -> tuple[dict, dict, np.ndarray]:
    """The test photographs, seen this once, by the best checkpoint with its views and cuts -> (figures with their
    intervals and the loss of the plain view, predictions (N, P) and truth (N,), grades (N,))."""
    scorer, outputs, truth = _look(chosen, data, "test", accelerator=accelerator, workers=workers)
    cuts = None if chosen.cuts is None else np.array(chosen.cuts)
    predictions, grades = decide([scorer], [outputs], cuts=[cuts], by=chosen.recipe.tta_by)
    likeness = objectives.likeness(chosen.objective, predictions)
    figures = {
        "loss": objectives.mean_loss(chosen.objective, outputs[0], truth),
        **evaluation.measure(truth, grades, likeness),
        "majority": metrics.majority(truth),
        "intervals": ranks.once(
            lambda: evaluation.measured_intervals(truth, grades, likeness, seed=chosen.recipe.seed)
        ),
    }
    kept = {"predictions": predictions, "truth": truth, "grades": grades}  # grades that were voted follow from nothing
    seen = {name: torch.from_numpy(array) for name, array in kept.items()}
    return figures, seen, grades


def _calibrate(evidence: np.ndarray, truth: np.ndarray, *, run: Run) -> tuple[calibration.Calibration, np.ndarray]:
    """-> the calibration of all of validation, and probabilities (R, N, K) by calibrations of its other half."""
    classes = run.objective.num_classes
    crossed = calibration.cross_fitted(evidence, truth, num_classes=classes, seed=run.recipe.seed)
    return calibration.fit(evidence, truth, num_classes=classes), crossed


def _title(prefix: str, side: str, count: int) -> str:
    return f"{Path(prefix).name.removesuffix('__')}: {side}, {count:,} photographs"


def _training(data: Prepared) -> dict:
    """-> `training`, what the training photographs look like, of at most novelty.MOST of them, as a checkpoint keeps
    it; nothing of fewer than two."""
    paths = data.train["path"].to_numpy()
    if len(paths) < 2:
        return {}
    chosen = paths[np.linspace(0, len(paths) - 1, min(len(paths), novelty.MOST)).round().astype(int)]
    measured = [novelty.measure(read_photograph(data.root / path)[..., ::-1]) for path in chosen]
    return {"training": novelty.fit(np.array(measured)).to_dict()}


def _pictures(run: Run, fields: dict, prefix: str) -> None:
    predictions, truth = (fields["validation"][key].numpy() for key in ("predictions", "truth"))
    cuts, names = fields["cuts"], run.data.classes
    best = fields["metrics"]["epoch"]
    report.learning_curves(pd.DataFrame(run.history), best=best, path=Path(f"{prefix}curves.png"), views=_views(run))
    if len(names) <= MOST_CLASSES:
        grades = objectives.grades(run.objective, predictions, cuts)
        matrix = metrics.confusion(truth, grades, len(names))
        fitted = evaluation.fits_cuts(run.objective, run.recipe.cuts)
        title = _title(prefix, "validation", len(truth)) + (", cuts fitted to them" if fitted else "")
        report.confusion_matrices(matrix, path=Path(f"{prefix}confusion.png"), classes=names, title=title)
    if cuts is not None:
        scores = run.objective.scores(predictions)
        report.score_histograms(scores, truth, np.array(cuts), path=Path(f"{prefix}scores.png"), classes=names)


def _views(run: Run) -> int:
    return len(VIEWS[run.recipe.tta])


def _classes(run: Run, side: str, seen: dict, grades: np.ndarray) -> pd.DataFrame:
    """-> rows of NAME__classes.csv: how good each class is on one side, and its row of the confusion matrix. Where the
    cuts were fitted to the same photographs, `side` says that the figures flatter."""
    if side == "val" and evaluation.fits_cuts(run.objective, run.recipe.cuts):
        side = "val, to which the cuts were fitted"
    truth, names = seen["truth"].numpy(), run.data.classes
    likeness = objectives.likeness(run.objective, seen["predictions"].numpy())
    figures = {name: values.round(4) for name, values in metrics.per_class(truth, grades, likeness).items()}
    matrix = metrics.confusion(truth, grades, len(names))
    predicted = {f"predicted_{k}": matrix[:, k] for k in range(len(names))}
    return pd.DataFrame({"side": side, "class": names, **figures, **predicted})


def _test_pictures(run: Run, fields: dict, grades: np.ndarray, prefix: str) -> None:
    if len(run.data.classes) <= MOST_CLASSES:
        matrix = metrics.confusion(fields["test"]["truth"].numpy(), grades, len(run.data.classes))
        path, title = Path(f"{prefix}test_confusion.png"), _title(prefix, "test", len(grades))
        report.confusion_matrices(matrix, path=path, classes=run.data.classes, title=title)


def finish(run: Run, best: Path, *, workers: int) -> dict:
    """Adds intervals, the share of the most frequent class and, where there is one, the test to the best checkpoint,
    draws its pictures -> its fields. All processes look at photographs, the main one decides and writes."""
    fields = ranks.once(lambda: dict(models.load_tensors(best)))
    if run.recipe.tta != "none":
        fields |= _refit(run, best, fields, workers=workers)
    predictions, truth = (fields["validation"][key].numpy() for key in ("predictions", "truth"))
    cuts = None if fields["cuts"] is None else np.array(fields["cuts"])
    found = ranks.once(
        lambda: evaluation.intervals(
            predictions, truth, objective=run.objective, cuts=cuts, rule=run.recipe.cuts, seed=run.recipe.seed
        )
    )
    fields["metrics"] = fields["metrics"] | {"intervals": found, "majority": metrics.majority(truth)}
    evidence = calibration.evidence(run.objective, predictions)
    fitted, crossed = ranks.once(lambda: _calibrate(evidence, truth, run=run))
    fields["calibration"] = fitted.to_dict()
    fields |= ranks.once(lambda: _training(run.data))
    by_sample = crossed.swapaxes(0, 1)
    fields["metrics"]["ece"] = calibration.mean_error(by_sample, truth)
    found["ece"] = ranks.once(lambda: calibration.mean_error_interval(by_sample, truth, seed=run.recipe.seed))
    tables = [_classes(run, "val", fields["validation"], objectives.grades(run.objective, predictions, cuts))]
    prefix = str(best).removesuffix("best.pt")
    if ranks.MAIN:
        checkpoint.save(best, fields)
        _pictures(run, fields, prefix)
        report.reliability(crossed, truth, path=Path(f"{prefix}reliability.png"), classes=run.data.classes)
    if run.data.test is not None:
        chosen = checkpoint.read(fields, best)  # the test is with the cuts that are saved
        fields["metrics"]["test"], fields["test"], grades = _test(
            chosen, run.data, accelerator=run.accelerator, workers=workers
        )
        tables.append(_classes(run, "test", fields["test"], grades))
        if ranks.MAIN:
            _test_pictures(run, fields, grades, prefix)
            checkpoint.save(best, fields)
    if ranks.MAIN:
        write_card(best, fields, run=run)
        files.write_csv(f"{prefix}classes.csv", pd.concat(tables))
    return fields


def _flat(figures: dict, *, prefix: str = "") -> dict:
    """Figures with their `intervals` -> one level: NAME, NAME_low, NAME_high."""
    flat = {f"{prefix}{name}": value for name, value in figures.items() if name not in ("intervals", "test", "epoch")}
    for name, (low, high) in figures["intervals"].items():
        flat |= {f"{prefix}{name}_low": low, f"{prefix}{name}_high": high}
    return flat


def summary(run: Run, *, best: dict) -> dict:
    """The part of a row of runs.csv that says how good the best epoch is and what computed it."""
    measured = best["metrics"]
    tested = _flat(measured["test"], prefix="test_") if "test" in measured else {}
    used = run.accelerator.device
    return {
        "backbone": run.recipe.backbone,
        "best_epoch": measured["epoch"],
        "views": _views(run),
        "fold": "" if run.data.fold is None else f"{run.data.fold.number}/{run.data.fold.of}",
        **_flat(measured),
        **tested,
        "minutes": round(sum(row["seconds"] for row in run.history) / 60, 2),
        "device": torch.cuda.get_device_name(used) if used.type == "cuda" else used.type,
        "processes": ranks.COUNT,
        "precision": run.accelerator.mixed_precision,
        **{f"version_{name}": version for name, version in best["versions"].items()},
        "data_fingerprint": run.data.fingerprint,
    }


def append_run(path: Path, row: dict) -> None:
    """Adds the row to runs.csv, in place of one that differs in nothing but when it was finished: a finished run that
    was resumed."""
    now = pd.DataFrame([{key: "" if value is None else str(value) for key, value in row.items()}])
    before = [pd.read_csv(path, dtype=str, keep_default_na=False)] if path.is_file() else []
    rows = pd.concat([*before, now], ignore_index=True).fillna("")
    same = rows.drop(columns="finished", errors="ignore").duplicated(keep="last")
    files.write_csv(path, rows[~same])


def in_words(row: dict) -> list[str]:
    """A row of runs.csv -> lines for a person: the best epoch, the test, and whether it beats the most frequent
    class."""

    def figure(name: str) -> str:
        return f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"

    seen = f", seen in {row['views']} views" if row["views"] > 1 else ""
    lines = [
        f"best epoch {row['best_epoch']}{seen}: macro-F1 cross-fitted {figure('macro_f1_cross_fitted')}, "
        f"kappa {figure('kappa_cross_fitted')}, in {row['minutes']:.1f} minutes"
    ]
    if "test_accuracy" in row:
        lines.append(
            f"test: macro-F1 {figure('test_macro_f1')}, kappa {figure('test_kappa')}, "
            f"accuracy {figure('test_accuracy')}, AUC {figure('test_auc')}, loss {row['test_loss']:.3f}"
        )
    for prefix, where in (("", "validation"), ("test_", "test")):
        if f"{prefix}accuracy" in row and row[f"{prefix}accuracy"] <= row[f"{prefix}majority"]:
            skilled = row[f"{prefix}{metrics.KAPPA[where]}_low"] > 0
            lines.append(
                f"note: its {where} accuracy of {row[f'{prefix}accuracy']:.3f} is no better than always answering with "
                f"the most frequent class ({row[f'{prefix}majority']:.3f})"
                f"{', though its kappa shows that it tells classes apart' if skilled else ''}"
            )
    return lines


def in_words_of_files(folder: str, name: str) -> list[str]:
    """-> what a person looks at first of the files of a run, and what predict.py asks for."""
    return [f"wrote {folder}/{name}__report.html", f"saved {folder}/{name}__best.pt"]
