"""Which images become training, validation and test: drawn, preprocessed and settled until every class is full."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dr import SPLIT_NAMES, UsageError
from dr.core.progress import track
from dr.imaging import duplicates
from dr.preprocessing import split
from dr.preprocessing.settings import Settings
from dr.preprocessing.worker_pool import Job, run_tasks
from dr.preprocessing.workspace import Workspace, file_prefixes
from dr.sources.source import Source, main_of

Key = tuple[str, str]  # source, original


@dataclass(frozen=True)
class Selection:
    """`images`: the table of `split.assign_splits`. `duplicates`: that of `split.settle_duplicates`. `failed`: why an
    image could not be used."""

    images: pd.DataFrame
    duplicates: pd.DataFrame
    failed: dict[Key, str]

    def used(self) -> pd.DataFrame:
        """The images in a split."""
        return self.images[self.images["split"].notna()]


@dataclass
class _Run:
    """What the rounds of `select` share; `failed` and `signatures` (by file name) grow in every round."""

    sources: dict[str, Source]
    settings: Settings
    workspace: Workspace
    workers: int
    failed: dict[Key, str] = field(default_factory=dict)
    signatures: dict[str, np.ndarray] = field(default_factory=dict)


def select(sources: dict[str, Source], *, settings: Settings, workspace: Workspace, workers: int) -> Selection:
    """Draws, preprocesses and settles until every class is full or exhausted. Raises UsageError for a main source
    without a readable image and for splits with too few images."""
    run = _Run(sources, settings, workspace, workers)
    tables = [each.table.assign(source=name, rank=rank) for rank, (name, each) in enumerate(sources.items())]
    table = pd.concat(tables, ignore_index=True)
    table = table.assign(order=split.drawing_order(table, seed=settings.seed))
    draws = _first_draws(table, num_classes=len(main_of(sources).classes), settings=settings)
    for key in changed(workspace, sources):
        workspace.forget(*key)
    while True:
        usable = _preprocess(_needed(table, draws), run)
        settled, listed = split.settle_duplicates(_group_duplicates(usable, run), policy=settings.conflicts)
        images = split.assign_splits(
            settled, per_class=settings.limit, val_fraction=settings.val_fraction, seed=settings.seed
        )
        more = _more_draws(draws, table=table, images=images, per_class=settings.limit)
        if not more:
            _refuse_too_few(images, main=main_of(sources), failed=len(run.failed))
            return Selection(images, listed, run.failed)
        draws |= more


def changed(workspace: Workspace, sources: dict[str, Source]) -> set[Key]:
    """The finished images whose size in the archive has changed since."""
    sizes = {
        (name, row.original): source.archive.size(row.member)
        for name, source in sources.items()
        for row in source.table.dropna(subset="member").itertuples()
        if (name, row.original) in workspace.records
    }
    return {key for key, size in sizes.items() if workspace.records[key]["bytes"] != size}


def _first_draws(table: pd.DataFrame, *, num_classes: int, settings: Settings) -> dict[int, int]:
    """{grade: number of images of other sources needed if no image of the main source is excluded}."""
    free = table["rank"].eq(0) & ~table["source_split"].isin(["val", "test"])
    share = 0.0 if table["source_split"].eq("val").any() else settings.val_fraction
    draws = {}
    for grade in range(num_classes):
        main = int((table["diagnosis"].eq(grade) & free).sum())
        for_training = main - round(share * main)
        draws[grade] = len(table) if settings.limit is None else max(0, settings.limit - for_training)
    return draws


def _needed(table: pd.DataFrame, draws: dict[int, int]) -> pd.DataFrame:
    """All images of the main source and, of the others in their order, the first `draws` of each grade with the other
    eyes of their patients (an eye that duplicates a validation image bars the other eye from training)."""
    main = table["rank"].eq(0)
    extra = table[~main].sort_values(["rank", "order"])
    drawn = pd.concat([extra[extra["diagnosis"] == grade].head(count) for grade, count in draws.items()])
    return table[main | table.index.isin(drawn.index) | table["patient"].isin(drawn["patient"].dropna())]


def _preprocess(needed: pd.DataFrame, run: _Run) -> pd.DataFrame:
    """Preprocesses the needed images that are neither finished nor failed -> those that are usable."""
    keys = pd.Series(list(zip(needed["source"], needed["original"], strict=True)), index=needed.index)
    tasks = []
    untried = needed[~keys.isin(run.failed)]
    for row in untried.itertuples():
        if pd.isna(row.member):
            run.failed[row.source, row.original] = "the archive lacks its file"
        elif (row.source, row.original) not in run.workspace.records:
            tasks.append((row.source, row.original, row.member))
    missing = untried["member"].isna().sum()
    _run_tasks(tasks, run, total=len(untried) - int(missing))
    usable = needed[~keys.isin(run.failed)]
    if not usable["rank"].eq(0).any():
        (_, original), reason = next(iter(run.failed.items()))
        path = main_of(run.sources).archive.path
        raise UsageError(f"{path}: none of its images could be read ({original}: {reason}); check that it is intact")
    return usable


def _run_tasks(tasks: list[tuple[str, str, str]], run: _Run, *, total: int) -> None:
    """Preprocesses the tasks, with a progress bar that counts finished images of `total`."""
    options = {
        name: {"size_px": run.settings.size, "crop": run.settings.crop and source.crop, "lossless": not source.crop}
        for name, source in run.sources.items()
    }
    job = Job(run.workspace.staging, run.workspace.log, options, file_prefixes(run.sources))
    archives = {name: source.archive for name, source in run.sources.items()}
    finished = total - len(tasks)
    with track(total=total, initial=finished, desc="preprocessing", unit="images") as progress:
        for record in run_tasks(tasks, job=job, archives=archives, workers=run.workers):
            if "error" in record:
                run.failed[record["source"], record["original"]] = record["error"]
            else:
                run.workspace.add(record)
            progress.update()


def _group_duplicates(usable: pd.DataFrame, run: _Run) -> pd.DataFrame:
    """Adds `group`, equal for duplicates of one image."""
    workspace, signatures = run.workspace, run.signatures
    records = [workspace.records[key] for key in zip(usable["source"], usable["original"], strict=True)]
    hashes = np.array([record["hash"] for record in records], np.uint64)
    # the total is an upper bound: images that resemble no other are not compared
    with track(total=len(records), initial=len(signatures), desc="comparing", unit="images", delay=2) as progress:

        def signature_of(i: int) -> np.ndarray:
            name, (x0, y0, x1, y1) = records[i]["file"], records[i]["comparison_box"]
            if name not in signatures:
                signatures[name] = duplicates.signature(workspace.read(name)[y0:y1, x0:x1])
                progress.update()
            return signatures[name]

        pairs = duplicates.matching_pairs(hashes, signature_of)
    return usable.assign(group=duplicates.groups(len(records), pairs))


def _more_draws(draws: dict[int, int], *, table: pd.DataFrame, images: pd.DataFrame, per_class: int | None) -> dict:
    """The draws so far -> larger ones for the grades that are neither full nor exhausted."""
    counts = images[images["split"] == "train"]["diagnosis"].value_counts()
    more = {}
    for grade, drawn in draws.items():
        left = int((table["diagnosis"].eq(grade) & table["rank"].gt(0)).sum()) - drawn
        missing = (per_class or 0) - int(counts.get(grade, 0))
        if left > 0 and missing > 0:
            more[grade] = drawn + min(missing, left)
    return more


def _refuse_too_few(images: pd.DataFrame, *, main: Source, failed: int) -> None:
    """Raises UsageError for a split with too few images."""
    needed = {"val": (2, "larger"), "train": (1, "smaller"), "test": (1, None)}
    for name, (least, fraction) in needed.items():
        count = int(images["split"].eq(name).sum())
        if count >= least or (name == "test" and not main.table["source_split"].eq("test").any()):
            continue
        drawn = fraction and not main.table["source_split"].eq("val").any()
        share = f", or use a {fraction} --val_fraction" if drawn else ""
        unread = f" ({failed} could not be read)" if failed else ""
        raise UsageError(
            f"{main.archive.path}: only {count} images are left for {SPLIT_NAMES[name]}{unread}; add images or "
            f"patients{share}, and run with --force"
        )
