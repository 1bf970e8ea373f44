"""Words for the grades of retinopathy, as public datasets and clinics write them -> 0..4."""

import re
import unicodedata
from functools import cache

from dr import GRADES

ZERO, MILD, MODERATE, SEVERE, PROLIFERATIVE = range(len(GRADES))
_ENGLISH = {
    **dict.fromkeys(("normal", "healthy"), ZERO),
    "mild": MILD,
    "moderate": MODERATE,
    "severe": SEVERE,
    **dict.fromkeys(("proliferative", "proliferate", "proliferated", "proliferation", "prolif", "pdr"), PROLIFERATIVE),
}
# The scale: Wilkinson et al., Ophthalmology 2003;110:1677. English, then Romance languages, then German
_GRADE_WORDS = {
    **_ENGLISH,
    **dict.fromkeys(("sano", "sana", "saudavel", "sain"), ZERO),
    **dict.fromkeys(("leve", "ligera", "lieve", "minime", "legere"), MILD),
    **dict.fromkeys(("moderado", "moderada", "moderata", "moderee"), MODERATE),
    **dict.fromkeys(("severo", "severa", "grave"), SEVERE),
    **dict.fromkeys(("proliferativa", "proliferante", "rdp"), PROLIFERATIVE),
    **dict.fromkeys(("gesund", "gesunde", "unauffallig", "unauffaellig"), ZERO),
    **dict.fromkeys(("leicht", "leichte", "leichtgradig", "leichtgradige", "milde"), MILD),
    **dict.fromkeys(("massig", "massige", "maessig", "maessige", "mittelschwer", "mittelschwere"), MODERATE),
    **dict.fromkeys(("mittelgradig", "mittelgradige"), MODERATE),
    **dict.fromkeys(("schwer", "schwere", "schwergradig", "schwergradige"), SEVERE),
    **dict.fromkeys(("proliferativ", "proliferierend"), PROLIFERATIVE),
}
NEGATIONS = frozenset(
    (
        *("no", "non", "not", "without", "absent", "absence", "sin", "sem", "sans", "pas", "senza", "nessuna"),
        *("keine", "kein", "ohne", "nicht"),
    )
)
_NONE = frozenset(("none", "no", "zero", "absent", "nil", "ninguna", "nenhuma", "nessuna", "aucune", "keine"))
_NON_PROLIFERATIVE = frozenset(("npdr", "rdnp"))
_DISEASE = frozenset(("dr", "rd", "retinopathy", "retinopatia", "retinopathie"))
# Chinese and Japanese, which write no spaces: longer ones first
_IDEOGRAMS = {
    "糖尿病性": " diabetic ", "糖尿病": " diabetic ", "視網膜病變": " retinopathy ", "视网膜病变": " retinopathy ",
    "網膜症": " retinopathy ", "病变": " retinopathy ", "病變": " retinopathy ", "未见异常": " normal ", "未见": " no ",
    "无异常": " normal ", "正常": " normal ", "健康": " healthy ", "明显": " apparent ", "明顯": " apparent ",
    "没有": " no ", "无": " no ", "無": " no ", "なし": " no ", "极重度": " very severe ", "極重度": " very severe ",
    "轻度": " mild ", "輕度": " mild ", "軽度": " mild ", "中等度": " moderate ", "中度": " moderate ",
    "重度": " severe ", "非增殖": " npdr ", "非增生": " npdr ", "非増殖": " npdr ",
    "增殖": " proliferative ", "增生": " proliferative ", "増殖": " proliferative ",
    "性": " ", "型": " ", "期": " stage ", "级": " grade ", "級": " grade ", "眼底": " fundus ",
}  # fmt: skip
_IDEOGRAM = re.compile("|".join(sorted(_IDEOGRAMS, key=len, reverse=True)))
_ABBREVIATED = {  # letters that mean a grade only beside others of their kind
    **dict.fromkeys(("ndr", "nodr"), ZERO),
    **dict.fromkeys(("midr", "mildr", "minpdr"), MILD),
    **dict.fromkeys(("modr", "moddr", "monpdr", "modnpdr"), MODERATE),
    **dict.fromkeys(("sdr", "sedr", "sevdr", "snpdr", "senpdr", "sevnpdr"), SEVERE),
}
_FILLING = frozenset(
    (
        *("diabetic", "diabetica", "diabetique", "apparent", "visible", "detected", "present", "evident", "evidence"),
        *("findings", "sign", "signs", "of", "any", "or", "de", "do", "da", "del", "la", "very", "early", "high"),
        *("risk", "advanced", "eye", "eyes", "retina", "fundus", "image", "images", "photo", "photos", "cases"),
        *("type", "label", "stage", "grade", "level", "class", "category", "diabetische"),
    )
)
_QUALIFIED = {"very": SEVERE, "early": MILD, "advanced": PROLIFERATIVE, "high": PROLIFERATIVE, "risk": PROLIFERATIVE}
_VOCABULARY = {*_GRADE_WORDS, *NEGATIONS, *_NON_PROLIFERATIVE, *_DISEASE, *_FILLING}
# One or two letters away from other words: massive, massing, leiche, meine, auffallig
_EXACT = frozenset(
    (
        *("massig", "massige", "maessig", "maessige", "leicht", "leichte", "schwer", "schwere", "gesund", "keine"),
        *("lieve", "milde", "unauffallig", "unauffaellig"),
    )
)
# Letters that may be wrong in each word
_LONG = {word: 1 if len(word) < 8 else 2 for word in _VOCABULARY - _EXACT if len(word) >= 5}
_GLUED = re.compile("|".join(sorted(_VOCABULARY - {"or", "of", "de", "do", "da", "la"}, key=len, reverse=True)))
_NUMBERED = re.compile(
    r"(?:dr|icdr|r|npdr|grade|stage|level|class|category|label|retinopathygrade|drgrade)*0*(\d)(?:\.0)?"
)


def plain_word(name: str) -> str:
    """A name without case, spaces, underscores and dashes."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def to_number(text: str) -> float | None:
    """'2' or '2.0' -> 2.0; None for what is no number."""
    try:
        return float(text)
    except ValueError:
        return None


@cache
def grade_of(word: str) -> int | None:
    """A name of a grade of retinopathy -> 0..4, None for other words, for words that could be two grades, and for bare
    numbers. Case, separators and small typing errors in long words do not matter, nor does the grade's own number."""
    grade, number = _parse(word)
    return grade if number in (None, grade) else None


@cache
def counted_grade(word: str) -> int | None:
    """'1_No DR' -> 0: the grade of a name that is numbered from 1."""
    grade, number = _parse(word)
    return grade if grade is not None and number == grade + 1 else None


def number_of(word: str) -> int | None:
    """'Grade 2', 'DR2', 'class_2', '2' -> 2; None for other words. Only a whole set of them, 0 to 4, are grades."""
    found = None if word.lstrip().startswith("-") else _NUMBERED.fullmatch(plain_word(word))
    return int(found[1]) if found else None


@cache
def is_non_proliferative(word: str) -> bool:
    """Whether a name means NPDR of any severity."""
    words, non_proliferative = _without_np(_words(word) or [])
    return non_proliferative and set(words) <= _FILLING | _DISEASE


def means_none(word: str) -> bool:
    """Whether a name is 0 beside other grades, though a missing value or an answer elsewhere: 'None', 'No'."""
    return plain_word(_latin(word)) in _NONE


def abbreviated_grade(word: str, *, beside_moderate: bool = False) -> int | None:
    """'MiDR' -> 1, 'MoDR' -> 2; None for other words. Only a set of them, and of words for grades, are grades.
    `beside_moderate`: the set has another word for Moderate, so that M is Mild."""
    if beside_moderate and plain_word(word) in ("mdr", "mnpdr"):
        return MILD
    return _ABBREVIATED.get(plain_word(word), grade_of(word))


def nearest(word: str) -> str | None:
    """The name among GRADES that a word resembles, if any."""
    parts = [part for part in re.split(r"[^a-z]+", _latin(word).casefold()) if part] or [""]
    far, known = min(
        (min(distance(part, known) / max(len(part), len(known)) for part in parts), known)
        for known in _ENGLISH
        if len(known) > 3  # 'DR' resembles 'PDR'
    )
    return GRADES[_ENGLISH[known]] if far < 0.45 else None


def _latin(word: str) -> str:
    """'Modérée' -> 'Moderee', '轻度NPDR' -> ' mild NPDR'. Letters of other alphabets remain."""
    known = _IDEOGRAM.sub(lambda match: _IDEOGRAMS[match[0]], unicodedata.normalize("NFC", word).replace("ß", "ss"))
    return "".join(letter for letter in unicodedata.normalize("NFKD", known) if not unicodedata.combining(letter))


def _parse(word: str) -> tuple[int | None, int | None]:
    """-> the grade that the words of a name mean, and the number that is written before or after them."""
    numbers = re.findall(r"\d+", word)
    words = _words(word)
    if words is None or len(numbers) > 1:
        return None, None
    return _meaning(words), int(numbers[0]) if numbers else None


def _words(name: str) -> list[str] | None:
    """'SevereNPDR' -> ['severe', 'npdr']; None with a word that is not in the vocabulary."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", _latin(name))
    found: list[str] = []
    for token in re.findall(r"[^\W\d_]+", spaced.casefold()):
        known = _known(token)
        if known is None:
            return None
        found += known
    return found


def _known(token: str) -> list[str] | None:
    """A token -> the words of the vocabulary that it is made of, or resembles."""
    if token in _VOCABULARY:
        return [token]
    parts = _GLUED.findall(token)
    if parts and "".join(parts) == token:
        return parts
    near = {known for known, most in _LONG.items() if _is_near(token, known, most=most)}
    meanings = {_GRADE_WORDS.get(known, known if known in _FILLING else "dr") for known in near}
    return [sorted(near)[0]] if len(meanings) == 1 else None


def _is_near(token: str, known: str, *, most: int) -> bool:
    """Whether a token is a word with at most so many wrong letters. Lengths and letters first, which cost little: a
    column of other text may have thousands of words."""
    if abs(len(token) - len(known)) > most or len({*token} ^ {*known}) > 2 * most:
        return False
    return distance(token, known) <= most


def _without_np(words: list[str]) -> tuple[list[str], bool]:
    """Words -> those besides 'non-proliferative', and whether that was among them."""
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] in NEGATIONS and _GRADE_WORDS.get(word) == PROLIFERATIVE:
            kept[-1] = "npdr"
        else:
            kept.append(word)
    return [word for word in kept if word not in _NON_PROLIFERATIVE], any(word in _NON_PROLIFERATIVE for word in kept)


def _meaning(words: list[str]) -> int | None:
    """Words of the vocabulary -> the one grade that they can mean, or None."""
    words, non_proliferative = _without_np(words)
    grades = {_GRADE_WORDS[word] for word in words if word in _GRADE_WORDS}
    if grades == {SEVERE, PROLIFERATIVE} and not non_proliferative:  # a diagnostic keyword of ODIR
        grades = {PROLIFERATIVE}
    if any(word in _QUALIFIED and _QUALIFIED[word] not in grades for word in words):
        return None
    negated = [place for place, word in enumerate(words) if word in NEGATIONS]
    if negated and not grades and not non_proliferative:
        another = _is_another_disease(words, place=negated[0])
        return ZERO if any(word in _DISEASE for word in words) and not another else None
    if len(grades) != 1 or negated or (non_proliferative and grades & {ZERO, PROLIFERATIVE}):
        return None
    return grades.pop()


def _is_another_disease(words: list[str], *, place: int) -> bool:
    """Whether the negation at a place is that of 'non-diabetic retinopathy' or 'retinopatia no diabetica', but not
    that of 'no diabetic retinopathy'."""
    adjective = any(word.startswith("diabeti") for word in words[place + 1 : place + 2])
    return adjective and (words[place] in ("non", "not", "nicht") or not _DISEASE.isdisjoint(words[:place]))


@cache
def distance(one: str, other: str) -> int:
    """The least number of letters to insert, delete, replace or swap with the next one."""
    before, row = [], list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]
