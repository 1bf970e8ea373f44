"""Class names in order: grades of retinopathy by severity, No DR before DR, others in natural order."""

import re
from collections.abc import Iterable, Sequence

from dr import GRADES, UsageError


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


# Spellings of public datasets and clinics. The scale: Wilkinson et al., Ophthalmology 2003;110:1677
_NON_PROLIFERATIVE = tuple(f"nonproliferative{end}" for end in ("", "dr", "diabeticretinopathy"))
_AFTER_MILD_TO_SEVERE = ("npdr", "dr", *_NON_PROLIFERATIVE)
_GRADE_OF = {_plain(name): grade for grade, name in enumerate(GRADES)} | {
    **dict.fromkeys(("normal", "noretinopathy", "noapparentretinopathy", "nodiabeticretinopathy"), 0),
    **{f"{_plain(GRADES[grade])}{end}": grade for grade in (1, 2, 3) for end in _AFTER_MILD_TO_SEVERE},
    **dict.fromkeys(("proliferate", "proliferatedr", "proliferative", "pdr", "proliferativediabeticretinopathy"), 4),
}


def grade_of(word: str) -> int | None:
    """A name of a grade of retinopathy -> 0..4, None for other words. Case, spaces, underscores, dashes and the grade's
    own number in front do not matter."""
    plain = _plain(word)
    numbered = _GRADE_OF.get(plain[1:])
    return numbered if plain[:1] == str(numbered) else _GRADE_OF.get(plain)


def _natural(name: str) -> tuple[list, str]:
    """A sort key that puts 'stage 10' after 'stage 9'."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def is_number(text: str) -> bool:
    """Whether a label is a number, valid as a class or not."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_spelling(names: Iterable[str], *, place: str) -> None:
    """Raises UsageError if two class names are two spellings of one word. Names of the grades of retinopathy may be."""
    names = sorted(set(names), key=_natural)
    if None not in map(grade_of, names):
        return
    first: dict[str, str] = {}
    for name in names:
        alike = first.setdefault(re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name).casefold(), name)
        if alike != name:
            raise UsageError(f"{place}: the classes {alike!r} and {name!r} differ only in spelling; use one spelling")


def arrange(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names as written -> (class names in order, {name as written: index of its class}).

    Names of the grades of retinopathy (see `grade_of`) become GRADES. So do the numbers 0 to 4 if all five occur and
    nothing else.
    """
    plain = {name: _plain(name) for name in names}
    grade = {name: grade_of(name) for name in plain}
    if plain and None not in grade.values():
        grades = sorted(set(grade.values()))
        return tuple(GRADES[each] for each in grades), {name: grades.index(each) for name, each in grade.items()}
    if sorted(plain.values()) == ["dr", "nodr"]:
        ordered = sorted(plain, key=lambda name: plain[name] == "dr")
    else:
        ordered = sorted(plain, key=_natural)
    classes = GRADES if ordered == [str(grade) for grade in range(len(GRADES))] else tuple(ordered)
    return classes, {name: number for number, name in enumerate(ordered)}


def numbers_of(classes: Sequence[str]) -> list[int]:
    """Class names -> the number of each in tables: the name itself if all names are whole numbers, else the index."""
    own = [int(name) for name in classes if name.isdecimal()]
    return own if len(set(own)) == len(classes) else list(range(len(classes)))


def class_of(word: str, classes: Sequence[str]) -> int | None:
    """A label (a class name in any spelling that data.py accepts, or a number of `numbers_of`) -> the index of its
    class. None if it matches no class, or several."""
    if word in classes:
        return classes.index(word)
    if is_number(word):
        numbers = numbers_of(classes)
        return numbers.index(float(word)) if float(word) in numbers else None
    grade = grade_of(word)
    alike = [
        place
        for place, name in enumerate(classes)
        if _plain(name) == _plain(word) or (grade is not None and grade_of(name) == grade)
    ]
    return alike[0] if len(alike) == 1 else None


def ranked(classes: Sequence[str]) -> bool:
    """Whether the classes are ordinal: two classes, the grades or some of them, or names that are numbered without
    gaps, as stage 1, stage 2. Bare numbers may be mere names."""
    places = [GRADES.index(name) for name in classes if name in GRADES]
    if len(classes) <= 2 or (len(places) == len(classes) and places == sorted(places)):
        return True
    parts = [re.fullmatch(r"(\D+)(\d+)(\D*)", name.casefold()) for name in classes]
    if not all(parts) or len({part.group(1, 3) for part in parts}) > 1:
        return False
    numbers = [int(part[2]) for part in parts]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def check_splits(splits: dict[str, set[str]], *, place: str) -> None:
    """{split: its class names}. Raises UsageError if the training split lacks a class of another split."""
    trained = splits["train"]
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
            raise UsageError(
                f"{place}: no training image has the label {number}, but some have {highest}; "
                "number the classes from 0 without gaps"
            )
    return arrange(str(label) for label in sorted(used["train"]))[0]
