"""Where in an image its score comes from: Grad-CAM (Selvaraju et al., ICCV 2017).

The package grad-cam computes the same maps, but takes seconds to import."""

import contextlib
import math
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import nn

from dr import UsageError
from dr.grading.objective import Objective
from dr.networks.build import GradingNetwork

FINEST_CELL_PX = 4  # a feature map with smaller cells is not the last one of a network
MAX_PREFIX_TOKENS = 8  # class and register tokens, which have no place in the image
OPACITY = 0.6  # of the colour where the heat is 1; the colours, blue to green, do not occur in a retina


def heat(
    network: GradingNetwork, objective: Objective, images: torch.Tensor, *, grades: np.ndarray, layer: nn.Module
) -> np.ndarray:
    """images (N, 3, P, P) uint8 RGB, grades (N,), `layer` from last_map -> (N, P, P) float32 in 0..1; the maximum of
    each image is 1.

    Explains the score (regression) or the evidence for each grade: the channels of the layer's output, each weighted by
    its mean gradient, summed, negative sums set to 0. The state, gradients and hooks of the network stay as they were.
    """
    kept: list[torch.Tensor] = []

    def start_gradients(_: nn.Module, __: tuple, output: torch.Tensor) -> torch.Tensor:
        """Layers before this one keep no activations and have no backward pass."""
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # the next layer may work in place

    hook = layer.register_forward_hook(start_gradients)
    with _frozen(network), torch.inference_mode(False), torch.enable_grad():
        try:
            outputs = network(images.to(network.mean.device).float())
        finally:
            hook.remove()
        targets = [objective.target_output(output, int(k)) for output, k in zip(outputs, grades, strict=True)]
        [gradients] = torch.autograd.grad(sum(targets), kept[-1])
    weights = _as_map(gradients).mean(dim=(2, 3), keepdim=True)
    maps = (weights * _as_map(kept[-1].detach())).sum(dim=1).relu().float().cpu().numpy()
    return np.stack([_rescaled(cv2.resize(each, images.shape[-2:])) for each in maps])


def _rescaled(values: np.ndarray) -> np.ndarray:
    """(P, P) -> the same from 0 to 1; all 0 where it is constant."""
    values = values - values.min()
    return values / max(values.max(), np.finfo(np.float32).tiny)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """image (H, W, 3) uint8 RGB, heat (h, w) in 0..1 -> the image (H, W, 3) uint8 RGB, coloured by the heat."""
    enlarged = cv2.resize(np.float32(heat), image.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colours = cv2.applyColorMap(np.uint8(255 * enlarged), cv2.COLORMAP_WINTER)[..., ::-1]
    opacity = OPACITY * enlarged[..., None]
    return np.uint8((1 - opacity) * image + opacity * colours)


@contextlib.contextmanager
def _frozen(network: GradingNetwork) -> Iterator[None]:
    """The network in evaluation mode and without gradients of its own; afterwards as it was."""
    training = {module: module.training for module in network.modules()}
    required = {tensor: tensor.requires_grad for tensor in network.parameters()}
    network.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was
        for tensor, was in required.items():
            tensor.requires_grad_(was)


def _as_map(output: torch.Tensor) -> torch.Tensor:
    """(N, C, s, s), (N, s, s, C) or tokens (N, L, C) -> (N, C, s, s), without prefix tokens."""
    if output.ndim == 3:
        side = _token_side(output.shape[1])
        return output[:, -side * side :].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return output if output.shape[2] == output.shape[3] else output.permute(0, 3, 1, 2)


def _token_side(count: int) -> int | None:
    """Number of tokens of a square grid, perhaps after prefix tokens -> its side; None for other numbers."""
    side = math.isqrt(count)
    return side if count - side * side <= MAX_PREFIX_TOKENS else None


def _side(module: nn.Module, output: object, batch: int) -> int | None:
    """The side of the feature map that a module returns; None where it returns none. Only normalised tokens count:
    attention maps and hidden layers have the same shape."""
    if not isinstance(output, torch.Tensor) or output.ndim < 3 or len(output) != batch:
        return None
    if output.ndim == 4 and output.shape[2] == output.shape[3]:
        return output.shape[2]
    if output.ndim == 4 and output.shape[1] == output.shape[2]:
        return output.shape[1]
    normalised = "norm" in type(module).__name__.lower()
    return _token_side(output.shape[1]) if output.ndim == 3 and normalised else None


def last_map(network: GradingNetwork, image: torch.Tensor) -> nn.Module:
    """image (1, 3, P, P) uint8 RGB -> the last layer, in the order of computation, whose output is a feature map of
    more than one cell that the network's outputs depend on: the one before global pooling, or before the class token
    has collected its information. Raises UsageError for a network without one."""
    image = image.to(network.mean.device).float().requires_grad_()
    candidates: list[tuple[nn.Module, torch.Tensor]] = []
    finest = image.shape[-1] // FINEST_CELL_PX

    def collect(module, _, output):
        side = _side(module, output, len(image))
        if side is not None and 1 < side <= finest:
            candidates.append((module, output))

    hooks = [module.register_forward_hook(collect) for module in network.backbone.modules()]
    with _frozen(network), torch.inference_mode(False), torch.enable_grad():
        try:
            outputs = network(image)
        finally:
            for hook in hooks:
                hook.remove()
        for module, output in reversed(candidates):  # the backward pass seldom reaches further than one layer
            [gradient] = torch.autograd.grad(outputs.sum(), output, allow_unused=True, retain_graph=True)
            if gradient is not None and _as_map(gradient).abs().amax() > 0:
                return module
    raise UsageError(
        f"{type(network.backbone).__name__}: no feature map of more than one cell for images of {image.shape[-1]} "
        "pixels, so Grad-CAM cannot explain it; use --explain 0"
    )
