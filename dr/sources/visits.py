"""Visits, dates and kinds of images in names and folders, which are no part of the name of a patient."""

import re
from collections import Counter
from collections.abc import Sequence

_MONTH_DAY = r"(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|[-_.][01]?\d[-_.][0-3]?\d)"
_DATE = rf"(?:(?:19|20)\d\d{_MONTH_DAY}|[0-3]?\d[-_.][01]?\d[-_.](?:19|20)\d\d)"  # 20180304, 2018-03-04, 04.03.2018
_WORD = (
    r"(?:(?:visit|visita|visite|fu|follow[\s_-]?up|session|timepoint|tp|month|week|year)[\s_-]?\d{1,3}"
    r"|baseline|follow[\s_-]?up)"
)
_KIND = (
    r"(?:colou?r|red[\s_-]?free|green|infrared|ir|cfp|fundus|uwf|oct|faf|ffa|fa|images?|photos?|macula|onh|nasal|temporal|"
    r"(?:optic[\s_-]?)?(?:dis[ck]|nerve)|(?:macula|dis[ck])[\s_-]?cent(?:er|re)d|superior|inferior|cent(?:er|re|ral)|"
    r"peripher(?:y|al)|posterior[\s_-]?pole|(?:field|view)[\s_-]?\d)"
)
_LETTER = r"[vtmwyf]\d{1,2}"
_IS_VISIT = re.compile(rf"(?i){_DATE}|{_WORD}|(?:19|20)\d\d[-_.][01]\d")
_IS_KIND = re.compile(rf"(?i){_KIND}")
_IS_DATE = re.compile(_DATE)
_MAY_BE_VISIT = re.compile(rf"(?i){_LETTER}|(?:19[89]|20[0-4])\d")  # patients, too: 2001, 2002, ..., T1, T2, ...
_AT_END = re.compile(rf"(?i)(.+?)[\s_.-]+(?:{_DATE}|{_WORD}|{_LETTER}|{_KIND})")
_AT_START = re.compile(rf"(?i)(?:{_DATE}|{_WORD})[\s_.-]+(.+)")
_NUMBER_AT_END = re.compile(r"(.*\d.*?)[\s_.-]+0*(\d{1,2})")  # the rest has a number, too, as of a patient
_SITE = re.compile(r"(?i).*(?:site|clinic|hospital|centre|center|camera|device|batch|day)[\s_-]?\d+")
MOST_VISITS = 12
MEAN_OF_VISITS = 20.0  # images of a patient in all visits
MEAN_OF_A_FOLDER = 8.0  # images in a folder of a patient


def are_dates(level: Sequence[str]) -> bool:
    """Whether all folders of one level, one for each image, are days."""
    return all(_IS_DATE.fullmatch(name) for name in {*level} - {""})


def are_visits(level: Sequence[str]) -> bool:
    """Whether all folders of one level, one for each image, are dates, years and visits, or kinds of images."""
    names = {*level} - {""}
    if all(_IS_KIND.fullmatch(name) for name in names) or all(_IS_VISIT.fullmatch(name) for name in names):
        return True
    may_be = all(_MAY_BE_VISIT.fullmatch(name) or _IS_VISIT.fullmatch(name) for name in names)
    return may_be and (len(level) > MEAN_OF_A_FOLDER * len(names) or len(names) < 4)


def without_visits(names: Sequence[str | None]) -> list[str | None]:
    """What is left of the name of each image without its eye -> the same without dates, visits and kinds of images, and
    without a number at the end where one name has several: '1000_1' and '1000_2' are 1000."""
    dated = [name and _without_visit(name) for name in names]
    names = dated if _can_be_patients(dated) else [*names]
    matches = [_NUMBER_AT_END.fullmatch(name) if name else None for name in names]
    # a number after a day or site is a patient, no visit
    found = [match for match in matches if match and not _IS_DATE.fullmatch(match[1]) and not _SITE.fullmatch(match[1])]
    numbers = {int(match[2]) for match in found}
    visits = Counter(match[1] for match in {match[0]: match for match in found}.values())
    first = {match[1] for match in found if int(match[2]) <= 1}
    if (
        len(found) < 0.9 * sum(map(bool, names))
        or not numbers <= set(range(MOST_VISITS + 1))
        or len(visits) < max(4, 2 * len(numbers))  # more patients than visits
        or len(first) < 0.9 * len(visits)  # each counted from the first
        or len([rest for rest, count in visits.items() if count > 1]) < 0.2 * len(visits)
    ):
        return names
    without = [match[1] if match else name for name, match in zip(names, matches, strict=True)]
    return without if _can_be_patients(without) else names


def _can_be_patients(names: Sequence[str | None]) -> bool:
    """Not if they are too few for their images, as names of a study or camera are."""
    images = Counter(name for name in names if name)
    several = len(images) >= 4 or (len(images) >= 2 and all(re.search(r"\d", name) for name in images))
    return several and sum(images.values()) <= MEAN_OF_VISITS * len(images)


def _without_visit(name: str) -> str:
    """'P1_v2_20180304' -> 'P1'; '20180304_2' remains, the second patient of a day."""
    while match := _AT_END.fullmatch(name):
        name = match[1]
    match = _AT_START.fullmatch(name)
    return match[1] if match and not re.fullmatch(r"\d{1,3}", match[1]) else name
