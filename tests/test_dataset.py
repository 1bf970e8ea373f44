from itertools import chain

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, write_prepared

from dr import UsageError, ranks
from dr.dataset import (
    EpochSampler,
    EvaluationPhotographs,
    TrainingPhotographs,
    binary,
    fold,
    loader,
    measured_mean_std,
    read_prepared,
)
from dr.recipes import from_dict


def validation(data):
    return EvaluationPhotographs(data.root, data.val, TINY)


@pytest.fixture
def folder(tmp_path):
    return write_prepared(tmp_path)


def test_a_prepared_folder_is_read_from_its_parent_or_itself(folder):
    outer, inner = read_prepared(folder), read_prepared(folder / "kaggle_retina")
    assert outer.fingerprint == inner.fingerprint
    assert outer.size_px == 96
    assert outer.train["diagnosis"].tolist() == [i % 5 for i in range(30)]
    assert outer.val["path"].iloc[0] == "val/photo_0.jpeg"


def test_the_fingerprint_changes_with_one_label(folder):
    before = read_prepared(folder).fingerprint
    table = folder / "kaggle_retina" / "labels_train.csv"
    table.write_text(table.read_text().replace("photo_3.jpeg,3", "photo_3.jpeg,2"))
    assert read_prepared(folder).fingerprint != before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / "labels_val.csv").unlink(),
            r"labels_val\.csv: there is no such label table; run data\.py",
        ),
        (
            lambda root: (root / "settings.json").unlink(),
            r"settings\.json: it is missing or damaged; run data\.py again",
        ),
        (lambda root: (root / "val/photo_4.jpeg").unlink(), r"labels_val\.csv, row 6: val/photo_4\.jpeg is not there"),
        (lambda root: (root / "labels_train.csv").write_text("path,diagnosis\na,7\n"), r"row 2: diagnosis is '7'"),
        (lambda root: (root / "labels_train.csv").write_text("path,grade\na,1\n"), r"no column 'diagnosis'"),
        (
            lambda root: (root / "labels_val.csv").write_text("path,diagnosis\nval/photo_0.jpeg,0\n"),
            r"it has 1 photographs, too few to validate on",
        ),
    ],
)
def test_a_damaged_folder_names_table_row_and_remedy(folder, damage, message):
    damage(folder / "kaggle_retina")
    with pytest.raises(UsageError, match=message):
        read_prepared(folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_cannot_be_decoded_is_one_line_also_from_a_worker(folder, workers):
    (folder / "kaggle_retina/val/photo_2.jpeg").write_bytes(b"\xff\xd8 no more")
    batches = loader(validation(read_prepared(folder)), batch_size=4, workers=workers, pin=False)
    with pytest.raises(UsageError, match=r"^\S+photo_2\.jpeg: it cannot be decoded; delete it and run data\.py again$"):
        list(batches)


def test_workers_change_nothing_about_a_training_batch(folder):
    data = read_prepared(folder)
    seen = []
    for workers in (0, 2):
        training = TrainingPhotographs(data, from_dict(TINY.to_dict() | {"augmentation": "rotation_colour"}))
        sampler = EpochSampler(training.grades, sampling="shuffle", seed=10)
        sampler.epoch = 3
        batches = loader(training, batch_size=10, workers=workers, pin=False, sampler=sampler)
        seen.append(list(batches))
    for alone, shared in zip(*seen, strict=True):
        assert torch.equal(alone["image"], shared["image"])
        assert torch.equal(alone["index"], shared["index"])


def test_validation_has_every_photograph_once_in_the_order_of_its_table(folder):
    data = read_prepared(folder)
    batches = loader(validation(data), batch_size=4, workers=0, pin=False)
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(15))
    assert torch.cat([batch["grade"] for batch in batches]).tolist() == [i % 5 for i in range(15)]


def test_shuffling_gives_each_photograph_once_and_another_order_each_epoch():
    sampler = EpochSampler(np.array([0, 1, 2, 3, 4] * 4), sampling="shuffle", seed=1)
    first, again = list(sampler), list(sampler)
    assert first == again
    assert sorted(index for _, index in first) == list(range(20))
    sampler.epoch = 1
    assert [index for _, index in sampler] != [index for _, index in first]


@pytest.mark.parametrize(("sampling", "share"), [("sqrt", 0.25), ("balanced", 0.5)])
def test_rare_grades_are_drawn_as_often_as_the_sampling_says(sampling, share):
    grades = np.array([0] * 9000 + [1] * 1000)  # square roots 3 : 1
    drawn = [index for _, index in EpochSampler(grades, sampling=sampling, seed=0)]
    assert len(drawn) == 10_000
    assert np.mean(grades[drawn] == 1) == pytest.approx(share, abs=0.02)


def test_a_test_split_and_the_names_of_the_classes_are_read_where_there_are_any(tmp_path):
    data = read_prepared(write_prepared(tmp_path, classes=("cat", "dog", "cow"), test=6))
    assert data.classes == ("cat", "dog", "cow")
    assert data.test["diagnosis"].tolist() == [0, 1, 2, 0, 1, 2]
    plain = read_prepared(write_prepared(tmp_path / "plain"))
    assert plain.test is None
    assert plain.classes == ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")


def test_a_label_beyond_the_classes_at_hand_is_refused(tmp_path):
    folder = write_prepared(tmp_path, classes=("cat", "dog"))
    table = folder / "kaggle_retina" / "labels_train.csv"
    table.write_text(table.read_text().replace("photo_3.jpeg,1", "photo_3.jpeg,2"))
    with pytest.raises(UsageError, match=r"labels_train\.csv, row 5: diagnosis is '2', expected 0 to 1"):
        read_prepared(folder)


def test_grades_become_two_classes_at_the_one_named(folder):
    data = read_prepared(folder)
    referable = binary(data, positive_from=2)
    assert referable.classes == ("below Moderate", "Moderate or worse")
    assert referable.train["diagnosis"].tolist() == [int(i % 5 >= 2) for i in range(30)]
    assert binary(data, positive_from=1).classes == ("No DR", "Mild or worse")
    assert binary(referable, positive_from=1) is referable
    with pytest.raises(UsageError, match="positive_from is 5, but the highest grade is 4"):
        binary(data, positive_from=5)


def test_folds_hold_out_every_photograph_once_and_never_part_a_patient(folder):
    root = folder / "kaggle_retina"
    for name in ("train", "val"):
        table = pd.read_csv(root / f"labels_{name}.csv")
        patients = [f"p{row // 10}_{row % 5}" for row in range(len(table))]  # two photographs of each, of one grade
        table.assign(source="main", patient=[f"{name}_{one}" for one in patients]).to_csv(
            root / f"labels_{name}.csv", index=False
        )
    data = read_prepared(folder)
    held_out = []
    for number in (1, 2, 3):
        part = fold(data, number, 3)
        held_out += part.test["path"].tolist()
        assert len(part.train) + len(part.val) + len(part.test) == 45
        assert not set(part.test["patient"]) & (set(part.train["patient"]) | set(part.val["patient"]))
        assert set(part.test["diagnosis"]) == {0, 1, 2, 3, 4}
        assert part.fingerprint != data.fingerprint
        assert part.fold == (number, 3, data.fingerprint)
    assert sorted(held_out) == sorted([*data.train["path"], *data.val["path"]])


def test_photographs_without_any_variation_are_not_measured(folder):
    for path in (folder / "kaggle_retina" / "train").iterdir():
        cv2.imwrite(str(path), np.zeros((96, 96, 3), np.uint8))
    words = r"its training photographs are the same everywhere .*, which normalisation=measured cannot divide by; look"
    with pytest.raises(UsageError, match=words):
        measured_mean_std(read_prepared(folder), TINY)


def write_columns(folder, **columns):
    """Adds columns to the label tables of a prepared folder; a column is (train's values, val's)."""
    for place, name in enumerate(("train", "val")):
        path = folder / "kaggle_retina" / f"labels_{name}.csv"
        table = pd.read_csv(path, dtype=str)
        table.assign(**{column: values[place] for column, values in columns.items()}).to_csv(path, index=False)
    return read_prepared(folder)


def test_copies_and_what_they_join_stay_on_one_side_of_a_fold(folder):
    patients = [f"t{row}" for row in range(30)], [f"v{row}" for row in range(14)] + ["t29"]
    groups = [""] * 26 + ["1", "1", "2", "2"], ["", "1"] + [""] * 11 + ["2", ""]
    data = write_columns(folder, source=("main", "main"), patient=patients, group=groups)
    for number in range(1, 6):
        part = fold(data, number, 5)
        test, rest = set(part.test["path"]), {*part.train["path"], *part.val["path"]}
        for together in (
            {"train/photo_26.jpeg", "train/photo_27.jpeg", "val/photo_1.jpeg"},
            # photo_14 of val is of the patient of photo_29
            {"train/photo_28.jpeg", "train/photo_29.jpeg", "val/photo_13.jpeg", "val/photo_14.jpeg"},
        ):
            assert together <= test or together <= rest


def test_tables_without_groups_keep_their_folds(folder):
    patients = [f"p{row // 2}" for row in range(30)], [f"q{row // 2}" for row in range(15)]
    old = fold(write_columns(folder, source=("main", "main"), patient=patients), 2, 3)
    known = [f"train/photo_{row}.jpeg" for row in (2, 3, 4, 5, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23)]
    assert set(old.test["path"]) == {*known, "val/photo_6.jpeg", "val/photo_7.jpeg"}
    new = fold(write_columns(folder, group=("", "")), 2, 3)
    assert new.test["path"].tolist() == old.test["path"].tolist()


def test_more_folds_than_patients_are_refused_with_their_number(folder):
    data = write_columns(folder, source=("main", "main"), patient=(["a", "b"] * 15, ["c", "d", "c"] * 5))
    for number in range(1, 6):
        with pytest.raises(UsageError, match=f"--fold {number}/5: there are 4 patients, fewer than folds; give fewer"):
            fold(data, number, 5)


@pytest.mark.parametrize(("side", "least"), [("train", 1), ("val", 2)])
def test_a_fold_that_leaves_too_few_photographs_of_a_side_is_refused(tmp_path, side, least):
    folder = write_prepared(tmp_path, classes=("cat", "dog"), **({"train": 20, "val": 20} | {side: 2}))
    patients = [["one"] * 2 if name == side else ["two", "three"] * 10 for name in ("train", "val")]
    data = write_columns(folder, source=("main", "main"), patient=patients)
    refused = []
    for number in (1, 2):
        try:
            assert len(fold(data, number, 2).test) < 12  # the other fold is a test
        except UsageError as exc:
            refused.append(str(exc).partition(": ")[2])
    words = f"0 photographs would be left of {side}, fewer than {least}; give more folds, or prepare more photographs"
    assert refused == [words]


def test_more_folds_than_photographs_of_a_grade_or_a_second_test_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="--fold 1/20: a grade has 9 photographs, fewer than folds; give fewer"):
        fold(read_prepared(folder), 1, 20)
    with pytest.raises(UsageError, match="it has a test of its own, so --fold cannot make one"):
        fold(read_prepared(write_prepared(tmp_path / "tested", test=5)), 1, 2)


def batches_of(monkeypatch, dataset, *, rank=0, count=1, **options):
    """The indices of each batch that one of several processes loads."""
    monkeypatch.setattr(ranks, "RANK", rank)
    monkeypatch.setattr(ranks, "COUNT", count)
    return [batch["index"].tolist() for batch in loader(dataset, workers=0, pin=False, **options)]


def test_processes_train_step_by_step_on_what_one_with_larger_batches_would(folder, monkeypatch):
    training = TrainingPhotographs(read_prepared(folder), TINY)
    order = EpochSampler(training.grades, sampling="sqrt", seed=3)
    order.epoch = 2
    options = {"sampler": order, "drop_last": True}
    alone = batches_of(monkeypatch, training, batch_size=12, **options)
    shares = [batches_of(monkeypatch, training, batch_size=4, rank=n, count=3, **options) for n in range(3)]
    assert [list(chain(*step)) for step in zip(*shares, strict=True)] == alone


@pytest.mark.parametrize("count", [2, 4, 7])
def test_processes_evaluate_every_photograph_once_in_the_batches_of_one(folder, monkeypatch, count):
    data = validation(read_prepared(folder))
    alone = batches_of(monkeypatch, data, batch_size=4)
    shares = [batches_of(monkeypatch, data, batch_size=4, rank=rank, count=count) for rank in range(count)]
    assert sorted(chain(*shares)) == alone
