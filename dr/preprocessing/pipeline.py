"""Stage 1: sources of labelled images -> DIR/kaggle_retina/{train,val,test}, label tables, report.json and report.html.

Each image is read, cropped and written once. A line in preprocessed.jsonl records it, so that a stopped run continues
when it is started again.
"""

import hashlib
import json
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from dr import __version__
from dr.core import distributed, processes
from dr.core.files import lock_folder, sha256, write_csv, write_json
from dr.preprocessing import facts, plots
from dr.preprocessing.report import worst_crops, write_report
from dr.preprocessing.selection import Selection, changed, select
from dr.preprocessing.settings import Settings
from dr.preprocessing.stereo import split_frames
from dr.preprocessing.worker_pool import assist
from dr.preprocessing.workspace import Workspace, folder_in
from dr.sources.archive import unsupported_images
from dr.sources.kaggle import COMPETITION
from dr.sources.source import SPLITS, Source, main_of

LABEL_COLUMNS = ["path", "diagnosis", "source", "original", "patient", "group"]
PER_CLASS = 1000  # the default of --per_class for the competition archive


def preprocess_sources(
    sources: dict[str, Source], *, directory: str, settings: Settings, workers: int, force: bool = False
) -> dict:
    """Preprocesses the sources by name, the main one first, into `directory`/kaggle_retina -> its report.json.

    A finished folder with the same settings is left as it is, except that failed images are tried again. Under torchrun
    all ranks must see the folder: the main rank decides and writes the tables, the others help with the images. Raises
    UsageError.
    """
    distributed.init("gloo")
    sources = split_frames(sources, settings=settings, workers=workers)
    if not distributed.is_main:
        return assist(archives={name: source.archive for name, source in sources.items()}, workers=workers)
    report = _run_on_main_rank(sources, directory=directory, settings=settings, workers=workers, force=force)
    return distributed.broadcast(lambda: report)


def _run_on_main_rank(
    sources: dict[str, Source], *, directory: str, settings: Settings, workers: int, force: bool
) -> dict:
    main = main_of(sources)
    if settings.per_class is None:
        settings = replace(settings, per_class=PER_CLASS if main.kind == COMPETITION else "all")
    has_test = main.table["source_split"].eq("test").any()
    identity = _identity(settings, sources)
    root = folder_in(Path(directory))
    with lock_folder(root):
        splits = tuple(split for split in SPLITS if split != "test" or has_test)
        workspace = Workspace(root, identity=identity, force=force, splits=splits)
        if workspace.complete() and not changed(workspace, sources):
            before = json.loads((root / "report.json").read_text(encoding="utf-8"))
            if not before["skipped"]:  # else the user may have fixed the skipped images since
                return before | {"already_finished": True}
        return _fill(workspace, sources, identity=identity, settings=settings, workers=workers)


def _identity(settings: Settings, sources: dict[str, Source]) -> dict:
    """What must be equal for a run to continue another one. `read_preprocessed` reads size, crop and classes."""
    labels = hashlib.sha256()
    for source in sources.values():
        labels.update(source.table.to_csv(index=False).encode())
    return {
        "sources": [source.archive.path.resolve().name for source in sources.values()],
        **asdict(settings),
        "crop": settings.crop and main_of(sources).crop,
        "classes": list(main_of(sources).classes),
        "labels_sha256": labels.hexdigest()[:12],
    }


def _fill(
    workspace: Workspace, sources: dict[str, Source], *, identity: dict, settings: Settings, workers: int
) -> dict:
    """Selects and writes everything. The order of the steps keeps a stopped run restartable."""
    started = processes.work_started()
    root, classes = workspace.root, main_of(sources).classes
    selection = select(sources, settings=settings, workspace=workspace, workers=workers)
    (root / "report.json").unlink(missing_ok=True)  # from here to the end the folder is incomplete
    files = _write_tables(selection, workspace)
    _write_ungradable(sources, root)
    counts = _counts(selection.images, names=list(sources), num_classes=len(classes))
    crops = worst_crops(selection, workspace=workspace, sources=sources)
    plots.draw_all(counts, crops, root=root, classes=classes, target=settings.limit)
    report = {
        "settings": identity,
        "counts": {name: column.tolist() for name, column in counts.items()},
        "below_per_class": _below_per_class(counts, settings.limit),
        "notes": facts.notes(sources),
        "ungradable": facts.ungradable_facts(facts.ungradable_images(sources)),
        "unlabelled_images": {name: source.unlabelled for name, source in sources.items() if source.unlabelled},
        "unsupported_images": _unsupported(sources),
        **_image_facts(selection, workspace),
        "seconds": round(time.monotonic() - started, 1),
        "versions": _versions(),
        "sha256": _hashes(root, files),
    }
    write_report(report, sources=sources, selection=selection, crops=crops, workspace=workspace)
    if not selection.failed:  # else they are needed again, once the failed images are fixed
        workspace.remove_others(files)  # last: a run that is stopped earlier finds them finished
    write_json(root / "report.json", report)
    return report


def _write_tables(selection: Selection, workspace: Workspace) -> dict[str, list[str]]:
    """Moves the images to their splits, writes the label tables and duplicates.csv -> {split: its file names}."""
    images = selection.images.assign(group=_duplicate_group(selection))
    keys = zip(images["source"], images["original"], strict=True)
    names = pd.Series([workspace.file(*key) for key in keys], index=images.index)
    files = {split: sorted(names[images["split"] == split]) for split in workspace.splits}
    workspace.move_to_splits(files)
    for split in files:
        here = images["split"] == split
        # names[here], not names: a frame without rows would take all names
        rows = images[here].assign(path=f"{split}/" + names[here]).sort_values("path")
        eye = ["eye"] if "eye" in rows else []  # where the headers of DICOM images name it
        write_csv(workspace.root / f"labels_{split}.csv", rows[LABEL_COLUMNS + eye])
    write_csv(workspace.root / "duplicates.csv", selection.duplicates)
    return files


def _write_ungradable(sources: dict[str, Source], root: Path) -> None:
    """ROOT/ungradable.csv, unless no image was left out because of its label."""
    table = facts.ungradable_images(sources)
    if len(table):
        write_csv(root / "ungradable.csv", table)
    else:
        (root / "ungradable.csv").unlink(missing_ok=True)


def _duplicate_group(selection: Selection) -> pd.Series:
    """-> `group` of the label tables: the image's group in duplicates.csv, missing without duplicates. All images of a
    person get the lowest: what joins them may be an excluded duplicate, which is in no label table."""
    number = selection.duplicates["group"].astype(float).reindex(selection.images.index)
    return number.groupby(selection.images["person"]).transform("min").astype("Int64")


def _counts(images: pd.DataFrame, *, names: list[str], num_classes: int) -> pd.DataFrame:
    """-> images by class (rows 0..K-1) and by validation, train: NAME of each source, test (columns)."""
    columns = {"validation": images["split"].eq("val")}
    for rank, source in enumerate(names):
        if rank and not images["source"].eq(source).any():
            continue
        columns[f"train: {source}"] = images["split"].eq("train") & images["source"].eq(source)
    if images["split"].eq("test").any():
        columns["test"] = images["split"].eq("test")
    return pd.DataFrame(
        {
            name: images[rows]["diagnosis"].value_counts().reindex(range(num_classes), fill_value=0)
            for name, rows in columns.items()
        }
    )


def _below_per_class(counts: pd.DataFrame, per_class: int | None) -> dict[str, int]:
    """{class with fewer training images than `per_class`: how many it has}."""
    totals = counts.filter(like="train").sum(axis=1)
    return {} if per_class is None else {str(grade): int(n) for grade, n in totals.items() if n < per_class}


def _unsupported(sources: dict[str, Source]) -> dict[str, list]:
    """{source: [the first image in an unsupported format, how many there are]}."""
    images = {name: unsupported_images(source.archive.names) for name, source in sources.items()}
    return {name: [names[0], len(names)] for name, names in images.items() if names}


def _image_facts(selection: Selection, workspace: Workspace) -> dict:
    """The part of report.json about single images: patients, exclusions, failures, quality flags, duplicates."""
    duplicates = selection.duplicates
    flags = [workspace.records[row.source, row.original]["flags"] for row in selection.used().itertuples()]
    flag_counts = pd.Series(flags, dtype=object).explode().dropna().value_counts()
    frames = {key: record["frame"] for key, record in workspace.records.items()}
    return {
        "patients": facts.patient_facts(selection.used(), frames),
        "excluded": selection.images["exclusion"].value_counts().to_dict(),
        "skipped": [
            {"source": source, "original": original, "reason": reason}
            for (source, original), reason in sorted(selection.failed.items())
        ],
        "quality_flags": {name: int(count) for name, count in flag_counts.items()},
        "duplicates": {
            "images": len(duplicates),
            "groups": int(duplicates["group"].nunique()),
            "conflicting_groups": int(duplicates[duplicates["conflict"].astype(bool)]["group"].nunique()),
        },
    }


def _versions() -> dict[str, str]:
    return {"dr": __version__, "python": platform.python_version(), "opencv": cv2.__version__, "numpy": np.__version__}


def _hashes(root: Path, files: dict[str, list[str]]) -> dict[str, str]:
    tables = [f"labels_{split}.csv" for split in files]
    return {name: sha256(root / name) for name in tables + [f"{s}/{name}" for s in files for name in files[s]]}
