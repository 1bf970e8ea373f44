"""Which column of a table holds the labels: by its name and by what it holds."""

import re
from collections.abc import Sequence

from dr import UsageError
from dr.sources.class_names import is_number
from dr.sources.grade_words import grade_of
from dr.sources.split_names import words_of
from dr.sources.table import Table
from dr.sources.ungradable import MISSING, is_ungradable

STANDARD = ("diagnosis", "level")
_DR = frozenset({"dr", "icdr", "npdr", "retinopathy", "retinopathie", "retinopatia"})
_GRADES = frozenset({
    "grade", "grades", "grading", "level", "levels", "label", "labels", "class", "stage", "severity", "scale",
    "icdr",
})  # fmt: skip
_JOINED = re.compile(r"((?:diabetic)?(?:dr|icdr|retinopathy))((?:grad|level|label|class|stag|severit|scale)[a-z]*)")
_GENERIC = frozenset({"class", "label", "labels", "target", "category", "classname", "y"})
# What tables hold beside the grade of retinopathy in few numbers or words, and grades that nobody gave
_OTHER = frozenset({
    "quality", "gradable", "gradability", "clarity", "artifact", "artefact", "field", "definition", "macular",
    "edema", "oedema", "dme", "maculopathy", "age", "sex", "gender", "eye", "laterality", "side", "camera",
    "device", "hospital", "clinic", "site", "center", "centre", "width", "height", "size", "split", "usage", "set",
    "dataset", "fold", "disease", "exam", "nationality", "diabetes", "insulin", "smoking", "obesity", "educational",
    "education", "alcohol", "income", "insurance", "id", "number", "index", "hypertensive", "hypertension", "cdr",
    "cup", "disc", "glaucoma", "cataract", "amd", "armd", "myopia", "operator", "ai", "predicted", "prediction",
    "probability", "confidence",
})  # fmt: skip
_RIVALS = _DR | frozenset({
    "grade", "grades", "grading", "label", "stage", "severity", "grader", "reader", "rater", "consensus", "final",
    "adjudicated", "physician", "expert", "doctor", "reading", "diagnosis",
})  # fmt: skip
_MAX_CLASSES = 50
_MAX_WORDS = 10  # classes of a column that only its place in a table of two columns makes the label


def choose_label(table: Table, free: Sequence[str]) -> tuple[tuple[str, ...], str, bool]:
    """The columns that hold nothing else -> the label column, or those of the left and the right eye; what numbers in
    it are (`TableColumns.numbers`); whether name or values say so, not its place alone. Raises UsageError where none or
    several could be the label."""
    usable = [name for name in free if _plain(name) in STANDARD or _like_labels(table.values(name))]
    graded = [name for name in usable if _like_grades(table.values(name))]
    rivals = [name for name in graded if _is_rival(name)]
    for is_named in (_is_icdr, _is_grade_of_dr, _is_grade_of_patient, _is_plain, _is_generic):
        named = [name for name in usable if is_named(name)]
        named = [name for name in named if name in graded] or ([] if rivals else named)  # no diagnosis in free text
        if named:
            # the international scale has no rival, nor has the grade of an eye in that of its patient
            beside = [] if is_named is _is_icdr else [name for name in rivals if not _is_grade_of_patient(name)]
            label = _only(table, [*named, *beside])
            return label, _numbers(table, label, generic=is_named is _is_generic), True
    return _by_content(table, free, graded)


def of_retinopathy(name: str) -> bool:
    """Whether a column of this name holds grades of retinopathy, not other classes."""
    return _is_icdr(name) or _is_grade_of_dr(name) or _is_grade_of_patient(name)


def up_to_five(values: Sequence[str] | set[str]) -> bool:
    """Whether all labels are whole numbers up to 5, which DDR uses for ungradable images, or no labels."""
    return all(is_ungradable(value) or re.fullmatch(r"[0-5](?:\.0*)?", value) for value in values)


def _plain(name: str) -> str:
    return "".join(words_of(name))


def _is_icdr(name: str) -> bool:
    return "icdr" in words_of(name) or _plain(name).endswith("icdr")


def _is_grade_of_dr(name: str) -> bool:
    words = words_of(name)
    if _OTHER & {*words} - {"eye"} or "patient" in words:
        return False
    return any(map(_JOINED.fullmatch, words)) or bool(_DR & {*words} and _GRADES & {*words})


def _is_grade_of_patient(name: str) -> bool:
    return "patient" in words_of(name) and _is_grade_of_dr(re.sub("(?i)patient", "", name))


def _is_plain(name: str) -> bool:
    return _plain(name) in STANDARD or _only_word(name) in _DR | _GRADES - {"class", "label", "labels"}


def _only_word(name: str) -> str | None:
    """'has diabetic retinopathy' -> retinopathy; None for a name of several words."""
    words = [word for word in words_of(name) if word not in ("has", "any", "diabetic")]
    return words[0] if len(words) == 1 else None


def _is_generic(name: str) -> bool:
    return _plain(name) in _GENERIC


def _is_rival(name: str) -> bool:
    """Whether a column that looks like grades may be the label beside one of a usual name: a second reader, a
    consensus."""
    words = {*words_of(name)}
    return _plain(name) in STANDARD or bool(words & _RIVALS and not words & _OTHER)


def _only(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """Columns that could all be the label -> the one, or the pair of both eyes. Raises UsageError."""
    names = list(dict.fromkeys(names))
    different = {tuple(table.values(name)) for name in names}
    if len(different) == 1:
        return (names[0],)
    eyes = _eyes(names)
    if len(eyes) == len(names) == 2:
        return eyes["left"], eyes["right"]
    raise UsageError(
        f"{table.place}: the columns {' and '.join(map(repr, names[:3]))} could each be the label; "
        f"choose one, as --label_column {names[0]!r}"
    )


def _eyes(names: Sequence[str]) -> dict[str, str]:
    return {word: name for name in names for word in words_of(name) if word in ("left", "right")}


def _numbers(table: Table, label: tuple[str, ...], *, generic: bool) -> str:
    values = {value for name in label for value in table.values(name) if not is_ungradable(value)}
    if {value.rstrip("0").rstrip(".") or "0" for value in values} <= {"0", "1"} and _only_word(label[0]) in _DR:
        return "binary"
    return "grades" if _plain(label[0]) in STANDARD or (not generic and up_to_five(values)) else "classes"


def _present(values: Sequence[str]) -> set[str]:
    return {value for value in values if value.casefold() not in MISSING}


def _like_labels(values: Sequence[str]) -> bool:
    """Whether a column has few distinct whole numbers or words."""
    distinct = _present(values)
    whole = all(not is_number(value) or float(value).is_integer() for value in distinct)
    return whole and 0 < len(distinct) <= max(_MAX_CLASSES, len(values) // 20)


def _like_grades(values: Sequence[str]) -> bool:
    """Whether a column has three or more of the numbers 0 to 5, or words for two or more grades."""
    distinct = _present(values)
    if distinct and all(is_number(value) for value in distinct):
        numbers = {float(value) for value in distinct}
        return len(numbers) >= 3 and numbers <= {-1, 0, 1, 2, 3, 4, 5}
    graded = {grade_of(value) for value in distinct if not is_ungradable(value)}
    return None not in graded and len(graded) >= 2


def _by_content(table: Table, free: Sequence[str], graded: Sequence[str]) -> tuple[tuple[str, ...], str, bool]:
    """The only column that looks like grades, or the second of two columns with few classes. Raises UsageError."""
    free = [name for name in free if not {*words_of(name)} & _OTHER or not table.has_header]
    likely = [name for name in free if name in graded]
    if likely:
        return _only(table, likely), "grades", True
    if len(table.header) == 2:
        for name in free:
            if _like_classes(table.values(name), certain=not table.has_header):
                numbers = "grades" if not table.has_header and up_to_five(table.values(name)) else "classes"
                return (name,), numbers, not table.has_header
    shown = ",".join(table.header[:6]) if table.has_header else "no header"
    raise UsageError(f"{table.place}: no column looks like grades ({shown}); name it with --label_column")


def _like_classes(values: Sequence[str], *, certain: bool) -> bool:
    """Whether a column has a few classes, each several times unless it is `certain` to hold classes."""
    distinct = _present(values)
    return (
        _like_labels(values)
        and len(distinct) >= 2
        and (certain or (len(values) >= 2 * len(distinct) and len(distinct) <= _MAX_WORDS))
    )
