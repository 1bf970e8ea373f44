"""Which columns of a label table hold the images, labels, patients and splits: by content, and by their usual names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dr import UsageError
from dr.sources.label_columns import choose_label, of_retinopathy, up_to_five
from dr.sources.split_names import splits_of_values, words_of
from dr.sources.table import ImageNames, Table
from dr.sources.ungradable import MISSING

ID_NAMES = (
    "id_code", "image", "image_id", "image_name", "filename", "file_name", "file", "image_path", "path", "name", "id",
)  # fmt: skip
_CLEAR = 9  # of these names say that the column names images; the others may be numbers of rows
_INDEX = re.compile(r"(?i)unnamed: ?\d.*|index|column \d+")  # numbers of rows, as pandas and Excel write them
_PATIENT = re.compile(r"(?:id)?(?:patient|paciente|subject)(?:id|no|nr|number|name|code)?|(?:pid|mrn)")
_SPLIT = re.compile(
    r"split|usage|subset|partition|phase|set|dataset|data(?:split|set)|split(?:name|type)|is(?:train|valid|val|test)"
)
_SURE_SPLIT = ("split", "usage", "partition", "subset")  # nothing else: a value that is no split is an error
_MAX_NAMED = 6  # columns in a line


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns of a label table that the user named. None: to be recognised."""

    id: str | None = None
    label: str | None = None
    patient: str | None = None

    def given(self) -> bool:
        """Whether the user named a column."""
        return any((self.id, self.label, self.patient))


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """The names of the columns of one table. `label`: one column, or those of the left and the right eye. `numbers`:
    what numbers in it are: "grades" of retinopathy, "binary" (without and with it), or indices of other "classes".
    `certain`: names or values show that it is the label, not its place alone. `matched`: how many images the ids name.
    `unused`: the other columns with values."""

    id: str
    label: tuple[str, ...]
    patient: str | None = None
    split: str | None = None
    numbers: str = "grades"
    certain: bool = True
    matched: int = 0
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        labels = " and ".join(map(repr, self.label))
        more = [f"{word} {name!r}" for word, name in (("patient", self.patient), ("split", self.split)) if name]
        unused = ", ".join(map(repr, self.unused[:_MAX_NAMED])) + (", ..." if len(self.unused) > _MAX_NAMED else "")
        return ", ".join([f"image {self.id!r}", f"label {labels}", *more]) + (f"; not used: {unused}" if unused else "")


def recognise_columns(table: Table, *, images: ImageNames, given: Columns | None = None) -> TableColumns:
    """The columns of a label table. Raises UsageError that names the candidates and the flag, where there is no label
    column or no image column, or several that could be."""
    given = given or Columns()
    id_column = table.named(given.id, flag="--id_column") if given.id else _id_column(table, images=images)
    patient = (
        table.named(given.patient, flag="--patient_column") if given.patient else _patient(table, without=id_column)
    )
    label = (table.named(given.label, flag="--label_column"),) if given.label else None
    split = _split(table, without=[id_column, patient, *(label or ())])
    if label is None:
        free = [name for name in table.header if name not in (id_column, patient, split)]
        label, numbers, certain = choose_label(table, free)
    else:
        graded = of_retinopathy(label[0]) and up_to_five(table.values(label[0]))
        numbers, certain = "grades" if graded else "classes", True
    if all(value.casefold() in MISSING for name in label for value in table.values(name)):
        name = " and ".join(label)
        raise UsageError(f"{table.place}: {name} has no labels; name the column of labels with --label_column")
    used = {id_column, patient, split, *label}
    unused = [
        name for name in table.header if name not in used and any(table.values(name)) and not _INDEX.fullmatch(name)
    ]
    return TableColumns(
        id=id_column, label=label, patient=patient, split=split, numbers=numbers, certain=certain,
        matched=images.count(table.values(id_column)), unused=tuple(unused),
    )  # fmt: skip


def _plain(name: str) -> str:
    return "".join(words_of(name))


def _id_column(table: Table, *, images: ImageNames) -> str:
    """The column whose values name the most images; of equal ones a usual name, else the first. A column that counts
    the rows gives way to one with a usual name. Raises UsageError where two name different images."""
    usual = {name: place for place, name in enumerate(ID_NAMES)}
    clear = [name for name in table.header if name.casefold() in ID_NAMES[:_CLEAR]]
    matched = {column: images.count(table.values(column)) for column in table.header}
    proper = {name: count for name, count in matched.items() if count and not _INDEX.fullmatch(name)}
    if proper.keys() & set(clear):
        proper = {name: n for name, n in proper.items() if name in clear or not _counts_rows(table.values(name))}
    matched = proper if proper and table.has_header else matched
    best = min(matched, key=lambda name: (-matched[name], usual.get(name.casefold(), len(usual))), default=None)
    if best is None or (matched[best] == 0 and best.casefold() not in usual):
        raise UsageError(f"{table.place}: no column names the images; name it with --id_column")
    for name, count in matched.items():
        if name == best or not count or 10 * count < 9 * matched[best] or best in clear:
            continue
        if _differ(table, best, name, images=images):
            raise UsageError(
                f"{table.place}: the columns {best!r} and {name!r} name different images; choose one, as "
                f"--id_column {best!r}"
            )
    return best


def _differ(table: Table, one: str, other: str, *, images: ImageNames) -> bool:
    """Whether two columns name different images in a row."""
    pairs = zip(map(images.stem_of, table.values(one)), map(images.stem_of, table.values(other)), strict=True)
    return any(first != second for first, second in pairs if first and second)


def _counts_rows(values: Sequence[str]) -> bool:
    """Whether a column holds whole numbers that rise by one in each row, as the index that pandas writes."""
    if not all(value.isdecimal() for value in values):
        return False
    return [int(value) for value in values] == [*range(int(values[0]), int(values[0]) + len(values))]


def _patient(table: Table, *, without: str) -> str | None:
    names = (name for name in table.header if name != without and _PATIENT.fullmatch(_plain(name)))
    return next((name for name in names if any(table.values(name))), None)


def _is_short(value: str) -> bool:
    return len(words_of(value)) <= 2 and not {*value} & {*"/\\."}


def _split(table: Table, *, without: Sequence[str | None]) -> str | None:
    """The column of splits: of a usual name, or of any whose values are all splits. Raises UsageError for a column that
    can be nothing else, where a value is no split."""
    free = [name for name in table.header if name not in without and any(table.values(name))]
    usual = [name for name in free if _SPLIT.fullmatch(_plain(name))]
    for name in dict.fromkeys([*usual, *free]):
        values = table.values(name)
        known = splits_of_values(name, values)
        strange = [(value, row) for value, row in zip(values, table.numbers, strict=True) if value not in known]
        splits = set(known.values())
        if name not in usual and not all(map(_is_short, known)):  # paths of images hold words of splits, too
            continue
        if not strange and "train" in splits and len(splits) > 1:
            return name
        if strange and name in usual and (_plain(name) in _SURE_SPLIT or "train" in splits):
            value, row = strange[0]
            raise UsageError(
                f"{table.place}, row {row}: {name} is {value!r}, expected train, val or test; correct it, or rename "
                "the column if it is no split"
            )
    return None
