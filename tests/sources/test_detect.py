"""Every format of -m is recognised and preprocessed with its own split, or one line names the fault and the remedy."""

import json
import pickle
import unicodedata

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import draw_retina, encode, write_folder, write_zip

from dr import GRADES, UsageError
from dr.datasets.preprocessed import read_preprocessed
from dr.preprocessing.pipeline import preprocess_sources
from dr.preprocessing.settings import Settings
from dr.preprocessing.summary import summary_lines
from dr.sources.candidate import ReadOptions
from dr.sources.columns import Columns
from dr.sources.detect import open_sources, recognise

SETTINGS = Settings(size=64, val_fraction=0.25)


def smooth_image(seed: int, *, side_px: int = 28, colour: bool = True) -> np.ndarray:
    """(side_px, side_px, 3) or (side_px, side_px) uint8 RGB: smooth, and unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 7, 3) if colour else (7, 7), dtype=np.uint8)
    return cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC)


def png(seed: int, **options) -> bytes:
    return encode(smooth_image(seed, **options))


def done(path, directory, *, extra="none", columns=None, settings=SETTINGS):
    """-> (report, preprocessed folder as train.py reads it); every row has its file, every file its row."""
    opened = open_sources(str(path), str(extra), options=ReadOptions(columns=columns or Columns()))
    sources = dict(zip(("main", "2015"), opened.values(), strict=False))  # one name whatever the file
    report = preprocess_sources(sources, directory=str(directory), settings=settings, workers=1)
    root = directory / "kaggle_retina"
    for split in ("train", "val", "test"):
        table = root / f"labels_{split}.csv"
        paths = pd.read_csv(table, dtype=str)["path"].tolist() if table.exists() else []
        assert paths == sorted(path.relative_to(root).as_posix() for path in (root / split).glob("*"))
        assert table.exists() == (root / split).exists()
    return report, read_preprocessed(directory)


def refusal(path, *, columns=None) -> str:
    with pytest.raises(UsageError) as refused:
        recognise(str(path), options=ReadOptions(columns=columns or Columns()))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def originals(data) -> dict[str, set[str]]:
    """{split: names of its images, without the ending}."""
    splits = {"train": data.train, "val": data.val} | ({} if data.test is None else {"test": data.test})
    return {split: set(table["path"].str.extract(r"/(.*)\.\w+$")[0]) for split, table in splits.items()}


# --- a MedMNIST file ------------------------------------------------------------------------------


def arrays(*, num_classes=5, side_px=28, colour=True, **changed) -> dict[str, np.ndarray]:
    made = {}
    for number, (split, count) in enumerate({"train": 10, "val": 5, "test": 5}.items()):
        seeds = range(100 * number, 100 * number + count)
        made[f"{split}_images"] = np.stack([smooth_image(seed, side_px=side_px, colour=colour) for seed in seeds])
        made[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % num_classes)[:, None]
    return {name: array for name, array in (made | changed).items() if array is not None}


def write_npz(path, content):
    np.savez_compressed(path, **content)
    return path


@pytest.mark.parametrize(("side_px", "colour"), [(28, True), (28, False), (150, True)])
def test_a_medmnist_file_keeps_its_split_and_every_pixel(tmp_path, no_plots, side_px, colour):
    made = arrays(side_px=side_px, colour=colour)
    made["val_images"][0] = made["train_images"][0]  # a duplicate is listed, and stays
    path = write_npz(tmp_path / "retina.npz", made)
    report, data = done(path, tmp_path, settings=Settings())
    assert report["counts"] == {"validation": [1] * 5, "train: main": [2] * 5, "test": [1] * 5}
    assert data.classes == GRADES
    assert report["duplicates"]["images"] == 2
    for split, images in (("train", made["train_images"]), ("test", made["test_images"])):
        for number, image in enumerate(images):
            written = cv2.imread(str(data.root / split / f"{split}_{number:05}.png"))
            expected = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if colour else cv2.COLOR_GRAY2BGR)
            np.testing.assert_array_equal(written, expected)
    assert data.test["diagnosis"].tolist() == [0, 1, 2, 3, 4]
    assert report["settings"]["per_class"] == "all"
    assert (report["quality_flags"], data.crop) == ({}, False)
    assert not (data.root / "crops.png").exists()


def test_per_class_applies_to_a_split_of_its_own_only_where_it_is_given(tmp_path, no_plots):
    path = write_npz(tmp_path / "retina.npz", arrays())
    report, _ = done(path, tmp_path, settings=Settings(size=64, per_class=1))
    assert report["counts"] == {"validation": [1] * 5, "train: main": [1] * 5, "test": [1] * 5}
    assert report["excluded"] == {"per_class reached": 5}


def test_classes_of_a_medmnist_file_other_than_five_are_numbers(tmp_path):
    assert recognise(str(write_npz(tmp_path / "a.npz", arrays(num_classes=3)))).classes == ("0", "1", "2")


def test_a_worker_is_sent_one_image_and_not_the_arrays(tmp_path):
    archive = recognise(str(write_npz(tmp_path / "retina.npz", arrays()))).archive
    sent = pickle.dumps(archive.member("train_00007"))
    assert len(sent) < len(archive.read("train_00007")) + 200
    assert pickle.loads(sent).read() == archive.read("train_00007")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_images": None}, "no array train_images; check that this is a MedMNIST file"),
        ({"test_labels": None}, "no array test_labels; check that this is a MedMNIST file"),
        ({"val_labels": np.zeros((4, 1), np.uint8)}, "val has 5 images, but 4 labels"),
        ({"train_images": np.zeros((10, 28, 28, 3))}, "train_images is float64 (10, 28, 28, 3), expected uint8 (N, H"),
        ({"train_images": np.zeros((10, 784), np.uint8)}, "train_images is uint8 (10, 784), expected uint8 (N, H, W)"),
        ({"test_labels": np.zeros((5, 14), np.uint8)}, "test_labels is uint8 (5, 14), expected one whole number from"),
        ({"test_labels": np.array([[-1]] * 5)}, "test_labels is int64 (5, 1), expected one whole number from 0"),
        ({"test_labels": np.array([[0.5]] * 5)}, "test_labels is float64 (5, 1), expected one whole number from 0"),
        ({"test_labels": np.array([[7]] * 5)}, "test has the class '7', which train lacks; add it to train"),
        ({"train_labels": np.array([[9]] * 9 + [[0]]), "val_labels": None, "val_images": None,
          "test_labels": None, "test_images": None}, "no training image has the label 1, but some have 9;"),
        ({"train_labels": np.array([[None]] * 10)}, "the arrays cannot be read (Object arrays cannot be loaded"),
    ],
)  # fmt: skip
def test_a_wrong_medmnist_file_is_refused_in_one_line(tmp_path, changed, message):
    path = write_npz(tmp_path / "retina.npz", arrays(**changed))
    assert refusal(path).startswith(f"{path}: {message}")


def test_a_medmnist_file_that_is_missing_or_damaged_is_refused_in_one_line(tmp_path):
    path = write_npz(tmp_path / "retina.npz", arrays())
    path.write_bytes(path.read_bytes()[:-300])
    assert refusal(path).startswith(f"{path}: truncated or damaged; download it again")
    path.write_text("no arrays")
    assert refusal(path).startswith(f"{path}: not a zip archive; download it again")
    assert refusal(tmp_path / "no.npz").startswith(f"{tmp_path / 'no.npz'}: not found; pass the path")


# --- class folders --------------------------------------------------------------------------------


def folders(splits: dict[str, dict[str, int]], *, root="set/", inner="", suffix=".JPEG", **options) -> dict[str, bytes]:
    """{split: {class: images}} -> members; no two images are alike."""
    names = [
        f"{root}{split}{name}/{inner}{number}{suffix}"
        for split, classes in splits.items()
        for name, count in classes.items()
        for number in range(count)
    ]
    return {name: png(seed, **options) for seed, name in enumerate(names)}


@pytest.mark.parametrize("validation", ["val/", "valid/", "Validation/"])
@pytest.mark.parametrize("packed", [True, False])
def test_class_folders_keep_their_split_and_their_names(tmp_path, no_plots, validation, packed):
    made = folders({"train/": {"DR": 3, "No_DR": 4}, validation: {"DR": 2, "No_DR": 2}, "test/": {"DR": 2}})
    path = write_zip(tmp_path / "a.zip", made) if packed else write_folder(tmp_path / "a", made)
    report, data = done(path, tmp_path)
    assert data.classes == ("No_DR", "DR")
    assert report["counts"] == {"validation": [2, 2], "train: main": [4, 3], "test": [0, 2]}
    assert originals(data)["test"] == {"test_DR_0", "test_DR_1"}
    assert summary_lines(report)[1] == "validation    No_DR: 2  DR: 2"


def test_one_level_of_class_folders_is_split_like_the_competition_archive(tmp_path, no_plots):
    made = folders({"": {"rose": 8, "daisy": 4, "tulip": 4}}, side_px=64)
    report, data = done(write_zip(tmp_path / "flowers.zip", made), tmp_path)
    assert data.classes == ("daisy", "rose", "tulip")
    assert report["counts"] == {"validation": [1, 2, 1], "train: main": [3, 6, 3]}
    assert data.test is None
    assert not (data.root / "test").exists()
    assert {path.suffix for path in data.root.glob("*/*_0.*")} == {".png"}


def test_validation_is_split_from_training_if_only_training_and_test_exist(tmp_path, no_plots):
    made = folders({"train/": {"0": 8, "1": 8}, "test/": {"0": 3, "1": 3}})
    made["set/train/0/copy.JPEG"] = made["set/test/0/0.JPEG"]
    made["set/test/1/7_left.JPEG"], made["set/train/1/7_right.JPEG"] = png(900), png(901)
    report, data = done(write_zip(tmp_path / "a.zip", made), tmp_path)
    assert report["counts"] == {"validation": [2, 2], "train: main": [6, 6], "test": [3, 4]}
    assert report["excluded"] == {"duplicate of a test image": 1, "patient in test": 1}
    listed = pd.read_csv(data.root / "duplicates.csv")
    assert dict(zip(listed["original"], listed["outcome"], strict=True)) == {
        "test_0_0": "kept",
        "train_0_copy": "duplicate of a test image",
    }


def test_two_hundred_classes_in_the_layout_of_tiny_imagenet_are_reported_in_totals(tmp_path, monkeypatch):
    monkeypatch.setattr("dr.preprocessing.plots.class_balance", None)  # two hundred bars are not drawn
    names = {f"n{number:08}": 1 for number in range(200)}
    made = folders({"train/": names}, root="tiny/", inner="images/", side_px=16)
    lines = []
    for number, name in enumerate(names):
        made[f"tiny/val/images/val_{number}.JPEG"] = png(1000 + number, side_px=16)
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t1\t1\n")
    made["tiny/val/val_annotations.txt"] = "".join(lines).encode()
    made["tiny/test/images/test_0.JPEG"] = png(5000, side_px=16)  # without a class
    report, data = done(write_zip(tmp_path / "tiny.zip", made), tmp_path)
    assert data.classes == tuple(names)
    assert summary_lines(report) == [
        "validation    200 images of 200 classes",
        "train: main   200 images of 200 classes",
    ]
    assert data.val["diagnosis"].is_unique
    assert data.test is None


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"train/": {"cat": 1, "dog": 1}, "test/": {"cow": 1}}, "test has the class 'cow', which train lacks"),
    ],
)
def test_class_folders_that_contradict_each_other_are_refused(tmp_path, made, message):
    path = write_zip(tmp_path / "a.zip", folders(made))
    assert refusal(path).startswith(f"{path}: {message}")


def test_splits_may_spell_a_class_in_different_ways(tmp_path):
    path = write_zip(tmp_path / "a.zip", folders({"train/": {"No_DR": 2, "Mild": 1}, "test/": {"no dr": 1}}))
    source = recognise(str(path))
    assert source.classes == ("No DR", "Mild")
    assert source.table["diagnosis"].tolist() == [0, 1, 0, 0]
    path = write_zip(tmp_path / "b.zip", folders({"train/": {"No_DR": 2, "Mild": 1}, "test/": {"severe": 1}}))
    assert refusal(path).startswith(f"{path}: test has the class 'severe', which train lacks; add it to train or")


def test_an_image_outside_of_the_class_folders_and_a_name_twice_are_refused(tmp_path):
    made = folders({"train/": {"cat": 1, "dog": 1}})
    path = write_zip(tmp_path / "a.zip", made | {"set/train/x.png": b""})
    assert refusal(path) == f"{path}: set/train/x.png is in no class folder; move it to one"
    path = write_zip(tmp_path / "b.zip", made | {"set/train/cat/0.png": b""})
    message = "set/train/cat/0.JPEG and set/train/cat/0.png would have the same name; rename one"
    assert refusal(path) == f"{path}: {message}"


@pytest.mark.parametrize(("training", "validation"), [("NFD", "NFD"), ("NFD", "NFC")])
def test_class_folders_may_be_named_as_macos_writes_them(tmp_path, no_plots, training, validation):
    names = {"train/": training, "val/": validation}
    made = folders({
        split: {unicodedata.normalize(form, name): 3 for name in ("Thé", "Café")} for split, form in names.items()
    })  # fmt: skip
    _, data = done(write_folder(tmp_path / "mine", made), tmp_path)
    assert data.classes == ("Café", "Thé")
    assert all((data.root / path).exists() for path in data.train["path"])


@pytest.mark.parametrize("aside", [".ipynb_checkpoints/0-checkpoint.JPEG", "@eaDir/0.JPEG/SYNOPHOTO_THUMB_M.jpg"])
def test_hidden_folders_and_thumbnails_are_ignored(tmp_path, aside):
    made = folders({"": {str(grade): 2 for grade in range(5)}})
    made |= {f"set/{aside}": png(90), f"set/1/{aside}": png(91), "set/.hidden/train.csv": b"id_code,diagnosis\n0,1"}
    source = recognise(str(write_folder(tmp_path / "mine", made)))
    assert source.classes == GRADES
    assert (len(source.table), source.unlabelled) == (10, 0)


def test_images_in_hidden_folders_alone_are_reported(tmp_path):
    path = write_zip(tmp_path / "a.zip", folders({"": {"cat": 1, "dog": 1}}, root=".cache/"))
    assert refusal(path) == (f"{path}: all its images are in hidden folders, which are ignored; rename these folders")


def test_one_image_under_a_name_in_two_forms_is_refused(tmp_path):
    names = [unicodedata.normalize(form, "set/é/0.png") for form in ("NFC", "NFD")]
    path = write_zip(tmp_path / "a.zip", {name: png(n) for n, name in enumerate(names)} | {"set/a/1.png": png(3)})
    assert refusal(path).endswith("would have the same name; rename one")


def test_test_images_without_a_class_are_left_out_where_none_has_one(tmp_path):
    made = folders({"train/": {"cat": 2, "dog": 2}, "val/": {"cat": 1, "dog": 1}}) | {"set/test/0.png": png(9)}
    made |= {"set/more/test/dog/1.png": png(11)}  # of another root
    source = recognise(str(write_zip(tmp_path / "a.zip", made)))
    assert set(source.table["source_split"]) == {"train", "val"}
    assert source.unlabelled == 2
    path = write_zip(tmp_path / "b.zip", made | {"set/test/dog/1.png": png(10)})
    assert refusal(path) == f"{path}: set/test/0.png is in no class folder; move it to one"


def test_a_class_in_two_spellings_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", folders({"": {"No_DR": 1, "DR": 1, "dr": 1}}))
    assert refusal(path) == f"{path}: the classes 'DR' and 'dr' differ only in spelling; use one spelling"
    path = write_folder(tmp_path / "mine", labelled("id_code,diagnosis\na,yes\nb,No\nc,Yes"))
    assert refusal(path).endswith(": the classes 'Yes' and 'yes' differ only in spelling; use one spelling")


def test_images_in_unsupported_formats_are_reported(tmp_path, no_plots):
    made = folders({"": {"cat": 4, "dog": 4}}) | {"set/emu/0.gif": b"GIF", "set/emu/1.avif": b"ftyp"}
    report, _ = done(write_zip(tmp_path / "a.zip", made), tmp_path)
    message = "note: skipped 2 images in unsupported formats, such as set/emu/0.gif; convert them to PNG"
    assert message in summary_lines(report)


def test_a_class_that_validation_lacks_is_named(tmp_path, no_plots):
    made = folders({"train/": {"cat": 2, "dog": 2, "emu": 2}, "val/": {"cat": 2, "dog": 2}})
    report, _ = done(write_zip(tmp_path / "a.zip", made), tmp_path)
    assert summary_lines(report)[-1].startswith("note: class emu has no validation image")


def test_one_archive_given_twice_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": png(0)})
    with pytest.raises(UsageError, match=r"-a .*a\.zip: the same file as -m; pass the 2015 archive, or leave out -a"):
        open_sources(str(path), str(tmp_path / "." / "a.zip"))


# --- pairs without a header -----------------------------------------------------------------------


def pairs(splits: dict[str, dict[str, object]], *, root="set/") -> dict[str, bytes]:
    made = {}
    for split, rows in splits.items():
        made[f"{root}{split}_img.csv"] = "\n".join(rows).encode()
        made[f"{root}{split}_label.csv"] = "\r\n".join(map(str, rows.values())).encode()
        for number, name in enumerate(rows):
            made[f"{root}{split}/{name}.jpeg"] = png(len(split) * 100 + number)
    return made


PAIRS = {
    "train": {**{f"{n}_left": n % 2 for n in range(10)}, "77_right": 0},
    "test": {"0": 0, "1": 1, "77_left": 1},
}


@pytest.mark.parametrize("packed", [True, False])
def test_pairs_of_csvs_have_their_first_row_and_their_test_split(tmp_path, no_plots, packed):
    made = pairs(PAIRS)
    path = write_zip(tmp_path / "a.zip", made) if packed else write_folder(tmp_path / "a", made)
    report, data = done(path, tmp_path)
    assert data.classes == ("0", "1")
    assert originals(data)["test"] == {"test_0", "test_1", "test_77_left"}
    assert originals(data)["train"] | originals(data)["val"] == {f"train_{n}_left" for n in range(10)}
    assert report["excluded"] == {"patient in test": 1}
    assert sum(report["counts"]["validation"]) == 2


def test_pairs_may_have_a_validation_split_and_one_folder_of_images(tmp_path):
    made = pairs({"train": {"a": 0, "b": 1, "c": 2}, "val": {"d": 0}, "test": {"e": 2}})
    made = {name.replace("/train/", "/all/").replace("/test/", "/all/"): data for name, data in made.items()}
    made = {f"train_and_test/{name}": data for name, data in made.items()}
    table = recognise(str(write_zip(tmp_path / "a.zip", made))).table
    assert table["source_split"].tolist() == ["train", "train", "train", "val", "test"]
    assert table["member"].tolist()[3:] == ["train_and_test/set/val/d.jpeg", "train_and_test/set/all/e.jpeg"]


def test_pairs_may_share_one_folder_named_after_a_split(tmp_path):
    made = pairs({"train": {"1_left": 0, "2_left": 1}, "test": {"3_left": 1, "4_left": 0}})
    made = {name.replace("/test/", "/train/"): data for name, data in made.items()}
    table = recognise(str(write_zip(tmp_path / "a.zip", made))).table
    assert dict(zip(table["original"], table["member"], strict=True)) == {
        "train_1_left": "set/train/1_left.jpeg",
        "train_2_left": "set/train/2_left.jpeg",
        "test_3_left": "set/train/3_left.jpeg",
        "test_4_left": "set/train/4_left.jpeg",
    }


def test_an_image_that_a_split_lacks_is_not_taken_from_another_split(tmp_path):
    made = pairs({"train": {"0": 0, "1": 1}, "test": {"0": 1, "1": 0}})
    del made["set/test/1.jpeg"]
    path = write_zip(tmp_path / "a.zip", made)
    message = "no image 1 of test (set/train/1.jpeg is of another split); add it"
    assert refusal(path) == f"{path}: set/test_img.csv, row 2: {message}"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_label.csv": b"0\n1\n"}, "set/train_img.csv has 3 rows, but set/train_label.csv has 2; write one"),
        ({"train_label.csv": b"0\n1\nx"}, "set/train_label.csv, row 3: label is 'x', expected a whole number from 0"),
        ({"train_label.csv": b"0\n1.5\n1"}, "set/train_label.csv, row 2: label is '1.5', expected a whole number from"),
        ({"train_label.csv": b"0,1\n1,2\n1,3"}, "set/train_label.csv, row 1: 2 values, expected one"),
        ({"train_img.csv": b"a\nb\nz"}, "set/train_img.csv, row 3: no image z; add it"),
        (
            {"train_img.csv": b"image\na\nb"},
            "set/train_img.csv, row 1: no image image; add it; these tables have no header",
        ),
        (
            {"train_img.csv": b"image\na\nb\nc", "train_label.csv": b"level\n0\n1\n1"},
            "set/train_label.csv, row 1: label is 'level', expected a whole number from 0; "
            "these tables have no header: remove this row if it is one",
        ),
        (
            {"train_img.csv": b"a\nb\na"},
            "set/train_label.csv, row 3: train_a has label 1, but 0 in row 1; keep one of them",
        ),
        ({"train_img.csv": b"", "train_label.csv": b""}, "set/train_img.csv is empty; expected an image name"),
        ({"test_img.csv": b"a"}, "test_label.csv is missing beside set/test_img.csv; add it"),
        (
            {"test_img.csv": b"a", "test_label.csv": b"6"},
            "set/train_label.csv: label: test has the class '6', which train lacks",
        ),
    ],
)
def test_wrong_pairs_are_refused_with_their_table_and_row(tmp_path, changed, message):
    made = pairs({"train": {"a": 0, "b": 1, "c": 1}}) | {f"set/{name}": data for name, data in changed.items()}
    made |= {"set/images/a.jpeg": b""} if "test_img.csv" in changed else {}
    made.pop("set/train/a.jpeg") if "test_img.csv" in changed else None
    path = write_zip(tmp_path / "a.zip", made)
    assert refusal(path).startswith(f"{path}: {message}")


# --- too few for a split ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (folders({"": {"a": 2, "b": 2}}), "only 0 images are left for validation; add images or patients, or"),
        (folders({"": {"a": 4, "b": 2}}), "only 1 images are left for validation; add images or patients, or"),
        (
            folders({"train/": {"a": 2, "b": 2}, "val/": {"a": 1}}),
            "only 1 images are left for validation; add images or patients, and run with --force",
        ),
        (
            folders({"train/": {"a": 3, "b": 3}, "test/": {"a": 1}}) | {"set/test/a/0.JPEG": b"broken"},
            "only 0 images are left for test (1 could not be read); add images or patients, and",
        ),
    ],
)
def test_a_split_with_too_few_images_is_refused_with_their_number_and_the_remedy(tmp_path, made, message):
    path = write_zip(tmp_path / "a.zip", made)
    with pytest.raises(UsageError) as refused:
        done(path, tmp_path)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert not (tmp_path / "kaggle_retina" / "report.json").exists()


def test_too_large_a_share_of_validation_leaves_nothing_to_train_on(tmp_path):
    path = write_zip(tmp_path / "a.zip", folders({"": {"a": 2, "b": 2}}))
    with pytest.raises(UsageError, match=r"only 0 images are left for training; .*, or use a smaller --val_fr"):
        done(path, tmp_path, settings=Settings(size=64, val_fraction=0.9))


def test_a_grade_that_validation_lacks_is_reported(tmp_path, no_plots):
    names = [f"{letter}_{number}" for letter in "pqr" for number in (0, 1)]  # two images of each patient
    rows = [(name, 0, name[0]) for name in names] + [(name, 1, name) for name in "abcdefgh"]
    path = write_folder(tmp_path / "mine", labelled(csv("id_code,diagnosis,person", rows), names=[*names, *"abcdefgh"]))
    report, _ = done(path, tmp_path, columns=Columns(patient="person"), settings=Settings(size=64, val_fraction=0.25))
    assert report["counts"]["validation"] == [2, 2, 0, 0, 0]
    report, _ = done(path, tmp_path / "b", columns=Columns(patient="person"), settings=Settings(size=64))
    assert report["counts"]["validation"] == [0, 2, 0, 0, 0]
    note = "note: grade 0 has no validation image, but 6 training images of main; the metrics do not cover it"
    assert summary_lines(report)[-1:] == [note]


def test_many_classes_that_validation_lacks_are_reported_in_one_line():
    counts = {"validation": [1] * 8 + [0] * 5, "train: main": [3] * 12 + [0]}
    settings = {"classes": [f"c{number}" for number in range(13)], "per_class": "all"}
    assert summary_lines({"settings": settings, "counts": counts, "below_per_class": {}})[2:] == [
        "note: 4 classes have no validation image: c8, c9, c10, ...",
    ]


# --- one label table ------------------------------------------------------------------------------


def labelled(text: str, *, names="abcdefgh", folder="photos/") -> dict[str, bytes]:
    return {"labels.csv": text.encode()} | {f"{folder}{name}.png": png(seed) for seed, name in enumerate(names)}


def csv(header: str, rows) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)])


def test_a_table_and_a_folder_of_images_are_enough(tmp_path, no_plots):
    rows = [(f"some/where/{name}.PNG", number % 2) for number, name in enumerate("abcdefgh")]
    path = write_folder(tmp_path / "mine", labelled(csv("id_code,diagnosis", rows)) | {"sample_submission.csv": b"x"})
    report, data = done(path, tmp_path)
    assert data.classes == GRADES
    assert report["counts"] == {"validation": [1, 1, 0, 0, 0], "train: main": [3, 3, 0, 0, 0]}
    assert report["settings"]["per_class"] == "all"


def test_both_eyes_stay_on_one_split_where_image_and_level_are_the_columns(tmp_path):
    text = csv("image,level", [("1_left", 0), ("1_right", 4), ("2_left", 1)])
    read = recognise(str(write_folder(tmp_path, labelled(text, names=("1_left", "1_right", "2_left"))))).table
    assert read["patient"].tolist() == ["1", "1", "2"]
    assert read["diagnosis"].tolist() == [0, 4, 1]


def test_a_column_of_patients_keeps_them_on_one_split(tmp_path, no_plots):
    rows = [(name, ("cow", "cat")[number % 2], number // 2) for number, name in enumerate("abcdefgh")]
    path = write_folder(tmp_path / "mine", labelled(csv("file,animal,person", rows)))
    columns = Columns(id="file", label="animal", patient="person")
    report, data = done(path, tmp_path, columns=columns, settings=Settings(size=64, val_fraction=0.5))
    assert data.classes == ("cat", "cow")
    assert report["counts"] == {"validation": [2, 2], "train: main": [2, 2]}
    assert not set(data.val["patient"]) & set(data.train["patient"])


def test_a_column_that_is_named_may_have_any_number_of_classes(tmp_path):
    path = str(write_folder(tmp_path, labelled(csv("id_code,diagnosis", zip("abcd", (0, 1, 1, 0), strict=True)))))
    assert recognise(path).classes == GRADES
    assert recognise(path, options=ReadOptions(columns=Columns(label="diagnosis"))).classes == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["0", "1", "2.0", "1"], ("0", "1", "2"), [0, 1, 2, 1]),
        (["No_DR", "DR", "DR", "No_DR"], ("No_DR", "DR"), [0, 1, 1, 0]),
        (["b10", "b9", "b9", "a"], ("a", "b9", "b10"), [2, 1, 1, 0]),
    ],
)
def test_labels_are_numbers_or_words(tmp_path, labels, classes, numbers):
    path = write_folder(tmp_path, labelled(csv("id_code,kind", zip("abcd", labels, strict=True))))
    source = recognise(str(path), options=ReadOptions(columns=Columns(label="kind")))
    assert source.classes == classes
    assert source.table["diagnosis"].tolist() == numbers


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("id_code,diagnosis\na,0\nb,5", {}, "labels.csv, row 3: diagnosis is '5', expected 0 to 4"),
        ("id_code,diagnosis\na,0\nb,x", {}, "labels.csv, row 3: diagnosis is 'x', expected 0 to 4"),
        ("id_code,diagnosis\na,\nb,nan", {}, "labels.csv: diagnosis has no labels; name the column of labels with"),
        ("id_code,diagnosis\na,DR\nb,No DR\nc,2", {}, "labels.csv, row 4: diagnosis is '2', but most labels"),
        ("id_code,diagnosis\na,cat\na,dog", {}, "labels.csv, row 3: a has diagnosis dog, but cat in row 2; keep one"),
        ("id_code,diagnosis\nx,0\ny,1", {}, "labels.csv: none of the 2 listed images is in"),
        ("name,kind\na,0", {}, "labels.csv: no column looks like grades (name,kind); name it with --label_column"),
        (
            "name,kind\na,0",
            {"id": "file"},
            "labels.csv: no column 'file' (the header is name,kind); correct --id_column",
        ),
        ("id_code,k\na,0\nb,2", {"label": "k"}, "labels.csv: k: no training image has the label 1, but some"),
        ("id_code,k\na,0\nb,-2", {"label": "k"}, "labels.csv, row 3: k is '-2', expected a whole number from 0"),
        ("image,level,p\na,0,1\nb,1,", {"patient": "p"}, "labels.csv, row 3: p is empty"),
        ("image,level\na,0\nb,1", {"patient": "p"}, "labels.csv: no column 'p' (the header is image,level)"),
    ],
)
def test_a_wrong_table_is_refused_with_its_row_and_column(tmp_path, text, columns, message):
    path = write_folder(tmp_path / "mine", labelled(text, names="ab"))
    assert refusal(path, columns=Columns(**columns)).startswith(f"{path}: {message}")


def test_folders_in_the_table_distinguish_images_of_one_name(tmp_path, no_plots):
    paths = [f"P{patient}/{eye}.png" for patient in range(6) for eye in ("left", "right")]
    members = {path: png(n, side_px=140) for n, path in enumerate(paths)}
    members |= {f"old/{path}": png(50) for path in paths[:2]}
    table = ["id_code,diagnosis", *(f"{path},{n % 3}" for n, path in enumerate(paths)), f"{paths[0]},0"]
    folder = write_folder(tmp_path / "clinic", {"photos/" + name: data for name, data in members.items()})
    (folder / "labels.csv").write_text("\n".join(table).replace("P0/left.png,0", "photos\\P0\\left.png,0", 1))
    both = "photos/P0/left.png and photos/old/P0/left.png"
    assert (
        refusal(folder) == f"{folder}: {both} both match P0/left in the table; add their folders to it, remove one, or "
        "choose a folder with --root"
    )
    for path in paths[:2]:
        (folder / "photos" / "old" / path).unlink()
    (folder / "labels.csv").write_text("\n".join(table))
    (folder / "photos" / "new.png").write_bytes(png(60, side_px=140))
    report, data = done(folder, tmp_path / "out")
    assert set().union(*originals(data).values()) == {path.removesuffix(".png").replace("/", "_") for path in paths}
    graded = pd.concat([data.train, data.val]).set_index("path")["diagnosis"]
    assert all(graded.filter(like=f"/{path[:2]}_{path[3:-4]}").item() == n % 3 for n, path in enumerate(paths))
    note = "note: skipped 1 images without a label: in no row of the table, or in no folder of a split or class"
    assert note in summary_lines(report)


def test_a_row_without_its_image_does_not_take_that_of_another_row(tmp_path):
    folder = write_folder(tmp_path / "clinic", {f"P{patient}/left.png": png(patient) for patient in (2, 3)})
    (folder / "labels.csv").write_text("id_code,diagnosis\nP1/left,4\nP2/left,0\nP3/left,1\n")
    read = recognise(str(folder)).table.set_index("original")
    assert read.index[read["member"].isna()].tolist() == ["P1_left"]
    assert read["member"].dropna().tolist() == ["P2/left.png", "P3/left.png"]
    (folder / "labels.csv").write_text("id_code,diagnosis\nleft,4\nP2/left,0\n")
    assert "P2/left.png and P3/left.png both match left in the table; add their folders to it" in refusal(folder)


def test_two_rows_for_one_image_or_one_name_are_refused(tmp_path):
    folder = write_folder(tmp_path / "clinic", {"P2/left.png": png(2), "a/x_1.png": png(3), "a_x/1.png": png(4)})
    (folder / "labels.csv").write_text("id_code,diagnosis\nleft,4\nP2/left,0\n")
    message = "labels.csv, row 3: P2/left and left in row 2 are one image; keep one of them"
    assert refusal(folder) == f"{folder}: {message}"
    (folder / "labels.csv").write_text("id_code,diagnosis\na/x_1,4\na_x/1,0\nb/1,2\n")
    assert "a_x/1 and a/x_1 in row 2 would have one name; keep one of them" in refusal(folder)


def test_both_eyes_in_a_folder_of_their_patient_are_one_patient(tmp_path):
    names = [f"P{patient}/{eye}.png" for patient in (1, 2) for eye in ("left", "right")]
    folder = write_folder(tmp_path / "clinic", {name: png(n) for n, name in enumerate(names)})
    (folder / "labels.csv").write_text("image,level\n" + "".join(f"{name},{n % 2}\n" for n, name in enumerate(names)))
    assert recognise(str(folder)).table["patient"].tolist() == ["P1", "P1", "P2", "P2"]


def test_images_outside_the_folders_of_the_table_are_found_by_name(tmp_path, no_plots):
    rows = [f"/home/me/images/{n}.png,{n % 2}" for n in range(8)]
    members = {f"images/{n}.png": png(n, side_px=140) for n in range(8)}
    folder = write_folder(tmp_path / "mine", members | {"labels.csv": "\n".join(["image,level", *rows]).encode()})
    _, data = done(folder, tmp_path / "out")
    assert set().union(*originals(data).values()) == {str(n) for n in range(8)}


def test_a_table_that_matches_no_image_is_refused_with_an_example_of_each(tmp_path):
    folder = write_folder(tmp_path / "mine", {"x00.png": png(0), "x01.png": png(1)})
    (folder / "labels.csv").write_text("id_code,diagnosis\n0,1\n1,0\n")
    assert "none of the 2 listed images is in" in refusal(folder)
    assert ": 0 does not match x00.png; pass the folder" in refusal(folder)


def test_folders_that_are_no_classes_beside_a_table_of_unknown_columns_are_refused_with_its_columns(tmp_path):
    members = {f"{name}/{n}.png": png(n) for name in ("old", "new") for n in range(4)} | {"stray.png": png(9)}
    folder = write_folder(tmp_path / "mine", members | {"Befunde.csv": b"Bild,Stadium\n0,x\n"})
    assert refusal(folder) == (
        f"{folder}: stray.png is in no class folder; move it to one, or remove it; or Befunde.csv: no column looks "
        "like grades (Bild,Stadium); name it with --label_column"
    )


def test_of_two_label_tables_one_that_repeats_the_other_is_left_out_else_the_user_chooses(tmp_path):
    text = "id_code,diagnosis\na,0\nb,1"
    path = write_folder(tmp_path, labelled(text) | {"more/again.csv": text.encode()})
    assert "more/again.csv: not used, labels.csv has all its images and labels" in recognise(str(path)).notes
    (path / "more" / "again.csv").write_text("id_code,diagnosis\na,0\nb,2")
    message = "labels.csv and more/again.csv label b differently; choose one, as --table labels.csv"
    assert refusal(path) == f"{path}: {message}"
    chosen = recognise(str(path), options=ReadOptions(table="again.csv")).table
    assert chosen["diagnosis"].tolist() == [0, 2]


def test_images_missing_from_a_folder_are_listed_and_the_others_preprocessed(tmp_path, no_plots):
    rows = [(name, number % 2) for number, name in enumerate("abcdefghz")]
    report, _ = done(write_folder(tmp_path / "mine", labelled(csv("id_code,diagnosis", rows))), tmp_path)
    missing = {"source": "main", "original": "z", "reason": "the archive lacks its file"}
    assert report["skipped"] == [missing]


# --- one class ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (folders({"": {"No_DR": 2, "no dr": 2}}), "No DR"),
        (folders({"train/": {"No_DR": 2, "no dr": 2}, "val/": {"No DR": 1}}), "No DR"),
        (folders({"train/": {"cat": 2}, "val/": {"cat": 1}}), "cat"),
        (labelled("id_code,diagnosis\na,0\nb,0"), "No DR"),
        (labelled("id_code,diagnosis\na,cat\nb,cat"), "cat"),
        ({"train.csv": b"id_code,diagnosis\na,2\nb,2"} | {"train/a.png": b""}, "Moderate"),
        (pairs({"train": {"a": 0, "b": 0}, "test": {"c": 0}}), "0"),
    ],
    ids=["spellings", "spellings of splits", "folders", "grades", "words", "competition archive", "pairs"],
)
def test_one_class_is_too_few_whatever_holds_it(tmp_path, made, name):
    path = write_zip(tmp_path / "a.zip", made)
    assert refusal(path) == f"{path}: all its images are of the class {name!r}; add images of at least one other class"


def test_one_class_of_a_medmnist_file_is_too_few(tmp_path):
    path = write_npz(tmp_path / "a.npz", arrays(num_classes=1))
    assert refusal(path) == f"{path}: all its images are of the class '0'; add images of at least one other class"


# --- what is taken for what -----------------------------------------------------------------------


def test_the_competition_archive_is_recognised_first(tmp_path, main_members, zips):
    assert recognise(str(zips[0])).kind == "competition archive"
    more = {"kaggle_retina/train_img.csv": b"", "kaggle_retina/other.csv": b"id_code,diagnosis\n"}
    assert recognise(str(write_zip(tmp_path / "a.zip", main_members | more))).kind == "competition archive"


def test_images_without_labels_are_not_a_known_format(tmp_path):
    for name in ("x.png", "train/x.png", "set/images/x.png"):
        path = write_folder(tmp_path / name.replace("/", "_"), {name: png(0)})
        message = refusal(path)
        assert message.startswith(f"{path}: format not recognised; expected one of: a MedMNIST .npz; train.csv")
        remedy = "to grade images without labels use predict.py; data.py needs a label table or class folders"
        assert message.endswith(f"folders named after classes, in train/ or not; {remedy}")


@pytest.mark.parametrize("name", ["x.png", "set/x.png"])
def test_an_image_beside_the_class_folders_is_named(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", folders({"": {"cat": 2, "dog": 2}}) | {name: png(0)})
    assert refusal(path) == f"{path}: {name} is in no class folder; move it to one, or remove it"


def test_many_images_beside_two_folders_are_no_classes(tmp_path):
    path = write_zip(
        tmp_path / "a.zip", folders({"": {"cat": 1, "dog": 1}}) | {f"set/{n}.png": png(n) for n in range(9)}
    )
    assert refusal(path).startswith(f"{path}: format not recognised")


def test_files_that_are_not_images_are_refused_with_the_suffixes_of_images(tmp_path):
    path = write_zip(tmp_path / "a.zip", folders({"": {"cat": 2, "dog": 2}}, suffix=".gif"))
    endings = ".bmp .dcm .dicom .heic .heif .jfif .jp2 .jpeg .jpg .png .tif .tiff .webp"
    message = f"none of its files ends in {endings} (most end in .gif); add or convert them"
    assert refusal(path) == f"{path}: no images: {message}"
    (tmp_path / "empty").mkdir()
    assert f"none of its files ends in {endings}; add or convert them" in refusal(tmp_path / "empty")


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [("id_code", "diagnosis"), ("Image", "Level")])
def test_a_table_is_read_whatever_separates_its_columns_and_with_known_ones_in_capitals(tmp_path, mark, header):
    text = "\n".join(mark.join(row) for row in (header, *((name, str(n % 2)) for n, name in enumerate("abcd"))))
    table = recognise(str(write_folder(tmp_path / "mine", labelled(text, names="abcd")))).table
    assert dict(zip(table["original"], table["diagnosis"], strict=True)) == {"a": 0, "b": 1, "c": 0, "d": 1}


def test_both_eyes_are_one_patient_in_any_table_without_a_column_of_patients(tmp_path):
    names = ["1_left", "1_RIGHT", "2_Left", "other"]
    text = csv("id_code,diagnosis", [(name, number % 2) for number, name in enumerate(names)])
    table = recognise(str(write_folder(tmp_path / "mine", labelled(text, names=names)))).table
    assert table["patient"].tolist() == ["1", "1", "2", None]


def graded_splits(*, labels=(0, 1, 2, 3, 4), columns="id_code,diagnosis", tables=("train", "val", "test")):
    """{member: bytes} of a table for each split, with its images beside it; names are used again."""
    made = {}
    for turn, name in enumerate(tables):
        count = 10 if turn == 0 else 5
        made[f"{name}.csv"] = csv(columns, [(number, labels[number % 5]) for number in range(count)]).encode()
        made |= {f"{name}/{number}.png": png(100 * turn + number) for number in range(count)}
    return made


@pytest.mark.parametrize("tables", [("train", "val", "test"), ("train_1", "valid", "test_2"), ("Training", "testing")])
def test_tables_of_splits_keep_their_images(tmp_path, no_plots, tables):
    path = write_folder(tmp_path / "mine", graded_splits(tables=tables))
    source = recognise(str(path))
    expected = {"train": 10, "val": 5, "test": 5} if len(tables) == 3 else {"train": 10, "test": 5}
    assert source.table["source_split"].value_counts().to_dict() == expected
    assert (source.kind, source.unlabelled) == ("label table", 0)
    folders_of = dict(zip(expected, tables, strict=True))
    for row in source.table.itertuples():
        assert row.member == f"{folders_of[row.source_split]}/{row.original.removeprefix(f'{row.source_split}_')}.png"
    if len(tables) == 3:
        _, data = done(path, tmp_path)
        assert [len(data.train), len(data.val), len(data.test)] == [10, 5, 5]


def test_one_image_in_tables_of_two_splits_is_reported_with_both(tmp_path):
    made = {"train.csv": b"id_code,diagnosis\na,0\nb,1", "test.csv": b"id_code,diagnosis\nb,1\nc,0"}
    path = write_folder(tmp_path / "mine", made | {f"images/{name}.png": png(n) for n, name in enumerate("abc")})
    assert refusal(path) == (
        f"{path}: test.csv, row 2: b and b in {path}: train.csv, row 3 are one image; keep one of them"
    )


def test_words_in_tables_of_splits_are_one_set_of_classes(tmp_path):
    made = graded_splits(labels=("cat", "dog", "cat", "dog", "emu"), columns="id_code,diagnosis")
    source = recognise(str(write_folder(tmp_path / "mine", made)))
    assert source.classes == ("cat", "dog", "emu")
    assert source.table.groupby("source_split")["diagnosis"].nunique().to_dict() == {"train": 3, "val": 3, "test": 3}
    path = write_folder(tmp_path / "other", made | {"val.csv": b"id_code,diagnosis\n0,yak\n1,cat"})
    assert "val has the class 'yak', which train lacks" in refusal(path)


def test_several_tables_that_name_no_splits_are_refused_with_the_remedy(tmp_path):
    path = write_folder(tmp_path / "mine", graded_splits(tables=("one", "two")))
    assert refusal(path) == (
        f"{path}: one.csv and two.csv both name 0, which is in several folders; choose one, as --table one.csv"
    )


def test_a_table_of_grades_of_which_some_have_no_image_is_reported(tmp_path, no_plots):
    text = csv("id_code,diagnosis", [(name, number % 2) for number, name in enumerate("abcdefgh")])
    report, _ = done(write_folder(tmp_path / "mine", labelled(text)), tmp_path)
    assert summary_lines(report)[2] == (
        "note: no image has grade 2, 3, 4; if the labels are not grades, pass their column with --label_column"
    )


def test_clinics_are_not_taken_for_classes_where_each_holds_the_grades(tmp_path):
    made = {f"{place}/{grade}/{n}.png": png(n) for place in ("siteA", "siteB") for grade in range(5) for n in range(2)}
    path = write_folder(tmp_path / "sites", made)
    assert refusal(path) == (
        f"{path}: the folders siteA, siteB each hold folders such as 0, 1, 2, 3, 4; pass one of them, or put "
        "the images of each grade into one folder"
    )
    made = {f"{grade}/{place}/{n}.png": png(n) for place in ("cam0", "cam1") for grade in range(5) for n in range(2)}
    assert recognise(str(write_folder(tmp_path / "cameras", made))).classes == GRADES


def test_images_in_no_folder_of_a_split_are_counted_and_reported(tmp_path, no_plots):
    made = folders({"train/": {"0": 3, "1": 3}, "val/": {"0": 2, "1": 2}}, root="batch1/")
    more = {f"batch2/train/{grade}/{n}.png": png(50 + n) for grade in (0, 1) for n in range(3)}
    report, _ = done(write_folder(tmp_path / "mine", made | more), tmp_path)
    assert report["unlabelled_images"] == {}
    assert recognise(str(tmp_path / "mine")).notes[:1] == (
        "2 folders hold splits: batch1 is used, 6 images are not; for another use --root batch2",
    )


@pytest.mark.parametrize("encoding", ["latin-1", "cp437"])
def test_a_table_in_another_encoding_is_reported_where_it_may_be_meant(tmp_path, encoding):
    text = "id_code,diagnosis,größe\na,0,1\nb,1,1\n".encode(encoding)
    images = {f"photos/{name}.png": png(seed) for seed, name in enumerate("ab")}
    path = write_folder(tmp_path / "alone", {"labels.csv": text} | images)
    for columns in (Columns(), Columns(id="id_code")):
        assert refusal(path, columns=columns).startswith(f"{path}: labels.csv: not UTF-8 text (byte ")
    path = write_folder(tmp_path / "split", graded_splits() | {"test.csv": text})
    assert refusal(path).startswith(f"{path}: test.csv: not UTF-8 text (byte ")
    content = graded_splits(tables=("train", "val")) | {"val/test.csv": text, "test_notes.csv": text}
    assert recognise(str(write_folder(tmp_path / "elsewhere", content))).kind == "label table"
    content = {"labels.csv": b"name,kind\na,0", "notes.csv": text} | images
    path = write_folder(tmp_path / "other", content)
    assert "labels.csv: no column 'nam' (the header is name,kind)" in refusal(path, columns=Columns(id="nam"))


def test_a_table_in_another_encoding_does_not_hide_class_folders(tmp_path):
    made = folders({"": {"cat": 1, "dog": 1}}) | {"set/cat/notes.csv": "größe\n1\n".encode("latin-1")}
    assert recognise(str(write_folder(tmp_path, made))).kind == "class folders"


def test_2015_tops_up_graded_images_of_any_kind_and_nothing_else(tmp_path, zips, no_plots):
    path = write_npz(tmp_path / "retina.npz", arrays())
    report, _ = done(path, tmp_path, extra=zips[1])
    assert report["counts"]["train: 2015"] == [4] * 5
    assert report["counts"]["validation"] == [1] * 5
    pets = write_zip(tmp_path / "pets.zip", folders({"": {"cat": 1, "dog": 1}}))
    with pytest.raises(UsageError, match=r"2015\.zip: .* the 5 grades of retinopathy, but \S+pets\.zip has 2 cl"):
        open_sources(str(pets), str(zips[1]))


def test_2015_is_expected_beside_the_competition_archive_alone(tmp_path, zips, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(open_sources(str(write_npz(tmp_path / "retina.npz", arrays())))) == ["retina"]
    with pytest.raises(UsageError, match=r"^train_image_resized\.zip: 2015 archive not found; .* or use -a none"):
        open_sources(str(zips[0]))
    assert list(open_sources(str(zips[0]), "none")) == ["main"]


# --- cropping and going on ------------------------------------------------------------------------


def test_without_cropping_the_whole_frame_is_kept_and_padded(tmp_path, no_plots):
    images = [draw_retina(shape=(150, 200), radius=60, seed=seed)[0] for seed in range(4)]
    made = {f"{'ab'[number % 2]}/{number}.png": encode(image) for number, image in enumerate(images)}
    path = write_folder(tmp_path / "mine", made)
    frames = {}
    for crop in (True, False):
        settings = Settings(size=200, val_fraction=0.5, crop=crop)
        report, data = done(path, tmp_path / str(crop), settings=settings)
        assert report["duplicates"]["images"] == 0  # their rims are alike, and are not compared
        records = [json.loads(line) for line in (data.root / "preprocessed.jsonl").read_text().splitlines() if line]
        frames[crop] = {record["original"]: record["box"] for record in records}
        assert data.crop == crop
    assert frames[True]["0"] != [0, 0, 200, 150]
    assert frames[False]["0"] == [0, 0, 200, 150]
    written = next(path for path in data.root.glob("*/*0.jpeg"))
    assert cv2.imread(str(written)).shape == (200, 200, 3)


def test_another_source_replaces_a_test_split_only_with_force(tmp_path, no_plots):
    first = write_npz(tmp_path / "retina.npz", arrays())
    done(first, tmp_path / "data")
    second = open_sources(str(write_zip(tmp_path / "pets.zip", folders({"": {"cat": 4, "dog": 4}}))))
    with pytest.raises(
        UsageError, match=r"preprocessed with sources retina\.npz, not pets\.zip; .*, or replace it with --force"
    ):
        preprocess_sources(second, directory=str(tmp_path / "data"), settings=SETTINGS, workers=1)
    preprocess_sources(second, directory=str(tmp_path / "data"), settings=SETTINGS, workers=1, force=True)
    data = read_preprocessed(tmp_path / "data")
    assert data.classes == ("cat", "dog")
    assert data.test is None
    assert not (data.root / "test").exists()


def test_a_finished_source_with_a_test_split_is_left_as_it_is_until_a_test_image_is_gone(tmp_path, no_plots):
    path = write_npz(tmp_path / "retina.npz", arrays())
    report, data = done(path, tmp_path)
    assert done(path, tmp_path)[0] == report | {"already_finished": True}
    (data.root / data.test["path"].iloc[0]).unlink()
    again, _ = done(path, tmp_path)
    assert "already_finished" not in again
    assert again["sha256"] == report["sha256"]


def test_the_fingerprint_covers_the_test_split(tmp_path, no_plots):
    _, first = done(write_npz(tmp_path / "a.npz", arrays()), tmp_path / "a")
    turned = arrays()["test_labels"][::-1]
    _, second = done(write_npz(tmp_path / "b.npz", arrays(test_labels=turned)), tmp_path / "b")
    assert first.train.equals(second.train)
    assert first.fingerprint != second.fingerprint


def test_many_classes_that_cannot_be_filled_are_reported_in_one_line():
    counts = {"validation": [1] * 12, "train: main": [3] * 12}
    short = {str(number): 3 for number in range(12)}
    settings = {"classes": [f"c{number}" for number in range(12)], "per_class": 5}
    assert summary_lines({"settings": settings, "counts": counts, "below_per_class": short}) == [
        "validation    12 images of 12 classes",
        "train: main   36 images of 12 classes",
        "note: 12 classes have fewer than 5 training images; no more are available",
    ]
