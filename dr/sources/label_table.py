"""Label tables beside their images: one, one for each split, or one with a column for the split."""

import posixpath
import shlex
from dataclasses import dataclass

import pandas as pd

from dr import UsageError
from dr.sources.archive import Archive
from dr.sources.candidate import Candidate, LabelledTable
from dr.sources.class_folders import are_grade_folders
from dr.sources.class_names import order_line
from dr.sources.columns import Columns
from dr.sources.csv_tables import refuse_empty
from dr.sources.matching import by_path_ends, images_of_split, normal_path
from dr.sources.source import COLUMNS, SPLITS, UNGRADABLE_COLUMNS, LabelledImages
from dr.sources.split_names import splits_of, splits_of_values
from dr.sources.table import ImageNames
from dr.sources.table_choice import choose_tables
from dr.sources.table_labels import index_labels, label_texts

MAX_NAMED = 3  # tables in a line


@dataclass(frozen=True)
class Part:
    """The rows of the table `member` in one split: `path` as written but without suffix, `original` (the same, with
    folders only if names alone are not unique), `label` and `patient` as text, `row`, `table` (for messages)."""

    split: str | None
    member: str
    rows: pd.DataFrame


class LabelTableFormat:
    """Tables that name images and label them, anywhere beside the images."""

    name = "label table"
    layout = "a table with image names and labels, and its images"
    reads_columns = True

    def open(self, candidate: Candidate) -> LabelledImages | None:
        archive = candidate.archive
        if not archive.images() or not candidate.label_tables:
            return None
        chosen, notes = choose_tables(candidate)
        certain = candidate.is_named() or any(each.columns.certain for _, each in chosen)
        if not certain and are_grade_folders(archive):
            return None
        _refuse_few(candidate, [table for _, table in chosen])
        parts = [part for split, table in chosen for part in _parts(table, split=split, given=candidate.columns)]
        if not any(part.split == "train" for part in parts):  # retinopathy_solution.csv alone is no test
            _refuse_unlabelled_training(candidate, parts)
            parts = [Part(None, part.member, part.rows) for part in parts]
        columns = chosen[0][1].columns
        labels = index_labels(
            [(part.split, part.rows) for part in parts], columns, keep=candidate.options.ungradable == "keep"
        )
        rows = [Part(part.split, part.member, kept) for part, kept in zip(parts, labels.tables, strict=True)]
        table = pd.concat([_with_members(archive, part) for part in rows if len(part.rows)], ignore_index=True)
        table, more = _with_folder_splits(table)
        notes += more
        if lost := candidate.image_names.lost_zeros(table.loc[table["member"].isna(), "path"]):
            notes.append(f"some listed images are missing: {lost}")
        table = _with_unique_names(table)
        for column, problem in (("member", "are one image"), ("original", "would have one name")):
            _refuse_repeated(table, column, problem=problem)
        ungradable = _ungradable(archive, parts, labels.ungradable)
        unlabelled = len(archive.images()) - int(table["member"].notna().sum()) - len(ungradable)
        words = filter(None, [labels.words, order_line(labels.classes)])
        return LabelledImages(
            self.name, archive, table[list(COLUMNS)], labels.classes, unlabelled=max(0, unlabelled),
            ungradable=ungradable, notes=(*_described(chosen, parts), *words, *notes, *candidate.unused_notes()),
        )  # fmt: skip


def _refuse_unlabelled_training(candidate: Candidate, parts: list[Part]) -> None:
    """Raises UsageError for a test table that would be trained on because the training table has no labels."""
    problems = candidate.table_problems
    names = {posixpath.basename(member): member for member in (*problems, *(part.member for part in parts))}
    splits = {names[name]: split for name, split in splits_of(names).items()}
    unlabelled = next((member for member in problems if splits.get(member) == "train"), None)
    if unlabelled and not candidate.is_named() and any(splits.get(part.member) for part in parts):
        raise UsageError(problems[unlabelled])


def _refuse_few(candidate: Candidate, tables: list[LabelledTable]) -> None:
    """Raises UsageError where unnamed tables list less than half of images that are in folders of grades."""
    matched, images = sum(each.columns.matched for each in tables), len(candidate.archive.images())
    if not candidate.is_named() and 2 * matched < images and are_grade_folders(candidate.archive):
        raise UsageError(
            f"{candidate.archive.path}: {tables[0].member} names {matched:,} of the {images:,} images, and its folders "
            f"are named after grades; use --table {shlex.quote(tables[0].member)}, or --table none for the folders"
        )


def _parts(each: LabelledTable, *, split: str | None, given: Columns) -> list[Part]:
    """A label table -> its rows, by the splits of its column if it has one and its name stands for none."""
    table, columns = each.table, each.columns
    ids = table.column(columns.id)
    paths = [normal_path(value) for value in ids]
    bare = [posixpath.basename(path) for path in paths]
    rows = pd.DataFrame(
        {
            "path": paths,
            "original": bare if len(set(bare)) == len(set(paths)) else paths,
            "label": label_texts(table, columns),
            "patient": table.column(columns.patient) if columns.patient else None,
            "row": list(table.numbers),
            "table": table.place,
            "id": ids,
        }
    )
    refuse_empty(rows, name=table.place, column="id", shown=columns.id)
    if given.patient:
        refuse_empty(rows, name=table.place, column="patient", shown=columns.patient or "")
    rows["patient"] = rows["patient"].where(rows["patient"].ne(""), None)
    if split is not None or columns.split is None:
        return [Part(split, each.member, rows)]
    values = table.column(columns.split)
    named = pd.Series(values).map(splits_of_values(columns.split, values)).to_numpy()
    return [Part(name, each.member, rows[named == name]) for name in SPLITS if (named == name).any()]


def _with_members(archive: Archive, part: Part) -> pd.DataFrame:
    """The rows with the `member` of each image, missing where the archive lacks it."""
    table = part.rows
    members = _members(archive, part)
    if not members:
        lost = ImageNames(archive.images()).lost_zeros(table["path"])
        remedy = lost or (
            f"{table['path'].iloc[0]} does not match {archive.images()[0]}; pass the folder that holds table and images"
        )
        raise UsageError(
            f"{table['table'].iloc[0]}: none of the {len(table)} listed images is in {archive.path}: {remedy}"
        )
    original = table["original"].str.replace("/", "_")  # part of a file name
    return table.assign(original=original, member=table["path"].map(members), source_split=part.split)


def _with_folder_splits(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Images without a split -> with those that their folders stand for, if all are in a folder of one split and some
    are for training; and a note about it."""
    found = table["member"].dropna()
    if table["source_split"].notna().any() or found.empty:
        return table, []
    folders = found.map(lambda member: tuple(member.split("/")[:-1]))
    named = splits_of({part for parts in set(folders) for part in parts})
    splits = folders.map(lambda parts: {named[part] for part in parts if part in named})
    used = set().union(*splits)
    if len(used) < 2 or "train" not in used:
        return table, []
    shown = ", ".join(sorted(name for name, split in named.items() if split in used)[:4])
    if (splits.map(len) != 1).any():
        return table, [f"folders {shown}: not used as splits, as not every labelled image is in one of them"]
    split = splits.map(lambda names: next(iter(names))).reindex(table.index)
    # a row without its image has no folder; in training it is reported as missing
    return table.assign(source_split=split.fillna("train")), [
        f"splits of the folders {shown}: {', '.join(name for name in SPLITS if name in used)}"
    ]


def _with_unique_names(table: pd.DataFrame) -> pd.DataFrame:
    """`original` with its split in front, or with its folders, where two images have one name: IDRiD's splits, and
    hospitals with a table each, count from 1."""
    members = table.dropna(subset="member")
    if not (members.groupby("original")["member"].nunique() > 1).any():
        return table
    if table["source_split"].notna().all():
        return table.assign(original=table["source_split"] + "_" + table["original"])
    if members["table"].nunique() < 2:  # a name that only its table can distinguish
        return table
    paths = table["member"].map(lambda member: normal_path(member).replace("/", "_"), na_action="ignore")
    return table.assign(original=paths.fillna(table["original"]))


def _members(archive: Archive, part: Part) -> dict[str, str]:
    """{path of a table: its image}, searched outside the folders of other splits, or in all folders if none is found
    there."""
    images, paths = archive.images(), part.rows["path"]
    folder = posixpath.dirname(part.member)
    near = [image for image in images if image.startswith(f"{folder}/")] if folder else []
    if near and ImageNames(near).count(paths) == paths.nunique():  # each hospital may have its table and count from 1
        images = near
    own = images_of_split(archive, part.split, beside=part.member) if part.split else images
    return by_path_ends(paths, own, place=str(archive.path)) or by_path_ends(paths, images, place=str(archive.path))


def _ungradable(archive: Archive, parts: list[Part], rows: list[pd.DataFrame]) -> pd.DataFrame:
    """Rows without a grade -> UNGRADABLE_COLUMNS of their images, of those that the archive has."""
    found = [pd.DataFrame(columns=list(UNGRADABLE_COLUMNS))]
    for part, table in zip(parts, rows, strict=True):
        if len(table) and not (part.split and len(table) == len(part.rows)):  # else a split without labels
            members = _members(archive, Part(part.split, part.member, table))
            found.append(table.assign(member=table["path"].map(members))[list(UNGRADABLE_COLUMNS)])
    return pd.concat(found, ignore_index=True).dropna(subset="member")


def _described(chosen: list[tuple[str | None, LabelledTable]], parts: list[Part]) -> list[str]:
    """Which columns are read as what: one line for the tables with equal columns; their splits, if any."""
    short = {each.member: posixpath.basename(each.member) for _, each in chosen}
    unique = len(set(short.values())) == len(short)
    members: dict[str, list[str]] = {}
    for _, each in chosen:
        members.setdefault(str(each.columns), []).append(short[each.member] if unique else each.member)
    lines = []
    for columns, names in members.items():
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED + 1 else ""
        lines.append(f"{', '.join(names[:MAX_NAMED] if more else names)}{more}: {columns}")
    used = [part.split for part in parts if part.split]
    return lines + ([f"splits of the source: {', '.join(dict.fromkeys(used))}"] if used else [])


def _refuse_repeated(table: pd.DataFrame, column: str, *, problem: str) -> None:
    """Raises UsageError for two rows that share a value."""
    repeated = table[table[column].notna() & table[column].duplicated(keep=False)].sort_values(column, kind="stable")
    if len(repeated):
        first, second = (repeated.iloc[place] for place in (0, 1))
        where = "" if first["table"] == second["table"] else f"{first['table']}, "
        raise UsageError(
            f"{second['table']}, row {second['row']}: {second['path']} and {first['path']} in {where}row "
            f"{first['row']} {problem}; keep one of them"
        )
