import csv

import pandas as pd
import pytest
from made import write_preprocessed

from dr import UsageError
from dr.datasets.folds import fold
from dr.datasets.preprocessed import binary, read_preprocessed


@pytest.fixture
def folder(tmp_path):
    return write_preprocessed(tmp_path)


def write_columns(folder, **columns):
    """Add columns to the label tables of a preprocessed folder; a column is (train's values, val's)."""
    for place, name in enumerate(("train", "val")):
        path = folder / "kaggle_retina" / f"labels_{name}.csv"
        table = pd.read_csv(path, dtype=str)
        table.assign(**{column: values[place] for column, values in columns.items()}).to_csv(path, index=False)
    return read_preprocessed(folder)


def test_a_preprocessed_folder_is_read_from_its_parent_or_itself(folder):
    outer, inner = read_preprocessed(folder), read_preprocessed(folder / "kaggle_retina")
    assert outer.fingerprint == inner.fingerprint
    assert outer.size_px == 96
    assert outer.train["diagnosis"].tolist() == [i % 5 for i in range(30)]
    assert outer.val["path"].iloc[0] == "val/image_0.jpeg"


def test_the_fingerprint_changes_with_one_label(folder):
    before = read_preprocessed(folder).fingerprint
    table = folder / "kaggle_retina" / "labels_train.csv"
    table.write_text(table.read_text().replace("image_3.jpeg,3", "image_3.jpeg,2"))
    assert read_preprocessed(folder).fingerprint != before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / "labels_val.csv").unlink(),
            r"labels_val\.csv: label table not found; run data\.py",
        ),
        (
            lambda root: (root / "settings.json").unlink(),
            r"settings\.json: missing or damaged; run data\.py again",
        ),
        (lambda root: (root / "val/image_4.jpeg").unlink(), r"labels_val\.csv, row 6: val/image_4\.jpeg not found"),
        (lambda root: (root / "labels_train.csv").write_text("path,diagnosis\na,7\n"), r"row 2: diagnosis is '7'"),
        (lambda root: (root / "labels_train.csv").write_text("path,grade\na,1\n"), r"no column 'diagnosis'"),
        (
            lambda root: (root / "labels_val.csv").write_text("path,diagnosis\nval/image_0.jpeg,0\n"),
            r"1 images are too few for validation",
        ),
    ],
)
def test_a_damaged_folder_names_table_row_and_remedy(folder, damage, message):
    damage(folder / "kaggle_retina")
    with pytest.raises(UsageError, match=message):
        read_preprocessed(folder)


def test_an_optional_test_split_and_class_names_are_read(tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path, classes=("cat", "dog", "cow"), test=6))
    assert data.classes == ("cat", "dog", "cow")
    assert data.test["diagnosis"].tolist() == [0, 1, 2, 0, 1, 2]
    plain = read_preprocessed(write_preprocessed(tmp_path / "plain"))
    assert plain.test is None
    assert plain.classes == ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    folder = write_preprocessed(tmp_path, classes=("cat", "dog"))
    table = folder / "kaggle_retina" / "labels_train.csv"
    table.write_text(table.read_text().replace("image_3.jpeg,1", "image_3.jpeg,2"))
    with pytest.raises(UsageError, match=r"labels_train\.csv, row 5: diagnosis is '2', expected 0 to 1"):
        read_preprocessed(folder)


def test_grades_become_two_classes_at_the_one_named(folder):
    data = read_preprocessed(folder)
    referable = binary(data, positive_from=2)
    assert referable.classes == ("below Moderate", "Moderate or worse")
    assert referable.train["diagnosis"].tolist() == [int(i % 5 >= 2) for i in range(30)]
    assert binary(data, positive_from=1).classes == ("No DR", "Mild or worse")
    assert binary(referable, positive_from=1) is referable
    with pytest.raises(UsageError, match="positive_from is 5, but the highest grade is 4"):
        binary(data, positive_from=5)


def test_folds_hold_out_every_image_once_and_never_part_a_patient(folder):
    root = folder / "kaggle_retina"
    for name in ("train", "val"):
        table = pd.read_csv(root / f"labels_{name}.csv")
        patients = [f"p{row // 10}_{row % 5}" for row in range(len(table))]  # two images of each, of one grade
        table.assign(source="main", patient=[f"{name}_{one}" for one in patients]).to_csv(
            root / f"labels_{name}.csv", index=False
        )
    data = read_preprocessed(folder)
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


def test_duplicates_and_their_patients_stay_together_in_folds(folder):
    patients = [f"t{row}" for row in range(30)], [f"v{row}" for row in range(14)] + ["t29"]
    groups = [""] * 26 + ["1", "1", "2", "2"], ["", "1"] + [""] * 11 + ["2", ""]
    data = write_columns(folder, source=("main", "main"), patient=patients, group=groups)
    for number in range(1, 6):
        part = fold(data, number, 5)
        test, rest = set(part.test["path"]), {*part.train["path"], *part.val["path"]}
        for together in (
            {"train/image_26.jpeg", "train/image_27.jpeg", "val/image_1.jpeg"},
            # image_14 of val is of the patient of image_29
            {"train/image_28.jpeg", "train/image_29.jpeg", "val/image_13.jpeg", "val/image_14.jpeg"},
        ):
            assert together <= test or together <= rest


def test_tables_without_groups_keep_their_folds(folder):
    patients = [f"p{row // 2}" for row in range(30)], [f"q{row // 2}" for row in range(15)]
    old = fold(write_columns(folder, source=("main", "main"), patient=patients), 2, 3)
    known = [f"train/image_{row}.jpeg" for row in (2, 3, 4, 5, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23)]
    assert set(old.test["path"]) == {*known, "val/image_6.jpeg", "val/image_7.jpeg"}
    new = fold(write_columns(folder, group=("", "")), 2, 3)
    assert new.test["path"].tolist() == old.test["path"].tolist()


def test_more_folds_than_patients_are_refused_with_their_number(folder):
    data = write_columns(folder, source=("main", "main"), patient=(["a", "b"] * 15, ["c", "d", "c"] * 5))
    for number in range(1, 6):
        with pytest.raises(UsageError, match=f"--fold {number}/5: only 4 patients; use at most that many folds"):
            fold(data, number, 5)


@pytest.mark.parametrize(("split", "least"), [("train", 1), ("val", 2)])
def test_a_fold_that_leaves_too_few_images_of_a_split_is_refused(tmp_path, split, least):
    folder = write_preprocessed(tmp_path, classes=("cat", "dog"), **({"train": 20, "val": 20} | {split: 2}))
    patients = [["one"] * 2 if name == split else ["two", "three"] * 10 for name in ("train", "val")]
    data = write_columns(folder, source=("main", "main"), patient=patients)
    refused = []
    for number in (1, 2):
        try:
            assert len(fold(data, number, 2).test) < 12  # the other fold is a test
        except UsageError as exc:
            refused.append(str(exc).partition(": ")[2])
    message = f"0 images would remain in {split}, fewer than {least}; use more folds, or preprocess more images"
    assert refused == [message]


def test_more_folds_than_images_of_a_grade_or_a_second_test_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="--fold 1/20: a grade has only 9 images; use at most 9 folds"):
        fold(read_preprocessed(folder), 1, 20)
    with pytest.raises(UsageError, match="the data has its own test split, so --fold cannot make one"):
        fold(read_preprocessed(write_preprocessed(tmp_path / "tested", test=5)), 1, 2)


def test_tables_whose_header_was_quoted_keep_patients_together(folder):
    patients = ([str(i // 2) for i in range(30)], [f"v{i}" for i in range(15)])
    expected = fold(write_columns(folder, patient=patients), 1, 3).test["path"].tolist()
    for split in ("train", "val"):
        path = folder / "kaggle_retina" / f"labels_{split}.csv"
        pd.read_csv(path, dtype=str).to_csv(path, index=False, quoting=csv.QUOTE_ALL)
    assert fold(read_preprocessed(folder), 1, 3).test["path"].tolist() == expected
