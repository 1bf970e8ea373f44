"""Of several label tables: one for each split, one of those that repeat each other, or the one that the user named."""

import posixpath
import re
import shlex
from collections.abc import Collection, Mapping, Sequence

from dr import UsageError
from dr.sources.candidate import Candidate, LabelledTable, workbook_of
from dr.sources.grade_words import grade_of
from dr.sources.source import SPLITS
from dr.sources.split_names import splits_of
from dr.sources.table import ImageNames

SOME_SHARED = "share only some of their images"
Chosen = list[tuple[str | None, LabelledTable]]  # (split, table); None: the whole set, or as its column says


def choose_tables(candidate: Candidate) -> tuple[Chosen, list[str]]:
    """The label tables of a source -> those to use, and notes about the others. Raises UsageError where a choice is
    left to the user."""
    tables = _named(candidate)
    notes = []
    if any(each.columns.matched for each in tables):
        without = [each.member for each in tables if not each.columns.matched]
        notes = [f"{member}: not used, it names none of the images" for member in without]
        tables = [each for each in tables if each.columns.matched]
    keys = [each.member for each in tables if _is_key(each)]
    if len(keys) < len(tables):
        notes += [f"{member}: not used, it explains the grades" for member in keys]
        tables = [each for each in tables if each.member not in keys]
    if len(tables) == 1:
        return [(None, tables[0])], notes
    by_split: dict[str | None, list[LabelledTable]] = {}
    for split, table in zip(_splits([each.member for each in tables]), tables, strict=True):
        by_split.setdefault(split, []).append(table)
    if "train" not in by_split or len(by_split.keys() - {None}) < 2:
        kept, more = _settle(tables, candidate)
        return [(None, table) for table in kept], notes + more
    chosen: Chosen = []
    for split in SPLITS:
        kept, more = _settle(by_split.get(split, []), candidate)
        chosen += [(split, table) for table in kept]
        notes += more
    return chosen, notes + _without_split(by_split.get(None, []), chosen, candidate)


def have_splits(tables: Sequence[LabelledTable]) -> bool:
    """Whether label tables tell splits or patients apart, by the names of the tables or by their columns."""
    return len(set(_own_splits([each.member for each in tables])) - {None}) > 1 or any(
        each.columns.split or each.columns.patient for each in tables
    )


def _named(candidate: Candidate) -> list[LabelledTable]:
    """The label tables, or the one that --table names. Raises UsageError."""
    tables, name = candidate.label_tables, candidate.options.table
    if name is None or not tables:
        return tables
    wanted = name.replace("\\", "/").strip("/")
    named = [each for each in tables if f"/{each.member}".endswith(f"/{wanted}")]
    for name_of in (_sheet, workbook_of, _stem):
        named = named or [each for each in tables if wanted and f"/{name_of(each.member)}".endswith(f"/{wanted}")]
    if len({workbook_of(each.member) for each in named}) == 1:  # several sheets of a workbook are several tables
        return named
    fault = "several label tables have this name" if named else "not a label table of this source"
    if not named and (problem := next((p for m, p in candidate.table_problems.items() if m.endswith(wanted)), None)):
        raise UsageError(problem)
    some = ", ".join(each.member for each in (named or tables)[:4])
    raise UsageError(f"--table {name}: {fault}; use one of {some}")


def _is_key(each: LabelledTable) -> bool:
    """Whether a table explains the grades, `0,No DR` to `4,PDR`, though images are called 0 to 4, too."""
    pairs = zip(each.table.values(each.columns.id), each.table.values(each.columns.label[0]), strict=True)
    return all(number == str(grade_of(label)) for number, label in pairs)


def _stem(member: str) -> str:
    return posixpath.splitext(posixpath.basename(workbook_of(member)))[0]


def _sheet(member: str) -> str:
    """The title of the sheet; '' of other tables."""
    return member[len(workbook_of(member)) + 1 : -1]


def _splits(members: Sequence[str]) -> list[str | None]:
    """The split that each table's name stands for, else the name of its folder, if it differs between tables."""
    folders = [posixpath.dirname(member) for member in members]
    parts = {part for folder in folders for part in folder.split("/")}
    shared = set.intersection(*({*folder.split("/")} for folder in folders))
    around = splits_of(parts - shared)
    return [
        own or next((around[part] for part in reversed(folder.split("/")) if part in around), None)
        for own, folder in zip(_own_splits(members), folders, strict=True)
    ]


def _own_splits(members: Sequence[str]) -> list[str | None]:
    """The split that the sheet of each table, else its file, is named after."""
    sheets = list(map(_sheet, members))
    files = [posixpath.basename(workbook_of(member)) for member in members]
    split_of = splits_of([*sheets, *files])
    return [split_of.get(sheet) or split_of.get(file) for sheet, file in zip(sheets, files, strict=True)]


def _labels(each: LabelledTable, names: ImageNames) -> dict[str, tuple[str, ...]]:
    """{image: its labels as written}."""
    labels = zip(*(each.table.values(name) for name in each.columns.label), strict=True)
    stems = map(names.stem_of, each.table.values(each.columns.id))
    return {stem: label for stem, label in zip(stems, labels, strict=True) if stem}


def _settle(tables: Sequence[LabelledTable], candidate: Candidate) -> tuple[list[LabelledTable], list[str]]:
    """Tables of one split -> those to use: a table that repeats another is left out, tables of different images are
    joined. Raises UsageError where two label an image differently, or overlap in part."""
    if _of_own_folders(tables, candidate):
        names = ", ".join(table.member for table in tables[:4]) + (", ..." if len(tables) > 4 else "")
        return list(tables), [f"{names}: read as one table, each names images of its own folder"]
    kept: list[tuple[LabelledTable, dict[str, tuple[str, ...]]]] = []
    notes = []
    for table in sorted(tables, key=lambda each: (-each.columns.matched, len(each.member), each.member)):
        labels = _labels(table, candidate.image_names)
        for other, known in kept:
            both = labels.keys() & known.keys()
            if not both and _are_alike(table, other):
                continue
            if fault := _clash(labels, known, repeated=candidate.image_names.repeated):
                raise UsageError(_either(other, table, fault, candidate))
            notes.append(f"{table.member}: not used, {other.member} has all its images and labels")
            break
        else:
            kept.append((table, labels))
    if len(kept) > 1:
        notes.append(f"{', '.join(table.member for table, _ in kept)}: read as one table, they name different images")
    return [table for table, _ in kept], notes


def _are_alike(one: LabelledTable, other: LabelledTable) -> bool:
    """Whether the labels of two tables are of one kind."""
    names = [[re.sub(r"[\W_]", "", name.casefold()) for name in each.columns.label] for each in (one, other)]
    return one.columns.numbers == other.columns.numbers or names[0] == names[1]


def _of_own_folders(tables: Sequence[LabelledTable], candidate: Candidate) -> bool:
    """Whether there are several tables, each in a folder of its own with all images that it names."""
    folders = [posixpath.dirname(table.member) for table in tables]
    if len(tables) < 2 or "" in folders or len(set(folders)) < len(folders):
        return False
    if len({table.columns.numbers for table in tables}) > 1:
        return False
    for folder, table in zip(folders, tables, strict=True):
        near = ImageNames(name for name in candidate.archive.images() if name.startswith(f"{folder}/"))
        ids = table.table.values(table.columns.id)
        if near.count(ids) < len(set(ids)):
            return False
    return True


def _clash(labels: Mapping[str, tuple], known: Mapping[str, tuple], *, repeated: Collection[str]) -> str | None:
    """{image: labels} of two tables -> why both cannot be used; None if the second has all images of the first, with
    equal labels. `repeated`: names of images in several folders."""
    both = labels.keys() & known.keys()
    if not both:
        return "have labels of different kinds"
    if both & repeated:  # each table may name the images of another folder
        return f"both name {min(both & repeated)}, which is in several folders"
    if differing := next((image for image in sorted(both) if labels[image] != known[image]), None):
        return f"label {differing} differently"
    return None if labels.keys() <= known.keys() else SOME_SHARED


def _either(first: LabelledTable, second: LabelledTable, fault: str, candidate: Candidate) -> str:
    return (
        f"{candidate.archive.path}: {first.member} and {second.member} {fault}; choose one, as "
        f"--table {shlex.quote(first.member)}"
    )


def _without_split(others: Sequence[LabelledTable], chosen: Chosen, candidate: Candidate) -> list[str]:
    """Notes about tables that name no split beside tables that do. Raises UsageError for one with images of its own."""
    known = set().union(*(_labels(table, candidate.image_names) for _, table in chosen))
    for other in others:
        if not _labels(other, candidate.image_names).keys() <= known:
            raise UsageError(_either(chosen[0][1], other, SOME_SHARED, candidate))
    return [f"{other.member}: not used, the tables of splits have its images" for other in others]
