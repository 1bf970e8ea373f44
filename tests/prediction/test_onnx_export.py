"""The ONNX file gives what predict.py gives, with nothing but its metadata and the example of the README."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from made import TINY, checkpoint_content, write_images

from dr import UsageError
from dr.cli import run as cli
from dr.core import device
from dr.grading import calibration, objectives
from dr.imaging import fundus
from dr.imaging.resize import resize_and_crop, to_tensor
from dr.inference import checkpoint
from dr.prediction.onnx_export import export
from dr.prediction.pipeline import predict
from dr.recipes.load import from_dict

ROOT = Path(__file__).parents[2]
[EXAMPLE] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
PHOTOS = [0, 1, 2, 3, 4]
SPREAD = 0.3
# objective and rule -> cuts, number of classes; random networks answer near 0, or near 0.5 a logit
KINDS = {
    "regression optimal": ((-0.5, 0.0, 0.1, 0.5), 5),
    "ordinal optimal": ((1.8, 1.9, 2.0, 2.1), 5),
    "ordinal argmax": (None, 5),
    "classification optimal": (None, 5),
    "binary optimal": ((0.5,), 2),
    "regression optimal calibrated": ((-0.5, 0.0, 0.1, 0.5), 5),
    "ordinal argmax calibrated": (None, 5),
    "binary optimal calibrated": ((0.5,), 2),
}


def saved(path: Path, kind: str = "regression optimal", **choices) -> str:
    """A checkpoint with random weights and normalisation of its own, and with a calibration where the kind says so."""
    (objective, rule, *calibrated), (thresholds, count) = kind.split(), KINDS[kind]
    torch.manual_seed(1)
    own = {"objective": objective, "loss": None, "thresholds": rule, "mean": [0.4, 0.3, 0.2], "std": [0.3, 0.2, 0.1]}
    recipe = from_dict(TINY.to_dict() | own | choices)
    content = checkpoint_content(recipe, thresholds=thresholds, classes=tuple("abcde"[:count]))
    if calibrated:
        number = calibration.num_offsets(objectives.build(recipe, num_classes=count))
        content["calibration"] = {"slope": 1.5, "offsets": [-0.6, -0.1, 0.2, 0.7, 0.9][:number]}
    checkpoint.save(path, content)
    return str(path)


def told_apart(path: str, photographs: list[Path]) -> str:
    """The checkpoint with a last layer whose outputs for these photographs have mean 0 and deviation SPREAD, where
    random weights would give all of them one grade."""
    one, content = checkpoint.load(path), dict(torch.load(path, weights_only=True))
    images = []
    for photograph in photographs:
        prepared, _, _ = fundus.decode_and_preprocess(photograph.read_bytes(), size_px=one.prepared_px)
        images.append(
            to_tensor(resize_and_crop(cv2.cvtColor(prepared, cv2.COLOR_BGR2RGB), size_px=one.recipe.image_size))
        )
    with torch.inference_mode():
        outputs = one.network(torch.stack(images))
    weight, bias = content["model"]["classifier.weight"], content["model"]["classifier.bias"]
    times = SPREAD / outputs.std(dim=0)
    weight.mul_(times[:, None])
    bias.sub_(outputs.mean(dim=0)).mul_(times)
    checkpoint.save(path, content)
    return path


@pytest.fixture
def photographs(tmp_path) -> list[Path]:
    return write_images(tmp_path / "images", PHOTOS)


def by_example(paths, folder, monkeypatch) -> dict:
    """What the README's example computes of photographs, from model.onnx in `folder`."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["example.py", *map(str, paths)])
    space = {}
    exec(EXAMPLE, space)
    return space


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_gives_the_scores_probabilities_and_grades_of_predict(kind, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "best_precision", lambda _: "fp32")
    model = told_apart(saved(tmp_path / "tiny.pt", kind), photographs)
    options = {"output": str(tmp_path / "out"), "workers": 0, "device_name": "cpu"}
    details = predict([model], str(tmp_path / "images"), **options).details
    assert details["grade"].nunique() > 1
    export([model], tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    together = by_example(photographs, tmp_path, monkeypatch)
    alone = [by_example([path], tmp_path, monkeypatch) for path in photographs]
    for scores, grades in [
        (together["scores"], together["grades"]),
        (np.concatenate([one["scores"] for one in alone]), np.concatenate([one["grades"] for one in alone])),
    ]:
        assert (scores.dtype, grades.dtype) == (np.float32, np.int64)
        assert np.abs(scores - details["score"].to_numpy()).max() < 1e-4 + 5e-5  # details.csv has four digits
        assert grades.tolist() == details["grade"].tolist()
    probabilities = together["probabilities"]
    columns = [name for name in details.columns if name.startswith("probability_")]
    assert len(probabilities) == (kind != "regression optimal")
    if probabilities:
        assert np.abs(probabilities[0] - details[columns].to_numpy()).max() < 1e-4 + 5e-5


def test_the_metadata_says_how_a_photograph_becomes_the_input(tmp_path, photographs, monkeypatch):
    content = torch.load(saved(tmp_path / "tiny.pt", image_size=80, crop_size=64, tta="d4"), weights_only=True)
    checkpoint.save(tmp_path / "tiny.pt", content | {"data": {"size": 90, "crop": False, "fingerprint": ""}})
    monkeypatch.setattr(sys, "argv", ["predict.py", "-m", f"{tmp_path}/tiny.pt", "--export", f"{tmp_path}/model.onnx"])
    facts = by_example_after_predict(tmp_path, photographs, monkeypatch)
    assert (facts["prepared_size"], facts["cropped"]) == (90, False)
    assert (facts["image_size"], facts["crop_size"]) == (80, 64)
    assert (facts["mean"], facts["std"]) == ([0.4, 0.3, 0.2], [0.3, 0.2, 0.1])
    assert (facts["thresholds"], facts["classes"]) == ([-0.5, 0.0, 0.1, 0.5], list("abcde"))
    assert (facts["objective"], facts["backbone"]) == ("regression", "test_efficientnet")
    assert from_dict(facts["recipe"]).image_size == 80


def by_example_after_predict(folder, paths, monkeypatch) -> dict:
    from dr.commands import predict as script

    with pytest.raises(SystemExit) as ended:
        cli.run(script.main, go_on="start again")
    assert ended.value.code == 0
    return by_example(paths, folder, monkeypatch)["facts"]


@pytest.mark.parametrize(
    ("models", "name", "message"),
    [
        (["a.pt", "b.pt"], "model.onnx", "--export writes one network, but -m names 2 checkpoints; give one"),
        (["a.pt"], "model.pt", r"model\.pt: its name must end in \.onnx"),
        (["a.pt"], "model.onnx", r"a\.pt: there is no such file of weights"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line_and_nothing_is_written(tmp_path, models, name, message):
    with pytest.raises(UsageError, match=message):
        export([str(tmp_path / one) for one in models], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_flags_that_an_export_would_leave_out_are_refused(tmp_path, monkeypatch, capsys):
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
        cli.run(script.main, go_on="start again")
    assert ended.value.code == 2
    assert "--prevalence changes nothing of what --export writes; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_a_graph_that_does_not_pass_the_check_is_not_written(tmp_path, monkeypatch):
    model = saved(tmp_path / "tiny.pt")
    monkeypatch.setattr("dr.prediction.onnx_export._converted", lambda _: onnx.ModelProto())
    with pytest.raises(onnx.checker.ValidationError):
        export([model], tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pt"]
