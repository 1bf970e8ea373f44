"""Labels of ungradable images: words, missing values, -1, and 5 beside the grades 0 to 4."""

import re
import unicodedata
from collections.abc import Iterable

from dr.sources.grade_words import (
    abbreviated_grade,
    distance,
    grade_of,
    is_non_proliferative,
    means_none,
    number_of,
    plain_word,
    to_number,
)

UNGRADABLE = "Ungradable"  # the class of such images with --ungradable keep, always the last one
MISSING = frozenset(  # how programs write a missing value, and spreadsheets an error
    {"", "nan", "na", "n/a", "<na>", "null", "nat", "-1"}
    | {"#n/a", "#na", "#nv", "#null!", "#value!", "#wert!", "#ref!", "#bezug!", "#div/0!", "#name?", "#num!", "#zahl!"}
)
_NEGATIVE = "(?:un|non|not|in|im|no|nao|cannotbe|cantbe|nicht|niet|on)"
_LOW = (
    "(?:bad|poor|low|insufficient|inadequate|unacceptable|inferior|mala|baja|ma|baixa|mauvaise|scarsa|schlechte|"
    "unzureichende|ungenugende|ungenuegende)"
)
_OF = "(?:images?|photos?|pictures?|fundus|eyes?|quality|grades?)*"
# Compared without case, accents, separators and numbers in front
_WORDS = re.compile(
    rf"{_OF}(?:{_NEGATIVE}(?:gradea?ble|gradable|graded|grad[ie]able|assessable|readable|usable|interpretable|evaluable|"
    rf"grad[ei]avel|classificavel|avaliavel|clasificable|classifi(?:able|ed)|"
    rf"beurteilbar|auswertbar|bewertbar|gradierbar|beoordeelbaar|valorable|legible|apt[ao]|valutabile|interpretabile|"
    rf"interpretavel)|unbrauchbar|ilegible|illisible|illeggibile|nograd(?:e|ing)|cannotgrade|illegible|"
    rf"{_LOW}(?:image|de)?quality|"
    rf"quality(?:too)?{_LOW}|{_LOW}(?:bild)?(?:calidad|qualidade|qualite|qualita|qualitat|qualitaet)|"
    rf"(?:sin|sem|sans)(?:calidad|qualidade|qualite)(?:suficiente|suffisante)?|"
    rf"(?:calidad|qualidade|qualite|qualita)(?:mala|baja|ma|baixa|insuficiente|insuffisante|insufficiente)){_OF}"
)
_IDEOGRAMS = re.compile(
    "(?:图像|图片|影像|画像)?(?:(?:不可|不能|无法|無法|难以|未)(?:分级|分級|评级|评估|評估|判断|判读|判定|辨认|读)|"
    "质量(?:太|较|很)?(?:差|低)|(?:低|劣)质量|质量不(?:佳|合格|足)|(?:判定|評価|判読)(?:不能|不可))"
)
_SPELLED = ("ungradable", "ungradeable", "nongradable", "notgradable", "nongradeable", "notgradeable")
# Words that are ordinary classes elsewhere, and mean ungradable only beside grades
_BESIDE_GRADES = re.compile(
    rf"{_OF}(?:reject(?:ed|s)?|exclu(?:de|ded|sion)|unknown|missing|unlabell?ed|bad|poor|insufficient|inadequate|"
    rf"blur(?:red|ry)?|outoffocus|arte?ifacts?|nofundus|noimage|none|u|ug|unscharf|"
    rf"verschwommen|borros[ao]|flou|unbekannt|desconocid[ao]|inconnu|keineangabe|sindato|sindatos){_OF}|[?-]+"
)
# The other classes of a set for image quality, which keeps its lowest class
_QUALITY = re.compile(
    rf"(?:good|usable|acceptable|accept(?:ed)?|adequate|gradea?ble|gradable|readable|excellent|fair|high|sufficient|"
    rf"assessable|pass(?:ed)?|outstanding){_OF}|(?:图像|图片|影像)?(?:质量(?:良?好|一般|中等|合格)|可(?:分级|评估))"
)


def _plain(word: str) -> str:
    """'5 - Não Gradeável' -> 'naogradeavel'. Ideograms remain as they are."""
    if re.search("[\u3040-\u9fff]", word) and not re.search("[a-zA-Z]", word):
        return re.sub(r"[\W\d_]+", "", word)
    letters = unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode().casefold()
    plain = re.sub(r"[^a-z0-9?]+", "", letters) or letters.strip()
    return re.sub(r"\d+", "", plain) if re.search("[a-z]", plain) else plain


def is_ungradable(word: str) -> bool:
    """Whether a label is missing or means ungradable, whatever the other labels are. `split_ungradable` adds 5, and
    words that mean it only beside grades."""
    return _is_missing(word) or _means_ungradable(_plain(word))


def _means_ungradable(plain: str) -> bool:
    """Whether a word of `_plain`, or one with a letter wrong, means ungradable wherever it is written."""
    near = any(abs(len(plain) - len(word)) < 2 and distance(plain, word) == 1 for word in _SPELLED)
    return bool(_WORDS.fullmatch(plain) or _IDEOGRAMS.fullmatch(plain)) or near


def split_ungradable(labels: Iterable[str]) -> set[str]:
    """The labels of a set, as written -> those of ungradable images.

    Beside grades these include words such as `reject` and `none`, and 5 where all numbers lie between -1 and 5 with 0
    and another grade among them. A set of classes for image quality (good, usable, reject) loses missing values alone.
    """
    labels = set(labels)
    missing = {label for label in labels if _is_missing(label)}
    plain = {label: _plain(label) for label in labels - missing}
    words = {label for label, word in plain.items() if _means_ungradable(word)}
    others = plain.keys() - words
    if any(_QUALITY.fullmatch(plain[label]) for label in others):
        return missing
    doubtful = {label for label in others if _BESIDE_GRADES.fullmatch(plain[label])}
    grades = others - doubtful
    numbers = {number for label in grades if (number := _grade_number(label)) is not None}
    if grades and all(_is_grade(label) or _is_no_dr(label, beside=grades) for label in grades):
        words |= {label for label in doubtful if not _is_no_dr(label, beside=grades)}
        words |= {label for label in grades if _grade_number(label) == 5 and _grades_and_5(numbers)}
    return missing | words


def _is_missing(label: str) -> bool:
    plain = label.strip().casefold()
    return plain in MISSING or to_number(plain) == -1


def _grades_and_5(numbers: set[float]) -> bool:
    """Whether 5 can only mean ungradable: beside 0, with another grade, and none beyond."""
    return numbers <= set(range(6)) and 0 in numbers and bool(numbers & {1, 2, 3, 4})


def _grade_number(label: str) -> float | None:
    number = to_number(label)
    return number_of(label) if number is None else number


def _is_grade(label: str) -> bool:
    """Whether a label may be a grade: a number, a word or an abbreviation for one, or DR."""
    named = (
        abbreviated_grade(label, beside_moderate=True) is not None
        or is_non_proliferative(label)
        or plain_word(label) == "dr"
    )
    return named or _grade_number(label) is not None


def _is_no_dr(label: str, *, beside: set[str]) -> bool:
    """Whether 'none' is the lowest grade, as beside Mild and Moderate, and not a missing value."""
    grades = {grade_of(other) for other in beside}
    return means_none(label) and 0 not in grades and len(grades - {None}) >= 2
