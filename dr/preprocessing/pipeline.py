"""Stage 1: sources of photographs -> DIR/kaggle_retina/{train,val,test}, label tables, report.json and pictures.

Every photograph is read from its archive, cropped and written once; a record of it goes to prepared.jsonl, so that a
stopped run is continued by starting it again.
"""

import hashlib
import json
import math
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from dr import GRADES, __version__
from dr.core import distributed
from dr.core.files import lock_folder, sha256, write_csv, write_json
from dr.imaging import fundus
from dr.pages import html as page
from dr.pages.style import MOST_CLASSES
from dr.preprocessing import plots as data_pictures
from dr.preprocessing import report as data_page
from dr.preprocessing.selection import Settings, changed, choose
from dr.preprocessing.worker_pool import assist
from dr.preprocessing.workspace import Workspace, folder_in
from dr.sources.archive import other_pictures, passed_over
from dr.sources.kaggle import COMPETITION, SPLITS, Source

LABEL_COLUMNS = ["path", "diagnosis", "source", "original", "patient", "group"]
PER_CLASS = 1000  # of the competition archive, unless --per_class says another number
PICTURED_CROPS = 24
MOST_PRINTED_CLASSES = 10


def _worst_crops(assigned: pd.DataFrame, *, workspace: Workspace, sources: dict[str, Source]) -> list[tuple]:
    """(before, box, after, caption) of the photographs whose crop is most in doubt: none found, then least kept."""
    rows = []
    for row in assigned[assigned["split"].notna()].itertuples():
        record = workspace.records[row.source, row.original]
        if not record["cropped"]:
            continue
        x0, y0, x1, y1 = record["box"]
        kept = (x1 - x0) * (y1 - y0) / math.prod(record["frame"])
        rows.append(("no_retina" not in record["flags"], kept, row, record))
    pictures = []
    for found, kept, row, record in sorted(rows, key=lambda item: item[:2])[:PICTURED_CROPS]:
        data = sources[row.source].archive.read(row.member)
        before = fundus.decode(data, min_side_px=fundus.WORKING_SIDE_PX)
        before = page.shrunk(before, longest_px=2 * fundus.WORKING_SIDE_PX)  # two dozen originals fill the memory
        shown = np.multiply(record["box"], before.shape[1] / record["frame"][0])
        after = workspace.read(workspace.file(row.source, row.original))
        caption = f"{row.original}\n{kept:.0%} kept" if found else f"{row.original}\nno retina found"
        pictures.append((before, shown, after, caption))
    return pictures


def _counts(assigned: pd.DataFrame, *, num_classes: int) -> pd.DataFrame:
    """-> photographs by class (rows 0..K-1) and by validation, train: main, train: 2015, test (columns)."""
    table = {"validation": assigned["split"].eq("val")}
    for source in sorted(assigned["source"].unique(), key=lambda source: source != "main"):
        table[f"train: {source}"] = assigned["split"].eq("train") & assigned["source"].eq(source)
    if assigned["split"].eq("test").any():
        table["test"] = assigned["split"].eq("test")
    classes = range(num_classes)
    return pd.DataFrame(
        {
            name: assigned[rows]["diagnosis"].value_counts().reindex(classes, fill_value=0)
            for name, rows in table.items()
        }
    )


def _draw(
    counts: pd.DataFrame, crops: list[tuple], *, root: Path, classes: tuple[str, ...], settings: Settings
) -> None:
    """Draws what there is to be seen: bars that can be told apart, crops where any were made."""
    if len(classes) <= MOST_CLASSES:
        data_pictures.class_balance(counts, path=root / "class_balance.png", classes=classes, target=settings.limit)
    if crops:
        data_pictures.crops_sheet(crops, path=root / "crops.png")


def _linked(assigned: pd.DataFrame, listed: pd.DataFrame) -> pd.Series:
    """-> `group` of the label tables: the number that a photograph's copies have in duplicates.csv, missing where there
    are none. All of a person have the lowest of theirs: what joins them may be a copy that is left out and stands in no
    label table."""
    number = listed["group"].astype(float).reindex(assigned.index)
    return number.groupby(assigned["person"]).transform("min").astype("Int64")


def _write_tables(assigned: pd.DataFrame, workspace: Workspace) -> dict[str, list[str]]:
    """Moves the photographs to their sides and writes the label tables -> the file names of each side."""
    keys = zip(assigned["source"], assigned["original"], strict=True)
    names = pd.Series([workspace.file(*key) for key in keys], index=assigned.index)
    sides = {name: sorted(names[assigned["split"] == name]) for name in workspace.sides}
    workspace.place(sides)
    for name in sides:
        here = assigned["split"] == name
        # names[here], not names: a frame without rows would take every photograph over
        rows = assigned[here].assign(path=f"{name}/" + names[here]).sort_values("path")
        write_csv(workspace.root / f"labels_{name}.csv", rows[LABEL_COLUMNS])
    return sides


def _short(counts: pd.DataFrame, per_class: int | None) -> dict[str, int]:
    """Classes that could not be filled -> how many training photographs they have."""
    totals = counts.filter(like="train").sum(axis=1)
    return {} if per_class is None else {str(grade): int(n) for grade, n in totals.items() if n < per_class}


def _flag_counts(assigned: pd.DataFrame, workspace: Workspace) -> dict[str, int]:
    used = assigned[assigned["split"].notna()]
    raised = pd.Series(
        [workspace.records[row.source, row.original]["flags"] for row in used.itertuples()], dtype=object
    )
    return {name: int(count) for name, count in raised.explode().dropna().value_counts().items()}


def _identity(settings: Settings, sources: dict[str, Source]) -> dict:
    """What must be equal for a run to go on where another stopped; read_prepared takes size, crop and classes from
    it."""
    crop = {"crop": settings.crop and sources["main"].crop}
    described = {"main archive": "none", "2015 archive": "none"}
    labels = hashlib.sha256()
    for name, source in sources.items():
        described[f"{name} archive"] = source.archive.path.resolve().name
        labels.update(source.table.to_csv(index=False).encode())
    classes = {"classes": list(sources["main"].classes)}
    return described | asdict(settings) | crop | classes | {"labels": labels.hexdigest()[:12]}


def _versions() -> dict[str, str]:
    return {"dr": __version__, "python": platform.python_version(), "opencv": cv2.__version__, "numpy": np.__version__}


def _content(
    assigned: pd.DataFrame, listed: pd.DataFrame, failed: dict[tuple[str, str], str], *, workspace: Workspace
) -> dict:
    """What report.json says of the photographs one by one: why some were left out, which are copies, what is odd."""
    return {
        "left_out": assigned["left_out"].value_counts().to_dict(),
        "skipped": [{"source": s, "original": o, "reason": reason} for (s, o), reason in sorted(failed.items())],
        "flags": _flag_counts(assigned, workspace),
        "duplicates": {
            "photographs": len(listed),
            "groups": int(listed["group"].nunique()),
            "contradicting_groups": int(listed[listed["conflict"].astype(bool)]["group"].nunique()),
        },
    }


def _hashes(root: Path, sides: dict[str, list[str]]) -> dict[str, str]:
    files = [f"labels_{side}.csv" for side in sides] + [f"{side}/{name}" for side in sides for name in sides[side]]
    return {name: sha256(root / name) for name in files}


def prepare(
    sources: dict[str, Source], *, directory: str, settings: Settings, workers: int, force: bool = False
) -> dict:
    """Prepares the photographs of {"main": ..., "2015": ...} under `directory`/kaggle_retina -> the content of its
    report.json.

    A finished folder with the same settings is left as it is, but for photographs that could not be used: these are
    tried again. Of several processes, which all see the folder, the main one decides and writes the tables; the others
    help with the photographs. Raises UsageError.
    """
    distributed.init("gloo")
    if not distributed.is_main:
        return assist(archives={name: source.archive for name, source in sources.items()}, workers=workers)
    content = _prepare(sources, directory=directory, settings=settings, workers=workers, force=force)
    return distributed.broadcast(lambda: content)


def _prepare(sources: dict[str, Source], *, directory: str, settings: Settings, workers: int, force: bool) -> dict:
    main = sources["main"]
    if settings.per_class is None:
        settings = replace(settings, per_class=PER_CLASS if main.kind == COMPETITION else "all")
    names = tuple(side for side in SPLITS if side != "test" or main.table["side"].eq("test").any())
    identity = _identity(settings, sources)
    root = folder_in(Path(directory))
    with lock_folder(root):
        workspace = Workspace(root, identity=identity, force=force, sides=names)
        return _fill(workspace, sources, identity=identity, settings=settings, workers=workers)


def _fill(
    workspace: Workspace, sources: dict[str, Source], *, identity: dict, settings: Settings, workers: int
) -> dict:
    started = time.time()
    root, classes = workspace.root, sources["main"].classes
    if workspace.complete() and not changed(workspace, sources):
        before = json.loads((root / "report.json").read_text(encoding="utf-8"))
        if not before["skipped"]:  # else what could not be used may have been mended since
            return before | {"already_finished": True}
    assigned, listed, failed = choose(sources, settings=settings, workspace=workspace, workers=workers)
    (root / "report.json").unlink(missing_ok=True)  # from here to the end the folder is not complete
    sides = _write_tables(assigned.assign(group=_linked(assigned, listed)), workspace)
    write_csv(root / "duplicates.csv", listed)
    counts = _counts(assigned, num_classes=len(classes))
    crops = _worst_crops(assigned, workspace=workspace, sources=sources)
    _draw(counts, crops, root=root, classes=classes, settings=settings)
    content = {
        "settings": identity,
        "counts": {name: column.tolist() for name, column in counts.items()},
        "short_of_per_class": _short(counts, settings.limit),
        "unlisted": {name: source.unlisted for name, source in sources.items() if source.unlisted},
        "other_pictures": {
            name: [others[0], len(others)]
            for name, source in sources.items()
            if (others := other_pictures(source.archive.names))
        },
        **_content(assigned, listed, failed, workspace=workspace),
        "seconds": round(time.time() - started, 1),
        "versions": _versions(),
        "sha256": _hashes(root, sides),
    }
    made_from = {"sources": sources, "assigned": assigned, "listed": listed, "failed": failed, "crops": crops}
    data_page.write(root, content, workspace=workspace, **made_from)
    if not failed:  # else they are needed again, when what failed has been mended
        workspace.remove_others(sides)  # last of all: a run that is stopped before finds them finished
    write_json(root / "report.json", content)
    return content


def _unseen(counts: dict[str, list[int]]) -> dict[int, int]:
    """Grades of which validation has no photograph -> how many the main archive has for training."""
    return {
        grade: trained
        for grade, (validated, trained) in enumerate(zip(counts["validation"], counts["train: main"], strict=True))
        if trained and not validated
    }


def _named(grade: str | int, classes: list[str]) -> str:
    return f"grade {grade}" if tuple(classes) == GRADES else f"class {classes[int(grade)]}"


def summary_lines(report: dict) -> list[str]:
    """The content of report.json -> the lines that data.py prints."""
    lines = ["already prepared with these settings; nothing to do"] if report.get("already_finished") else []
    for count in report.get("unlisted", {}).values():
        lines.append(
            f"note: {count:,} photographs stand in no row of the table, or in no folder of a side or class: they were "
            "left out"
        )
    for example, count in report.get("other_pictures", {}).values():
        lines.append(f"note: {passed_over(example, count)}")
    classes, short = report["settings"]["classes"], report["short_of_per_class"]
    wanted, unseen = report["settings"]["per_class"], _unseen(report["counts"])
    if len(classes) > MOST_PRINTED_CLASSES:
        lines += [
            f"{name:12}  {sum(n):,} photographs of {len(classes)} classes" for name, n in report["counts"].items()
        ]
        if short:
            lines.append(f"note: {len(short)} classes have fewer than {wanted} training photographs: there are no more")
        if unseen:
            names = ", ".join(classes[grade] for grade in list(unseen)[:3])
            more = ", ..." if len(unseen) > 3 else ""
            lines.append(f"note: {len(unseen)} classes have no validation photograph: {names}{more}")
        return lines
    if none := [grade for grade in range(len(classes)) if not any(n[grade] for n in report["counts"].values())]:
        lines.append(
            f"note: no photograph has grade {', '.join(map(str, none))}; if these labels are other classes, name their "
            "column with --label_column"
        )
    for name, counts in report["counts"].items():
        lines.append("  ".join([f"{name:12}", *(f"{k}: {count}" for k, count in zip(classes, counts, strict=True))]))
    for grade, count in short.items():
        lines.append(
            f"note: {_named(grade, classes)} has {count} training photographs, not {wanted}: there are no more"
        )
    for grade, count in unseen.items():
        lines.append(
            f"note: {_named(grade, classes)} has no validation photograph, though the main archive has {count}: "
            "what is measured says nothing of it"
        )
    return lines


def skipped_lines(report: dict) -> list[str]:
    """The content of report.json -> the lines that data.py prints of photographs that could not be used."""
    lines = [
        f"left out: {skipped['source']}/{skipped['original']}: {skipped['reason']}" for skipped in report["skipped"]
    ]
    return [*lines, "mend what was left out and start again: it is tried anew"] if lines else []
