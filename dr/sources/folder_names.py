"""Whether the names of folders can be classes: not if they are splits, modalities, hospitals, cameras or patients."""

import re
from collections.abc import Mapping

from dr.sources.eyes import eye_of
from dr.sources.grade_words import grade_of
from dr.sources.split_names import splits_of, words_of
from dr.sources.ungradable import is_ungradable

_IMAGE_TYPES = frozenset({
    "fundus", "regular", "oct", "octa", "ffa", "faf", "fa", "uwf", "ultra", "widefield", "color", "colour", "redfree",
    "cfp", "image", "images", "img", "imgs", "photo", "photos", "photograph", "photographs", "picture", "pictures",
    "mask", "masks", "label", "labels", "groundtruth", "groundtruths", "annotation", "annotations", "lesion",
    "lesions", "segmentation", "segmentations", "original", "originals", "raw", "processed", "preprocessed", "cropped",
    "resized", "enhanced", "macula", "disc", "disk", "nerve",
})  # fmt: skip
_PLACES = frozenset({
    "hospital", "clinic", "klinik", "site", "center", "centre", "base", "camera", "device", "scanner", "department",
    "ward", "practice", "city", "country", "topcon", "canon", "zeiss", "kowa", "nidek", "optos", "eidon", "batch",
    "session", "visit", "month", "week", "year", "fold", "part", "volume",
})  # fmt: skip
_MONTHS = frozenset({"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"})
_PATIENTS = frozenset({"patient", "patients", "pat", "subject", "subj", "case", "person", "pid"})
_CLASS_WORDS = frozenset({"class", "grade", "stage", "level", "dr", "r", "c", "label", "category", "type", "severity"})
_DATE = re.compile(r"(?:19|20)\d{2}(?:[-_.]?\d{2}){0,2}|\d{1,2}[-_.]\d{1,2}[-_.](?:19|20)?\d{2}")
_SIZE = re.compile(r"\d{2,4}x\d{2,4}")
_VISIT = re.compile(r"(?i)v(?:isit)?[ _-]?\d{1,2}")
_FEW = 4  # images of one patient: two eyes, two fields
_MANY = 30  # more than a patient has


def why_not_classes(images: Mapping[str, int], *, repeated: bool = False) -> str | None:
    """{folder: its number of images} -> what the folders are instead of classes, None if they can be classes.

    `repeated`: the same folders are in several splits, as those of patients never are.
    """
    names = list(images)
    unknown = [name for name in names if grade_of(name) is None and not is_ungradable(name)]
    if not unknown or len(names) - len(unknown) >= 2:
        return None
    if splits := splits_of(names):
        return f"{_folders(splits)} named after splits, not classes"
    kind = _kind(names)
    if kind is None and not repeated and _are_patients(images):
        kind = f"patients (at most {max(images.values())} images each)"
    return f"{_folders(names)} named after {kind}, not classes" if kind else None


def _kind(names: list[str]) -> str | None:
    """What all the names stand for, if it is nothing that a network should learn."""
    words = [{*words_of(name)} for name in names]
    if all(each & _IMAGE_TYPES for each in words):
        return "types of images"
    eyes = [eye_of(name) for name in names]
    if all(eye and not eye.before + eye.after for eye in eyes) and len({eye.eye for eye in eyes if eye}) == 2:
        return "eyes"  # R0 to R4 are grades
    if all(each & _PLACES for each in words) or all(map(_VISIT.fullmatch, names)):
        return "hospitals, cameras or visits"
    if all(each & _PATIENTS for each in words):
        return "patients"
    if all(map(_DATE.fullmatch, names)) or all(
        each & _MONTHS and re.search(r"\d", n) for each, n in zip(words, names, strict=True)
    ):
        return "dates"
    if all(map(_SIZE.fullmatch, names)):
        return "sizes of images"
    return None


def _are_patients(images: Mapping[str, int]) -> bool:
    """Whether folders hold few images each: names that count something, or many folders of any names."""
    most, names = max(images.values()), list(images)
    return (most <= _MANY and _numbered(names)) or (most <= _FEW and len(names) >= 8)


def _numbered(names: list[str]) -> bool:
    """Whether the names count something that is no class: P001, P002 and P007, but not stage1 and stage2."""
    frames = {re.sub(r"\d+", "#", name) for name in names}
    if len(names) < 3 or len(frames) > 1 or "#" not in frames.pop():
        return False
    if {*words_of(names[0])} & _CLASS_WORDS:
        return False
    if {"0", "1", "2"} <= set(names):  # grades, and a number that is none
        return False
    numbers = sorted(int(number) for name in names for number in re.findall(r"\d+", name)[-1:])
    return not (
        names[0].isdigit() and numbers[0] in (0, 1) and numbers == [*range(numbers[0], numbers[0] + len(names))]
    )


def _folders(names: Mapping[str, str] | list[str]) -> str:
    """'the folders a, b, c, ... are' for a message."""
    names = sorted(names)
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"the folder {shown} is" if len(names) == 1 else f"the folders {shown} are"
