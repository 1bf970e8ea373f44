import json
import shutil
import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, checkpoint_content, draw_fundus, write_checkpoint, write_images

from dr import UsageError
from dr.core import device
from dr.datasets.preprocessed import PreprocessedData, name_hashes
from dr.grading import calibration, metrics
from dr.grading.thresholds import apply_thresholds, optimal_thresholds
from dr.imaging import novelty
from dr.inference import ensemble
from dr.inference.checkpoint import Checkpoint
from dr.inference.forward import decide
from dr.prediction import scoring
from dr.prediction.options import PredictOptions
from dr.prediction.pipeline import predict, summary_lines
from dr.recipes.load import from_dict

GRADES = [0, 1, 2, 3, 4, 0, 1]


@pytest.fixture(autouse=True)
def _exactly(monkeypatch):
    """Compute in float32 on any machine, because tests compare scores."""
    monkeypatch.setattr(device, "best_precision", lambda _: "fp32")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "tiny__best.pt"
    write_checkpoint(path, checkpoint_content(thresholds=(-0.5, 0.0, 0.5, 1.0)))
    return str(path)


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images", GRADES)
    return tmp_path / "images"


def run(model, images, tmp_path, **options):
    models = [model] if isinstance(model, str) else model
    given = {"models": models, "images": str(images), "output": str(tmp_path / "out"), "workers": 0, "device": "cpu"}
    return predict(PredictOptions(**given | options))


def read(tmp_path):
    result = pd.read_csv(tmp_path / "out" / "result.csv", dtype={"id_code": str})
    return result, pd.read_csv(tmp_path / "out" / "details.csv")


def test_every_image_has_one_row_sorted_by_name(model, images, tmp_path):
    run(model, images, tmp_path, batch_size=3)
    result, details = read(tmp_path)
    assert (tmp_path / "out" / "result.csv").read_text().startswith("id_code,diagnosis\n")
    assert result["id_code"].tolist() == [f"image_{i}" for i in range(7)]
    assert result["diagnosis"].isin(range(5)).all()
    assert details["file"].tolist() == [f"image_{i}.png" for i in range(7)]
    assert details["grade"].tolist() == result["diagnosis"].tolist()
    assert details["error"].isna().all()
    thresholds = [-0.5, 0.0, 0.5, 1.0]
    assert details["grade"].tolist() == np.searchsorted(thresholds, details["score"], side="right").tolist()


def test_batch_size_and_workers_change_nothing(model, images, tmp_path):
    run(model, images, tmp_path, batch_size=7)
    _, together = read(tmp_path)
    run(model, images, tmp_path, workers=2, batch_size=2)
    _, split = read(tmp_path)
    assert np.allclose(together["score"], split["score"], atol=1e-3)


def test_a_zip_a_folder_and_its_subfolders_are_graded_alike(model, images, tmp_path):
    run(model, images, tmp_path)
    by_folder, _ = read(tmp_path)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
        for number, path in enumerate(sorted(images.iterdir())):
            packed.write(path, f"deep/{number}/{path.name}")
    run(model, tmp_path / "images.zip", tmp_path)
    assert read(tmp_path)[0].equals(by_folder)


def test_a_single_image_is_graded(model, images, tmp_path):
    run(model, images / "image_3.png", tmp_path)
    assert read(tmp_path)[0]["id_code"].tolist() == ["image_3"]


def test_unreadable_images_are_named_and_all_others_graded(model, images, tmp_path):
    (images / "empty.png").touch()
    (images / "text.jpg").write_text("not an image")
    (images / "cut.png").write_bytes((images / "image_0.png").read_bytes()[:2000])
    prediction = run(model, images, tmp_path, batch_size=2)
    result, details = read(tmp_path)
    assert result["id_code"].tolist() == [f"image_{i}" for i in range(7)]
    errors = details.set_index("file")["error"].dropna()
    assert errors["empty.png"] == "the file is empty"
    assert "not an image" in errors["text.jpg"]
    assert "truncated" in errors["cut.png"]
    assert (prediction.details["error"] != "").sum() == 3


def test_a_folder_without_readable_images_still_names_each(model, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "empty.png").touch()
    run(model, tmp_path / "images", tmp_path)
    assert (tmp_path / "out" / "result.csv").read_text() == "id_code,diagnosis\n"
    assert read(tmp_path)[1]["error"].tolist() == ["the file is empty"]


def test_a_submission_has_the_ids_of_the_sample_in_its_order(model, images, tmp_path):
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nimage_5,0\nimage_1,0\nimage_3,0\n")
    run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    assert read(tmp_path)[0]["id_code"].tolist() == ["image_5", "image_1", "image_3"]


def test_result_csv_has_the_header_of_the_sample(model, images, tmp_path):
    (tmp_path / "sampleSubmission.csv").write_text("image,level\nimage_5,0\nimage_1,0\n")
    prediction = run(model, images, tmp_path, submission="auto")
    lines = (tmp_path / "out" / "result.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["image", "image_5", "image_1"]
    assert lines[0] == "image,level"
    assert any(note.endswith("sampleSubmission.csv: image,level") for note in prediction.notes)


def test_an_archive_without_its_submission_is_not_called_a_valid_one(model, images, tmp_path):
    (tmp_path / "sample_submission.csv").write_text("id_code,diagnosis\nimage_5,0\n")
    notes = " ".join(run(model, images, tmp_path).notes)
    assert "lists 1 ids, but result.csv has all 7 images and is not a valid submission; use --submission auto" in notes
    assert "--submission auto" not in " ".join(run(model, images, tmp_path, submission="auto").notes)


def test_columns_of_labels_are_named_and_patients_resampled(model, images, tmp_path):
    rows = "".join(f"image_{i}.png,{i % 2},{grade},{i // 2}\n" for i, grade in enumerate(GRADES))
    (tmp_path / "truth.csv").write_text(f"file,quality,reader b,who\n{rows}")
    (tmp_path / "sample.csv").write_text("image,level\nimage_5,0\nimage_1,0\nimage_0,0\n")
    columns = {"id_column": "file", "label_column": "reader b", "patient_column": "who"}
    prediction = run(
        model, images, tmp_path, labels=str(tmp_path / "truth.csv"), submission=str(tmp_path / "sample.csv"), **columns
    )
    assert prediction.metrics["resampled"] == "patients"
    assert prediction.details["truth"].tolist() == [GRADES[i] for i in (5, 1, 0)]
    taken = "image 'file', label 'reader b', patient 'who'; not used: 'quality'"
    assert f"{tmp_path}/truth.csv: {taken}" in prediction.notes


def test_the_sample_submission_is_found_in_the_zip_or_folder_of_the_competition(model, images, tmp_path):
    sample = "id_code,diagnosis\nimage_5,0\nimage_1,0\n"
    with zipfile.ZipFile(tmp_path / "competition.zip", "w") as packed:
        packed.writestr("kaggle_retina/sample_submission.csv", sample)
        for path in images.iterdir():
            packed.write(path, f"kaggle_retina/test/{path.name}")
    shutil.unpack_archive(tmp_path / "competition.zip", tmp_path / "unpacked")
    for given in (tmp_path / "competition.zip", tmp_path / "unpacked"):
        run(model, given, tmp_path, submission=str(given))
        assert read(tmp_path)[0]["id_code"].tolist() == ["image_5", "image_1"]
    with pytest.raises(UsageError, match=r"--submission .*images: no sample_submission\.csv in it; pass the path"):
        run(model, images, tmp_path, submission=str(images))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("id_code,diagnosis\nimage_1,0\nlost,0\n", r"1 of the 2 images of .*sample\.csv are missing \(lost\)"),
        ("id_code,diagnosis\nimage_1,0\nimage_1,0\n", r"sample\.csv, row 3: image_1 occurs twice"),
        ("name\nother\n", r"no column names the images"),
    ],
)
def test_a_sample_of_other_images_writes_nothing(model, images, tmp_path, sample, message):
    (tmp_path / "sample.csv").write_text(sample)
    with pytest.raises(UsageError, match=message):
        run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    assert not (tmp_path / "out").exists()


def test_images_of_several_folders_that_share_a_name_have_their_path_as_id(model, images, tmp_path):
    for patient, grades in (("P1", [1, 2]), ("P2", [3, 4])):
        write_images(tmp_path / "clinic" / patient, grades, seed=grades[0])
    (tmp_path / "truth.csv").write_text(
        "id_code,diagnosis\nP1/image_0.png,1\nP2/image_0,3\nclinic\\P2\\image_1.png,4\n"
    )
    prediction = run(model, tmp_path / "clinic", tmp_path, labels=str(tmp_path / "truth.csv"))
    assert "several images share a name: id_code is their path" in " ".join(prediction.notes)
    result, details = read(tmp_path)
    assert result["id_code"].tolist() == [f"P{patient}/image_{eye}" for patient in (1, 2) for eye in (0, 1)]
    assert details["file"].tolist() == [f"{path}.png" for path in result["id_code"]]
    assert (prediction.metrics["images"], prediction.metrics["without_label"]) == (3, 1)
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nP2/image_0,0\nP1/image_1,0\n")
    run(model, tmp_path / "clinic", tmp_path, submission=str(tmp_path / "sample.csv"))
    assert read(tmp_path)[0]["id_code"].tolist() == ["P2/image_0", "P1/image_1"]
    truth, given = pd.Series([1, 3, 4]), result.set_index("id_code")["diagnosis"]
    hits = (given[["P1/image_0", "P2/image_0", "P2/image_1"]].to_numpy() == truth).mean()
    assert prediction.metrics["metrics"]["accuracy"]["value"] == pytest.approx(hits, abs=1e-6)


def test_images_that_differ_only_in_their_suffix_have_their_whole_name_as_id(model, images, tmp_path):
    shutil.copy(images / "image_1.png", images / "image_1.tif")
    run(model, images, tmp_path)
    assert read(tmp_path)[0]["id_code"].tolist()[:3] == ["image_0.png", "image_1.png", "image_1.tif"]
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nimage_3,0\nimage_1,0\n")
    with pytest.raises(
        UsageError, match=r"image_1\.png and image_1\.tif both match image_1 of .*; write their folders"
    ):
        run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nimage_3,0\n")
    run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    assert read(tmp_path)[0]["id_code"].tolist() == ["image_3"]


def test_the_plots_of_an_earlier_run_are_not_graded(model, images, tmp_path):
    (tmp_path / "truth.csv").write_text("id_code,diagnosis\nimage_0,0\nimage_1,1\n")
    for _ in range(2):
        prediction = run(model, images, tmp_path, output=str(images), labels=str(tmp_path / "truth.csv"))
        assert (images / "confusion.png").is_file()
        assert len(prediction.result) == len(GRADES)


def test_an_incomplete_submission_is_reported_as_invalid(model, images, tmp_path):
    (images / "image_2.png").write_bytes(b"never")
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nimage_2,0\nimage_1,0\n")
    prediction = run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    assert "result.csv is not a valid submission: 1 of the 2 ids have no grade" in prediction.notes


def test_a_network_named_twice_and_a_folder_of_networks_are_refused(model, images, tmp_path):
    with pytest.raises(UsageError, match=r"tiny__best\.pt: named twice; name each checkpoint once"):
        run([model, model], images, tmp_path)
    with pytest.raises(UsageError, match=r"images: is a folder; pass a file of weights, such as NAME"):
        run(str(images), images, tmp_path)


def test_a_file_that_is_neither_an_image_nor_a_zip_is_refused(model, tmp_path):
    (tmp_path / "photo.gif").write_bytes(b"RIFF")
    with pytest.raises(UsageError, match=r"photo\.gif: neither an image \(\.bmp .*\) nor a zip; convert"):
        run(model, tmp_path / "photo.gif", tmp_path)


def test_images_of_unsupported_formats_are_counted(model, images, tmp_path):
    for name in ("b.AVIF", "a.gif", "notes.txt"):
        (images / name).write_bytes(b"x")
    expected = "skipped 2 images in unsupported formats, such as a.gif; convert them to PNG"
    assert expected in run(model, images, tmp_path).notes


def test_a_broken_link_is_an_unreadable_image(model, images, tmp_path):
    (images / "gone.png").symlink_to("nowhere.png")
    details = run(model, images, tmp_path).details.set_index("file")
    assert details.loc["gone.png", "error"] == "file not found"


def test_a_folder_without_images_is_refused_with_the_known_suffixes(model, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"no images \(\.bmp .* \.tiff \.webp\); add some"):
        run(model, tmp_path / "images", tmp_path)


def test_scores_and_thresholds_of_several_models_are_averaged(model, images, tmp_path):
    torch.manual_seed(2)
    other = str(tmp_path / "other.pt")
    write_checkpoint(
        other, checkpoint_content(from_dict(TINY.to_dict() | {"image_size": 48}), thresholds=(0.5, 1.0, 1.5, 2.0))
    )
    scores = []
    for models in ([model], [other], [model, other]):
        run(models, images, tmp_path)
        scores.append(read(tmp_path)[1]["score"].to_numpy())
    assert np.allclose(scores[2], (scores[0] + scores[1]) / 2, atol=1e-3)
    grades = read(tmp_path)[0]["diagnosis"]
    assert grades.tolist() == np.searchsorted([0.0, 0.5, 1.0, 1.5], scores[2], side="right").tolist()


def test_with_flips_a_flipped_image_has_the_same_score(model, tmp_path):
    image = cv2.GaussianBlur(draw_fundus(3, seed=4, side_px=96), (3, 3), 0)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), image)
    cv2.imwrite(str(tmp_path / "images" / "b.png"), image[:, ::-1])
    run(model, tmp_path / "images", tmp_path, tta="flips")
    scores = read(tmp_path)[1]["score"]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_numbers_as_names_keep_their_zeros(model, tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0007.png"), draw_fundus(0, seed=1))
    run(model, tmp_path / "images", tmp_path)
    assert (tmp_path / "out" / "result.csv").read_text().splitlines()[1].startswith("0007,")


def test_each_member_of_an_ensemble_gets_the_same_input_as_alone(model, tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), draw_fundus(4, seed=1, side_px=500))
    larger = str(tmp_path / "larger.pt")
    torch.manual_seed(3)
    write_checkpoint(larger, checkpoint_content() | {"data": {"fingerprint": "", "size_px": 400}})
    scores = []
    for models in ([model], [larger], [model, larger]):
        run(models, tmp_path / "images", tmp_path)
        scores.append(read(tmp_path)[1]["score"][0])
    assert scores[2] == pytest.approx((scores[0] + scores[1]) / 2, abs=1e-3)


def test_a_score_that_is_not_finite_is_an_error_of_its_image(images, tmp_path):
    content = checkpoint_content()
    content["model"]["conv_stem.weight"].fill_(3e38)  # finite, but its sums are not
    write_checkpoint(tmp_path / "nan.pt", content)
    run(str(tmp_path / "nan.pt"), images, tmp_path)
    assert (tmp_path / "out" / "result.csv").read_text() == "id_code,diagnosis\n"
    assert read(tmp_path)[1]["error"].str.contains("the score is not finite").all()


def test_classification_writes_probabilities_and_tta_by_vote_decides_by_vote(images, tmp_path, monkeypatch):
    torch.manual_seed(5)
    recipe = from_dict(TINY.to_dict() | {"objective": "classification", "loss": None, "tta": "ten"})
    content = checkpoint_content(recipe, thresholds=None, classes=("a", "b", "c"))
    content["model"]["classifier.weight"].mul_(30)
    write_checkpoint(tmp_path / "three.pt", content)
    prediction = run(str(tmp_path / "three.pt"), images, tmp_path)
    _, details = read(tmp_path)
    names = ["probability_0", "probability_1", "probability_2"]
    assert np.allclose(details[names].sum(axis=1), 1, atol=1e-3)
    assert (details[names].to_numpy().argmax(axis=1) == details["grade"]).all()
    assert prediction.classes == ("a", "b", "c")
    used = []
    monkeypatch.setattr(
        "dr.inference.grader.decide", lambda *given, by, **more: used.append(by) or decide(*given, by=by, **more)
    )
    for by in (None, "vote"):
        run(str(tmp_path / "three.pt"), images, tmp_path, tta_by=by)
    assert used == ["mean", "vote"]


def test_class_names_that_are_integers_are_written_as_diagnosis(images, tmp_path):
    torch.manual_seed(5)
    recipe = from_dict(TINY.to_dict() | {"objective": "classification", "loss": None})
    content = checkpoint_content(recipe, thresholds=None, classes=("1", "2", "4"))
    content["model"]["classifier.weight"].mul_(30)
    write_checkpoint(tmp_path / "numbers.pt", content)
    prediction = run(str(tmp_path / "numbers.pt"), images, tmp_path)
    result, details = read(tmp_path)
    assert result["diagnosis"].tolist() == details["class"].tolist()
    counts = result["diagnosis"].value_counts()
    assert summary_lines(prediction)[-1] == "  ".join(f"{number}: {counts.get(number, 0)}" for number in (1, 2, 4))


def test_networks_of_other_classes_or_objectives_are_not_averaged(model, images, tmp_path):
    recipe = from_dict(TINY.to_dict() | {"objective": "classification", "loss": None})
    write_checkpoint(tmp_path / "three.pt", checkpoint_content(recipe, thresholds=None, classes=("a", "b", "c")))
    write_checkpoint(tmp_path / "five.pt", checkpoint_content(recipe, thresholds=None))
    with pytest.raises(UsageError, match=r"three\.pt: its classes .* differs from that of .*tiny__best\.pt"):
        run([model, str(tmp_path / "three.pt")], images, tmp_path)
    with pytest.raises(UsageError, match=r"five\.pt: its objective \(classification\) differs .*regression"):
        run([model, str(tmp_path / "five.pt")], images, tmp_path)


def test_the_whole_frame_is_graded_if_data_py_kept_it(model, images, tmp_path):
    content = dict(torch.load(model, weights_only=True))
    write_checkpoint(tmp_path / "whole.pt", content | {"data": content["data"] | {"crop": False}})
    wide = np.full((200, 400, 3), 60, np.uint8)
    wide[:, 100:300] = draw_fundus(4, seed=1, side_px=200)
    (tmp_path / "wide").mkdir()
    cv2.imwrite(str(tmp_path / "wide" / "a.png"), wide)
    scores = [
        run(path, tmp_path / "wide", tmp_path).details["score"][0] for path in (model, str(tmp_path / "whole.pt"))
    ]
    assert scores[0] != scores[1]


def test_the_centre_is_cropped_if_the_recipe_crops_it(images, tmp_path):
    content = checkpoint_content(from_dict(TINY.to_dict() | {"crop_size": 48}))
    write_checkpoint(tmp_path / "crop.pt", content)
    assert len(run(str(tmp_path / "crop.pt"), images, tmp_path).result) == 7


def of_fold(path, number, scores, *, seed, rule="optimal", **options):
    """A checkpoint of fold `number` of 3, with these scores of held-out images of grades 0 to 4."""
    torch.manual_seed(seed)
    content = checkpoint_content(
        from_dict(TINY.to_dict() | {"thresholds": rule} | options), thresholds=(-0.5, 0.0, 0.5, 1.0)
    )
    content["data"]["fold"] = {"number": number, "of": 3, "fingerprint": "of all"}
    test = {"predictions": torch.tensor(scores)[:, None], "truth": torch.arange(5)}
    write_checkpoint(path, content | {"predictions": {"test": test}})
    return str(path)


FIRST, SECOND = [0.1, 0.2, 0.3, 0.4, 0.5], [0.12, 0.22, 0.32, 0.42, 0.52]


def test_folds_of_one_dataset_share_thresholds_of_their_out_of_fold_scores(images, tmp_path):
    folds = [of_fold(tmp_path / "1.pt", 1, FIRST, seed=1), of_fold(tmp_path / "3.pt", 3, SECOND, seed=2)]
    prediction = run(folds[::-1], images, tmp_path)
    thresholds = optimal_thresholds(np.array(FIRST + SECOND), np.array([0, 1, 2, 3, 4] * 2))
    assert np.allclose(thresholds, [0.16, 0.26, 0.36, 0.46])
    assert (
        prediction.thresholds_source
        == "thresholds 0.160 0.260 0.360 0.460: fitted to 10 out-of-fold scores of folds 1, 3 of 3"
    )
    details = prediction.details
    assert details["grade"].tolist() == np.searchsorted(thresholds, details["score"], side="right").tolist()
    run(folds, images, tmp_path, tta_by="vote")


@pytest.mark.parametrize(("number", "options"), [(1, {}), (2, {"lr": 0.5}), (2, {"rule": "round"})])
def test_other_checkpoints_keep_their_own_thresholds(images, tmp_path, number, options):
    first = of_fold(tmp_path / "first.pt", 1, FIRST, seed=1)
    second = of_fold(tmp_path / "second.pt", number, SECOND, seed=2, **options)
    own = "thresholds -0.500 0.000 0.500 1.000: mean of 2 checkpoints"
    assert run([first, second], images, tmp_path).thresholds_source == own
    assert run(first, images, tmp_path).thresholds_source == f"thresholds -0.500 0.000 0.500 1.000: from {first}"


def test_rounded_scores_need_no_fit_on_folds(images, tmp_path):
    folds = [of_fold(tmp_path / f"{n}.pt", n, FIRST, seed=n, rule="round") for n in (1, 2)]
    assert run(folds, images, tmp_path).thresholds_source.endswith(": scores are rounded, nothing was fitted")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ordinal_networks_with_and_without_thresholds_are_not_averaged(images, tmp_path, order):
    paths = [str(tmp_path / "thresholds.pt"), str(tmp_path / "argmax.pt")]
    for path, rule in zip(paths, ("optimal", "argmax"), strict=True):
        recipe = from_dict(TINY.to_dict() | {"objective": "ordinal", "loss": None, "thresholds": rule})
        thresholds = {} if rule == "optimal" else {"thresholds": None}
        write_checkpoint(path, checkpoint_content(recipe, **thresholds))
    with pytest.raises(UsageError, match="one decides by thresholds, the other by the most probable grade"):
        run([paths[n] for n in order], images, tmp_path)


def with_validation(content, *, seed=0, count=100):
    """The content of a checkpoint with `count` validation images: scores like its own, grades that correlate."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.normal(0.2, 0.5, count))
    truth = np.clip(np.round(2 + 2 * scores + rng.normal(0, 0.7, count)), 0, 4).astype(int)
    val = {"predictions": torch.tensor(scores)[:, None], "truth": torch.tensor(truth)}
    return content | {"predictions": {"val": val}}


def test_regression_has_probabilities_if_the_checkpoint_has_validation_scores(model, images, tmp_path):
    content = with_validation(dict(torch.load(model, weights_only=True)))
    write_checkpoint(tmp_path / "calibrated.pt", content)
    run(str(tmp_path / "calibrated.pt"), images, tmp_path)
    details = read(tmp_path)[1]
    expected = Checkpoint.load(tmp_path / "calibrated.pt").calibration.probabilities(details["score"].to_numpy())
    assert np.allclose(details[[f"probability_{k}" for k in range(5)]], expected, atol=1e-3)
    run(model, images, tmp_path)
    assert "probability_0" not in read(tmp_path)[1]
    run([model, str(tmp_path / "calibrated.pt")], images, tmp_path)
    assert "probability_0" not in read(tmp_path)[1]
    shutil.copy(tmp_path / "calibrated.pt", tmp_path / "again.pt")
    run([str(tmp_path / "calibrated.pt"), str(tmp_path / "again.pt")], images, tmp_path)
    assert np.allclose(read(tmp_path)[1][[f"probability_{k}" for k in range(5)]], expected, atol=1e-3)


def test_labels_are_scored_and_written_beside_the_grades(model, images, tmp_path, capsys):
    truth = [0, 1, 2, 3, 4, 0, 1]
    (images / "bad.png").touch()
    rows = "".join(f"image_{number},{grade}\n" for number, grade in enumerate(truth))
    (tmp_path / "truth.csv").write_text(f"image,level\n{rows}bad,1\n")
    prediction = run(model, images, tmp_path, labels=str(tmp_path / "truth.csv"))
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == prediction.metrics
    assert written["images"] == 7
    assert written["unreadable"] == ["bad"]
    agree = np.mean(read(tmp_path)[0].set_index("id_code")["diagnosis"].loc[[f"image_{i}" for i in range(7)]] == truth)
    assert written["metrics"]["accuracy"]["value"] == pytest.approx(agree, abs=1e-6)
    assert (tmp_path / "out" / "confusion.png").is_file()


def test_metrics_on_training_images_are_reported_as_optimistic(model, images, tmp_path):
    content = dict(torch.load(model, weights_only=True))
    table = pd.DataFrame({"path": ["train/main_image_1.jpeg", "train/main_other.jpeg"], "source": "main"})
    data = PreprocessedData(tmp_path, table, table[:0].assign(source=""), 96, "")
    content["data"] = content["data"] | {"name_hashes": torch.from_numpy(name_hashes(data.train, data.val))}
    write_checkpoint(tmp_path / "seen.pt", content)
    (tmp_path / "truth.csv").write_text("image,level\n" + "".join(f"image_{number},0\n" for number in range(3)))
    for path, expected in ((str(tmp_path / "seen.pt"), {str(tmp_path / "seen.pt"): 1}), (model, {})):
        prediction = run(path, images, tmp_path, labels=str(tmp_path / "truth.csv"), report=True)
        assert prediction.metrics["in_training_data"] == expected
        words = "1 of 3 images match, by name, images that"
        assert (words in " ".join(scoring.summary_lines(prediction.metrics))) == bool(expected)
        assert (words in (tmp_path / "out" / "report.html").read_text()) == bool(expected)


def test_metrics_on_the_preprocessed_validation_images_are_reported_as_optimistic(model, tmp_path):
    write_images(tmp_path / "val", [0, 1])
    for number in (0, 1):
        (tmp_path / "val" / f"image_{number}.png").rename(tmp_path / "val" / f"main_Mild_{number}.png")
    rows = "".join(f"val/main_Mild_{number}.png,{number},main,Mild_{number},,\n" for number in (0, 1))
    (tmp_path / "labels_val.csv").write_text(f"path,diagnosis,source,original,patient,group\n{rows}")
    table = pd.read_csv(tmp_path / "labels_val.csv", dtype=str)
    data = PreprocessedData(tmp_path, table, table[:0], 96, "")
    content = dict(torch.load(model, weights_only=True))
    content["data"] = content["data"] | {"name_hashes": torch.from_numpy(name_hashes(data.train, data.val))}
    write_checkpoint(tmp_path / "seen.pt", content)
    prediction = run(str(tmp_path / "seen.pt"), tmp_path / "val", tmp_path, labels=str(tmp_path / "labels_val.csv"))
    assert prediction.metrics["in_training_data"] == {str(tmp_path / "seen.pt"): 2}


def test_labels_of_other_images_write_nothing(model, images, tmp_path):
    (tmp_path / "truth.csv").write_text("id_code,diagnosis\nelsewhere,1\n")
    with pytest.raises(UsageError, match="none of its 1 ids"):
        run(model, images, tmp_path, labels=str(tmp_path / "truth.csv"))
    assert not (tmp_path / "out").exists()


def test_a_prevalence_shifts_thresholds_and_probabilities(model, images, tmp_path):
    content = with_validation(dict(torch.load(model, weights_only=True)))
    path = str(tmp_path / "calibrated.pt")
    write_checkpoint(path, content)
    healthy = run(path, images, tmp_path, prevalence=(0.96, 0.01, 0.01, 0.01, 0.01)).details
    ill = run(path, images, tmp_path, prevalence=(0.01, 0.01, 0.01, 0.01, 0.96)).details
    assert healthy["grade"].sum() < ill["grade"].sum()
    assert (healthy["probability_0"] > ill["probability_0"]).all()
    shutil.copy(path, again := str(tmp_path / "again.pt"))
    moved = run([path, again], images, tmp_path, prevalence="auto", tta_by="vote", tta="flips")
    assert "at a prevalence of" in moved.thresholds_source
    with pytest.raises(UsageError, match="has no validation scores"):
        run(model, images, tmp_path, prevalence="auto")


def test_an_image_unlike_training_is_flagged_and_graded(model, images, tmp_path):
    content = dict(torch.load(model, weights_only=True))
    rows = np.array([novelty.measure(draw_fundus(seed % 5, seed=seed)) for seed in range(100)])
    write_checkpoint(tmp_path / "knows.pt", content | {"training_reference": novelty.fit(rows).to_dict()})
    cv2.imwrite(str(images / "page.png"), np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8))
    (images / "bad.png").touch()
    prediction = run(str(tmp_path / "knows.pt"), images, tmp_path)
    details = read(tmp_path)[1].set_index("file")
    assert "unlike_training" in details.loc["page.png", "flags"].split()
    assert details.loc["page.png", "training_distance"] > 1
    assert details.loc["page.png", "grade"] in range(5)
    assert (details["training_distance"].drop(["page.png", "bad.png"]) <= 1).sum() >= 6
    marked = details["flags"].fillna("").str.contains("unlike_training").sum()
    [flags] = [note for note in prediction.notes if note.startswith("flags of the 8 graded images: ")]
    assert f"unlike_training: {marked}" in flags
    old = run([str(tmp_path / "knows.pt"), model], images, tmp_path)
    assert "training_distance" not in old.details
    assert any(note.startswith("unlike_training: not checked, ") for note in old.notes)
    write_checkpoint(tmp_path / "damaged.pt", content | {"training_reference": {}})
    with pytest.raises(
        UsageError, match=r"damaged\.pt: field 'training_reference': field 'mean': missing; pass the checkpoint"
    ):
        run(str(tmp_path / "damaged.pt"), images, tmp_path)


def test_a_network_below_the_majority_baseline_is_reported_in_notes_and_on_the_page(model, images, tmp_path):
    content = dict(torch.load(model, weights_only=True))
    for name, accuracy, kappa in (("useless", 0.4, 0.0), ("useful", 0.6, 0.0), ("for_rare_grades", 0.3, 0.1)):
        metrics = {"val": {"accuracy": accuracy, "majority": 0.4}}
        intervals = {"val": {"kappa_cross_fitted": [kappa, 0.5]}}
        write_checkpoint(tmp_path / f"{name}.pt", content | {"metrics": metrics, "intervals": intervals})
    expected = f"{tmp_path / 'useless.pt'}: do not rely on its grades; on its validation images it did not beat"
    prediction = run(
        [str(tmp_path / f"{name}.pt") for name in ("useful", "useless", "for_rare_grades")],
        images,
        tmp_path,
        report=True,
        explain=2,
    )
    assert [note.startswith(expected) for note in prediction.notes if "do not rely" in note] == [True]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("do not rely on its grades") == 1


def test_an_explained_image_shows_its_flags(model, images, tmp_path):
    large = cv2.resize(cv2.imread(str(images / "image_0.png")), (200, 200))  # small images have no flags
    cv2.imwrite(str(images / "dark.png"), large // 8)
    run(model, images, tmp_path, report=True, explain="all")
    page = (tmp_path / "out" / "report.html").read_text()
    [card] = [part for part in page.split('<li class="card">') if '<span class="file">dark.png</span>' in part]
    assert ">too dark</span>" in card.split("</li>")[0]


def test_balanced_folds_decide_and_calibrate_for_the_prevalence_of_validation(images, tmp_path):
    """Held-out images are mostly training images, which data.py may have balanced."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(5), 60)
    folds = []
    for number in (1, 2):
        path = of_fold(tmp_path / f"{number}.pt", number, FIRST, seed=1, rule="calibrated")
        content = dict(torch.load(path, weights_only=True))
        scores = torch.tensor(truth + rng.normal(scale=0.8, size=300), dtype=torch.float32)[:, None]
        natural = np.repeat(np.arange(5), (70, 10, 10, 6, 4))
        content["predictions"] = {
            "test": {"predictions": scores, "truth": torch.tensor(truth)},
            "val": {"predictions": scores[:100], "truth": torch.tensor(natural)},
        }
        write_checkpoint(path, content)
        folds.append(Checkpoint.load(path))
    assert ensemble.class_prevalence(folds) == pytest.approx([0.7, 0.1, 0.1, 0.06, 0.04])
    drawn = rng.choice(5, size=20_000, p=[0.7, 0.1, 0.1, 0.06, 0.04])
    scores = drawn + rng.normal(scale=0.8, size=20_000)
    probabilities = ensemble.probabilities(folds, scores[:, None].astype(np.float32))
    assert probabilities.mean(axis=0) == pytest.approx([0.7, 0.1, 0.1, 0.06, 0.04], abs=0.04)
    (thresholds, _), words = ensemble.thresholds(folds)
    assert words.endswith("of folds 1, 2 of 3, weighted to the class prevalence of validation")
    pooled, known = ensemble.validation(folds)[0]
    balanced = calibration.calibrated_thresholds(pooled[:, 0], known)
    weighed, own = (metrics.macro_f1(drawn, apply_thresholds(scores, each)) for each in (thresholds, balanced))
    assert weighed > own
