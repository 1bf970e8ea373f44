"""Stage 3: checkpoints + images -> result.csv, details.csv and report.html."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from dr.core import distributed, files, processes
from dr.datasets.preprocessed import name_hash
from dr.inference import ensemble
from dr.inference.checkpoint import Checkpoint
from dr.inference.decision import Decision
from dr.inference.grader import Grader, NetworkOutputs
from dr.prediction import explanations, notes, prevalence, report, scoring
from dr.prediction.inputs import find_images, ids, select
from dr.prediction.labels import Labels, read_labels
from dr.prediction.options import PredictOptions
from dr.prediction.run_networks import run_networks
from dr.prediction.stereo import split_frames
from dr.prediction.submission import HEADER, Sample, read_sample, unused_lines
from dr.prediction.thumbnails import Thumbnail
from dr.sources.archive import Archive
from dr.sources.class_names import numbers_of
from dr.sources.columns import Columns
from dr.sources.csv_tables import without_suffix
from dr.sources.halves import HalvesArchive
from dr.sources.matching import path_ends

PAGE = "report.html"


@dataclass(frozen=True)
class Prediction:
    """What was written: `result` (id_code, diagnosis), `details`, a row for each image, and `metrics`, the content of
    metrics.json where labels were given; the class names; sentences on the source of the thresholds (None without
    thresholds), the engine, and notes."""

    result: pd.DataFrame
    details: pd.DataFrame
    classes: tuple[str, ...]
    thresholds_source: str | None
    engine: str
    metrics: dict | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Inputs:
    """The images to grade, {name: id} in order; the sample submission and the true grades where they were given."""

    archive: Archive | HalvesArchive
    id_of: Mapping[str, str]
    sample: Sample | None = None
    labels: Labels | None = None


def predict(options: PredictOptions) -> Prediction:
    """Grades images -> OUTPUT/result.csv, details.csv, with labels metrics.json, with `report` report.html.

    Under torchrun the processes share the images, and the main one writes. Raises UsageError before the first image is
    graded.
    """
    start = processes.work_started()
    inputs = _images(options)
    checkpoints = ensemble.load(options.models)
    inputs = replace(inputs, labels=_labels(options, inputs.id_of, classes=checkpoints[0].classes))
    grader = _grader(checkpoints, options)
    if distributed.is_main:
        files.writable_folder(options.output)

    with_thumbnails = options.report and len(inputs.id_of) <= report.MAX_THUMBNAILS
    outputs, thumbnails = run_networks(
        grader, inputs.archive, list(inputs.id_of), thumbnails=with_thumbnails, workers=options.workers
    )
    decision = distributed.broadcast(lambda: _decide(grader, outputs, options.prevalence))
    result, details = _tables(grader, outputs, decision, inputs)
    metrics = None
    if inputs.labels is not None:
        metrics = distributed.broadcast(lambda: _metrics(outputs, decision, inputs, checkpoints))
    if distributed.is_main:
        _write(Path(options.output), _under_header(result, inputs.sample), details, metrics)
    _, engine = grader.scorers(len(inputs.id_of))
    if options.report:
        content = _page_content(options, grader, details, decision, metrics)
        _write_page(content, options, grader, inputs.archive, thumbnails, start=start)
    lines = notes.on_grades(details, decision, checkpoints, unscored=inputs.labels is not None and metrics is None)
    lines += notes.on_names(inputs.archive, inputs.id_of, graded=len(result), submitted=inputs.sample is not None)
    lines += notes.on_tables(inputs.labels, inputs.sample)
    if inputs.sample is None:
        lines += unused_lines(options.images, inputs.archive, inputs.id_of)
    return Prediction(result, details, grader.classes, decision.thresholds_source, engine, metrics, lines)


def _images(options: PredictOptions) -> Inputs:
    """The images to grade, in the order of the sample submission if there is one, without the outputs of an earlier
    run. Raises UsageError."""
    outputs = [Path(options.output) / name for name in scoring.FILES]
    archive, names = find_images(options.images, exclude=outputs)
    sample = None
    if options.submission is not None:
        own = options.labels is None  # else the columns are those of the labels
        columns = Columns(id=options.id_column, label=options.label_column) if own else Columns()
        sample = read_sample(options.submission, images=options.images, archive=archive, names=names, columns=columns)
    if options.stereo:
        archive, names = split_frames(archive, names, wanted=sample and sample.ids, options=options)
    if sample is None:
        return Inputs(archive, dict(zip(names, ids(names), strict=True)))
    chosen = select(names, sample.ids, images=options.images, submission=sample.path)
    return Inputs(archive, dict(zip(chosen, sample.ids, strict=True)), sample)


def _labels(options: PredictOptions, id_of: Mapping[str, str], *, classes: Sequence[str]) -> Labels | None:
    """The true grades by id. Raises UsageError."""
    if options.labels is None:
        return None
    columns = Columns(id=options.id_column, label=options.label_column, patient=options.patient_column)
    return read_labels(options.labels, id_of, classes=classes, columns=columns)


def _under_header(result: pd.DataFrame, sample: Sample | None) -> pd.DataFrame:
    """result.csv under the header of the sample submission: another one would not be valid."""
    return result if sample is None else result.rename(columns=dict(zip(HEADER, sample.header, strict=True)))


def _grader(checkpoints: Sequence[Checkpoint], options: PredictOptions) -> Grader:
    """The grader of these options. Raises UsageError for what it cannot do later."""
    by = options.tta_by or checkpoints[0].recipe.tta_by
    if options.prevalence is not None:
        prevalence.check(checkpoints, options.prevalence, by=by)
    grader = Grader(
        checkpoints,
        tta=options.tta,
        tta_by=by,
        device=options.device,
        engine=options.engine,
        batch_size=options.batch_size,
    )
    if options.report and options.explain:
        grader.explainers()
    return grader


def _decide(grader: Grader, outputs: NetworkOutputs, stated: Sequence[float] | str | None) -> Decision:
    """The decision at the validation set's class prevalence, or at the `stated` one."""
    return grader.decide(outputs) if stated is None else prevalence.decide(grader, outputs, stated)


def _tables(
    grader: Grader, outputs: NetworkOutputs, decision: Decision, inputs: Inputs
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """-> result.csv, details.csv, in the order of the sample submission, else sorted by name."""
    details = grader.details(outputs, decision)
    if inputs.labels is not None:
        truth = details["file"].map(inputs.id_of).map(inputs.labels.grades).astype("Int64")
        details.insert(details.columns.get_loc("class") + 1, "truth", truth)
    id_codes = details.loc[outputs.index, "file"].map(inputs.id_of).tolist()
    diagnosis = np.array(numbers_of(grader.classes))[decision.grades]
    result = pd.DataFrame(dict(zip(HEADER, (id_codes, diagnosis), strict=True)))
    if inputs.sample is None:
        result, details = result.sort_values("id_code"), details.sort_values("file")
    return result.reset_index(drop=True), details.reset_index(drop=True)


def _metrics(
    outputs: NetworkOutputs, decision: Decision, inputs: Inputs, checkpoints: Sequence[Checkpoint]
) -> dict | None:
    """The content of metrics.json; None where no labelled image has a grade."""
    named = {i: inputs.id_of[record["file"]] for i, record in outputs.records.items()}
    unreadable = [named[i] for i, record in outputs.records.items() if record["error"]]
    graded = scoring.Graded([named[i] for i in outputs.index], decision.predictions, decision.grades, unreadable)
    first = checkpoints[0]
    content = scoring.score(graded, inputs.labels, objective=first.objective, classes=first.classes)
    if content is None:
        return None
    labelled = [name for name in graded.ids if name in inputs.labels.grades.index]
    return content | {"in_training_data": _in_training_data(labelled, inputs, checkpoints)}


def _in_training_data(ids: Sequence[str], inputs: Inputs, checkpoints: Sequence[Checkpoint]) -> dict[str, int]:
    """Ids of images -> {path of a checkpoint: how many of them match, by name, its training or validation images}."""
    file_of = {own: without_suffix(name) for name, own in inputs.id_of.items()}
    hashes = []
    for own in ids:
        # data.py joins folders and name, where names alone are not unique
        ends = {end.replace("/", "_") for path in (own, file_of[own]) for end in path_ends(path)}
        hashes.append({name_hash(end) for end in ends | {inputs.labels.originals.get(own, own)}})
    counts = {}
    for checkpoint in checkpoints:
        if checkpoint.data.name_hashes is not None:
            known = set(checkpoint.data.name_hashes.tolist())
            counts[str(checkpoint.path)] = sum(not known.isdisjoint(names) for names in hashes)
    return {path: count for path, count in counts.items() if count}


def _write(output: Path, result: pd.DataFrame, details: pd.DataFrame, metrics: dict | None) -> None:
    """Writes the tables, and removes the files of an earlier run that this one does not write."""
    for name in (*scoring.FILES, PAGE):
        (output / name).unlink(missing_ok=True)
    if metrics is not None:
        scoring.write(metrics, str(output))
    files.write_csv(output / "details.csv", details)
    files.write_csv(output / "result.csv", result)


def _page_content(
    options: PredictOptions, grader: Grader, details: pd.DataFrame, decision: Decision, metrics: dict | None
) -> report.Content:
    return report.Content(
        details=details,
        checkpoints=grader.checkpoints,
        thresholds=decision.mean_thresholds,
        thresholds_source=decision.thresholds_source,
        calibrated=decision.calibrated,
        images=options.images,
        tta=grader.tta,
        engine=grader.scorers(len(details))[1],
        metrics=metrics,
        optimistic_notes=[] if metrics is None else scoring.optimistic_notes(metrics),
        warnings=notes.unskilled(grader.checkpoints),
    )


def _write_page(
    content: report.Content,
    options: PredictOptions,
    grader: Grader,
    archive: Archive,
    thumbnails: dict[str, Thumbnail],
    *,
    start: float,
) -> None:
    """All processes draw maps and bring their thumbnails; the main one writes. `start`: of the clock time.monotonic."""
    maps = []
    if options.explain:
        chosen = explanations.choose(content.details, count=options.explain)
        maps = explanations.maps(content.details, chosen, explainers=grader.explainers(), read=archive.read)
    everyones = {file: each for own in distributed.all_gather(thumbnails) for file, each in own.items()}
    if distributed.is_main:
        seconds = time.monotonic() - start
        report.write(Path(options.output) / PAGE, content, thumbnails=everyones, maps=maps, seconds=seconds)


def summary_lines(prediction: Prediction) -> list[str]:
    """-> lines to print: thresholds, metrics, notes, engine, and the number of images of each grade."""
    counts = prediction.result["diagnosis"].value_counts()
    named = zip(numbers_of(prediction.classes), prediction.classes, strict=True)
    return [
        *([] if prediction.thresholds_source is None else [prediction.thresholds_source]),
        *([] if prediction.metrics is None else scoring.summary_lines(prediction.metrics)),
        *prediction.notes,
        f"graded by {prediction.engine}",
        "  ".join(f"{name}: {counts.get(number, 0)}" for number, name in named),
    ]
