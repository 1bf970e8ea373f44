"""Names of classes in their order: grades of retinopathy as they rise, No DR before DR, others sorted naturally."""

import re
from collections.abc import Iterable, Sequence

from dr import GRADES, UsageError


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


# as public collections and clinics spell them; the scale itself: Wilkinson et al., Ophthalmology 2003;110:1677
_NON_PROLIFERATIVE = tuple(f"nonproliferative{end}" for end in ("", "dr", "diabeticretinopathy"))
_BEHIND_MILD_TO_SEVERE = ("npdr", "dr", *_NON_PROLIFERATIVE)
_GRADE_OF = {_plain(name): grade for grade, name in enumerate(GRADES)} | {
    **dict.fromkeys(("normal", "noretinopathy", "noapparentretinopathy", "nodiabeticretinopathy"), 0),
    **{f"{_plain(GRADES[grade])}{end}": grade for grade in (1, 2, 3) for end in _BEHIND_MILD_TO_SEVERE},
    **dict.fromkeys(("proliferate", "proliferatedr", "proliferative", "pdr", "proliferativediabeticretinopathy"), 4),
}


def grade_of(word: str) -> int | None:
    """A word for a grade of retinopathy, in any case, spaces, underscores or dashes, its number before it or not -> 0
    to 4; None for others."""
    plain = _plain(word)
    numbered = _GRADE_OF.get(plain[1:])
    return numbered if plain[:1] == str(numbered) else _GRADE_OF.get(plain)


def _natural(name: str) -> tuple[list, str]:
    """A key that puts 'stage 10' behind 'stage 9'."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def is_number(text: str) -> bool:
    """Whether a label is a number, of a class or not."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_spelling(names: Iterable[str], *, place: str) -> None:
    """Names of classes as they were found -> nothing, or a UsageError where two are one word in two spellings, which
    only words for the grades of retinopathy may have."""
    names = sorted(set(names), key=_natural)
    if None not in map(grade_of, names):
        return
    first: dict[str, str] = {}
    for name in names:
        alike = first.setdefault(re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name).casefold(), name)
        if alike != name:
            raise UsageError(f"{place}: the classes {alike!r} and {name!r} differ in spelling alone; spell both alike")


def arrange(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names as they were found -> (class names in their order, {name as found: its class}).

    Words for the grades of retinopathy, in any case and with spaces, underscores or dashes, become GRADES, and so do
    the numbers 0 to 4 when they are all there are.
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
    """Class names -> the number that stands for each in tables: its own where all names are whole numbers, else its
    place."""
    own = [int(name) for name in classes if name.isdecimal()]
    return own if len(set(own)) == len(classes) else list(range(len(classes)))


def class_of(word: str, classes: Sequence[str]) -> int | None:
    """A label, a word in whatever spelling data.py knows it or a number of `numbers_of` -> the place of the class that
    it means; None where it is none or several."""
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
    """Whether the order of class names means something: two, the grades in part or whole, or names that differ in a
    number that counts them, as stage 1, stage 2. Numbers alone may be names."""
    places = [GRADES.index(name) for name in classes if name in GRADES]
    if len(classes) <= 2 or (len(places) == len(classes) and places == sorted(places)):
        return True
    parts = [re.fullmatch(r"(\D+)(\d+)(\D*)", name.casefold()) for name in classes]
    if not all(parts) or len({part.group(1, 3) for part in parts}) > 1:
        return False
    numbers = [int(part[2]) for part in parts]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def check_splits(sides: dict[str, set[str]], *, place: str) -> None:
    """{side: names of its classes} -> nothing, or a UsageError: training needs all that are tested."""
    trained = sides["train"]
    for side, names in sides.items():
        if missing := sorted(names - trained, key=_natural):
            raise UsageError(
                f"{place}: {side} has the class {missing[0]!r}, which train has not; "
                f"add it to train or take it out of {side}"
            )


def numbered(sides: dict[str, Iterable[int]], *, place: str) -> tuple[str, ...]:
    """{side: labels (N,) int, 0 and up} -> class names. Raises UsageError where training lacks one of 0..K-1."""
    found = {side: {int(label) for label in labels} for side, labels in sides.items()}
    check_splits({side: {str(label) for label in labels} for side, labels in found.items()}, place=place)
    highest = max(found["train"])
    for number, label in enumerate(sorted(found["train"])):
        if number != label:
            raise UsageError(
                f"{place}: no training photograph has the label {number}, but some have {highest}; "
                "number the classes from 0 without gaps"
            )
    return arrange(str(label) for label in sorted(found["train"]))[0]
