"""The ONNX file, with its metadata and the example in the docs alone, reproduces the results of predict.py."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from made import TINY, checkpoint_content, write_checkpoint, write_images

from dr import UsageError
from dr.cli.run import run_main
from dr.core import device
from dr.grading import objectives
from dr.imaging import fundus
from dr.imaging.resize import resize_and_crop, to_tensor
from dr.inference.checkpoint import Checkpoint
from dr.prediction.onnx_export import export
from dr.prediction.options import PredictOptions
from dr.prediction.pipeline import predict
from dr.recipes.load import from_dict

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "predicting.md").read_text()
[EXAMPLE] = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
GRADES_OF_IMAGES = [0, 1, 2, 3, 4]
SPREAD = 0.3
# objective and rule -> thresholds, number of classes; random networks answer near 0, or near 0.5 a logit
KINDS = {
    "regression optimal": ((-0.5, 0.0, 0.1, 0.5), 5),
    "ordinal optimal": ((1.8, 1.9, 2.0, 2.1), 5),
    "classification optimal": (None, 5),
    "regression optimal calibrated": ((-0.5, 0.0, 0.1, 0.5), 5),
    "ordinal argmax calibrated": (None, 5),
    "binary optimal calibrated": ((0.5,), 2),
}


def saved(path: Path, kind: str = "regression optimal", **options) -> str:
    """A checkpoint with random weights and normalisation of its own, with a calibration if the kind has one."""
    (objective, rule, *calibrated), (thresholds, count) = kind.split(), KINDS[kind]
    torch.manual_seed(1)
    own = {"objective": objective, "loss": None, "thresholds": rule, "mean": [0.4, 0.3, 0.2], "std": [0.3, 0.2, 0.1]}
    recipe = from_dict(TINY.to_dict() | own | options)
    content = checkpoint_content(recipe, thresholds=thresholds, classes=tuple("abcde"[:count]))
    if calibrated:
        number = objectives.build(recipe, num_classes=count).num_offsets
        content["calibration"] = {"slope": 1.5, "offsets": [-0.6, -0.1, 0.2, 0.7, 0.9][:number]}
    write_checkpoint(path, content)
    return str(path)


def with_spread_outputs(path: str, images: list[Path]) -> str:
    """The checkpoint with a last layer whose outputs for these images have mean 0 and deviation SPREAD; with random
    weights all of them would have one grade."""
    checkpoint, content = Checkpoint.load(path), dict(torch.load(path, weights_only=True))
    inputs = []
    for image in images:
        preprocessed, *_ = fundus.decode_and_preprocess(image.read_bytes(), size_px=checkpoint.data.size_px)
        rgb = cv2.cvtColor(preprocessed, cv2.COLOR_BGR2RGB)
        inputs.append(to_tensor(resize_and_crop(rgb, size_px=checkpoint.recipe.image_size)))
    with torch.inference_mode():
        outputs = checkpoint.network(torch.stack(inputs))
    weight, bias = content["model"]["classifier.weight"], content["model"]["classifier.bias"]
    times = SPREAD / outputs.std(dim=0)
    weight.mul_(times[:, None])
    bias.sub_(outputs.mean(dim=0)).mul_(times)
    write_checkpoint(path, content)
    return path


@pytest.fixture
def images(tmp_path) -> list[Path]:
    return write_images(tmp_path / "images", GRADES_OF_IMAGES)


def by_example(paths, folder, monkeypatch) -> dict:
    """The result of the example in the docs for these images, with model.onnx in `folder`."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["example.py", *map(str, paths)])
    space = {}
    exec(EXAMPLE, space)
    return space


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_returns_the_scores_probabilities_and_grades_of_predict(kind, images, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "best_precision", lambda _: "fp32")
    model = with_spread_outputs(saved(tmp_path / "tiny.pt", kind), images)
    options = {"output": str(tmp_path / "out"), "workers": 0, "device": "cpu"}
    details = predict(PredictOptions(models=[model], images=str(tmp_path / "images"), **options)).details
    assert details["grade"].nunique() > 1
    export([model], tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    together = by_example(images, tmp_path, monkeypatch)
    alone = [by_example([path], tmp_path, monkeypatch) for path in images]
    for scores, grades in [
        (together["scores"], together["grades"]),
        (np.concatenate([each["scores"] for each in alone]), np.concatenate([each["grades"] for each in alone])),
    ]:
        assert (scores.dtype, grades.dtype) == (np.float32, np.int64)
        assert np.abs(scores - details["score"].to_numpy()).max() < 1e-4 + 5e-5  # details.csv has four digits
        assert grades.tolist() == details["grade"].tolist()
    probabilities = together["probabilities"]
    columns = [name for name in details.columns if name.startswith("probability_")]
    assert len(probabilities) == (kind != "regression optimal")
    if probabilities:
        assert np.abs(probabilities[0] - details[columns].to_numpy()).max() < 1e-4 + 5e-5


def test_the_metadata_describes_how_an_image_becomes_the_input(tmp_path, images, monkeypatch):
    content = torch.load(saved(tmp_path / "tiny.pt", image_size=80, crop_size=64, tta="d4"), weights_only=True)
    write_checkpoint(tmp_path / "tiny.pt", content | {"data": {"size_px": 90, "crop": False, "fingerprint": ""}})
    monkeypatch.setattr(sys, "argv", ["predict.py", "-m", f"{tmp_path}/tiny.pt", "--export", f"{tmp_path}/model.onnx"])
    facts = by_example_after_predict(tmp_path, images, monkeypatch)
    assert (facts["preprocessed_size"], facts["cropped"]) == (90, False)
    assert (facts["image_size"], facts["crop_size"]) == (80, 64)
    assert (facts["mean"], facts["std"]) == ([0.4, 0.3, 0.2], [0.3, 0.2, 0.1])
    assert (facts["thresholds"], facts["classes"]) == ([-0.5, 0.0, 0.1, 0.5], list("abcde"))
    assert (facts["objective"], facts["backbone"]) == ("regression", "test_efficientnet")
    assert from_dict(facts["recipe"]).image_size == 80


def by_example_after_predict(folder, paths, monkeypatch) -> dict:
    from dr.commands import predict as script

    with pytest.raises(SystemExit) as ended:
        run_main(script.main, go_on="start again")
    assert ended.value.code == 0
    return by_example(paths, folder, monkeypatch)["metadata"]


@pytest.mark.parametrize(
    ("models", "name", "message"),
    [
        (["a.pt", "b.pt"], "model.onnx", "--export writes one network, but -m has 2 checkpoints; pass one"),
        (["a.pt"], "model.pt", r"model\.pt: not an ONNX file name; use one that ends in \.onnx"),
        (["a.pt"], "model.onnx", r"a\.pt: file of weights not found; check the path"),
    ],
)
def test_an_impossible_export_is_a_usage_error_and_writes_nothing(tmp_path, models, name, message):
    with pytest.raises(UsageError, match=message):
        export([str(tmp_path / each) for each in models], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_flags_without_effect_on_an_export_are_refused(tmp_path, monkeypatch, capsys):
    from dr.commands import predict as script

    line = [
        "predict.py",
        "-m",
        saved(tmp_path / "tiny.pt"),
        "--export",
        str(tmp_path / "m.onnx"),
        "--prevalence",
        "auto",
    ]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as ended:
        run_main(script.main, go_on="start again")
    assert ended.value.code == 2
    assert "--prevalence has no effect on what --export writes; omit one" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_a_graph_that_fails_the_onnx_check_is_not_written(tmp_path, monkeypatch):
    model = saved(tmp_path / "tiny.pt")
    monkeypatch.setattr("dr.prediction.onnx_export._converted", lambda _: onnx.ModelProto())
    with pytest.raises(onnx.checker.ValidationError):
        export([model], tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pt"]
