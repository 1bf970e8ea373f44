import json
import shutil
import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, checkpoint_content, photograph, write_images

from dr import UsageError
from dr.core import device
from dr.datasets.preprocessed import PreprocessedData, seen_name_hashes
from dr.grading import calibration, metrics
from dr.grading.thresholds import apply_thresholds, optimal_thresholds
from dr.imaging import novelty
from dr.inference import checkpoint, ensemble
from dr.inference.forward import decide
from dr.prediction import scoring
from dr.prediction.pipeline import predict, summary_lines
from dr.recipes.load import from_dict

GRADES = [0, 1, 2, 3, 4, 0, 1]


@pytest.fixture(autouse=True)
def _exactly(monkeypatch):
    """float32, whatever this machine does well: scores are compared."""
    monkeypatch.setattr(device, "best_precision", lambda _: "fp32")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "tiny__best.pt"
    checkpoint.save(path, checkpoint_content(thresholds=(-0.5, 0.0, 0.5, 1.0)))
    return str(path)


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images", GRADES)
    return tmp_path / "images"


def run(model, images, tmp_path, **options):
    models = [model] if isinstance(model, str) else model
    return predict(models, str(images), output=str(tmp_path / "out"), workers=0, device_name="cpu", **options)


def read(tmp_path):
    result = pd.read_csv(tmp_path / "out" / "result.csv", dtype={"id_code": str})
    return result, pd.read_csv(tmp_path / "out" / "details.csv")


def test_every_photograph_has_one_row_sorted_by_its_name(model, images, tmp_path):
    run(model, images, tmp_path, batch_size=3)
    result, details = read(tmp_path)
    assert (tmp_path / "out" / "result.csv").read_text().startswith("id_code,diagnosis\n")
    assert result["id_code"].tolist() == [f"photo_{i}" for i in range(7)]
    assert result["diagnosis"].isin(range(5)).all()
    assert details["file"].tolist() == [f"photo_{i}.png" for i in range(7)]
    assert details["grade"].tolist() == result["diagnosis"].tolist()
    assert details["error"].isna().all()
    thresholds = [-0.5, 0.0, 0.5, 1.0]
    assert details["grade"].tolist() == np.searchsorted(thresholds, details["score"], side="right").tolist()


def test_batch_size_and_workers_change_nothing(model, images, tmp_path):
    run(model, images, tmp_path, batch_size=7)
    _, one = read(tmp_path)
    predict([model], str(images), output=str(tmp_path / "out"), workers=2, batch_size=2, device_name="cpu")
    _, many = read(tmp_path)
    assert np.allclose(one["score"], many["score"], atol=1e-3)


def test_a_zip_a_folder_and_its_subfolders_are_graded_alike(model, images, tmp_path):
    run(model, images, tmp_path)
    by_folder, _ = read(tmp_path)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
        for number, path in enumerate(sorted(images.iterdir())):
            packed.write(path, f"deep/{number}/{path.name}")
    run(model, tmp_path / "images.zip", tmp_path)
    assert read(tmp_path)[0].equals(by_folder)


def test_a_single_photograph_is_graded(model, images, tmp_path):
    run(model, images / "photo_3.png", tmp_path)
    assert read(tmp_path)[0]["id_code"].tolist() == ["photo_3"]


def test_photographs_that_cannot_be_read_are_named_and_all_others_graded(model, images, tmp_path):
    (images / "empty.png").touch()
    (images / "text.jpg").write_text("not a photograph")
    (images / "cut.png").write_bytes((images / "photo_0.png").read_bytes()[:2000])
    prediction = run(model, images, tmp_path, batch_size=2)
    result, details = read(tmp_path)
    assert result["id_code"].tolist() == [f"photo_{i}" for i in range(7)]
    errors = details.set_index("file")["error"].dropna()
    assert errors["empty.png"] == "the file is empty"
    assert "not an image" in errors["text.jpg"]
    assert "truncated" in errors["cut.png"]
    assert (prediction.details["error"] != "").sum() == 3


def test_nothing_readable_still_names_every_photograph(model, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "empty.png").touch()
    run(model, tmp_path / "images", tmp_path)
    assert (tmp_path / "out" / "result.csv").read_text() == "id_code,diagnosis\n"
    assert read(tmp_path)[1]["error"].tolist() == ["the file is empty"]


def test_a_submission_has_the_ids_of_the_sample_in_its_order(model, images, tmp_path):
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nphoto_5,0\nphoto_1,0\nphoto_3,0\n")
    run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    assert read(tmp_path)[0]["id_code"].tolist() == ["photo_5", "photo_1", "photo_3"]


def test_the_sample_submission_is_found_in_the_zip_or_folder_of_the_competition(model, images, tmp_path):
    sample = "id_code,diagnosis\nphoto_5,0\nphoto_1,0\n"
    with zipfile.ZipFile(tmp_path / "competition.zip", "w") as packed:
        packed.writestr("kaggle_retina/sample_submission.csv", sample)
        for path in images.iterdir():
            packed.write(path, f"kaggle_retina/test/{path.name}")
    shutil.unpack_archive(tmp_path / "competition.zip", tmp_path / "unpacked")
    for given in (tmp_path / "competition.zip", tmp_path / "unpacked"):
        run(model, given, tmp_path, submission=str(given))
        assert read(tmp_path)[0]["id_code"].tolist() == ["photo_5", "photo_1"]
    with pytest.raises(UsageError, match=r"--submission .*images: it holds no sample_submission\.csv; give the path"):
        run(model, images, tmp_path, submission=str(images))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("id_code,diagnosis\nphoto_1,0\nlost,0\n", r"1 of the 2 photographs of .*sample\.csv are missing \(lost\)"),
        ("id_code,diagnosis\nphoto_1,0\nphoto_1,0\n", r"sample\.csv, row 3: photo_1 is there twice"),
        ("name\nphoto_1\n", r"no column 'id_code'"),
    ],
)
def test_a_sample_that_does_not_fit_writes_nothing(model, images, tmp_path, sample, message):
    (tmp_path / "sample.csv").write_text(sample)
    with pytest.raises(UsageError, match=message):
        run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    assert not (tmp_path / "out").exists()


def test_photographs_of_several_folders_that_share_a_name_are_told_apart_by_their_path(model, images, tmp_path):
    for patient, grades in (("P1", [1, 2]), ("P2", [3, 4])):
        write_images(tmp_path / "clinic" / patient, grades, seed=grades[0])
    (tmp_path / "truth.csv").write_text(
        "id_code,diagnosis\nP1/photo_0.png,1\nP2/photo_0,3\nclinic\\P2\\photo_1.png,4\n"
    )
    prediction = run(model, tmp_path / "clinic", tmp_path, labels=str(tmp_path / "truth.csv"))
    assert "several photographs share a name: id_code is their path" in " ".join(prediction.notes)
    result, details = read(tmp_path)
    assert result["id_code"].tolist() == [f"P{patient}/photo_{eye}" for patient in (1, 2) for eye in (0, 1)]
    assert details["file"].tolist() == [f"{path}.png" for path in result["id_code"]]
    assert (prediction.metrics["photographs"], prediction.metrics["without_label"]) == (3, 1)
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nP2/photo_0,0\nP1/photo_1,0\n")
    run(model, tmp_path / "clinic", tmp_path, submission=str(tmp_path / "sample.csv"))
    assert read(tmp_path)[0]["id_code"].tolist() == ["P2/photo_0", "P1/photo_1"]
    truth, given = pd.Series([1, 3, 4]), result.set_index("id_code")["diagnosis"]
    hits = (given[["P1/photo_0", "P2/photo_0", "P2/photo_1"]].to_numpy() == truth).mean()
    assert prediction.metrics["metrics"]["accuracy"]["value"] == pytest.approx(hits, abs=1e-6)


def test_photographs_that_differ_in_their_ending_alone_are_told_apart_by_their_whole_name(model, images, tmp_path):
    shutil.copy(images / "photo_1.png", images / "photo_1.tif")
    run(model, images, tmp_path)
    assert read(tmp_path)[0]["id_code"].tolist()[:3] == ["photo_0.png", "photo_1.png", "photo_1.tif"]
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nphoto_3,0\nphoto_1,0\n")
    with pytest.raises(UsageError, match=r"photo_1\.png and photo_1\.tif are both photo_1 of .*; write their folders"):
        run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nphoto_3,0\n")
    run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    assert read(tmp_path)[0]["id_code"].tolist() == ["photo_3"]


def test_what_an_earlier_run_drew_is_not_graded(model, images, tmp_path):
    (tmp_path / "truth.csv").write_text("id_code,diagnosis\nphoto_0,0\nphoto_1,1\n")
    for _ in range(2):
        options = {"workers": 0, "device_name": "cpu", "labels": str(tmp_path / "truth.csv")}
        prediction = predict([model], str(images), output=str(images), **options)
        assert (images / "confusion.png").is_file()
        assert len(prediction.result) == len(GRADES)


def test_a_submission_that_lacks_a_photograph_is_told_to_be_none(model, images, tmp_path):
    (images / "photo_2.png").write_bytes(b"never")
    (tmp_path / "sample.csv").write_text("id_code,diagnosis\nphoto_2,0\nphoto_1,0\n")
    prediction = run(model, images, tmp_path, submission=str(tmp_path / "sample.csv"))
    assert "result.csv is no valid submission: 1 of the 2 ids could not be graded" in prediction.notes


def test_a_network_named_twice_and_a_folder_of_networks_are_refused(model, images, tmp_path):
    with pytest.raises(UsageError, match=r"tiny__best\.pt: it is named twice; name each checkpoint once"):
        run([model, model], images, tmp_path)
    with pytest.raises(UsageError, match=r"images: it is a folder; name a file of weights in it, such as NAME"):
        run(str(images), images, tmp_path)


def test_a_file_that_is_neither_a_photograph_nor_a_zip_is_told(model, tmp_path):
    (tmp_path / "photo.webp").write_bytes(b"RIFF")
    with pytest.raises(UsageError, match=r"photo\.webp: it is neither a photograph \(\.jpeg .*\) nor a zip; convert"):
        run(model, tmp_path / "photo.webp", tmp_path)


def test_pictures_of_kinds_that_are_not_read_are_counted(model, images, tmp_path):
    for name in ("b.WEBP", "a.bmp", "notes.txt"):
        (images / name).write_bytes(b"x")
    told = "2 pictures of other kinds were not looked at, such as a.bmp; save them as PNG"
    assert told in run(model, images, tmp_path).notes


def test_a_link_to_nowhere_is_a_photograph_that_could_not_be_read(model, images, tmp_path):
    (images / "gone.png").symlink_to("nowhere.png")
    details = run(model, images, tmp_path).details.set_index("file")
    assert details.loc["gone.png", "error"] == "No such file or directory"


def test_a_folder_without_photographs_says_what_was_looked_for(model, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"holds no photographs \(\.jpeg \.jpg \.png \.tif \.tiff\); put some there"):
        run(model, tmp_path / "images", tmp_path)


def test_scores_and_cuts_of_several_models_are_averaged(model, images, tmp_path):
    torch.manual_seed(2)
    other = str(tmp_path / "other.pt")
    checkpoint.save(
        other, checkpoint_content(from_dict(TINY.to_dict() | {"image_size": 48}), thresholds=(0.5, 1.0, 1.5, 2.0))
    )
    scores = []
    for models in ([model], [other], [model, other]):
        run(models, images, tmp_path)
        scores.append(read(tmp_path)[1]["score"].to_numpy())
    assert np.allclose(scores[2], (scores[0] + scores[1]) / 2, atol=1e-3)
    grades = read(tmp_path)[0]["diagnosis"]
    assert grades.tolist() == np.searchsorted([0.0, 0.5, 1.0, 1.5], scores[2], side="right").tolist()


def test_with_flips_a_flipped_photograph_scores_the_same(model, tmp_path):
    photo = cv2.GaussianBlur(photograph(3, seed=4, side_px=96), (3, 3), 0)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), photo)
    cv2.imwrite(str(tmp_path / "images" / "b.png"), photo[:, ::-1])
    run(model, tmp_path / "images", tmp_path, tta="flips")
    scores = read(tmp_path)[1]["score"]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_numbers_as_names_keep_their_zeros(model, tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0007.png"), photograph(0, seed=1))
    run(model, tmp_path / "images", tmp_path)
    assert (tmp_path / "out" / "result.csv").read_text().splitlines()[1].startswith("0007,")


def test_an_ensemble_shows_each_member_what_it_would_see_alone(model, tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), photograph(4, seed=1, side_px=500))
    larger = str(tmp_path / "larger.pt")
    torch.manual_seed(3)
    checkpoint.save(larger, checkpoint_content() | {"data": {"fingerprint": "", "size": 400}})
    scores = []
    for models in ([model], [larger], [model, larger]):
        run(models, tmp_path / "images", tmp_path)
        scores.append(read(tmp_path)[1]["score"][0])
    assert scores[2] == pytest.approx((scores[0] + scores[1]) / 2, abs=1e-3)


def test_a_score_that_is_not_finite_is_the_error_of_its_photograph(images, tmp_path):
    content = checkpoint_content()
    content["model"]["classifier.bias"].fill_(torch.nan)
    checkpoint.save(tmp_path / "nan.pt", content)
    run(str(tmp_path / "nan.pt"), images, tmp_path)
    assert (tmp_path / "out" / "result.csv").read_text() == "id_code,diagnosis\n"
    assert read(tmp_path)[1]["error"].str.contains("its score is not finite").all()


def test_probabilities_stand_beside_the_score_and_a_vote_decides_where_it_is_asked_for(images, tmp_path, monkeypatch):
    torch.manual_seed(5)
    recipe = from_dict(TINY.to_dict() | {"objective": "classification", "loss": None, "tta": "ten"})
    content = checkpoint_content(recipe, thresholds=None, classes=("a", "b", "c"))
    content["model"]["classifier.weight"].mul_(30)
    checkpoint.save(tmp_path / "three.pt", content)
    prediction = run(str(tmp_path / "three.pt"), images, tmp_path)
    _, details = read(tmp_path)
    names = ["probability_0", "probability_1", "probability_2"]
    assert np.allclose(details[names].sum(axis=1), 1, atol=1e-3)
    assert (details[names].to_numpy().argmax(axis=1) == details["grade"]).all()
    assert prediction.classes == ("a", "b", "c")
    asked = []
    monkeypatch.setattr(
        "dr.prediction.pipeline.decide", lambda *given, by, **more: asked.append(by) or decide(*given, by=by, **more)
    )
    for by in (None, "vote"):
        run(str(tmp_path / "three.pt"), images, tmp_path, tta_by=by)
    assert asked == ["mean", "vote"]


def test_classes_that_are_numbers_are_written_as_their_own(images, tmp_path):
    torch.manual_seed(5)
    recipe = from_dict(TINY.to_dict() | {"objective": "classification", "loss": None})
    content = checkpoint_content(recipe, thresholds=None, classes=("1", "2", "4"))
    content["model"]["classifier.weight"].mul_(30)
    checkpoint.save(tmp_path / "numbers.pt", content)
    prediction = run(str(tmp_path / "numbers.pt"), images, tmp_path)
    result, details = read(tmp_path)
    assert result["diagnosis"].tolist() == details["class"].tolist()
    counts = result["diagnosis"].value_counts()
    assert summary_lines(prediction)[-1] == "  ".join(f"{number}: {counts.get(number, 0)}" for number in (1, 2, 4))


def test_networks_of_other_classes_or_objectives_are_not_averaged(model, images, tmp_path):
    recipe = from_dict(TINY.to_dict() | {"objective": "classification", "loss": None})
    checkpoint.save(tmp_path / "three.pt", checkpoint_content(recipe, thresholds=None, classes=("a", "b", "c")))
    checkpoint.save(tmp_path / "five.pt", checkpoint_content(recipe, thresholds=None))
    with pytest.raises(UsageError, match=r"three\.pt: its classes .* is not that of .*tiny__best\.pt .*one by one"):
        run([model, str(tmp_path / "three.pt")], images, tmp_path)
    with pytest.raises(UsageError, match=r"five\.pt: its objective \(Classification\) is not that of .*Regression"):
        run([model, str(tmp_path / "five.pt")], images, tmp_path)


def test_the_whole_frame_is_seen_where_data_py_kept_it(model, images, tmp_path):
    content = dict(torch.load(model, weights_only=True))
    checkpoint.save(tmp_path / "whole.pt", content | {"data": content["data"] | {"crop": False}})
    wide = np.full((200, 400, 3), 60, np.uint8)
    wide[:, 100:300] = photograph(4, seed=1, side_px=200)
    (tmp_path / "wide").mkdir()
    cv2.imwrite(str(tmp_path / "wide" / "a.png"), wide)
    scores = [run(one, tmp_path / "wide", tmp_path).details["score"][0] for one in (model, str(tmp_path / "whole.pt"))]
    assert scores[0] != scores[1]


def test_the_centre_is_cut_out_where_the_recipe_says_so(images, tmp_path):
    content = checkpoint_content(from_dict(TINY.to_dict() | {"crop_size": 48}))
    checkpoint.save(tmp_path / "crop.pt", content)
    assert len(run(str(tmp_path / "crop.pt"), images, tmp_path).result) == 7


def of_fold(path, number, scores, *, seed, rule="optimal", **choices):
    """A checkpoint of fold `number` of 3, which gave these scores to held-out photographs of grades 0 to 4."""
    torch.manual_seed(seed)
    content = checkpoint_content(
        from_dict(TINY.to_dict() | {"thresholds": rule} | choices), thresholds=(-0.5, 0.0, 0.5, 1.0)
    )
    content["data"]["fold"] = {"number": number, "of": 3, "fingerprint": "of all"}
    test = {"predictions": torch.tensor(scores)[:, None], "truth": torch.arange(5)}
    checkpoint.save(path, content | {"test": test})
    return str(path)


FIRST, SECOND = [0.1, 0.2, 0.3, 0.4, 0.5], [0.12, 0.22, 0.32, 0.42, 0.52]


def test_folds_of_one_set_are_cut_where_the_scores_of_all_they_held_out_say(images, tmp_path):
    folds = [of_fold(tmp_path / "1.pt", 1, FIRST, seed=1), of_fold(tmp_path / "3.pt", 3, SECOND, seed=2)]
    prediction = run(folds[::-1], images, tmp_path)
    thresholds = optimal_thresholds(np.array(FIRST + SECOND), np.array([0, 1, 2, 3, 4] * 2))
    assert np.allclose(thresholds, [0.16, 0.26, 0.36, 0.46])
    assert (
        prediction.thresholds == "cuts 0.160 0.260 0.360 0.460: fitted to the 10 out-of-fold scores of folds 1, 3 of 3"
    )
    details = prediction.details
    assert details["grade"].tolist() == np.searchsorted(thresholds, details["score"], side="right").tolist()
    run(folds, images, tmp_path, tta_by="vote")


@pytest.mark.parametrize(("number", "choices"), [(1, {}), (2, {"lr": 0.5}), (2, {"rule": "round"})])
def test_what_are_not_different_folds_of_one_recipe_keep_their_own_cuts(images, tmp_path, number, choices):
    first = of_fold(tmp_path / "first.pt", 1, FIRST, seed=1)
    second = of_fold(tmp_path / "second.pt", number, SECOND, seed=2, **choices)
    own = "cuts -0.500 0.000 0.500 1.000: the mean of those of 2 checkpoints"
    assert run([first, second], images, tmp_path).thresholds == own
    assert run(first, images, tmp_path).thresholds == f"cuts -0.500 0.000 0.500 1.000: those of {first}"


def test_where_scores_are_rounded_nothing_is_fitted_to_folds_either(images, tmp_path):
    folds = [of_fold(tmp_path / f"{n}.pt", n, FIRST, seed=n, rule="round") for n in (1, 2)]
    assert run(folds, images, tmp_path).thresholds.endswith(": scores are rounded, nothing was fitted")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ordinal_networks_with_and_without_cuts_are_not_averaged(images, tmp_path, order):
    paths = [str(tmp_path / "cut.pt"), str(tmp_path / "likeliest.pt")]
    for path, rule in zip(paths, ("optimal", "argmax"), strict=True):
        recipe = from_dict(TINY.to_dict() | {"objective": "ordinal", "loss": None, "thresholds": rule})
        thresholds = {} if rule == "optimal" else {"thresholds": None}
        checkpoint.save(path, checkpoint_content(recipe, **thresholds))
    with pytest.raises(UsageError, match="one decides by cuts, the other by the likeliest grade; give them one by one"):
        run([paths[n] for n in order], images, tmp_path)


def with_validation(content, *, seed=0, count=100):
    """The fields of a checkpoint that has graded `count` photographs: scores spread as its own, grades that follow."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.normal(0.2, 0.5, count))
    truth = np.clip(np.round(2 + 2 * scores + rng.normal(0, 0.7, count)), 0, 4).astype(int)
    return content | {"validation": {"predictions": torch.tensor(scores)[:, None], "truth": torch.tensor(truth)}}


def test_a_score_alone_has_probabilities_where_the_checkpoint_keeps_its_validation(model, images, tmp_path):
    content = with_validation(dict(torch.load(model, weights_only=True)))
    checkpoint.save(tmp_path / "calibrated.pt", content)
    run(str(tmp_path / "calibrated.pt"), images, tmp_path)
    details = read(tmp_path)[1]
    expected = checkpoint.load(tmp_path / "calibrated.pt").calibration.probabilities(details["score"].to_numpy())
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
    rows = "".join(f"photo_{number},{grade}\n" for number, grade in enumerate(truth))
    (tmp_path / "truth.csv").write_text(f"image,level\n{rows}bad,1\n")
    prediction = run(model, images, tmp_path, labels=str(tmp_path / "truth.csv"))
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == prediction.metrics
    assert written["photographs"] == 7
    assert written["unreadable"] == ["bad"]
    agree = np.mean(read(tmp_path)[0].set_index("id_code")["diagnosis"].loc[[f"photo_{i}" for i in range(7)]] == truth)
    assert written["metrics"]["accuracy"]["value"] == pytest.approx(agree, abs=1e-6)
    assert (tmp_path / "out" / "confusion.png").is_file()


def test_a_network_that_has_seen_what_it_is_scored_on_is_told(model, images, tmp_path):
    content = dict(torch.load(model, weights_only=True))
    table = pd.DataFrame({"path": ["train/main_photo_1.jpeg", "train/main_other.jpeg"], "source": "main"})
    data = PreprocessedData(tmp_path, table, table[:0].assign(source=""), 96, "")
    content["data"] = content["data"] | {"names": torch.from_numpy(seen_name_hashes(data))}
    checkpoint.save(tmp_path / "seen.pt", content)
    (tmp_path / "truth.csv").write_text("image,level\n" + "".join(f"photo_{number},0\n" for number in range(3)))
    for path, told in ((str(tmp_path / "seen.pt"), {str(tmp_path / "seen.pt"): 1}), (model, {})):
        prediction = run(path, images, tmp_path, labels=str(tmp_path / "truth.csv"), report=True)
        assert prediction.metrics["seen_before"] == told
        words = "these figures flatter: 1 of 3 photographs have names that"
        assert (words in " ".join(scoring.summary_lines(prediction.metrics))) == bool(told)
        assert (words in (tmp_path / "out" / "report.html").read_text()) == bool(told)


def test_labels_of_other_photographs_write_nothing(model, images, tmp_path):
    (tmp_path / "truth.csv").write_text("id_code,diagnosis\nelsewhere,1\n")
    with pytest.raises(UsageError, match="none of its 1 ids"):
        run(model, images, tmp_path, labels=str(tmp_path / "truth.csv"))
    assert not (tmp_path / "out").exists()


def test_a_prevalence_moves_cuts_and_probabilities(model, images, tmp_path):
    content = with_validation(dict(torch.load(model, weights_only=True)))
    path = str(tmp_path / "calibrated.pt")
    checkpoint.save(path, content)
    healthy = run(path, images, tmp_path, prevalence=(0.96, 0.01, 0.01, 0.01, 0.01)).details
    ill = run(path, images, tmp_path, prevalence=(0.01, 0.01, 0.01, 0.01, 0.96)).details
    assert healthy["grade"].sum() < ill["grade"].sum()
    assert (healthy["probability_0"] > ill["probability_0"]).all()
    shutil.copy(path, again := str(tmp_path / "again.pt"))
    moved = run([path, again], images, tmp_path, prevalence="auto", tta_by="vote", tta="flips")
    assert "for a prevalence of" in moved.thresholds
    with pytest.raises(UsageError, match="keeps no validation scores"):
        run(model, images, tmp_path, prevalence="auto")


def test_a_picture_unlike_training_is_marked_and_graded_all_the_same(model, images, tmp_path):
    content = dict(torch.load(model, weights_only=True))
    rows = np.array([novelty.measure(photograph(seed % 5, seed=seed)) for seed in range(100)])
    checkpoint.save(tmp_path / "knows.pt", content | {"training": novelty.fit(rows).to_dict()})
    cv2.imwrite(str(images / "page.png"), np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8))
    (images / "bad.png").touch()
    prediction = run(str(tmp_path / "knows.pt"), images, tmp_path)
    details = read(tmp_path)[1].set_index("file")
    assert "unlike_training" in details.loc["page.png", "flags"].split()
    assert details.loc["page.png", "training_distance"] > 1
    assert details.loc["page.png", "grade"] in range(5)
    assert (details["training_distance"].drop(["page.png", "bad.png"]) <= 1).sum() >= 6
    marked = details["flags"].fillna("").str.contains("unlike_training").sum()
    [flags] = [note for note in prediction.notes if note.startswith("flags of the 8 photographs that were graded: ")]
    assert f"unlike_training: {marked}" in flags
    old = run([str(tmp_path / "knows.pt"), model], images, tmp_path)
    assert "training_distance" not in old.details
    assert any(note.startswith("unlike_training: not looked for, ") for note in old.notes)
    checkpoint.save(tmp_path / "damaged.pt", content | {"training": {}})
    with pytest.raises(UsageError, match=r"damaged\.pt: mean, precision and limit of training photographs"):
        run(str(tmp_path / "damaged.pt"), images, tmp_path)


def test_a_network_of_no_use_is_told_in_words_and_on_the_page(model, images, tmp_path):
    content = dict(torch.load(model, weights_only=True))
    for name, accuracy, kappa in (("useless", 0.4, 0.0), ("useful", 0.6, 0.0), ("for_rare_grades", 0.3, 0.1)):
        figures = {"accuracy": accuracy, "majority": 0.4, "intervals": {"kappa_cross_fitted": [kappa, 0.5]}}
        checkpoint.save(tmp_path / f"{name}.pt", content | {"metrics": content["metrics"] | figures})
    told = f"{tmp_path / 'useless.pt'}: do not rely on its grades; on its validation photographs it was no better than"
    prediction = run(
        [str(tmp_path / f"{name}.pt") for name in ("useful", "useless", "for_rare_grades")],
        images,
        tmp_path,
        report=True,
        explain=2,
    )
    assert [note.startswith(told) for note in prediction.notes if "do not rely" in note] == [True]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("do not rely on its grades") == 1


def test_a_photograph_that_is_explained_shows_its_flags(model, images, tmp_path):
    large = cv2.resize(cv2.imread(str(images / "photo_0.png")), (200, 200))  # small ones have no flags
    cv2.imwrite(str(images / "dark.png"), large // 8)
    run(model, images, tmp_path, report=True, explain="all")
    page = (tmp_path / "out" / "report.html").read_text()
    [card] = [part for part in page.split('<li class="card">') if '<span class="file">dark.png</span>' in part]
    assert ">too dark</span>" in card.split("</li>")[0]


def test_folds_of_balanced_photographs_grade_and_are_sure_for_validation_s_mix(images, tmp_path):
    """What folds hold out is mostly of training, where data.py may have balanced the grades."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(5), 60)
    folds = []
    for number in (1, 2):
        path = of_fold(tmp_path / f"{number}.pt", number, FIRST, seed=1, rule="calibrated")
        content = dict(torch.load(path, weights_only=True))
        scores = torch.tensor(truth + rng.normal(scale=0.8, size=300), dtype=torch.float32)[:, None]
        content["test"] = {"predictions": scores, "truth": torch.tensor(truth)}
        natural = np.repeat(np.arange(5), (70, 10, 10, 6, 4))
        content["validation"] = {"predictions": scores[:100], "truth": torch.tensor(natural)}
        checkpoint.save(path, content)
        folds.append(checkpoint.load(path))
    assert ensemble.class_prevalence(folds) == pytest.approx([0.7, 0.1, 0.1, 0.06, 0.04])
    drawn = rng.choice(5, size=20_000, p=[0.7, 0.1, 0.1, 0.06, 0.04])
    scores = drawn + rng.normal(scale=0.8, size=20_000)
    likely = ensemble.probabilities(folds, scores[:, None].astype(np.float32))
    assert likely.mean(axis=0) == pytest.approx([0.7, 0.1, 0.1, 0.06, 0.04], abs=0.04)
    (thresholds, _), words = ensemble.thresholds(folds)
    assert words.endswith("of folds 1, 2 of 3, weighed to validation's mix of grades")
    pooled, known = ensemble.validation(folds)[0]
    balanced = calibration.calibrated_thresholds(pooled[:, 0], known)
    weighed, own = (metrics.macro_f1(drawn, apply_thresholds(scores, each)) for each in (thresholds, balanced))
    assert weighed > own
