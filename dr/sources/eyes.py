"""Left and right in the names of images: 7_left, P12-OD, OS_3, 1_l2, 12R."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_LEFT = ("left", "os", "izquierdo", "izquierda", "izq", "esquerdo", "esquerda", "gauche", "links", "sinistro")
_RIGHT = ("right", "od", "derecho", "derecha", "direito", "direita", "droit", "droite", "rechts", "destro")
_WORDS = dict.fromkeys(_LEFT, "left") | dict.fromkeys(_RIGHT, "right") | {"左眼": "left", "右眼": "right"}
# Letters that stand for other things, too
_LETTERS = dict.fromkeys(("l", "le", "oe", "oi", "og", "la", "lt", "sx", "esq", "左"), "left") | dict.fromkeys(
    ("r", "re", "ra", "rt", "dx", "der", "dch", "dir", "右"), "right"
)
_EYE_OF = _WORDS | _LETTERS
_SEPARATORS = " ._()[],+-"
_SEPARATOR = rf"[\s{re.escape(_SEPARATORS)}]"


def _token(words: Iterable[str], *, start: str) -> re.Pattern[str]:
    """A word after `start` and before a separator, with the number of the acquisition."""
    return re.compile(rf"(?i)(?:{start})({'|'.join(words)})(?:[ _-]?eye)?(\d{{0,2}})(?=$|{_SEPARATOR})")


_IDEOGRAMS = re.compile(r"([左右]眼)(\d{0,2})")  # Chinese and Japanese write no separators
_CERTAIN = _token(_WORDS, start=rf"^|(?<={_SEPARATOR})")
_UNCERTAIN = (
    _token(_LETTERS, start=rf"^|(?<={_SEPARATOR})"),
    _token(("left", "right", "od", "os", "l", "r"), start=r"(?<=\d)"),
)


class EyeName(NamedTuple):
    """A name with an eye: what is before and after it, which eye, and its word as it is shown. `certain`: the word
    means an eye whatever the other names are."""

    before: str
    after: str
    eye: str
    shown: str
    certain: bool


def eye_of(name: str) -> EyeName | None:
    """A file name without suffix -> its eye; None without one."""
    found = [*_CERTAIN.finditer(name)] or [*_IDEOGRAMS.finditer(name)]
    certain = bool(found)
    if not found:
        found = [match for pattern in _UNCERTAIN for match in pattern.finditer(name)]
    if not found:
        return None
    match, word = found[-1], found[-1][1].lower()
    before, after = name[: match.start()], name[match.end() :]
    separator = before[-1] if before.endswith(tuple(_SEPARATORS)) else ""
    shown = f"{'...' + separator if before else ''}{match[0]}{after[:1] + '...' if after else ''}"
    return EyeName(before.strip(_SEPARATORS), after.strip(_SEPARATORS), _EYE_OF[word], shown, certain)
