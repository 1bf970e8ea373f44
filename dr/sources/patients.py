"""Which images are of one patient: by a column, a pattern, their names or their folders. Else the patient is
missing."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from dr import UsageError
from dr.sources.archive import stem
from dr.sources.class_names import MOST_CLASSES
from dr.sources.eyes import EyeName, eye_of
from dr.sources.folder_levels import Folders, contexts
from dr.sources.grade_words import grade_of
from dr.sources.source import Source
from dr.sources.visits import without_visits

MOST_OF_A_PATIENT = 30  # images that share the name before an eye; with more it is the name of a study
FEW_PAIRS = 0.1  # share of patients with both eyes that shows that letters mean eyes
MANY = 40  # images without a single pair: their numbers are not patients
MIN_RUNNING = 4  # images whose numbers count on
MIN_PAIRED_STEMS = 4

UNKNOWN = "patients unknown: each image counts as its own; use --patient_column or --patient_pattern"


class Patients(NamedTuple):
    """The patient of each image, missing where unknown, and one line on how they were found."""

    patient: pd.Series
    note: str


def with_patients(source: Source, *, pattern: re.Pattern[str] | None = None) -> Source:
    """The source with the patients that its columns, names and folders show, and a note about them."""
    found = find_patients(source.table, pattern=pattern, place=str(source.archive.path))
    of_retinas = len(source.classes) <= MOST_CLASSES and source.crop  # others, and thumbnails, have no patients
    notes = (*source.notes, found.note) if of_retinas or found.note != UNKNOWN else source.notes
    return replace(source, table=source.table.assign(patient=found.patient), notes=notes)


def find_patients(table: pd.DataFrame, *, pattern: re.Pattern[str] | None, place: str) -> Patients:
    """`original`, `member`, `patient`, `diagnosis`, `source_split` -> the patient of each image.

    In this order: `pattern`, a regular expression for the path of an image, whose group `patient`, else its first
    group, is the patient; the column `patient`; the eyes in the names; a folder for each patient; pairs of names
    that end in 1 and 2. Raises UsageError for a pattern that matches no image.
    """
    paths = table["member"].where(table["member"].notna(), table["original"]).astype(str).tolist()
    if pattern is not None:
        return _by_pattern(paths, pattern, index=table.index, place=place)
    column = table["patient"].where(table["patient"].notna() & table["patient"].ne(""), None).astype(object)
    if column.notna().any():
        known = column.notna().groupby(table["source_split"]).transform("any").fillna(True).astype(bool)
        if not known.all():  # the table of a split without this column
            rest = find_patients(table[~known].assign(patient=None), pattern=pattern, place=place)
            column = column.where(known, rest.patient)
        return _found(column, "from the column")
    keys, rule = _by_names_and_folders(paths, table)
    return _found(pd.Series(keys, index=table.index, dtype=object), rule) if rule else Patients(column, UNKNOWN)


def _found(patient: pd.Series, rule: str) -> Patients:
    unknown = int(patient.isna().sum())
    each = (
        "1 image, which counts as its own" if unknown == 1 else f"{unknown:,} images, which count as one patient each"
    )
    others = f"; unknown for {each}" if unknown else ""
    return Patients(patient, f"patients: {patient.nunique():,}, {rule}{others}")


def _by_pattern(paths: list[str], pattern: re.Pattern[str], *, index: pd.Index, place: str) -> Patients:
    group = "patient" if "patient" in pattern.groupindex else 1
    matches = [pattern.search(path) for path in paths]
    keys = pd.Series([(match[group] or None) if match else None for match in matches], index=index, dtype=object)
    if keys.isna().all():
        raise UsageError(
            f"{place}: --patient_pattern {pattern.pattern!r} matches no image, such as {paths[0]}; correct it"
        )
    return _found(keys, "from --patient_pattern")


def _by_names_and_folders(paths: list[str], table: pd.DataFrame) -> tuple[list[str | None], str | None]:
    """-> the patient of each image, and the rule in words, None if nothing is known."""
    names = [stem(path) for path in paths]
    splits = [split if isinstance(split, str) else "" for split in table["source_split"]]
    folders = Folders(paths, table["diagnosis"].tolist())
    found = _eyes(names, folders)
    bare = all(each and each.certain and not each.before + each.after for each in found)
    where = contexts(names, splits=splits, folders=folders)
    by_folder, example = folders.patients(where.splits, bare=bare)
    with_eyes = [name if each else None for name, each in zip(names, found, strict=True)]
    keys, rule, paired = _by_eyes(found, contexts(with_eyes, splits=splits, folders=folders).each)
    unique = len(set(names)) > 0.95 * len(names)
    known = sum(key is not None for key in keys)
    if known and (by_folder is None or (unique and paired >= FEW_PAIRS and known > len(keys) / 2)):
        return keys, rule
    if by_folder is not None:
        return by_folder, f"from a folder for each, such as {example}"
    return _by_pairs(names, where.each)


def _eyes(names: list[str], folders: Folders) -> list[EyeName | None]:
    """The eye of each image by its name or, if no name has one, by its folder."""
    found = [eye_of(name) for name in names]
    if any(found) or not folders.eyes:
        return found
    pairs = zip(names, folders.eyes, strict=True)
    return [EyeName(name, "", eye, f"{eye}/", certain=False) if eye else None for name, eye in pairs]


def _by_eyes(found: list[EyeName | None], where: Sequence[str]) -> tuple[list[str | None], str | None, float]:
    """-> the patient of each image by its eye, the rule, and the share of patients that have both eyes."""
    crowded = _crowded(found)
    keys = without_visits([_key(each, crowded) if each else None for each in found])
    keys = [key and f"{place}/{key}".lstrip("/") for key, place in zip(keys, where, strict=True)]
    pairs = [(key, each) for key, each in zip(keys, found, strict=True) if key and each]
    doubtful = {key for key, each in pairs if not each.certain}  # the Spanish OI beside OD, too
    if _share_with_both([(key, each.eye) for key, each in pairs if key in doubtful]) < FEW_PAIRS:
        keys = [key if each and each.certain else None for key, each in zip(keys, found, strict=True)]
        pairs = [(key, each) for key, each in pairs if each.certain]
    share = _share_with_both([(key, each.eye) for key, each in pairs])
    if not share and len({each.eye for _, each in pairs}) == 2 and _is_no_patient([key for key, _ in pairs]):
        return [None] * len(found), None, 0.0
    shown = {eye: Counter(each.shown for _, each in pairs if each.eye == eye) for eye in ("left", "right")}
    words = sorted(words.most_common(1)[0][0] for words in shown.values() if words)
    rule = f"from the names ({', '.join(words)})"
    return keys, rule, share


def _is_no_patient(keys: list[str]) -> bool:
    """Whether what would be the patient of each image, none with both eyes, is more likely a number of the image: no
    two images share it, and there are many, or the numbers count on."""
    if len({*keys}) < 0.9 * len(keys):
        return False
    numbers = [int(found[-1]) for key in keys if (found := re.findall(r"\d+", key))]
    running = len(numbers) == len(keys) >= MIN_RUNNING and max(numbers) - min(numbers) < 1.5 * len(numbers)
    return len(keys) >= MANY or running


def _crowded(found: list[EyeName | None]) -> set[str]:
    """What stands before an eye in the middle of too many names to be a patient, as in study_left_0012."""
    middle = Counter(each.before for each in found if each and each.before and each.after)
    # of a small set, a quarter of the images
    most = min(MOST_OF_A_PATIENT, max(4 if len(middle) == 1 else 12, sum(middle.values()) / 4))
    return {before for before, count in middle.items() if count > most}


def _key(name: EyeName, crowded: set[str]) -> str | None:
    """A name -> what is the same for both eyes; None if it names nothing but the eye."""
    if name.before and name.after:
        return f"{name.before}_{name.after}" if name.before in crowded else name.before
    return name.before or name.after or None


def _share_with_both(eyes: list[tuple[str, str]]) -> float:
    """(patient, eye) of images -> the share of patients with both eyes."""
    patients = Counter(patient for patient, _ in set(eyes))
    return sum(count == 2 for count in patients.values()) / max(1, len(patients))


def _by_pairs(names: list[str], where: Sequence[str]) -> tuple[list[str | None], str | None]:
    """Names that end in 1 and 2, as 12-1 and 12-2. Only if at least half of the stems have both and none has another
    number: IMG-1 to IMG-500 are no pairs."""
    found = [re.fullmatch(r"(.+?)[\s._-](\d+)", name) for name in names]
    if sum(map(bool, found)) < 0.9 * len(names) or {int(match[2]) for match in found if match} != {1, 2}:
        return [None] * len(names), None
    keys = [match and f"{place}/{match[1]}".lstrip("/") for match, place in zip(found, where, strict=True)]
    numbers = [(key, match[2].lstrip("0")) for key, match in zip(keys, found, strict=True) if match]
    stems = {match[1] for match in found if match}
    words = any(grade_of(word) is not None for word in stems)
    if len(stems) < MIN_PAIRED_STEMS or words or _share_with_both(numbers) < 0.5 or len(set(numbers)) < len(numbers):
        return [None] * len(names), None
    first = next(match for match in found if match)
    separator = first[0][len(first[1])]
    return keys, f"from pairs of names (...{separator}1, ...{separator}2)"


def distinct_patients(sources: dict[str, Source]) -> dict[str, Source]:
    """Sources by name -> the same, with the name of the source before patients of later sources that have the name of
    an earlier one's: P1 of two clinics are two people. Only where one source has the left eye and the other the right
    are they one."""
    if len(sources) < 2:
        return sources
    eyes: dict[str, set[str | None]] = {}
    result = {}
    for name, source in sources.items():
        here = _eyes_by_patient(source)
        others = {patient for patient in here.keys() & eyes.keys() if not _complement(here[patient], eyes[patient])}
        patient = source.table["patient"]
        if others:
            patient = patient.where(~patient.isin(others), name + "/" + patient.astype(str))
            source = replace(source, table=source.table.assign(patient=patient))
        for each, seen in here.items():
            eyes.setdefault(each, set()).update(seen)
        result[name] = source
    return result


def _eyes_by_patient(source: Source) -> dict[str, set[str | None]]:
    known = source.table[source.table["patient"].notna()]
    found: dict[str, set[str | None]] = {}
    for patient, original in zip(known["patient"], known["original"], strict=True):
        eye = eye_of(str(original))
        found.setdefault(patient, set()).add(eye.eye if eye else None)
    return found


def _complement(one: set[str | None], other: set[str | None]) -> bool:
    return None not in one | other and not one & other
