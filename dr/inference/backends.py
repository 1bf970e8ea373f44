"""What runs a network of predict.py on a CPU: torch, or OpenVINO, which is about twice as fast with the same scores."""

import importlib.util
import io
import sys
import warnings
from contextlib import redirect_stderr

import numpy as np
import torch
from torch import nn

from dr import UsageError

CONVERTED_FROM = 64  # views of photographs: for fewer, converting takes longer than it saves


class OpenVINONetwork(nn.Module):
    """(N, 3, P, P) uint8 -> outputs (N, num_outputs) float32: a network converted for the CPU, computed in float32."""

    def __init__(self, network: nn.Module, *, side_px: int):
        super().__init__()
        # it would tell its maker of each conversion over the network; where that module is missing it tells nobody
        sys.modules["openvino_telemetry"] = None
        import openvino  # a part of a second, and only here

        example = torch.zeros(1, 3, side_px, side_px, dtype=torch.uint8)
        with warnings.catch_warnings(), torch.inference_mode(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # tracing warns of every shape that Python looked at
            traced = torch.jit.trace(network.eval(), example, check_trace=False)
            model = openvino.convert_model(traced, example_input=example)
        model.reshape([-1, 3, side_px, side_px])
        self._network = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._network([np.ascontiguousarray(images.numpy())])[0].copy())


def choose_engine(name: str, *, device: torch.device, views: int) -> str:
    """The engine asked for (auto, torch or openvino), where the network runs, how many views it will see -> torch or
    openvino: auto takes OpenVINO on a CPU, where it is installed and there is enough to do. Raises UsageError for an
    engine that cannot run here."""
    installed = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and not installed:
        raise UsageError("--engine openvino: it is not installed; pip install openvino, or give --engine torch")
    if name == "openvino" and device.type != "cpu":
        raise UsageError(f"--engine openvino runs on a CPU, not on {device.type}; give --device cpu or --engine torch")
    if name == "auto":
        return "openvino" if installed and device.type == "cpu" and views >= CONVERTED_FROM else "torch"
    return name


def prepare_network(
    network: nn.Module, *, name: str, device: torch.device, views: int, side_px: int
) -> tuple[nn.Module, str]:
    """A network, the engine's `name` as `choose` takes it -> the network as the engine runs it, on its device, and the
    engine in words. Raises UsageError for an engine that cannot run here, or not this network; with "auto" a network
    that OpenVINO cannot convert is run by torch, which is told."""
    chosen = choose_engine(name, device=device, views=views)
    if chosen == "openvino":
        try:
            return OpenVINONetwork(network, side_px=side_px), "OpenVINO, float32"
        except Exception as exc:  # each front end of OpenVINO and torch's tracer raise their own
            reason = (str(exc) or type(exc).__name__).splitlines()[0]
            if name == "openvino":
                raise UsageError(
                    f"--engine openvino: it cannot convert this network ({reason}); give --engine torch"
                ) from exc
            print(f"note: OpenVINO cannot convert this network ({reason}); torch runs it", file=sys.stderr)
    return network.to(device), "torch"
