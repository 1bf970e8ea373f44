"""Synthetic archives: layout, determinism, and images whose grade shows in their lesions alone."""

import subprocess
import sys
import zipfile
from pathlib import PurePosixPath

import cv2
import numpy as np
import pandas as pd
import pytest

from dr import UsageError
from dr.cli.run import run_main
from dr.synthetic import demo, drawing
from dr.synthetic.eye import random_eye

SMALL = {"main": 40, "extra": 40, "test": 20, "size_px": (96, 128)}
TRAIN, TEST, EXTRA = "kaggle_retina/train", "kaggle_retina/test", "train_image_resized/train"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "new"
    demo.make_archives(folder, seed=3, **SMALL)
    return folder


@pytest.fixture(scope="module")
def tables(made):
    with zipfile.ZipFile(made / demo.MAIN_ZIP) as main, zipfile.ZipFile(made / demo.EXTRA_ZIP) as extra:
        return {
            TRAIN: pd.read_csv(main.open("kaggle_retina/train.csv"), dtype={"id_code": str}),
            TEST: pd.read_csv(main.open("kaggle_retina/sample_submission.csv"), dtype={"id_code": str}),
            EXTRA: pd.read_csv(extra.open("train_image_resized/trainLabels.csv"), dtype={"image": str}),
        }


@pytest.fixture(scope="module")
def members(made):
    """{folder: {stem: bytes of an image}}."""
    members = {}
    for name in (demo.MAIN_ZIP, demo.EXTRA_ZIP):
        with zipfile.ZipFile(made / name) as packed:
            for member in map(PurePosixPath, packed.namelist()):
                if member.suffix != ".csv":
                    members.setdefault(str(member.parent), {})[member.stem] = packed.read(str(member))
    return members


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def draw(grade, seed, **options):
    return drawing.fundus_image(grade, rng=np.random.default_rng(seed), size_px=(200, 260), **options)


def test_the_archives_have_the_layout_of_the_real_ones(made, tables, members):
    assert list(tables[TRAIN]) == list(tables[TEST]) == ["id_code", "diagnosis"]
    assert list(tables[EXTRA]) == ["image", "level"]
    assert tables[TRAIN]["id_code"].str.fullmatch("[0-9a-f]{12}").all()
    assert tables[EXTRA]["image"].str.fullmatch(r"[0-9]+_(left|right)").all()
    with zipfile.ZipFile(made / demo.MAIN_ZIP) as main, zipfile.ZipFile(made / demo.EXTRA_ZIP) as extra:
        assert {PurePosixPath(name).suffix for name in main.namelist()} == {".csv", ".png"}
        assert {PurePosixPath(name).suffix for name in extra.namelist()} == {".csv", ".jpeg"}
    assert {folder: len(images) for folder, images in members.items()} == {TRAIN: 40, TEST: 20, EXTRA: 40}


def test_every_row_has_its_image_and_every_image_its_row(tables, members):
    for folder, table in tables.items():
        assert sorted(table.iloc[:, 0]) == sorted(members[folder])


def test_every_image_can_be_decoded(members):
    for images in members.values():
        for data in images.values():
            height, width, _ = decoded(data).shape
            assert 96 <= width <= 128
            assert 0.6 * width < height <= width


def test_the_grades_of_the_test_images_are_outside_the_archives(made, tables):
    truth = pd.read_csv(made / demo.TEST_TRUTH, dtype={"id_code": str})
    assert list(truth) == ["id_code", "diagnosis"]
    assert truth["id_code"].tolist() == tables[TEST]["id_code"].tolist()
    assert set(truth["diagnosis"]) == {0, 1, 2, 3, 4}
    assert set(tables[TEST]["diagnosis"]) == {0}


@pytest.mark.parametrize(
    ("total", "shares", "counts"),
    [
        (300, demo.MAIN_SHARES, [126, 36, 66, 33, 39]),
        (100, demo.MAIN_SHARES, [42, 12, 22, 11, 13]),
        (240, demo.EXTRA_SHARES, [78, 43, 43, 38, 38]),
        (100, demo.TEST_SHARES, [28, 18, 22, 16, 16]),
        (10, demo.MAIN_SHARES, [5, 1, 2, 1, 1]),
    ],
)
def test_grades_are_as_imbalanced_as_in_practice_but_none_is_absent(total, shares, counts):
    assert np.bincount(demo._grades(total, shares)).tolist() == counts


def test_the_smallest_archives_can_be_made(tmp_path):
    demo.make_archives(tmp_path, main=10, extra=10, test=10, size_px=(64, 65))
    assert len(pd.read_csv(tmp_path / demo.TEST_TRUTH)) == 10


def test_equal_seeds_give_equal_bytes_whatever_the_number_of_threads(made, tmp_path, monkeypatch):
    monkeypatch.setattr(demo.os, "cpu_count", lambda: 1)
    demo.make_archives(tmp_path, seed=3, **SMALL)
    for name in (demo.MAIN_ZIP, demo.EXTRA_ZIP, demo.TEST_TRUTH):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_another_seed_gives_other_images():
    assert np.array_equal(draw(2, 0), draw(2, 0))
    assert draw(2, 0).shape != draw(2, 1).shape or not np.array_equal(draw(2, 0), draw(2, 1))


def test_two_images_have_duplicates_and_one_has_conflicting_grades(tables, members):
    table = tables[TRAIN].assign(data=[members[TRAIN][name] for name in tables[TRAIN]["id_code"]])
    pairs = [group["diagnosis"].tolist() for _, group in table.groupby("data") if len(group) > 1]
    assert sorted(sorted(pair) for pair in pairs) == [[0, 0], [0, 0], [1, 2]]


def test_one_image_of_2015_is_a_main_image_encoded_again(members):
    mains, extras = ([decoded(data) for data in members[folder].values()] for folder in (TRAIN, EXTRA))
    alike = [
        (i, j)
        for i, main in enumerate(mains)
        for j, extra in enumerate(extras)
        if main.shape == extra.shape and cv2.absdiff(main, extra).mean() < 6
    ]
    assert len(alike) == 1


def test_most_patients_of_2015_have_both_eyes_and_similar_grades(tables):
    table = tables[EXTRA]
    eyes = table.groupby(table["image"].str.partition("_")[0])["level"].agg(["size", "min", "max"])
    assert eyes["size"].max() == 2
    assert 0.5 < (eyes["size"] == 2).mean() < 1
    assert (eyes["max"] - eyes["min"]).mean() < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_images_of_two_grades_differ_in_their_lesions_alone(seed):
    healthy = draw(0, seed)
    # a few pixels away from the rim, which is soft
    surround = cv2.erode((healthy.max(axis=2) < 12).astype(np.uint8), np.ones((7, 7)))
    assert surround.any()
    changed = []
    for grade in (1, 2, 3, 4):
        ill = draw(grade, seed)
        assert ill.shape == healthy.shape
        difference = cv2.absdiff(ill, healthy).max(axis=2)
        assert not difference[surround > 0].any()  # noise is the same
        changed.append((difference > 6).mean())
    assert 0 < changed[0] < 0.02
    assert changed[0] < changed[1] < changed[2] < 0.35
    assert changed[0] < changed[3] < 0.35


def test_illumination_and_framing_do_not_reveal_the_grade():
    grades = np.repeat(np.arange(5), 12)
    images = [draw(grade, i) for i, grade in enumerate(grades)]
    for measure in (lambda p: p.shape[1], lambda p: p.shape[0] / p.shape[1], lambda p: p.mean()):
        values = np.array([measure(p) for p in images])
        assert abs(np.corrcoef(values, grades)[0, 1]) < 0.35  # 60 unrelated pairs exceed this once in 150


def test_a_left_eye_has_its_disc_on_the_left():
    for laterality, sign in (("left", 1), ("right", -1)):
        eye = random_eye(np.random.default_rng(0), 100, laterality)
        assert sign * (eye.macula[0] - eye.disc[0]) > 0.5


def test_an_existing_archive_is_never_replaced(made):
    before = (made / demo.MAIN_ZIP).read_bytes()
    with pytest.raises(UsageError, match=r"score-4\.zip: already exists; remove it"):
        demo.make_archives(made, **SMALL)
    assert (made / demo.MAIN_ZIP).read_bytes() == before


def run(monkeypatch, capsys, *arguments):
    """-> exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["dr.synthetic.demo", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run_main(demo.main, go_on="start again")
    return stopped.value.code, *capsys.readouterr()


def test_a_perfect_result_scores_one_in_any_order(made, tmp_path, monkeypatch, capsys):
    truth = pd.read_csv(made / demo.TEST_TRUTH, dtype=str)
    truth.iloc[::-1].to_csv(tmp_path / "result.csv", index=False)
    arguments = ("score", "--truth", made / demo.TEST_TRUTH, "--result", tmp_path / "result.csv")
    assert run(monkeypatch, capsys, *arguments) == (0, "macro-F1 1.000 on 20 images\n", "")


def test_the_sample_submission_scores_the_f1_of_one_grade(made, tables, tmp_path):
    tables[TEST].to_csv(tmp_path / "sample.csv", index=False)
    share = (pd.read_csv(made / demo.TEST_TRUTH)["diagnosis"] == 0).mean()
    assert demo.score(made / demo.TEST_TRUTH, tmp_path / "sample.csv") == pytest.approx(
        (2 * share / (1 + share) / 5, 20)
    )


def test_a_result_without_some_images_is_refused(made, tables, tmp_path):
    tables[TEST].iloc[2:].to_csv(tmp_path / "result.csv", index=False)
    with pytest.raises(UsageError, match=f"2 of 20 images have no grade, first {tables[TEST]['id_code'][0]}"):
        demo.score(made / demo.TEST_TRUTH, tmp_path / "result.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("make", "new", "--images", "9"), "error: a synthetic archive needs at least 10 images, got 9\n"),
        (("make", "new", "--seed", "-1"), "error: --seed must be 0 or more, got -1\n"),
        (("make", "file"), "error: file: is a file; pass a folder\n"),
        (("score", "--truth", "none.csv", "--result", "file"), "error: none.csv: cannot be read"),
        (("score", "--truth", "file"), "error: the following arguments are required: --result"),
        ((), "error: the following arguments are required: command"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_archives_are_made_without_torch():
    code = "import sys, dr.synthetic.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0
