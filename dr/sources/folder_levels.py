"""What the folders around images mean: splits, classes, eyes, visits, patients, or sites."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dr.sources.eyes import eye_of
from dr.sources.grade_words import grade_of
from dr.sources.source import SPLIT_OF
from dr.sources.split_names import splits_of, words_of
from dr.sources.ungradable import is_ungradable
from dr.sources.visits import MEAN_OF_A_FOLDER, MEAN_OF_VISITS, are_dates, are_visits

MIN_FOLDERS = 4  # of patients; 2 if the images in them are called after the eyes alone
MAX_OF_A_FOLDER = 20  # images of a patient; MEAN_OF_A_FOLDER on average
MAX_IF_NUMBERED, MEAN_IF_NUMBERED = 60, MEAN_OF_VISITS  # in folders that are called as patients are
_NUMBERED = re.compile(r"(?i)(?:p|pt|pat|patients?|paciente|subj|subject|sub|case|person|id|pid|mrn)?[\s_.-]*\d+")
MOSTLY = 0.9  # share of images in a folder of a patient, and of distinct names


class Folders:
    """The levels of folders around images, below those that all share. `eyes`: the eye of each image where a level of
    folders shows it, else empty. `visits`: its folders of dates, visits and kinds of images."""

    def __init__(self, paths: Sequence[str], diagnoses: Sequence[object]):
        parts = [path.split("/")[:-1] for path in paths]
        shared = 0
        while parts and all(len(each) > shared and each[shared] == parts[0][shared] for each in parts):
            shared += 1
        depth = max(map(len, parts), default=0)
        levels = [[each[k] if k < len(each) else "" for each in parts] for k in range(shared, depth)]
        found: dict[str | None, list[list[str]]] = {}
        for level in levels:
            found.setdefault(_meaning(level, diagnoses), []).append(level)
        self._free, visits, eyes = (found.get(meaning, []) for meaning in (None, "visit", "eye"))
        self._dates = list(filter(are_dates, visits))
        self.visits = ["/".join(names) for names in zip(*visits, strict=True)] or [""] * len(paths)
        self.eyes = [eye.eye if (eye := eye_of(name)) else None for name in eyes[-1]] if eyes else []
        self.sites = ["/".join(filter(None, names)) for names in zip(*self._free, strict=True)] or [""] * len(paths)
        self.whole = ["/".join(each[shared:]) for each in parts]

    def patients(self, splits: Sequence[str], *, bare: bool) -> tuple[list[str | None] | None, str]:
        """-> the patient of each image by the first level with folders that hold a few images each, and an example;
        None without such a level. `splits`: put before the names of folders. `bare`: images are called after the eyes
        alone, so that a folder for each date is one for each patient if nothing else is."""
        levels = self._free or (self._dates if bare else [])
        for depth, level in enumerate(levels, start=1):
            whole = ["/".join(filter(None, names)) for names in zip(*levels[:depth], strict=True)]
            sizes = Counter(key for key, name in zip(whole, level, strict=True) if name)
            images = sum(sizes.values())
            numbered = all(_NUMBERED.fullmatch(name) for name in level if name)
            mean = MEAN_IF_NUMBERED if numbered else MEAN_OF_A_FOLDER
            most = MAX_IF_NUMBERED if numbered else MAX_OF_A_FOLDER
            # a folder for each image is no patient
            few = len(sizes) < images <= mean * len(sizes) and max(sizes.values()) <= most
            if len(set(level) - {""}) >= (2 if bare else MIN_FOLDERS) and images >= MOSTLY * len(level) and few:
                named = zip(splits, whole, level, strict=True)
                return [f"{split}/{key}".lstrip("/") if name else None for split, key, name in named], next(iter(sizes))
        return None, ""


def _meaning(level: list[str], diagnoses: Sequence[object]) -> str | None:
    """The folders of one level -> "split", "eye", "visit" or "class"; None for others."""
    names = {*level} - {""}
    splits = splits_of(names)
    if all(name in splits or not SPLIT_OF.keys().isdisjoint(words_of(name)) for name in names):  # train_val, too
        return "split"
    if all((eye := eye_of(name)) and not eye.before + eye.after for name in names):
        return "eye"
    if all(grade_of(name) is not None or re.fullmatch("[0-5]", name) or is_ungradable(name) for name in names):
        return "class"
    if are_visits(level):
        return "visit"
    pairs = {(name, grade) for name, grade in zip(level, diagnoses, strict=True) if name}
    return "class" if len(pairs) == len(names) == len({grade for _, grade in pairs}) else None


class Contexts(NamedTuple):
    """For each image the split and folders that its name is to be read in: empty where names are unique without."""

    each: Sequence[str]
    splits: Sequence[str]


def contexts(names: Sequence[str | None], *, splits: Sequence[str], folders: Folders) -> Contexts:
    """The least of split, site and folder that distinguishes images of one name: numbers may start again in each. Names
    that are None do not count."""
    nothing = [""] * len(names)
    count = sum(name is not None for name in names)
    eyes = folders.eyes or nothing
    both = [f"{split}/{site}".strip("/") for split, site in zip(splits, folders.sites, strict=True)]
    for each in (nothing, splits, folders.sites, both):
        distinct = {key for key in zip(names, each, eyes, folders.visits, strict=True) if key[0] is not None}
        if len(distinct) >= MOSTLY * count:
            return Contexts(each, splits if each is splits or each is both else nothing)
    return Contexts(folders.whole, nothing)
