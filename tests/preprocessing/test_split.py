"""Every image is in one split or has a reason; no person is in two splits; equal seeds give equal splits."""

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr import POLICIES
from dr.preprocessing.split import assign_splits, drawing_order, settle_duplicates


def images(rows) -> pd.DataFrame:
    """(source, original, patient, diagnosis, group), ... -> a table as it comes from the sources."""
    table = pd.DataFrame(rows, columns=["source", "original", "patient", "diagnosis", "group"])
    return table.assign(source_split=None, rank=table["source"].ne("main").astype(int))


def test_where_each_patient_exceeds_the_share_one_of_each_grade_validates():
    rows = [("main", f"{p}_{n}", f"p{p}", p // 3) for p in range(15) for n in range(4)]
    table = images([(*row, place) for place, row in enumerate(rows)])
    result = split(table, per_class=None, val_fraction=0.2, seed=10)
    validated = result[result["split"] == "val"]
    assert validated.groupby("diagnosis")["patient"].nunique().tolist() == [1] * 5
    assert set(result[result["split"] == "train"]["patient"]).isdisjoint(validated["patient"])
    assert split(table.head(8), per_class=None, val_fraction=0.2, seed=10)["split"].eq("train").all()


@st.composite
def split_tables(draw):
    """Tables whose main archive has a split for each image, with or without its own validation split."""
    table = draw(tables())
    names = st.sampled_from(("train", "test", "val") if draw(st.booleans()) else ("train", "test"))
    drawn = [draw(names) if source == "main" else None for source in table["source"]]
    return table.assign(source_split=pd.Series(drawn, index=table.index, dtype=object))


@st.composite
def tables(draw, *, linked=True):
    """Up to 40 of the main archive and both eyes of up to 20 patients of 2015; `linked`: some are duplicates."""
    main = draw(st.lists(st.integers(0, 4), min_size=1, max_size=40))
    eyes = draw(st.lists(st.integers(0, 4), max_size=40))
    rows = [("main", f"m{n}", f"m{n}", grade) for n, grade in enumerate(main)]
    rows += [("2015", f"{n // 2}_{('left', 'right')[n % 2]}", f"{n // 2}", grade) for n, grade in enumerate(eyes)]
    groups = list(range(len(rows)))
    if linked:
        pairs = st.tuples(st.integers(0, len(rows) - 1), st.integers(0, len(rows) - 1))
        for i, j in draw(st.lists(pairs, max_size=6)):
            groups = [groups[i] if group == groups[j] else group for group in groups]
    return images([(*row, group) for row, group in zip(rows, groups, strict=True)])


options = st.fixed_dictionaries(
    {
        "per_class": st.none() | st.integers(1, 12),
        "val_fraction": st.floats(0.05, 0.6),
        "seed": st.integers(0, 1000),
    }
)


def split(table, policy="drop", **chosen):
    settled, _ = settle_duplicates(table, policy=policy)
    return assign_splits(settled, **chosen)


def splits_of(table) -> dict[tuple[str, str], str | None]:
    return {(row.source, row.original): row.split for row in table.itertuples()}


def persons(table) -> list[set]:
    """Images joined by duplicates and by patients, the plain way: merge what overlaps until nothing does."""
    merged = []
    for _, rows in [*table.groupby("group"), *table.groupby(["source", "patient"])]:
        person = set(rows.index)
        for other in [other for other in merged if other & person]:
            merged.remove(other)
            person |= other
        merged.append(person)
    return merged


@given(tables(), st.sampled_from(POLICIES), options)
@settings(deadline=None, max_examples=30)
def test_every_image_is_on_one_split_or_left_out_with_a_reason(table, policy, chosen):
    result = split(table, policy, **chosen)
    assert sorted(result.index) == list(table.index)
    assert set(result["split"].dropna()) <= {"train", "val"}
    assert (result["split"].isna() == result["exclusion"].notna()).all()
    known = {
        "duplicate",
        "duplicates with conflicting grades",
        "patient in validation",
        "per_class reached",
    }
    assert set(result["exclusion"].dropna()) <= known


@given(tables(), st.sampled_from(POLICIES), options)
@settings(deadline=None, max_examples=30)
def test_validation_is_of_the_main_archive_alone(table, policy, chosen):
    result = split(table, policy, **chosen)
    assert set(result[result["split"] == "val"]["source"]) <= {"main"}


@given(tables(linked=False), options)
@settings(deadline=None, max_examples=30)
def test_validation_has_the_share_of_each_grade_to_the_nearest_image(table, chosen):
    result = split(table, **chosen)
    in_val = result[result["split"] == "val"]["diagnosis"].value_counts()
    for grade, count in table[table["source"] == "main"]["diagnosis"].value_counts().items():
        assert abs(in_val.get(grade, 0) - chosen["val_fraction"] * count) <= 0.5


@given(tables(), st.sampled_from(POLICIES), options)
@settings(deadline=None, max_examples=30)
def test_validation_never_has_more_than_the_share_of_each_grade(table, policy, chosen):
    result = split(table, policy, **chosen)
    usable = result[(result["source"] == "main") & ~result["exclusion"].fillna("").str.startswith("duplicate")]
    in_val = result[result["split"] == "val"]["diagnosis"].value_counts()
    for grade, count in usable["diagnosis"].value_counts().items():
        assert in_val.get(grade, 0) <= chosen["val_fraction"] * count + 0.5


@given(tables(), st.sampled_from(POLICIES), options)
@settings(deadline=None, max_examples=30)
def test_no_person_is_in_both_splits_not_even_through_duplicates(table, policy, chosen):
    result = split(table, policy, **chosen)
    for person in persons(table):
        assert len(set(result.loc[list(person), "split"].dropna())) <= 1


@given(tables(), st.sampled_from(POLICIES), options)
@settings(deadline=None, max_examples=30)
def test_training_has_per_class_of_each_grade_or_all_available(table, policy, chosen):
    result = split(table, policy, **chosen)
    counts = Counter(result[result["split"] == "train"]["diagnosis"])
    full = Counter(result[result["exclusion"] == "per_class reached"]["diagnosis"])
    if chosen["per_class"] is None:
        assert not full
        return
    assert all(count <= chosen["per_class"] for count in counts.values())
    assert all(counts[grade] == chosen["per_class"] for grade in full)


@given(tables(linked=False), options)
@settings(deadline=None, max_examples=30)
def test_2015_only_tops_up_what_the_main_archive_lacks(table, chosen):
    result = split(table, **chosen)
    full = result[result["exclusion"] == "per_class reached"]
    for grade in set(full[full["source"] == "main"]["diagnosis"]):
        trained = result[(result["split"] == "train") & (result["diagnosis"] == grade)]
        assert set(trained["source"]) == {"main"}


@given(tables(), st.sampled_from(POLICIES), options, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_the_same_seed_gives_the_same_split_whatever_the_order_of_rows(table, policy, chosen, random):
    order = list(table.index)
    random.shuffle(order)
    shuffled = table.loc[order].assign(group=100 - table["group"]).reset_index(drop=True)
    assert splits_of(split(table, policy, **chosen)) == splits_of(split(shuffled, policy, **chosen))


@given(split_tables(), st.sampled_from(POLICIES), options)
@settings(deadline=None, max_examples=30)
def test_the_split_of_a_source_is_kept_and_its_persons_are_not_trained_on(table, policy, chosen):
    result = split(table, policy, **{**chosen, "per_class": None}).sort_index()
    own = table["source_split"].eq("val").any()
    stays = table["source_split"].notna() if own else table["source_split"].eq("test")
    assert (result["split"].isna() == result["exclusion"].notna()).all()
    assert result["split"][stays].tolist() == table["source_split"][stays].tolist()
    assert not result["split"][~stays].eq("test").any()
    for person in persons(table):
        outcomes = result.loc[sorted(person)]
        kept, free = outcomes[stays[outcomes.index]], outcomes[~stays[outcomes.index]]
        if kept["split"].isin(["test", "val"]).any():
            assert free["split"].isna().all()
        assert free["split"].dropna().nunique() <= 1


def numbered(count, *, start=0):
    return images([("main", f"m{n}", f"m{n}", n % 5, n) for n in range(start, start + count)])


def test_another_seed_gives_another_split():
    first, second = (split(numbered(100), per_class=None, val_fraction=0.2, seed=seed) for seed in (1, 2))
    assert splits_of(first) != splits_of(second)


def test_the_split_of_a_known_table_never_changes():
    result = split(numbered(20), per_class=None, val_fraction=0.25, seed=10)
    assert sorted(result[result["split"] == "val"]["original"]) == ["m10", "m12", "m13", "m19", "m6"]


def test_more_images_do_not_reshuffle_the_others():
    chosen = {"per_class": None, "val_fraction": 0.2, "seed": 10}
    before = splits_of(split(numbered(500), **chosen))
    after = splits_of(split(pd.concat([numbered(500), numbered(25, start=500)], ignore_index=True), **chosen))
    moved = [image for image, split_name in before.items() if after[image] != split_name]
    assert len(moved) <= 10  # at the border of the share alone: a new draw would move about 160


def test_the_drawing_order_depends_on_nothing_but_seed_and_name():
    names = pd.DataFrame({"rank": [0, 0], "original": ["a", "b"]})
    order = drawing_order(names, seed=10)
    assert order.tolist() == drawing_order(names[::-1], seed=10)[::-1].tolist()
    assert order.str.len().tolist() == [16, 16]
    assert not order.equals(drawing_order(names, seed=11))


# --- duplicates -----------------------------------------------------------------------------------

COPIES = [
    ("2015", "9_left", "9", 1, 0),
    ("main", "b", "b", 1, 0),
    ("main", "a", "a", 1, 0),
    ("main", "c", "c", 2, 1),
    ("main", "d", "d", 3, 1),
    ("main", "e", "e", 2, 1),
    ("main", "f", "f", 0, 2),
    ("main", "g", "g", 4, 3),
    ("main", "h", "h", 0, 3),
]


def settled(policy):
    table, listed = settle_duplicates(images(COPIES), policy=policy)
    kept = table[table["exclusion"].isna()]
    return dict(zip(kept["original"], kept["diagnosis"], strict=True)), listed


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ("drop", {"a": 1, "f": 0}),
        ("majority", {"a": 1, "c": 2, "f": 0}),
        ("keep", {"a": 1, "c": 2, "d": 3, "e": 2, "f": 0, "g": 4, "h": 0}),
    ],
)
def test_copies_that_agree_count_once_and_conflicts_follow_the_policy(policy, kept):
    assert settled(policy)[0] == kept


def test_the_majority_decides_the_grade_of_the_copy_that_is_kept():
    rows = [("main", "a", "a", 4, 0), ("main", "b", "b", 1, 0), ("main", "c", "c", 1, 0)]
    table, _ = settle_duplicates(images(rows), policy="majority")
    kept = table[table["exclusion"].isna()]
    assert kept[["original", "diagnosis"]].to_numpy().tolist() == [["a", 1]]


def test_duplicates_are_listed_with_their_own_grade_and_outcome():
    listed = settled("majority")[1]
    contradicting = "duplicates with conflicting grades"
    assert listed.to_numpy().tolist() == [
        [1, "main", "a", 1, False, "kept"],
        [1, "main", "b", 1, False, "duplicate"],
        [1, "2015", "9_left", 1, False, "duplicate"],
        [2, "main", "c", 2, True, "kept"],
        [2, "main", "d", 3, True, "duplicate"],
        [2, "main", "e", 2, True, "duplicate"],
        [3, "main", "g", 4, True, contradicting],
        [3, "main", "h", 0, True, contradicting],
    ]
    assert list(listed.columns) == ["group", "source", "original", "diagnosis", "conflict", "outcome"]


def test_without_duplicates_the_list_is_empty_and_has_its_header():
    table, listed = settle_duplicates(numbered(5), policy="drop")
    assert table["exclusion"].isna().all()
    assert list(listed.columns) == ["group", "source", "original", "diagnosis", "conflict", "outcome"]
    assert len(listed) == 0


WITH_SPLIT = [
    ("main", "a", "a", 0, 0, "train"),
    ("main", "b", "b", 1, 0, "test"),
    ("main", "c", "c", 1, 1, "train"),
    ("main", "d", "d", 1, 1, "train"),
    ("main", "e", "c", 1, 2, "test"),
    ("main", "f", "f", 1, 3, "train"),
    ("main", "g", "g", 1, 3, "train"),
]


def left_out_of(rows, **chosen):
    table = pd.DataFrame(rows, columns=["source", "original", "patient", "diagnosis", "group", "source_split"])
    table = table.assign(rank=table["source"].ne("main").astype(int))
    result = split(table, **{"per_class": None, "val_fraction": 0.2, "seed": 1, **chosen})
    return result.dropna(subset="exclusion").set_index("original")["exclusion"].to_dict()


def test_duplicates_of_test_images_and_their_patients_are_excluded_from_training():
    assert left_out_of(WITH_SPLIT) == {
        "a": "duplicate of a test image",
        "c": "patient in test",
        "d": "duplicate",
        "g": "duplicate",
    }


def test_a_source_with_a_validation_split_of_its_own_keeps_every_image():
    rows = [*WITH_SPLIT, ("main", "v", "v", 1, 0, "val")]
    assert left_out_of(rows) == {}
    assert list(left_out_of(rows, per_class=2).values()) == ["per_class reached"] * 2
    extra = ("2015", "x", "x", 1, 3, None), ("2015", "y", "y", 1, 0, None), ("2015", "z", "y", 1, 9, None)
    outcomes = left_out_of([*rows, *extra])
    assert [outcomes[name] for name in "xyz"] == [
        "duplicate",
        "duplicate of a test image",
        "patient in test",
    ]


def test_the_fellow_eye_of_a_duplicate_in_validation_is_not_trained_on():
    rows = [("main", "a", "a", 0, 0), ("2015", "1_left", "1", 0, 0), ("2015", "1_right", "1", 3, 1)]
    result = split(images(rows), per_class=None, val_fraction=0.9, seed=1).set_index("original")
    assert result.loc["a", "split"] == "val"
    assert result.loc["1_left", "exclusion"] == "duplicate"
    assert result.loc["1_right", "exclusion"] == "patient in validation"


def test_two_main_images_of_one_2015_patient_stay_together():
    rows = [("main", f"m{n}", f"m{n}", 0, n) for n in range(40)]
    rows += [("2015", f"{n}_{eye}", str(n), 0, 2 * n + right) for n in range(20) for right, eye in enumerate("lr")]
    result = split(images(rows), per_class=None, val_fraction=0.5, seed=3).set_index("original")
    splits_of_pairs = [set(result.loc[[f"m{2 * n}", f"m{2 * n + 1}"], "split"]) for n in range(20)]
    assert Counter(map(frozenset, splits_of_pairs)) == {frozenset({"val"}): 10, frozenset({"train"}): 10}


def test_images_without_a_patient_are_not_one_person():
    rows = [("main", f"m{n}", None, 0, n) for n in range(10)]
    result = split(images(rows), per_class=None, val_fraction=0.5, seed=3)
    assert result["person"].nunique() == 10
    assert result["split"].value_counts().to_dict() == {"train": 5, "val": 5}
    nameless = images([("main", f"m{n}", "", 0, n) for n in range(10)])
    assert split(nameless, per_class=None, val_fraction=0.5, seed=3)["person"].nunique() == 10


def test_both_eyes_of_a_patient_in_two_sources_stay_together():
    rows = [("main", f"{n}_left", str(n), 0, 2 * n) for n in range(12)]
    rows += [("2015", f"{n}_right", str(n), 0, 2 * n + 1) for n in range(12)]
    result = split(images(rows), per_class=None, val_fraction=0.5, seed=3)
    assert result["split"].eq("val").sum() == 6
    trained = set(result[result["split"] == "train"]["patient"])
    assert not trained & set(result[result["split"] == "val"]["patient"])
