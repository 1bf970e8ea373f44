import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, checkpoint_content, write_images
from torch import nn

from dr import UsageError
from dr.inference import backends, checkpoint
from dr.inference.forward import TTA_VIEWS
from dr.networks import build as models
from dr.prediction.pipeline import predict

ROOT = Path(__file__).parents[2]
TELLING = """
import socket, sys
asked = []
socket.getaddrinfo = lambda *names, **_: asked.append(names) or []
import torch
from dr.inference import backends
from dr.networks import build as models
from dr.recipes import load as recipes
recipe = recipes.from_dict({"backbone": "resnet18", "pretrained": "none", "image_size": 64})
backends.OpenVINONetwork(models.build(recipe, num_outputs=1), side_px=64)
print(asked, not any(name.startswith("openvino_telemetry.") for name in sys.modules))
"""
CPU = torch.device("cpu")
INSTALLED = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="openvino is not installed")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return models.build(TINY, num_outputs=3, pretrained=False).eval()


@needs_openvino
@pytest.mark.parametrize("tta", ["flips", "d4", "ten"])
def test_openvino_gives_the_outputs_of_torch_for_every_view_and_size_of_batch(network, tta):
    converted = backends.OpenVINONetwork(network, side_px=64)
    for count in (5, 1):
        images = torch.randint(0, 255, (count, 3, 64, 64), dtype=torch.uint8)
        with torch.inference_mode():
            for view in TTA_VIEWS[tta]:
                torch.testing.assert_close(converted(view(images)), network(view(images)), atol=1e-4, rtol=1e-4)


@needs_openvino
def test_openvino_tells_nobody_of_a_conversion():
    said = subprocess.run([sys.executable, "-c", TELLING], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["[]", "True"]


@needs_openvino
def test_predict_gives_the_same_scores_with_either_engine(tmp_path):
    torch.manual_seed(1)
    model = tmp_path / "tiny__best.pt"
    checkpoint.save(model, checkpoint_content(dataclasses.replace(TINY, tta="flips"), thresholds=(-0.5, 0.0, 0.5, 1.0)))
    write_images(tmp_path / "images", [0, 1, 2, 3, 4])
    made = {}
    for name in ("torch", "openvino"):
        prediction = predict(
            [str(model)], str(tmp_path / "images"), output=str(tmp_path / name), workers=0, device_name="cpu",
            engine_name=name,
        )  # fmt: skip
        made[name] = pd.read_csv(tmp_path / name / "details.csv")
        assert name in prediction.engine.lower()
    assert made["torch"]["score"].nunique() > 1
    np.testing.assert_allclose(made["torch"]["score"], made["openvino"]["score"], atol=2e-4)
    assert made["torch"]["grade"].tolist() == made["openvino"]["grade"].tolist()


@pytest.mark.parametrize(
    ("installed", "device", "views", "expected"),
    [(True, "cpu", 1000, "openvino"), (True, "cpu", 10, "torch"), (True, "cuda", 1000, "torch"),
     (False, "cpu", 1000, "torch")],
)  # fmt: skip
def test_auto_takes_openvino_for_much_work_on_a_cpu(monkeypatch, installed, device, views, expected):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: object() if installed else None)
    assert backends.choose_engine("auto", device=torch.device(device), views=views) == expected


def test_an_engine_that_cannot_run_here_is_refused(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: object())
    with pytest.raises(UsageError, match="openvino runs on a CPU, not on cuda; give --device cpu"):
        backends.choose_engine("openvino", device=torch.device("cuda"), views=1)
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="it is not installed; pip install openvino"):
        backends.choose_engine("openvino", device=CPU, views=1)


def test_a_network_that_cannot_be_converted_is_told(monkeypatch, capsys, network):
    class Refusing(nn.Module):
        def __init__(self, *_, **__):
            raise RuntimeError("no conversion for aten::odd\nand more")

    monkeypatch.setattr(backends, "OpenVINONetwork", Refusing)
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: object())
    with pytest.raises(UsageError, match=r"cannot convert this network \(no conversion for aten::odd\); give --engine"):
        backends.prepare_network(network, name="openvino", device=CPU, views=100, side_px=64)
    network, used = backends.prepare_network(network, name="auto", device=CPU, views=100, side_px=64)
    assert network is network
    assert used == "torch"
    assert "note: OpenVINO cannot convert this network (no conversion for aten::odd)" in capsys.readouterr().err


def test_a_network_trained_in_half_precision_is_run_by_a_cpu_in_float32(tmp_path):
    model = tmp_path / "half__best.pt"
    checkpoint.save(model, checkpoint_content(dataclasses.replace(TINY, precision="fp16")))
    write_images(tmp_path / "images", [0, 1])
    predict([str(model)], str(tmp_path / "images"), output=str(tmp_path), workers=0, device_name="cpu")
    assert len(pd.read_csv(tmp_path / "result.csv")) == 2
