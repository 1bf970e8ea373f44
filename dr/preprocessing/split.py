"""A table of images -> a balanced training split and an imbalanced validation split. Tables in, tables out; no files.

Every function takes a DataFrame with `source`, `rank` (0 for the main source, 1 for the next), `original`, `patient`
(missing if unknown), `diagnosis`, `group` (equal for duplicates of one image) and `source_split` ("train", "val" or
"test" if the source has a split, else None). The result has `split` ("train", "val", "test" or None) and, for images in
no split, the reason as `exclusion`.
"""

import hashlib
from collections import Counter

import pandas as pd

from dr import SPLIT_NAMES
from dr.datasets.persons import persons

# The values of `exclusion`
DUPLICATE = "duplicate"
CONFLICTING = "duplicates with conflicting grades"
DUPLICATE_OF_TEST = "duplicate of a test image"
CLASS_FULL = "per_class reached"


def patient_in(split: str) -> str:
    """The `exclusion` of an image whose patient is in a split that is not trained on."""
    return f"patient in {SPLIT_NAMES[split]}"


def drawing_order(table: pd.DataFrame, *, seed: int) -> pd.Series:
    """`rank`, `original` -> sort keys that depend on them and the seed alone: equal on every machine, whatever the
    archives are called, and stable when images are added."""
    # the keys of version 0.2, which called its two sources so: a seed gives the same split as before
    names = table["rank"].map(lambda rank: ("main", "2015")[rank] if rank < 2 else str(rank)) + "/" + table["original"]
    # 64 bits: no two of a million names share a key
    return names.map(lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:16])


def fixed(table: pd.DataFrame) -> pd.Series:
    """Whether an image keeps its source split whatever it duplicates: all images with one if the source has its own
    validation split, else those of test."""
    return table["source_split"].notna() if table["source_split"].eq("val").any() else table["source_split"].eq("test")


def _settle_group(members: pd.DataFrame, *, policy: str) -> tuple[pd.Series, int | None]:
    """One group of duplicates -> its exclusions (None keeps an image) and the grade of the kept image (None: its
    own)."""
    grades = members["diagnosis"].value_counts()
    exclusions = pd.Series(DUPLICATE, index=members.index, dtype=object)
    if members["fixed"].any():
        if members["source_split"].eq("test").any():
            exclusions[:] = DUPLICATE_OF_TEST
        return exclusions.where(~members["fixed"], None), None
    exclusions.iloc[0] = None  # the main source first, then by name
    if len(grades) == 1:
        return exclusions, None
    if policy == "keep":
        return pd.Series(None, index=members.index, dtype=object), None
    if policy == "majority" and grades.iloc[0] > len(members) / 2:
        return exclusions, int(grades.index[0])
    return pd.Series(CONFLICTING, index=members.index, dtype=object), None


def settle_duplicates(table: pd.DataFrame, *, policy: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """-> (table with `exclusion` and settled `diagnosis`, one row for each image that has duplicates).

    Of duplicates with one grade, one is kept. `policy` settles conflicting grades: "drop" excludes all, "majority"
    keeps one with the grade of more than half (else excludes all), "keep" keeps all with their own grades, in one
    split. Of groups with `fixed` images, these alone are kept.
    """
    table = table.sort_values(["rank", "original"])
    table = table.assign(exclusion=pd.Series(None, index=table.index, dtype=object), fixed=fixed(table))
    repeated = table[table.duplicated("group", keep=False)]
    listed = []
    for number, (_, members) in enumerate(repeated.groupby("group", sort=False), start=1):
        exclusions, grade = _settle_group(members, policy=policy)
        table.loc[members.index, "exclusion"] = exclusions
        if grade is not None:
            table.loc[members.index, "diagnosis"] = grade
        listed.append(
            members[["source", "original", "diagnosis"]].assign(
                group=number,
                conflict=members["diagnosis"].nunique() > 1,
                outcome=exclusions.fillna("kept").to_numpy(),
            )
        )
    columns = ["group", "source", "original", "diagnosis", "conflict", "outcome"]
    return table, pd.concat(listed)[columns] if listed else pd.DataFrame(columns=columns)


def _validation_persons(main: pd.DataFrame, *, val_fraction: float) -> set[int]:
    """Usable images of the main source in drawing order -> the persons for validation: all that fit into the share of
    each grade."""
    wanted = Counter({grade: round(val_fraction * n) for grade, n in main["diagnosis"].value_counts().items()})
    chosen = set()
    for person, grades in main.groupby("person", sort=False)["diagnosis"]:
        counts = Counter(grades)
        if all(count <= wanted[grade] for grade, count in counts.items()):
            wanted.subtract(counts)
            chosen.add(person)
    if not chosen and wanted.total() > 1:
        return _person_of_each_grade(main, most=2 * val_fraction * len(main))
    return chosen


def _person_of_each_grade(main: pd.DataFrame, *, most: float) -> set[int]:
    """As `_validation_persons`, where each person has more images of a grade than its share: the first person of each
    grade, up to `most` images, if each grade keeps a person for training."""
    persons = {grade: set(here["person"]) for grade, here in main.groupby("diagnosis")}
    sizes = main["person"].value_counts()
    chosen: set[int] = set()
    for person, grades in main.groupby("person", sort=False)["diagnosis"]:
        covered = any(persons[grade] & chosen for grade in grades)
        trained = all(others - chosen - {person} for others in persons.values())
        if not covered and trained and sizes[[*chosen, person]].sum() <= most:
            chosen.add(person)
    return chosen


def assign_splits(table: pd.DataFrame, *, per_class: int | None, val_fraction: float, seed: int) -> pd.DataFrame:
    """Settled table -> the same rows with `split` and `person`.

    Validation: that of the source, else the share `val_fraction` of each grade of the main source, to the nearest
    image, or up to twice the share where every person exceeds it. Training: the rest of the main source, then of the
    others, up to `per_class` of each grade (None: all). No known person is in two splits, unless the source put them
    there: a patient of another source with a duplicate in validation is excluded whole.
    """
    table = table.assign(split=None, order=drawing_order(table, seed=seed))
    table = table.assign(person=persons(table)).sort_values("order")
    main, stays = table["rank"].eq(0), table["fixed"]
    table.loc[stays, "split"] = table.loc[stays, "source_split"]
    _exclude_persons_of("test", table)
    if not table["split"].eq("val").any():
        free = main & table["exclusion"].isna() & table["split"].isna()
        in_val = table["person"].isin(_validation_persons(table[free], val_fraction=val_fraction))
        table.loc[free & in_val, "split"] = "val"
    _exclude_persons_of("val", table)
    return _fill_training(table, per_class=per_class).drop(columns=["order", "fixed"])


def _exclude_persons_of(split: str, table: pd.DataFrame) -> None:
    """Excludes, in place, the unassigned images of persons in `split`."""
    known = table["person"].isin(table[table["split"] == split]["person"])
    table.loc[known & table["exclusion"].isna() & table["split"].isna(), "exclusion"] = patient_in(split)


def _fill_training(table: pd.DataFrame, *, per_class: int | None) -> pd.DataFrame:
    """Table in drawing order -> the same with a training split of all unassigned images, the main source first, up to
    `per_class` of each grade."""
    free = table[table["exclusion"].isna() & (table["split"].isna() | table["split"].eq("train"))]
    first = free.sort_values(["rank", "order"])
    chosen = first if per_class is None else first.groupby("diagnosis").head(per_class)
    table.loc[free.index, "split"] = None
    table.loc[free.index, "exclusion"] = CLASS_FULL
    table.loc[chosen.index, "split"] = "train"
    table.loc[chosen.index, "exclusion"] = None
    return table
