"""The Python API grades as predict.py does, also if threads share it."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, checkpoint_content, draw_fundus, write_checkpoint, write_images

from dr import Grader, UsageError
from dr.core import device
from dr.imaging import fundus, novelty
from dr.prediction.options import PredictOptions
from dr.prediction.pipeline import predict
from dr.recipes.load import from_dict

ROOT = Path(__file__).parents[2]
THRESHOLDS = (-0.5, 0.0, 0.5, 1.0)


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Compute in float32 on any machine, because tests compare scores."""
    monkeypatch.setattr(device, "best_precision", lambda _: "fp32")


def save(path: Path, *, thresholds=THRESHOLDS, seed=1, **options) -> str:
    """A checkpoint with random weights, a calibration and a reference of training images."""
    torch.manual_seed(seed)
    content = checkpoint_content(from_dict(TINY.to_dict() | options), thresholds=thresholds)
    rows = np.array([novelty.measure(draw_fundus(seed % 5, seed=seed)) for seed in range(60)])
    write_checkpoint(path, content | {"training_reference": novelty.fit(rows).to_dict()})
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("weights") / "tiny__best.pt")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Seven images and one file that is not an image, in the order of their names."""
    folder = tmp_path_factory.mktemp("graded") / "images"
    write_images(folder, [0, 1, 2, 3, 4, 0, 1], side_px=160)
    (folder / "bad.png").write_text("not an image")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def grader(model) -> Grader:
    return Grader.load(model, device="cpu")


def predicted(models, folder, out, **options) -> pd.DataFrame:
    """details.csv of predict.py."""
    given = {"models": models, "images": str(folder), "output": str(out), "workers": 0, "device": "cpu"}
    predict(PredictOptions(**given | options))
    return pd.read_csv(out / "details.csv", keep_default_na=False, dtype=str)


def as_written(table: pd.DataFrame, out: Path) -> pd.DataFrame:
    """The table of `grade` in the form of details.csv, with names in place of paths."""
    table.assign(file=[Path(file).name for file in table["file"]]).to_csv(out, index=False)
    return pd.read_csv(out, keep_default_na=False, dtype=str)


@pytest.mark.parametrize(
    ("recipes", "options"),
    [
        ([{}], {}),
        ([{"objective": "classification", "loss": None}], {"tta": "flips", "tta_by": "vote"}),
        ([{"objective": "ordinal", "loss": None, "crop_size": 48}], {"tta": "ten"}),
        ([{}, {"image_size": 48}], {"batch_size": 3}),
        ([{}], {"engine": "openvino"}),
    ],
    ids=["one", "vote", "crop", "ensemble", "openvino"],
)
def test_grade_equals_details_csv_to_the_last_digit(recipes, options, images, tmp_path):
    if options.get("engine") == "openvino":
        pytest.importorskip("openvino")
    models = []
    for seed, recipe in enumerate(recipes, start=1):
        thresholds = None if recipe.get("objective") == "classification" else THRESHOLDS
        models.append(save(tmp_path / f"{seed}.pt", thresholds=thresholds, seed=seed, **recipe))
    expected = predicted(models, images[0].parent, tmp_path / "out", **options)
    table = Grader.load(models, device="cpu", **options).grade(images)
    pd.testing.assert_frame_equal(as_written(table, tmp_path / "table.csv"), expected)


def test_rows_keep_the_order_of_the_images_and_bad_images_have_an_error(grader, images):
    sources = [images[3], str(images[0]), "missing.png", images[3].read_bytes(), b"", images[1].parent]
    table = grader.grade(sources)
    assert table["file"].tolist() == [
        str(images[3]), str(images[0]), "missing.png", "image_3", "image_4", str(images[1].parent)
    ]  # fmt: skip
    assert table.loc[0, "score"] == table.loc[3, "score"]
    assert table["grade"].isna().tolist() == [False, True, True, False, True, True]
    assert table["error"].tolist()[2] == "file not found"
    assert table["error"].tolist()[4:] == ["the file is empty", "a folder, not an image"]
    assert "not an image" in table["error"][1]


def test_paths_bytes_and_pixels_of_one_image_get_one_score(grader, images):
    pixels = cv2.imread(str(images[2]))[..., ::-1]
    table = grader.grade([images[2], images[2].read_bytes(), pixels, np.ascontiguousarray(pixels)])
    assert table.drop(columns="file").drop_duplicates().shape[0] == 1
    assert table["file"].tolist()[1:] == ["image_1", "image_2", "image_3"]
    assert "has no pixels" in grader.grade([np.empty((0, 4, 3), np.uint8)])["error"][0]


def test_an_empty_list_gives_an_empty_table_with_the_same_columns(grader, images):
    assert grader.grade([]).columns.tolist()[:4] == ["file", "score", "grade", "class"]
    assert len(grader.grade([])) == 0
    assert set(grader.grade([])) <= set(grader.grade(images))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("a.png", r"images: str; pass a list of paths, bytes or arrays, as \[image\]"),
        (b"...", "images: bytes; pass a list"),
        (np.zeros((4, 4, 3), np.uint8), "images: ndarray; pass a list"),
        (7, "images: int; pass a list"),
        ([7], r"images\[0\]: int; pass a path, the bytes of a file, or pixels \(H, W, 3\) uint8 RGB"),
        (["a.png", np.zeros((4, 4, 3))], r"images\[1\]: an array of shape \(4, 4, 3\) and type float64; pass"),
        ([np.zeros((4, 4), np.uint8)], r"images\[0\]: an array of shape \(4, 4\) and type uint8; pass"),
    ],
)
def test_what_is_not_a_list_of_images_is_a_usage_error(grader, wrong, message):
    with pytest.raises(UsageError, match=message):
        grader.grade(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tta": "flip"}, "tta: 'flip'; use none, flips, d4, five or ten"),
        ({"tta_by": "max"}, "tta_by: 'max'; use mean or vote"),
        ({"engine": "tensorrt"}, "engine: 'tensorrt'; use auto, torch or openvino"),
        ({"batch_size": 0}, "batch_size: 0; use an integer of at least 1"),
        ({"batch_size": True}, "batch_size: True; use an integer"),
        ({"device": "tpu:7"}, "device tpu:7: torch finds no such device"),
    ],
)
def test_an_unknown_option_is_a_usage_error_that_lists_the_known_ones(model, options, message):
    with pytest.raises(UsageError, match=message):
        Grader.load(model, **{"device": "cpu"} | options)


def test_no_checkpoint_and_a_missing_one_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint; pass the path of at least one"):
        Grader.load([])
    with pytest.raises(UsageError, match=r"none\.pt"):
        Grader.load(tmp_path / "none.pt")


# --- explain --------------------------------------------------------------------------------------


def test_the_heat_has_the_size_of_the_image_and_is_zero_outside_of_the_retina(grader, tmp_path):
    wide = np.zeros((220, 420, 3), np.uint8)
    wide[10:210, 30:230] = draw_fundus(4, seed=1, side_px=200)
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    heat = grader.explain(tmp_path / "wide.png")
    assert (heat.shape, heat.dtype) == ((220, 420), np.float32)
    assert heat.min() == 0
    assert 0.5 < heat.max() <= 1
    x0, y0, x1, y1 = fundus.find_retina(wide).box
    inside = np.zeros(heat.shape, bool)
    inside[y0:y1, x0:x1] = True
    assert heat[~inside].max() == 0
    assert x1 < 240


def test_the_heat_of_a_camera_original_refers_to_all_of_its_pixels(grader, tmp_path):
    """The JPEG is decoded at a reduced scale; the heat map has its full size."""
    original = cv2.resize(draw_fundus(3, seed=2, side_px=200), (1700, 1700))
    cv2.imwrite(str(tmp_path / "original.jpg"), original)
    heat = grader.explain((tmp_path / "original.jpg").read_bytes())
    assert heat.shape == (1700, 1700)
    small = grader.explain(cv2.resize(original, (850, 850))[..., ::-1])
    assert np.corrcoef(cv2.resize(heat, (850, 850)).ravel(), small.ravel())[0, 1] > 0.9


def test_the_heat_moves_with_the_retina(grader):
    """The same retina further to the right has the same heat further to the right."""
    retina = draw_fundus(4, seed=3, side_px=200)[..., ::-1]
    left, right = np.zeros((2, 240, 500, 3), np.uint8)
    left[20:220, 10:210] = retina
    right[20:220, 260:460] = retina
    heats = [grader.explain(each) for each in (left, right)]
    assert np.abs(heats[0][:, :240] - heats[1][:, 250:490]).mean() < 0.05


def test_a_grade_can_be_chosen_and_a_centre_crop_is_where_the_heat_is(images, tmp_path):
    path = save(tmp_path / "m.pt", objective="classification", loss=None, thresholds=None, crop_size=32)
    grader = Grader.load(path, device="cpu")
    heats = [grader.explain(images[4], grade=grade) for grade in range(5)]
    assert max(np.abs(heats[0] - heat).max() for heat in heats) > 0.1
    own = int(grader.grade([images[4]])["grade"][0])
    assert np.array_equal(grader.explain(images[4]), heats[own])
    side = heats[0].shape[0]
    assert all(heat[: side // 5].max() == 0 and heat[:, -side // 5 :].max() == 0 for heat in heats)
    with pytest.raises(UsageError, match="grade: 5; use 0, 1, 2, 3 or 4"):
        grader.explain(images[4], grade=5)


def test_an_image_that_cannot_be_graded_cannot_be_explained(grader, images):
    for image, message in (("missing.png", "missing.png: file not found"), (images[0], "bad.png: .*not an image"),
                           (b"", "image_0: the file is empty; pass another image")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            grader.explain(image)


# --- threads and start ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_eight_threads_share_one_grader_and_get_the_same_tables_and_maps(model, images, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    alone = Grader.load(model, device="cpu", engine=engine)
    expected = alone.grade(images), alone.explain(images[3])
    shared = Grader.load(model, device="cpu", engine=engine)  # the threads meet while it prepares its networks
    together = threading.Barrier(8)

    def work(number: int):
        together.wait(timeout=60)
        results = []
        for _ in range(3):
            explains = number % 2
            results.append(shared.explain(images[3]) if explains else shared.grade(images))
        return results

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    for number, each in enumerate(results):
        for result in each:
            if number % 2:
                assert np.allclose(result, expected[1], atol=1e-6)
            else:
                pd.testing.assert_frame_equal(result, expected[0])
    assert not any(module._forward_hooks for module in shared.checkpoints[0].network.modules())


def test_explaining_shares_the_weights_with_grading(grader, images):
    grader.explain(images[3])
    [explainer] = grader.explainers()
    own, copied = grader.checkpoints[0].network, explainer._network
    assert own is not copied
    for first, second in zip(own.state_dict().values(), copied.state_dict().values(), strict=True):
        assert first.data_ptr() == second.data_ptr()


def test_a_second_grader_does_not_change_the_first(grader, model, images):
    before = grader.grade(images)
    Grader.load(model, device="cpu", tta="flips").grade(images)
    pd.testing.assert_frame_equal(grader.grade(images), before)


def test_importing_dr_loads_nothing_and_grader_is_public():
    code = "import sys, time; start = time.perf_counter(); import dr; taken = time.perf_counter() - start\n"
    code += "print(taken < 0.1, bool({'torch', 'numpy', 'pandas', 'cv2'} & set(sys.modules)), 'Grader' in dir(dr))\n"
    code += "print(hasattr(dr, 'nothing'))"
    lines = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).splitlines()
    assert lines == ["True False True", "False"]
