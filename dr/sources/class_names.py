"""Class names in order: grades of retinopathy by severity, No DR before DR, others in natural order."""

import re
from collections.abc import Iterable, Sequence

from dr import GRADES, UsageError
from dr.sources.class_order import by_severity
from dr.sources.grade_words import (
    abbreviated_grade,
    counted_grade,
    grade_of,
    is_non_proliferative,
    means_none,
    nearest,
    number_of,
    plain_word,
    to_number,
)
from dr.sources.ungradable import UNGRADABLE

_CODES = frozenset((6, 8, 9, 66, 77, 88, 90, 98, 99, 999))  # of forms: not gradable, not done, missing
MOST_CLASSES = 10  # of retinas; objects have more


def _natural(name: str) -> tuple[list, str]:
    """A sort key that puts 'stage 10' after 'stage 9'."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def is_number(text: str) -> bool:
    """Whether a label is a number, valid as a class or not."""
    return to_number(text) is not None


def check_spelling(names: Iterable[str], *, place: str) -> None:
    """Raises UsageError for class names that contradict each other: two spellings of one word (of a grade they are
    allowed), most names grades of retinopathy but some not, or a number beyond the grades beside all of 0 to 4."""
    names = sorted(set(names), key=_natural)
    _refuse_beyond({name: int(name) if name.isdecimal() else number_of(name) for name in names}, place=place)
    grades = _grades(names)
    if None not in grades.values():
        return
    _refuse_mixture(grades, place=place)
    first: dict[str, str] = {}
    for name in names:
        alike = first.setdefault(re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name).casefold(), name)
        if alike != name:
            raise UsageError(f"{place}: the classes {alike!r} and {name!r} differ only in spelling; use one spelling")


def _grades(names: Iterable[str]) -> dict[str, int | None]:
    """{class name: its grade of retinopathy, or None}, by all names together.

    Beside other grades `None` and `No` are No DR. Numbered names (`Grade 2`, `R2`, `2`) are grades if they are 0 to 4,
    or 1 to 4 beside a word for No DR; other words beside them are none. Words may be counted from 1 (`1_No DR`).
    Abbreviations (`mNPDR`, `SDR`) are grades if they and other words name at least four, Moderate among them.
    """
    names = list(dict.fromkeys(name for name in names if name != UNGRADABLE))
    grades = {name: grade_of(name) for name in names}
    counted = {name: counted_grade(name) for name in names}
    if names and None not in counted.values():
        return counted
    known = {*grades.values()} - {None}
    if 0 not in known and len(known) >= 2:
        grades |= {name: 0 for name in names if means_none(name)}
    numbered = {name: number_of(name) for name in names if grades[name] is None}
    numbers = {*numbered.values()} - {None}
    others = any(is_number(name) for name, number in numbered.items() if number is None)  # 10 and up
    if known <= {0} and not others and sorted(numbers | known) == list(range(len(GRADES))):
        grades |= {name: number for name, number in numbered.items() if number is not None}
    moderate = any(abbreviated_grade(name) == GRADES.index("Moderate") for name in names)
    short = {name: abbreviated_grade(name, beside_moderate=moderate) for name in names if grades[name] is None}
    abbreviated = [grade for grade in (grades | short).values() if grade is not None]
    if moderate and 4 <= len(set(abbreviated)) == len(abbreviated):
        grades |= short
    return grades


def _refuse_beyond(numbers: dict[str, int | None], *, place: str) -> None:
    """{class name: its number, if it has one}: raises UsageError for 6, 9, 99 and the like beside all of 0 to 4."""
    beyond = {number for number in numbers.values() if number is not None and number >= len(GRADES)}
    contiguous = beyond == set(range(len(GRADES), len(GRADES) + len(beyond)))
    if {*range(len(GRADES))} <= {*numbers.values()} and not contiguous and (len(beyond) == 1 or beyond <= {5} | _CODES):
        name = next(name for name, number in numbers.items() if number == max(beyond))
        raise UsageError(
            f"{place}: the class {name!r} is no grade, but the classes 0 to 4 are; remove its images, or rename it to "
            "'ungradable' if they cannot be graded"
        )


def _refuse_mixture(grades: dict[str, int | None], *, place: str) -> None:
    """{class name: grade or None}: raises UsageError if most names are grades, two or more, and some are not."""
    known = [name for name, grade in grades.items() if grade is not None]
    unknown = [name for name, grade in grades.items() if grade is None and not is_non_proliferative(name)]
    if not unknown or len({grades[name] for name in known}) < 2:
        return
    if len(known) < len(unknown) and not any(is_number(name) for name in unknown):
        return
    like = nearest(unknown[0])
    expected = f"the nearest is {like!r}" if like else f"expected {', '.join(GRADES)}"
    raise UsageError(
        f"{place}: the class {unknown[0]!r} is no known word for a grade of retinopathy ({expected}), but {known[0]!r} "
        f"and {known[1]!r} are; rename or remove it"
    )


def arrange(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names as written -> (class names in order, {name as written: index of its class}).

    Names of the grades of retinopathy (see `grade_of`) become GRADES. So do the numbers 0 to 4 if all five occur and
    nothing else. UNGRADABLE is the last class.
    """
    names = list(dict.fromkeys(names))
    classes, number = _arrange([name for name in names if name != UNGRADABLE])
    if UNGRADABLE in names:
        return (*classes, UNGRADABLE), number | {UNGRADABLE: len(classes)}
    return classes, number


def _arrange(names: list[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    grade = _grades(names)
    if names and None not in grade.values():
        grades = sorted(set(grade.values()))
        return tuple(GRADES[each] for each in grades), {name: grades.index(each) for name, each in grade.items()}
    ordered = by_severity(names, grade) or sorted(names, key=_natural)
    return tuple(ordered), {name: number for number, name in enumerate(ordered)}


def taken_line(names: Iterable[str]) -> str | None:
    """Names as written -> one line on which words are read as which grades; None if they are the grades' names,
    numbers, or other classes."""
    names = list(dict.fromkeys(names))
    grades = _grades(names)
    if not grades or None in grades.values():
        return None
    read = sorted((grade, name) for name, grade in grades.items() if not is_number(name))
    words = [f"{name!r} as {GRADES[grade]}" for grade, name in read if plain_word(name) != plain_word(GRADES[grade])]
    return f"grades: {', '.join(words)}" if words else None


def order_line(classes: Sequence[str]) -> str | None:
    """Class names in order -> one line if their order is that of the alphabet and may matter: three or more words
    that are neither ranks nor numbered; else None."""
    words = [name for name in classes if name != UNGRADABLE]
    if not 2 < len(words) <= MOST_CLASSES or ranked(words) or all(re.search(r"\d", name) for name in words):
        return None
    return f"classes in alphabetical order: {', '.join(words)}; rename them 0_..., 1_... if they are ranks"


def numbers_of(classes: Sequence[str]) -> list[int]:
    """Class names -> the number of each in tables: the name itself if all names are whole numbers, else the index."""
    own = [int(name) for name in classes if name.isdecimal()]
    return own if len(set(own)) == len(classes) else list(range(len(classes)))


def class_of(word: str, classes: Sequence[str]) -> int | None:
    """A label (a class name in any spelling that data.py accepts, or a number of `numbers_of`) -> the index of its
    class. None if it matches no class, or several."""
    if word in classes:
        return classes.index(word)
    if (number := to_number(word)) is not None:
        numbers = numbers_of(classes)
        return numbers.index(number) if number in numbers else None
    grade = grade_of(word)
    if grade is None and (tuple(classes[: len(GRADES)]) == GRADES or means_none(word)):
        grade = 0 if means_none(word) else number_of(word)
        grade = abbreviated_grade(word) if grade is None else grade
    alike = [
        place
        for place, name in enumerate(classes)
        if plain_word(name) == plain_word(word) or (grade is not None and grade_of(name) == grade)
    ]
    return alike[0] if len(alike) == 1 else None


def ranked(classes: Sequence[str]) -> bool:
    """Whether the classes are ordinal: two classes, the grades or some of them, No DR with NPDR and PDR, or names that
    are numbered without gaps, as stage 1, stage 2. Bare numbers may be mere names. UNGRADABLE is no rank."""
    places = [GRADES.index(name) for name in classes if name in GRADES]
    if len(classes) <= 2 or (len(places) == len(classes) and places == sorted(places)):
        return True
    if list(classes) == by_severity(list(classes), {name: grade_of(name) for name in classes}):
        return True
    parts = [re.fullmatch(r"(\D+)(\d+)(\D*)", name.casefold()) for name in classes]
    if not all(parts) or len({part.group(1, 3) for part in parts}) > 1:
        return False
    numbers = [int(part[2]) for part in parts]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def check_splits(splits: dict[str, set[str]], *, place: str) -> None:
    """{split: its class names}. Raises UsageError if the training split lacks a class of another split."""
    trained = splits.get("train", set())
    for split, names in splits.items():
        if missing := sorted(names - trained, key=_natural):
            raise UsageError(
                f"{place}: {split} has the class {missing[0]!r}, which train lacks; "
                f"add it to train or remove it from {split}"
            )


def numbered(splits: dict[str, Iterable[int]], *, place: str) -> tuple[str, ...]:
    """{split: labels (N,) int, 0 and up} -> class names. Raises UsageError if training lacks one of 0..K-1."""
    used = {split: {int(label) for label in labels} for split, labels in splits.items()}
    check_splits({split: {str(label) for label in labels} for split, labels in used.items()}, place=place)
    highest = max(used["train"])
    for number, label in enumerate(sorted(used["train"])):
        if number != label:
            _refuse_beyond({str(label): label for label in used["train"]}, place=place)
            raise UsageError(
                f"{place}: no training image has the label {number}, but some have {highest}; "
                "number the classes from 0 without gaps"
            )
    return arrange(str(label) for label in sorted(used["train"]))[0]
