"""The order of classes that are not the five grades: negative and positive, NPDR and PDR, early and advanced."""

import re

from dr.sources.grade_words import NEGATIONS, is_non_proliferative, means_none, plain_word

_STEPS = {"early": 1, "incipient": 1, "initial": 1, "intermediate": 2, "advanced": 3, "late": 3, "endstage": 4}
_NO = NEGATIONS | {"false", "nein"}
_NEGATIVE = frozenset(("neg", "negative", "absent", "absence", "negativ", "negativo", "negatif"))
_MINUS = frozenset("-\u2212\u2013")


def by_severity(names: list[str], grade: dict[str, int | None]) -> list[str] | None:
    """Class names and {each: its grade or None} -> the names in order: two of which one is No DR or negative; No DR,
    NPDR and PDR without the severity of NPDR; early, intermediate, advanced. None for others."""
    negative = [name for name in names if grade[name] == 0] or [name for name in names if _is_negative(name, names)]
    if len(names) == 2 and len(negative) == 1:
        return sorted(names, key=lambda name: name not in negative)
    rank = {name: 2 if is_non_proliferative(name) else grade[name] for name in names}
    if None in rank.values() or {*rank.values()} - {0, 2, 4} or 2 in grade.values():
        rank = _steps(names, grade)
    if None in rank.values() or len({*rank.values()}) < len(names):
        return None
    return sorted(names, key=rank.get)


def _is_negative(name: str, names: list[str]) -> bool:
    """Whether one of two names is the other one's negative: 'DR-' of 'DR+', 'no cataract', 'NRDR' of 'RDR', 'No'."""
    plain, others = _signless(name), {_signless(each) for each in names if each != name}
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
    return (
        (name.rstrip(")")[-1:] in _MINUS and plain in others)
        or any(plain == prefix + other for prefix in ("n", "no", "non", "not") for other in others)
        or means_none(name)
        or not _NO.isdisjoint(words[:1])
        or not _NEGATIVE.isdisjoint(words[:1] + words[-1:])
    )


def _signless(name: str) -> str:
    """'DR (+)' -> 'dr'."""
    return re.sub(r"[()+\u2212\u2013]+$", "", plain_word(name)).strip("()")


def _steps(names: list[str], grade: dict[str, int | None]) -> dict[str, int | None]:
    """Names -> ranks if each is No DR or a step of one disease: 'Normal', 'Early AMD', 'Intermediate AMD'."""
    words = {name: re.split(r"[\W_]+", name.casefold().replace("end-stage", "endstage")) for name in names}
    healthy = {name for name in names if grade[name] == 0 or words[name][0] in _NO | {"none", "normal", "healthy"}}
    rank = {name: 0 if name in healthy else _STEPS.get(words[name][0]) for name in names}
    diseases = {tuple(words[name][1:]) for name in names if rank[name]}
    return rank if len(diseases) == 1 else dict.fromkeys(names)
