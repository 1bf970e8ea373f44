import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, checkpoint_content, write_checkpoint, write_images
from torch import nn

from dr import UsageError
from dr.inference import backends
from dr.inference.forward import TTA_VIEWS
from dr.networks.build import build
from dr.prediction.options import PredictOptions
from dr.prediction.pipeline import predict

ROOT = Path(__file__).parents[2]
CONVERSION = """
import socket, sys
lookups = []
socket.getaddrinfo = lambda *names, **_: lookups.append(names) or []
import torch
from dr.inference import backends
from dr.networks.build import build
from dr.recipes.load import from_dict
recipe = from_dict({"backbone": "test_resnet", "pretrained": "none", "image_size": 64})
backends.OpenVINONetwork(build(recipe, num_outputs=1), side_px=64)
print(lookups, not any(name.startswith("openvino_telemetry.") for name in sys.modules))
"""
CPU = torch.device("cpu")
INSTALLED = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="openvino is not installed")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return build(TINY, num_outputs=3, pretrained=False).eval()


@needs_openvino
@pytest.mark.parametrize("tta", ["flips", "d4", "ten"])
def test_openvino_returns_the_outputs_of_torch_for_every_view_and_batch_size(network, tta):
    converted = backends.OpenVINONetwork(network, side_px=64)
    for count in (5, 1):
        images = torch.randint(0, 255, (count, 3, 64, 64), dtype=torch.uint8)
        with torch.inference_mode():
            for view in TTA_VIEWS[tta]:
                torch.testing.assert_close(converted(view(images)), network(view(images)), atol=1e-4, rtol=1e-4)


@needs_openvino
def test_openvino_sends_no_telemetry():
    printed = subprocess.check_output([sys.executable, "-c", CONVERSION], cwd=ROOT, text=True)
    assert printed.split() == ["[]", "True"]


@needs_openvino
def test_predict_gives_the_same_scores_with_either_engine(tmp_path):
    torch.manual_seed(1)
    model = tmp_path / "tiny__best.pt"
    write_checkpoint(
        model, checkpoint_content(dataclasses.replace(TINY, tta="flips"), thresholds=(-0.5, 0.0, 0.5, 1.0))
    )
    write_images(tmp_path / "images", [0, 1, 2, 3, 4])
    made = {}
    for name in ("torch", "openvino"):
        options = {"output": str(tmp_path / name), "workers": 0, "device": "cpu", "engine": name}
        prediction = predict(PredictOptions(models=[str(model)], images=str(tmp_path / "images"), **options))
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
def test_auto_takes_openvino_for_many_images_on_a_cpu(monkeypatch, installed, device, views, expected):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: object() if installed else None)
    assert backends.choose_engine("auto", device=torch.device(device), views=views) == expected


def test_an_engine_that_cannot_run_here_is_refused(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: object())
    with pytest.raises(UsageError, match="--engine openvino: runs on a CPU, not on cuda; use --device cpu"):
        backends.choose_engine("openvino", device=torch.device("cuda"), views=1)
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="--engine openvino: not installed; run pip install openvino"):
        backends.choose_engine("openvino", device=CPU, views=1)


def test_a_network_that_openvino_cannot_convert_is_refused_or_run_by_torch(monkeypatch, capsys, network):
    class Refusing(nn.Module):
        def __init__(self, *_, **__):
            raise RuntimeError("no conversion for aten::odd\nand more")

    monkeypatch.setattr(backends, "OpenVINONetwork", Refusing)
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: object())
    with pytest.raises(UsageError, match=r"cannot convert this network \(no conversion for aten::odd\); use --engine"):
        backends.prepare_network(network, name="openvino", device=CPU, views=100, side_px=64)
    network, used = backends.prepare_network(network, name="auto", device=CPU, views=100, side_px=64)
    assert network is network
    assert used == "torch"
    assert "note: OpenVINO cannot convert this network (no conversion for aten::odd)" in capsys.readouterr().err


def test_a_cpu_runs_a_network_trained_in_half_precision_in_float32(tmp_path):
    model = tmp_path / "half__best.pt"
    write_checkpoint(model, checkpoint_content(dataclasses.replace(TINY, precision="fp16")))
    write_images(tmp_path / "images", [0, 1])
    options = {"output": str(tmp_path), "workers": 0, "device": "cpu"}
    predict(PredictOptions(models=[str(model)], images=str(tmp_path / "images"), **options))
    assert len(pd.read_csv(tmp_path / "result.csv")) == 2
