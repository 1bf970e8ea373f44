"""The engine that runs a network on a CPU: torch, or OpenVINO, which is about twice as fast with the same scores."""

import importlib.util
import io
import sys
import threading
import warnings
from contextlib import redirect_stderr

import numpy as np
import torch
from torch import nn

from dr import UsageError

ENGINES = ("auto", "torch", "openvino")
MIN_CONVERTED_VIEWS = 64  # images times TTA views; for fewer, the conversion takes longer than it saves


class OpenVINONetwork(nn.Module):
    """(N, 3, P, P) uint8 -> outputs (N, num_outputs) float32: a network converted for the CPU, computed in float32.
    Threads may share it."""

    def __init__(self, network: nn.Module, *, side_px: int):
        super().__init__()
        # OpenVINO sends telemetry for every conversion; hiding this module disables it
        sys.modules["openvino_telemetry"] = None
        import openvino  # takes part of a second, and only here

        example = torch.zeros(1, 3, side_px, side_px, dtype=torch.uint8)
        with warnings.catch_warnings(), torch.inference_mode(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # tracing warns of every shape that Python reads
            traced = torch.jit.trace(network.eval(), example, check_trace=False)
            model = openvino.convert_model(traced, example_input=example)
        model.reshape([-1, 3, side_px, side_px])
        self._compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self._requests = threading.local()  # an infer request runs one inference at a time

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        outputs = self._requests.own.infer([np.ascontiguousarray(images.numpy())], share_inputs=True)
        return torch.from_numpy(outputs[0].copy())


def choose_engine(name: str, *, device: torch.device, views: int) -> str:
    """auto, torch or openvino, the device, the number of images times TTA views -> torch or openvino. auto takes
    OpenVINO on a CPU where it is installed and has at least MIN_CONVERTED_VIEWS views. Raises UsageError for an engine
    that cannot run here."""
    installed = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and not installed:
        raise UsageError("--engine openvino: not installed; run pip install openvino, or use --engine torch")
    if name == "openvino" and device.type != "cpu":
        raise UsageError(f"--engine openvino: runs on a CPU, not on {device.type}; use --device cpu or --engine torch")
    if name == "auto":
        return "openvino" if installed and device.type == "cpu" and views >= MIN_CONVERTED_VIEWS else "torch"
    return name


def prepare_network(
    network: nn.Module, *, name: str, device: torch.device, views: int, side_px: int
) -> tuple[nn.Module, str]:
    """A network, `name` as in `choose_engine`, side of its input -> the network as the engine runs it, on its device,
    and the name of that engine. Raises UsageError for an engine that cannot run here, or not this network. With "auto",
    torch runs a network that OpenVINO cannot convert, and a note is printed."""
    chosen = choose_engine(name, device=device, views=views)
    if chosen == "openvino":
        try:
            return OpenVINONetwork(network, side_px=side_px), "OpenVINO, float32"
        except Exception as exc:  # each front end of OpenVINO and torch's tracer raise their own
            reason = (str(exc) or type(exc).__name__).splitlines()[0]
            if name == "openvino":
                raise UsageError(
                    f"--engine openvino: cannot convert this network ({reason}); use --engine torch"
                ) from exc
            print(f"note: OpenVINO cannot convert this network ({reason}); torch runs it", file=sys.stderr)
    return network.to(device), "torch"
