"""Which photographs become training, validation and test: drawn, prepared and settled until every grade is full."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from dr import POLICIES, UsageError
from dr.imaging import duplicates
from dr.preprocessing import split
from dr.preprocessing.worker_pool import Job, prepare_all
from dr.preprocessing.workspace import Workspace
from dr.sources.kaggle import Source


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the prepared photographs and their split; checked when built (UsageError).

    per_class is a number, "all", or None for what the kind of source suggests.
    """

    size: int = 512
    per_class: int | str | None = None
    val_fraction: float = 0.2
    seed: int = 10
    conflicts: str = "drop"
    crop: bool = True

    def __post_init__(self):
        if not 16 <= self.size <= 4096:
            raise UsageError(f"--size must lie between 16 and 4096 pixels, got {self.size}")
        if self.per_class not in (None, "all") and (isinstance(self.per_class, str) or self.per_class < 1):
            raise UsageError(f"--per_class must be at least 1 or 'all', got {self.per_class}")
        if not 0 < self.val_fraction < 1:
            raise UsageError(f"--val_fraction must lie between 0 and 1, got {self.val_fraction}")
        if self.conflicts not in POLICIES:
            raise UsageError(f"--conflicts must be one of {', '.join(POLICIES)}, got {self.conflicts}")

    @property
    def limit(self) -> int | None:
        """Training photographs of each class at most; None takes all there are."""
        return None if self.per_class == "all" else self.per_class


def _first_draw(table: pd.DataFrame, *, num_classes: int, settings: Settings) -> dict[int, int]:
    """How many 2015 photographs of each grade are needed, were the main archive to lose none to duplicates."""
    free = table["source"].eq("main") & ~table["side"].isin(["val", "test"])
    share = 0.0 if table["side"].eq("val").any() else settings.val_fraction
    draws = {}
    for grade in range(num_classes):
        main = int((table["diagnosis"].eq(grade) & free).sum())
        for_training = main - round(share * main)
        draws[grade] = len(table) if settings.limit is None else max(0, settings.limit - for_training)
    return draws


def _needed(table: pd.DataFrame, draws: dict[int, int]) -> pd.DataFrame:
    """All of the main archive and, of 2015, the first `draws` of each grade with the same patients' other eyes (an eye
    that duplicates a validation photograph bars its fellow from training)."""
    main = table["source"].eq("main")
    extra = table[~main].sort_values("order")
    drawn = [extra[extra["diagnosis"] == grade].head(count) for grade, count in draws.items()]
    return table[main | table["patient"].isin(pd.concat(drawn)["patient"])]


def _group_duplicates(chosen: pd.DataFrame, *, workspace: Workspace, signatures: dict[str, np.ndarray]) -> pd.DataFrame:
    """Adds `group`, equal for photographs that are the same picture; `signatures`, by file name, grow every round."""
    records = [workspace.records[key] for key in zip(chosen["source"], chosen["original"], strict=True)]
    hashes = np.array([record["hash"] for record in records], np.uint64)
    # the total is an upper bound: photographs that look like no other are not compared
    with tqdm(total=len(records), initial=len(signatures), desc="comparing", unit=" photographs", delay=2) as progress:

        def signature_of(i: int) -> np.ndarray:
            name, (x0, y0, x1, y1) = records[i]["file"], records[i]["inside"]
            if name not in signatures:
                signatures[name] = duplicates.signature(workspace.read(name)[y0:y1, x0:x1])
                progress.update()
            return signatures[name]

        same = duplicates.same_pictures(hashes, signature_of)
    return chosen.assign(group=duplicates.groups(len(records), same))


def changed(workspace: Workspace, sources: dict[str, Source]) -> set[tuple[str, str]]:
    """(source, original) of photographs that are finished, but have another size in their archive since."""
    now = {
        (name, row.original): source.archive.size(row.member)
        for name, source in sources.items()
        for row in source.table.dropna(subset="member").itertuples()
        if (name, row.original) in workspace.records
    }
    return {key for key, size in now.items() if workspace.records[key]["bytes"] != size}


def _prepare_missing(
    needed: pd.DataFrame, *, workspace: Workspace, sources: dict[str, Source], settings: Settings, workers: int
) -> dict[tuple[str, str], str]:
    """Prepares what is needed and not finished -> {(source, original): why it could not be used}."""
    failed, tasks = {}, []
    how = {
        name: {"size_px": settings.size, "crop": settings.crop and source.crop, "lossless": not source.crop}
        for name, source in sources.items()
    }
    archives = {name: source.archive for name, source in sources.items()}
    for row in needed.itertuples():
        if pd.isna(row.member):
            failed[row.source, row.original] = "its file is not in the archive"
        elif (row.source, row.original) not in workspace.records:
            tasks.append((row.source, row.original, row.member))
    finished = len(needed) - len(failed) - len(tasks)
    progress = tqdm(
        total=finished + len(tasks), initial=finished, desc="preparing", unit=" photographs", disable=not tasks
    )
    with progress:
        job = Job(workspace.staging, workspace.log, how)
        for record in prepare_all(tasks, job=job, archives=archives, workers=workers):
            if "error" in record:
                failed[record["source"], record["original"]] = record["error"]
            else:
                workspace.add(record)
            progress.update()
    return failed


def _more(draws: dict[int, int], *, table: pd.DataFrame, assigned: pd.DataFrame, per_class: int | None) -> dict:
    """Draws so far -> larger ones of the grades that are neither full nor exhausted."""
    counts = assigned[assigned["split"] == "train"]["diagnosis"].value_counts()
    more = {}
    for grade, drawn in draws.items():
        left = int((table["diagnosis"].eq(grade) & table["source"].ne("main")).sum()) - drawn
        short = (per_class or 0) - int(counts.get(grade, 0))
        if left > 0 and short > 0:
            more[grade] = drawn + min(short, left)
    return more


def _refuse_too_few(assigned: pd.DataFrame, *, main: Source, failed: int) -> None:
    """Raises UsageError where a side has too few photographs to be of use."""
    sides = {"val": ("validation", 2, "larger"), "train": ("training", 1, "smaller"), "test": ("test", 1, None)}
    for side, (word, least, fraction) in sides.items():
        count = int(assigned["split"].eq(side).sum())
        if count >= least or (side == "test" and not main.table["side"].eq("test").any()):
            continue
        made = fraction and not main.table["side"].eq("val").any()
        share = f", or a {fraction} --val_fraction" if made else ""
        unread = f" ({failed} could not be read)" if failed else ""
        raise UsageError(
            f"{main.archive.path}: only {count} of its photographs would be for {word}{unread}; give more photographs "
            f"or patients{share}, and add --force"
        )


def choose(
    sources: dict[str, Source], *, settings: Settings, workspace: Workspace, workers: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[tuple[str, str], str]]:
    """Draws, prepares and settles until every grade is full or exhausted -> (table with split, duplicates, failures)"""
    table = pd.concat([source.table for source in sources.values()], ignore_index=True)
    num_classes = len(sources["main"].classes)
    table = table.assign(order=split.drawing_order(table["source"] + "/" + table["original"], seed=settings.seed))
    draws = _first_draw(table, num_classes=num_classes, settings=settings)
    for key in changed(workspace, sources):
        workspace.forget(*key)
    failed: dict[tuple[str, str], str] = {}
    signatures: dict[str, np.ndarray] = {}
    while True:
        needed = _needed(table, draws)
        keys = pd.Series(list(zip(needed["source"], needed["original"], strict=True)), index=needed.index)
        failed |= _prepare_missing(
            needed[~keys.isin(failed)], workspace=workspace, sources=sources, settings=settings, workers=workers
        )
        usable = needed[~keys.isin(failed)]
        if not usable["source"].eq("main").any():
            (_, original), reason = next(iter(failed.items()))
            path = sources["main"].archive.path
            raise UsageError(f"{path}: none of its photographs could be read ({original}: {reason}); is it damaged?")
        settled, listed = split.settle_duplicates(
            _group_duplicates(usable, workspace=workspace, signatures=signatures), policy=settings.conflicts
        )
        assigned = split.assign(
            settled, per_class=settings.limit, val_fraction=settings.val_fraction, seed=settings.seed
        )
        more = _more(draws, table=table, assigned=assigned, per_class=settings.limit)
        if not more:
            _refuse_too_few(assigned, main=sources["main"], failed=len(failed))
            return assigned, listed, failed
        draws |= more
