"""Stage 3: checkpoints + photographs -> result.csv (a valid submission), details.csv and report.html."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dr.core import device, distributed, files
from dr.datasets.preprocessed import name_hash
from dr.imaging import novelty
from dr.inference import ensemble
from dr.inference.checkpoint import Checkpoint
from dr.inference.forward import Scorer, decide, mean_predictions
from dr.prediction import explanations, scoring
from dr.prediction import report as prediction_page
from dr.prediction.inputs import find_images, ids, select, submission_ids
from dr.prediction.prevalence import Shift
from dr.prediction.prevalence import check as check_prevalence
from dr.prediction.run_networks import NetworkOutputs, forward
from dr.sources.archive import Archive, other_pictures, passed_over, stem
from dr.sources.class_names import numbers_of
from dr.sources.kaggle import path_ends

PAGE = "report.html"


@dataclass(frozen=True)
class Prediction:
    """What was written: `result` (id_code, diagnosis) and `details`, one row for each photograph; the names of the
    classes; the cuts and where they are from, in words, None without cuts; what ran the networks, in words; what
    metrics.json holds, where there are labels; what else a person should know, a line each."""

    result: pd.DataFrame
    details: pd.DataFrame
    classes: tuple[str, ...]
    thresholds: str | None
    engine: str
    metrics: dict | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Decision:
    """Mean predictions (M, P), grades (M,), probabilities (M, K) where there are some, and whether they are calibrated;
    cuts (K-1,) of each network, and where they are from, in words; without cuts None, and the evidence (M, K) whose
    highest the grade is."""

    predictions: np.ndarray
    grades: np.ndarray
    probabilities: np.ndarray | None
    calibrated: bool
    thresholds: Sequence[np.ndarray | None]
    thresholds_source: str | None
    evidence: np.ndarray | None

    @property
    def mean_thresholds(self) -> np.ndarray | None:
        """(K-1,), of all networks; None without cuts."""
        return None if self.thresholds[0] is None else np.mean(self.thresholds, axis=0)


def _decide(
    seen: NetworkOutputs,
    scorers: Sequence[Scorer],
    checkpoints: Sequence[Checkpoint],
    *,
    stated: Sequence[float] | str | None,
    by: str,
) -> Decision:
    """What is decided, for validation's mix of grades or the `stated` one."""
    thresholds, words = ensemble.thresholds(checkpoints)
    if stated is None:
        predictions, grades = decide(scorers, seen.outputs, thresholds=thresholds, by=by)
        own = checkpoints[0].objective.probabilities(predictions)
        likely = ensemble.probabilities(checkpoints, predictions)
        calibrated = likely is not None
        return Decision(predictions, grades, likely if calibrated else own, calibrated, thresholds, words, own)
    shift = Shift(checkpoints, mean_predictions(scorers, seen.outputs), stated)
    thresholds = shift.thresholds or thresholds
    predictions, grades = decide(scorers, seen.outputs, thresholds=thresholds, by=by)
    grades = grades if shift.grades is None else shift.grades
    return Decision(predictions, grades, shift.probabilities, True, thresholds, shift.describe(), shift.evidence)


def _named(images: str, submission: str | None, *, output: str) -> tuple[Archive, dict[str, str]]:
    """The photographs to grade, in the order of a submission where one is given, none that an earlier run drew -> their
    archive, {name: id}."""
    wanted = submission_ids(submission) if submission else None
    archive, names = find_images(images, but=[Path(output) / name for name in scoring.FILES])
    if wanted is None:
        return archive, dict(zip(names, ids(names), strict=True))
    chosen = select(names, wanted, images=images, submission=submission)
    return archive, dict(zip(chosen, wanted, strict=True))


def predict(
    models: Sequence[str],
    images: str,
    *,
    output: str,
    batch_size: int = 16,
    tta: str | None = None,
    tta_by: str | None = None,
    workers: int = 2,
    device_name: str = "auto",
    engine_name: str = "auto",
    submission: str | None = None,
    prevalence: Sequence[float] | str | None = None,
    labels: str | None = None,
    report: bool = False,
    explain: int | str = 0,
) -> Prediction:
    """Grades the photographs of `images` -> output/result.csv and output/details.csv, and with `report` the page
    output/report.html, with maps of `explain` photographs or of 'all'.

    Predictions of several checkpoints are averaged, and so are their cuts, unless they are folds of one set; `tta` and
    `tta_by` are the first recipe's where they are not given. `prevalence`: the share of each class, or auto, that
    decisions are moved to. `labels`: a table of true grades, which output/metrics.json is made with. Several processes
    share the photographs, and the main one writes. Raises UsageError.
    """
    start = time.monotonic()
    archive, id_of = _named(images, submission, output=output)
    checkpoints = ensemble.load(models)
    first = checkpoints[0]
    tta, by = tta or first.recipe.tta, tta_by or first.recipe.tta_by
    truth = _truth(labels, id_of, classes=first.classes) if labels else None
    if prevalence is not None:
        check_prevalence(checkpoints, prevalence, by=by)
    precisions = {one.recipe.precision for one in checkpoints}
    precision = precisions.pop() if len(precisions) == 1 else "auto"
    accelerator = device.accelerator(device_name, precision=precision, on_cpu="fp32")
    layers = explanations.find_layers(checkpoints) if report and explain else []
    if distributed.is_main:
        files.writable_folder(output)

    seen, scorers, used = forward(
        archive,
        list(id_of),
        checkpoints,
        tta=tta,
        thumbnails=report and len(id_of) <= prediction_page.MOST_THUMBNAILS,
        batch_size=batch_size,
        workers=workers,
        engine_name=engine_name,
        accelerator=accelerator,
    )
    decision = distributed.broadcast(lambda: _decide(seen, scorers, checkpoints, stated=prevalence, by=by))
    result, details = _tables(seen, decision, first, id_of=id_of, truth=truth, ordered=submission is not None)
    measured = (
        None
        if truth is None
        else distributed.broadcast(lambda: _scored(seen, decision, truth, checkpoints, id_of=id_of))
    )
    if distributed.is_main:
        _write(Path(output), result, details, measured)
    if report:
        content = prediction_page.Content(
            details=details,
            checkpoints=checkpoints,
            thresholds=decision.mean_thresholds,
            thresholds_source=decision.thresholds_source,
            calibrated=decision.calibrated,
            images=images,
            tta=tta,
            engine=used,
            metrics=measured,
            optimistic_notes=[] if measured is None else scoring.optimistic_notes(measured),
            warnings=useless(checkpoints),
        )
        page = Path(output) / PAGE
        made_from = {
            "thumbnails": seen.thumbnails,
            "explain": explain,
            "layers": layers,
            "read": archive.read,
            "start": start,
        }
        prediction_page.make(page, content, **made_from)
    notes = _notes(details, decision, checkpoints, unscored=truth is not None and measured is None)
    notes += _notes_on_names(archive, id_of, graded=len(result), submitted=submission is not None)
    return Prediction(result, details, first.classes, decision.thresholds_source, used, measured, notes)


def _truth(labels: str, id_of: Mapping[str, str], *, classes: Sequence[str]) -> pd.Series:
    """The true grades in the table `labels`, by id. Raises UsageError."""
    truth = scoring.of_images(scoring.read_labels(labels, classes=classes), id_of, path=labels)
    scoring.check(list(id_of.values()), truth, path=labels)
    return truth


def _write(output: Path, result: pd.DataFrame, details: pd.DataFrame, measured: dict | None) -> None:
    """The tables, and nothing of a run before that would be taken for this one's."""
    for name in (*scoring.FILES, PAGE):
        (output / name).unlink(missing_ok=True)
    if measured is not None:
        scoring.write(measured, str(output))
    files.write_csv(output / "details.csv", details)
    files.write_csv(output / "result.csv", result)


def _scored(
    seen: NetworkOutputs,
    decision: Decision,
    truth: pd.Series,
    checkpoints: Sequence[Checkpoint],
    *,
    id_of: Mapping[str, str],
) -> dict | None:
    """What metrics.json holds; None where no photograph that has a label could be graded."""
    named = {i: id_of[record["file"]] for i, record in seen.records.items()}
    unreadable = [named[i] for i, record in seen.records.items() if record["error"]]
    graded = scoring.Graded([named[i] for i in seen.index], decision.predictions, decision.grades, unreadable)
    first = checkpoints[0]
    content = scoring.score(graded, truth, objective=first.objective, classes=first.classes)
    # data.py joins folders and name, where names alone are not unique
    hashes = [
        [name_hash(end.replace("/", "_")) for end in path_ends(name)] for name in graded.ids if name in truth.index
    ]
    seen_by = {
        str(one.path): set(one.seen_name_hashes.tolist()) for one in checkpoints if one.seen_name_hashes is not None
    }
    known = {path: sum(not names.isdisjoint(own) for own in hashes) for path, names in seen_by.items()}
    return None if content is None else content | {"seen_before": {path: n for path, n in known.items() if n}}


def useless(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """-> a line for each network that training has found to be of no use."""
    return [
        f"{one.path}: do not rely on its grades; on its {one.useless_on[-1]} photographs it was no better than always "
        "giving the most frequent class"
        for one in checkpoints
        if one.useless_on
    ]


def _notes(
    details: pd.DataFrame, decision: Decision, checkpoints: Sequence[Checkpoint], *, unscored: bool
) -> list[str]:
    """What a person should know beside the grades, a line each."""
    notes = useless(checkpoints)
    if unscored:
        notes.append("not scored: no photograph that has a label could be read; look at error in details.csv")
    if decision.probabilities is not None and not decision.calibrated:
        without = next(one.path for one in checkpoints if one.calibration is None)
        notes.append(f"probabilities are not calibrated: {without} keeps no validation to calibrate by")
    without = next((one.path for one in checkpoints if one.training is None), None)
    if without is not None:
        notes.append(f"{novelty.FLAG}: not looked for, {without} does not keep what its training photographs look like")
    graded = details[details["grade"].notna()]
    if raised := Counter(" ".join(graded["flags"].dropna()).split()):
        counts = "  ".join(f"{name}: {count}" for name, count in sorted(raised.items()))
        notes.append(f"flags of the {len(graded)} photographs that were graded: {counts}")
    return notes


def _notes_on_names(archive: Archive, id_of: Mapping[str, str], *, graded: int, submitted: bool) -> list[str]:
    """What a person should know of the photographs and their ids, a line each."""
    notes = []
    if not submitted and any(own != stem(name) for name, own in id_of.items()):
        notes.append("several photographs share a name: id_code is their path")
    if others := other_pictures(archive.names):
        notes.append(passed_over(others[0], len(others)))
    if submitted and (left := len(id_of) - graded):
        notes.append(f"result.csv is no valid submission: {left} of the {len(id_of)} ids could not be graded")
    return notes


def _tables(
    seen: NetworkOutputs,
    decision: Decision,
    first: Checkpoint,
    *,
    id_of: Mapping[str, str],
    truth: pd.Series | None,
    ordered: bool,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """-> result, details, with `truth` where there are labels, sorted by name where they are not `ordered` already."""
    scores = first.objective.scores(decision.predictions)
    doubt = prediction_page.doubts(
        scores,
        decision.grades,
        objective=first.objective,
        thresholds=decision.mean_thresholds,
        evidence=decision.evidence,
    )
    graded = {"score": scores.round(4), "grade": decision.grades, "doubt": doubt.round(4)}
    graded = pd.DataFrame(graded, index=seen.index)
    probabilities = []
    if decision.probabilities is not None:
        probabilities = [f"probability_{k}" for k in range(first.objective.num_classes)]
        likely = pd.DataFrame(decision.probabilities.round(4), index=seen.index, columns=probabilities)
        graded = pd.concat([graded, likely], axis=1)
    graded["class"] = [first.classes[grade] for grade in decision.grades]
    details = pd.DataFrame.from_dict(seen.records, orient="index").sort_index()
    details = details.join(graded.astype({"grade": "Int64"}))
    distance = [novelty.DISTANCE] if novelty.DISTANCE in details else []
    known = [] if truth is None else ["truth"]
    if truth is not None:
        details["truth"] = details["file"].map(id_of).map(truth).astype("Int64")
    graded_columns = ["file", "score", "grade", "class", *known, *probabilities, "doubt"]
    measured_columns = ["brightness", "sharpness", "cut_off", *distance, "flags", "error"]
    details = details.reindex(columns=graded_columns + measured_columns)
    id_codes = details.loc[graded.index, "file"].map(id_of).tolist()
    diagnosis = np.array(numbers_of(first.classes))[decision.grades]
    result = pd.DataFrame({"id_code": id_codes, "diagnosis": diagnosis})
    if not ordered:
        result, details = result.sort_values("id_code"), details.sort_values("file")
    return result.reset_index(drop=True), details.reset_index(drop=True)


def summary_lines(prediction: Prediction) -> list[str]:
    """-> lines for a person: by which cuts, how good, what to know, by what, and how many of each grade."""
    counts = prediction.result["diagnosis"].value_counts()
    named = zip(numbers_of(prediction.classes), prediction.classes, strict=True)
    return [
        *([] if prediction.thresholds is None else [prediction.thresholds]),
        *([] if prediction.metrics is None else scoring.summary_lines(prediction.metrics)),
        *prediction.notes,
        f"graded by {prediction.engine}",
        "  ".join(f"{name}: {counts.get(number, 0)}" for number, name in named),
    ]
