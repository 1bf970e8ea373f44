"""A table of photographs -> balanced training set, imbalanced validation set. Tables in, tables out; no files.

Every function takes a DataFrame with `source` ("main" first), `original`, `patient`, `diagnosis`, `group` (equal for
duplicates of one photograph) and `side` ("train", "val", "test" where the source says so, else None). A photograph that
is not used says why in `left_out`; `split` is "train", "val", "test" or None.
"""

import hashlib
from collections import Counter

import pandas as pd

from dr.datasets.persons import persons


def drawing_order(names: pd.Series, *, seed: int) -> pd.Series:
    """Names -> keys, whose order depends on nothing but seed and name: the same on every machine, and adding
    photographs does not reshuffle the others."""
    # 64 bits: no two names of a million have the same
    return names.map(lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:16])


def fixed(table: pd.DataFrame) -> pd.Series:
    """Whether a photograph stays on its side whatever it duplicates: all that have one where the source has a
    validation side of its own, else those of test."""
    return table["side"].notna() if table["side"].eq("val").any() else table["side"].eq("test")


def _settle_group(members: pd.DataFrame, *, policy: str) -> tuple[pd.Series, int | None]:
    """One group of duplicates -> its reasons to be left out (None keeps a photograph) and the grade it gets (None: its
    own)."""
    grades = members["diagnosis"].value_counts()
    reasons = pd.Series("duplicate", index=members.index, dtype=object)
    if members["fixed"].any():
        if members["side"].eq("test").any():
            reasons[:] = "it duplicates a test photograph"
        return reasons.where(~members["fixed"], None), None
    reasons.iloc[0] = None  # main before 2015, then by name: one copy speaks for all
    if len(grades) == 1:
        return reasons, None
    if policy == "keep":
        return pd.Series(None, index=members.index, dtype=object), None
    if policy == "majority" and grades.iloc[0] > len(members) / 2:
        return reasons, int(grades.index[0])
    return pd.Series("duplicates with contradicting grades", index=members.index, dtype=object), None


def settle_duplicates(table: pd.DataFrame, *, policy: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """-> (table with `left_out` and settled `diagnosis`, one row for each photograph that has duplicates).

    Copies that agree on the grade count once. Copies that contradict each other are settled by `policy`: "drop" leaves
    all of them out, "majority" keeps one with the grade that more than half of them have (else leaves them out), "keep"
    keeps every one with its own grade, on one side of the split. Where some are `fixed`, these are kept and no other.
    """
    table = table.sort_values(["source", "original"], key=lambda c: c.ne("main") if c.name == "source" else c)
    table = table.assign(left_out=pd.Series(None, index=table.index, dtype=object), fixed=fixed(table))
    repeated = table[table.duplicated("group", keep=False)]
    listed = []
    for number, (_, members) in enumerate(repeated.groupby("group", sort=False), start=1):
        reasons, grade = _settle_group(members, policy=policy)
        table.loc[members.index, "left_out"] = reasons
        if grade is not None:
            table.loc[members.index, "diagnosis"] = grade
        listed.append(
            members[["source", "original", "diagnosis"]].assign(
                group=number,
                conflict=members["diagnosis"].nunique() > 1,
                outcome=reasons.fillna("kept").to_numpy(),
            )
        )
    columns = ["group", "source", "original", "diagnosis", "conflict", "outcome"]
    return table, pd.concat(listed)[columns] if listed else pd.DataFrame(columns=columns)


def _validation(main: pd.DataFrame, *, val_fraction: float) -> set[int]:
    """Usable photographs of the main archive in drawing order -> the persons that stand in validation: all that fit
    into the share of each grade."""
    wanted = Counter({grade: round(val_fraction * n) for grade, n in main["diagnosis"].value_counts().items()})
    chosen = set()
    for person, grades in main.groupby("person", sort=False)["diagnosis"]:
        counts = Counter(grades)
        if all(count <= wanted[grade] for grade, count in counts.items()):
            wanted.subtract(counts)
            chosen.add(person)
    return chosen


def assign(table: pd.DataFrame, *, per_class: int | None, val_fraction: float, seed: int) -> pd.DataFrame:
    """Settled table -> the same rows with `split` and `person`.

    Validation: the source's own; else, of each grade of the main archive, the share `val_fraction` (to the nearest
    photograph). Training: the rest of the main archive, then 2015, up to `per_class` for each grade (None: all). No
    person stands on two sides, unless the source put them there: a 2015 patient with a photograph that duplicates one
    in validation is left out whole.
    """
    table = table.assign(split=None, order=drawing_order(table["source"] + "/" + table["original"], seed=seed))
    table = table.assign(person=persons(table)).sort_values("order")
    main, stays = table["source"].eq("main"), table["fixed"]
    table.loc[stays, "split"] = table.loc[stays, "side"]

    def leave_out_persons_of(side: str, reason: str) -> None:
        known = table["person"].isin(table[table["split"] == side]["person"])
        table.loc[known & table["left_out"].isna() & table["split"].isna(), "left_out"] = reason

    leave_out_persons_of("test", "its patient stands in test")
    if not table["split"].eq("val").any():
        free = main & table["left_out"].isna() & table["split"].isna()
        in_val = table["person"].isin(_validation(table[free], val_fraction=val_fraction))
        table.loc[free & in_val, "split"] = "val"
    leave_out_persons_of("val", "its patient stands in validation")
    return _fill_training(table, per_class=per_class).drop(columns=["order", "fixed"])


def _fill_training(table: pd.DataFrame, *, per_class: int | None) -> pd.DataFrame:
    """Table in drawing order -> the same; what is on no other side and not left out is for training, the main archive
    first, up to `per_class` of each grade."""
    free = table[table["left_out"].isna() & (table["split"].isna() | table["split"].eq("train"))]
    free = free.sort_values(["source", "order"], key=lambda c: c.ne("main") if c.name == "source" else c)
    chosen = free if per_class is None else free.groupby("diagnosis").head(per_class)
    table.loc[free.index, "split"] = None
    table.loc[free.index, "left_out"] = "its grade is full"
    table.loc[chosen.index, "split"] = "train"
    table.loc[chosen.index, "left_out"] = None
    return table
