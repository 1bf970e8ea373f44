"""Stage 1: two archives -> DIR/kaggle_retina/{train,val}, their label tables, report.json and two pictures.

Every photograph is read from its archive, cropped and written once; a record of it goes to prepared.jsonl, so that a
stopped run is continued by starting it again.
"""

import hashlib
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from dr import GRADES, UsageError, __version__, duplicates, fundus, report, sources, split
from dr.archive import Archive
from dr.files import sha256, write_csv, write_json
from dr.workers import prepare_all
from dr.workspace import SPLITS, Workspace, file_name

LABEL_COLUMNS = ["path", "diagnosis", "source", "original", "patient"]
PICTURED_CROPS = 24


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the prepared photographs and their split; checked when built (UsageError)."""

    size: int = 512
    per_class: int | None = 1000
    val_fraction: float = 0.2
    seed: int = 10
    conflicts: str = "drop"

    def __post_init__(self):
        if not 16 <= self.size <= 4096:
            raise UsageError(f"--size must lie between 16 and 4096 pixels, got {self.size}")
        if self.per_class is not None and self.per_class < 1:
            raise UsageError(f"--per_class must be at least 1 or 'all', got {self.per_class}")
        if not 0 < self.val_fraction < 1:
            raise UsageError(f"--val_fraction must lie between 0 and 1, got {self.val_fraction}")
        if self.conflicts not in split.POLICIES:
            raise UsageError(f"--conflicts must be one of {', '.join(split.POLICIES)}, got {self.conflicts}")


# --- choosing -------------------------------------------------------------------------------------


def _read_sources(archives: dict[str, Archive], *, seed: int) -> pd.DataFrame:
    """-> one table of all labelled photographs, `member` missing where an archive lacks the file."""
    readers = {"main": sources.competition, "2015": sources.eyepacs_2015}
    table = pd.concat([readers[source](archive) for source, archive in archives.items()], ignore_index=True)
    return table.assign(order=split.drawing_order(table["source"] + "/" + table["original"], seed=seed))


def _first_draw(table: pd.DataFrame, *, settings: Settings) -> dict[int, int]:
    """How many 2015 photographs of each grade are needed, were the main archive to lose none to duplicates."""
    draws = {}
    for grade in range(len(GRADES)):
        main = int((table["diagnosis"].eq(grade) & table["source"].eq("main")).sum())
        for_training = main - round(settings.val_fraction * main)
        draws[grade] = len(table) if settings.per_class is None else max(0, settings.per_class - for_training)
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
    near = duplicates.near_pairs(np.array([record["hash"] for record in records], np.uint64))
    suspects, near_suspects = np.unique(near, return_inverse=True)
    names = [file_name(records[i]["source"], records[i]["original"]) for i in suspects]
    new = [name for name in names if name not in signatures]
    for name in tqdm(new, desc="comparing", unit=" photographs", delay=2):
        signatures[name] = duplicates.signature(cv2.imread(str(workspace.find(name))))
    vectors = np.array([signatures[name] for name in names])
    same = suspects[duplicates.same_pixels(near_suspects.reshape(-1, 2), vectors)]
    return chosen.assign(group=duplicates.groups(len(records), same))


def _prepare_missing(
    needed: pd.DataFrame, *, workspace: Workspace, archives: dict[str, Archive], size_px: int, workers: int
) -> dict[tuple[str, str], str]:
    """Prepares what is needed and not finished -> {(source, original): why it could not be used}."""
    failed, tasks = {}, []
    for row in needed.itertuples():
        if pd.isna(row.member):
            failed[row.source, row.original] = "its file is not in the archive"
        elif (row.source, row.original) not in workspace.records:
            out = workspace.staged(file_name(row.source, row.original))
            tasks.append(
                {"source": row.source, "original": row.original, "member": row.member, "out": out, "size_px": size_px}
            )
    finished = len(needed) - len(failed) - len(tasks)
    progress = tqdm(
        total=finished + len(tasks), initial=finished, desc="preparing", unit=" photographs", disable=not tasks
    )
    with progress:
        for record in prepare_all(tasks, archives=archives, workers=workers):
            if "error" in record:
                failed[record["source"], record["original"]] = record["error"]
            else:
                workspace.add(record)
            progress.update()
    return failed


def _choose(
    table: pd.DataFrame, *, settings: Settings, workspace: Workspace, archives: dict[str, Archive], workers: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[tuple[str, str], str]]:
    """Draws, prepares and settles until every grade is full or exhausted -> (table with split, duplicates, failures)"""
    draws = _first_draw(table, settings=settings)
    failed: dict[tuple[str, str], str] = {}
    signatures: dict[str, np.ndarray] = {}
    while True:
        needed = _needed(table, draws)
        keys = pd.Series(list(zip(needed["source"], needed["original"], strict=True)), index=needed.index)
        failed |= _prepare_missing(
            needed[~keys.isin(failed)], workspace=workspace, archives=archives, size_px=settings.size, workers=workers
        )
        usable = needed[~keys.isin(failed)]
        if not usable["source"].eq("main").any():
            (_, original), reason = next(iter(failed.items()))
            raise UsageError(
                f"{archives['main'].path}: none of its photographs could be read ({original}: {reason}); is it damaged?"
            )
        settled, listed = split.settle_duplicates(
            _group_duplicates(usable, workspace=workspace, signatures=signatures), policy=settings.conflicts
        )
        assigned = split.assign(
            settled, per_class=settings.per_class, val_fraction=settings.val_fraction, seed=settings.seed
        )
        counts = assigned[assigned["split"] == "train"]["diagnosis"].value_counts()
        more = {}
        for grade, drawn in draws.items():
            left = int((table["diagnosis"].eq(grade) & table["source"].ne("main")).sum()) - drawn
            short = (settings.per_class or 0) - int(counts.get(grade, 0))
            if left > 0 and short > 0:
                more[grade] = drawn + min(short, left)
        if not more:
            return assigned, listed, failed
        draws |= more


# --- the stage ------------------------------------------------------------------------------------


def _worst_crops(assigned: pd.DataFrame, *, workspace: Workspace, archives: dict[str, Archive]) -> list[tuple]:
    """(before, box, after, caption) of the photographs whose crop is most in doubt: none found, then least kept."""
    rows = []
    for row in assigned[assigned["split"].notna()].itertuples():
        record = workspace.records[row.source, row.original]
        x0, y0, x1, y1 = record["box"]
        kept = (x1 - x0) * (y1 - y0) / math.prod(record["frame"])
        rows.append(("no_retina" not in record["flags"], kept, row))
    pictures = []
    for found, kept, row in sorted(rows, key=lambda item: item[:2])[:PICTURED_CROPS]:
        before = fundus.decode(archives[row.source].read(row.member), min_side_px=fundus.WORKING_SIDE_PX)
        scale = min(1.0, 2 * fundus.WORKING_SIDE_PX / max(before.shape))  # two dozen camera originals fill the memory
        before = cv2.resize(before, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        retina = fundus.find_retina(before)
        after = cv2.imread(str(workspace.root / row.split / file_name(row.source, row.original)))
        caption = f"{row.original}\n{kept:.0%} kept" if found else f"{row.original}\nno retina found"
        pictures.append((before, retina.box, after, caption))
    return pictures


def _counts(assigned: pd.DataFrame) -> pd.DataFrame:
    """-> photographs by grade (rows 0..4) and by validation, train: main, train: 2015 (columns)."""
    table = {"validation": assigned["split"].eq("val")}
    for source in sorted(assigned["source"].unique(), key=lambda source: source != "main"):
        table[f"train: {source}"] = assigned["split"].eq("train") & assigned["source"].eq(source)
    grades = range(len(GRADES))
    return pd.DataFrame(
        {name: assigned[rows]["diagnosis"].value_counts().reindex(grades, fill_value=0) for name, rows in table.items()}
    )


def _write_tables(assigned: pd.DataFrame, workspace: Workspace) -> dict[str, list[str]]:
    """Moves the photographs to their sides and writes the label tables -> the file names of each side."""
    names = pd.Series([file_name(row.source, row.original) for row in assigned.itertuples()], index=assigned.index)
    sides = {name: sorted(names[assigned["split"] == name]) for name in SPLITS}
    workspace.place(sides)
    for name in SPLITS:
        rows = assigned[assigned["split"] == name].assign(path=f"{name}/" + names).sort_values("path")
        write_csv(workspace.root / f"labels_{name}.csv", rows[LABEL_COLUMNS])
    return sides


def _short(counts: pd.DataFrame, per_class: int | None) -> dict[str, int]:
    """Grades that could not be filled -> how many training photographs they have."""
    totals = counts.filter(like="train").sum(axis=1)
    return {} if per_class is None else {str(grade): int(n) for grade, n in totals.items() if n < per_class}


def _flag_counts(assigned: pd.DataFrame, workspace: Workspace) -> dict[str, int]:
    used = assigned[assigned["split"].notna()]
    raised = pd.Series(
        [workspace.records[row.source, row.original]["flags"] for row in used.itertuples()], dtype=object
    )
    return {name: int(count) for name, count in raised.explode().dropna().value_counts().items()}


def _identity(settings: Settings, archives: dict[str, Archive], table: pd.DataFrame) -> dict:
    """What must be equal for a run to go on where another stopped."""
    described = {"main archive": "none", "2015 archive": "none"}
    for source, archive in archives.items():
        name = archive.path.resolve().name
        described[f"{source} archive"] = f"{name} ({len(archive.names)} files, {archive.size():,} bytes)"
    labels = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
    return asdict(settings) | {"per_class": settings.per_class or "all"} | described | {"labels": labels[:12]}


def _versions() -> dict[str, str]:
    return {"dr": __version__, "python": platform.python_version(), "opencv": cv2.__version__, "numpy": np.__version__}


def prepare(
    main: str, extra: str | None, *, directory: str, settings: Settings, workers: int, force: bool = False
) -> dict:
    """Prepares the archives `main` and `extra` under `directory`/kaggle_retina -> the content of its report.json.

    A finished folder with the same settings is left as it is. Raises UsageError.
    """
    started = time.time()
    archives = {"main": Archive(main)} | ({"2015": Archive(extra)} if extra else {})
    table = _read_sources(archives, seed=settings.seed)
    identity = _identity(settings, archives, table)
    workspace = Workspace(Path(directory), identity=identity, force=force)
    root = workspace.root
    if workspace.complete():
        return json.loads((root / "report.json").read_text(encoding="utf-8")) | {"already_finished": True}
    assigned, listed, failed = _choose(
        table, settings=settings, workspace=workspace, archives=archives, workers=workers
    )
    (root / "report.json").unlink(missing_ok=True)  # from here to the end the folder is not complete
    sides = _write_tables(assigned, workspace)
    write_csv(root / "duplicates.csv", listed)
    counts = _counts(assigned)
    report.class_balance(counts, path=root / "class_balance.png", target=settings.per_class)
    report.crops_sheet(_worst_crops(assigned, workspace=workspace, archives=archives), path=root / "crops.png")
    files = [f"labels_{side}.csv" for side in SPLITS] + [f"{side}/{name}" for side in SPLITS for name in sides[side]]
    content = {
        "settings": identity,
        "counts": {name: column.tolist() for name, column in counts.items()},
        "short_of_per_class": _short(counts, settings.per_class),
        "left_out": assigned["left_out"].value_counts().to_dict(),
        "skipped": [{"source": s, "original": o, "reason": reason} for (s, o), reason in sorted(failed.items())],
        "flags": _flag_counts(assigned, workspace),
        "duplicates": {
            "photographs": len(listed),
            "groups": int(listed["group"].nunique()),
            "contradicting_groups": int(listed[listed["conflict"].astype(bool)]["group"].nunique()),
        },
        "seconds": round(time.time() - started, 1),
        "versions": _versions(),
        "sha256": {name: sha256(root / name) for name in files},
    }
    workspace.remove_others(sides)  # last of all: a run that is stopped before finds them finished
    write_json(root / "report.json", content)
    return content
