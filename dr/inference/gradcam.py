"""Where in a photograph its score comes from: Grad-CAM (Selvaraju et al., ICCV 2017).

The package grad-cam gives the same maps, but takes seconds to import."""

import contextlib
import math
from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from dr import UsageError
from dr.grading.objectives import Binary, Objective, Ordinal, Regression
from dr.networks.build import GradingNetwork

FINEST = 4  # a map whose places are smaller than so many pixels is not the end of a network
MOST_PREFIX_TOKENS = 8  # class and register tokens, which stand at no place of the picture
STRENGTH = 0.6  # of the colour where the heat is greatest; blue to green, which no retina is


def heat(
    network: GradingNetwork, objective: Objective, images: torch.Tensor, *, grades: np.ndarray, layer: nn.Module
) -> np.ndarray:
    """images (N, 3, P, P) uint8 RGB -> (N, P, P) float32 in 0..1, 1 where a photograph's own heat is greatest.

    What raises the score (regression), else what speaks for the class of each in `grades` (N,): channels of `layer`, as
    last_map finds it, each weighed by the mean of its gradient, and of their sum what is above 0. The network's state,
    its tensors' gradients and hooks are afterwards what they were.
    """
    kept: list[torch.Tensor] = []

    def begin_gradients(_: nn.Module, __: tuple, output: torch.Tensor) -> torch.Tensor:
        """What comes before keeps no activations and has no backward pass."""
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # the next layer may work in place

    hook = layer.register_forward_hook(begin_gradients)
    with _only_looked_at(network), torch.inference_mode(False), torch.enable_grad():
        try:
            outputs = network(images.to(network.mean.device).float())
        finally:
            hook.remove()
        spoken = [_evidence(one, objective=objective, grade=int(k)) for one, k in zip(outputs, grades, strict=True)]
        [gradients] = torch.autograd.grad(sum(spoken), kept[-1])
    weights = _as_map(gradients).mean(dim=(2, 3), keepdim=True)
    raised = (weights * _as_map(kept[-1].detach())).sum(dim=1).relu().float().cpu().numpy()
    return np.stack([_stretched(cv2.resize(one, images.shape[-2:])) for one in raised])


def _stretched(raised: np.ndarray) -> np.ndarray:
    """(P, P) -> the same from 0 to 1; all 0 where it is the same everywhere."""
    raised = raised - raised.min()
    return raised / max(raised.max(), np.finfo(np.float32).tiny)


def overlay(photo: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """photo (H, W, 3) uint8 RGB, heat (h, w) in 0..1 -> the photograph, coloured where it is hot."""
    enlarged = cv2.resize(np.float32(heat), photo.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colours = cv2.applyColorMap(np.uint8(255 * enlarged), cv2.COLORMAP_WINTER)[..., ::-1]
    share = STRENGTH * enlarged[..., None]  # what is cold stays as it is
    return np.uint8((1 - share) * photo + share * colours)


def _evidence(output: torch.Tensor, *, objective: Objective, grade: int) -> torch.Tensor:
    """output (num_outputs,) of one photograph -> the number whose gradient is taken."""
    if isinstance(objective, Regression):
        return output[0]
    if isinstance(objective, Binary):
        return output[0] if grade == 1 else -output[0]
    if isinstance(objective, Ordinal):
        return _ordinal_evidence(output, grade)
    return output[grade]


def _ordinal_evidence(output: torch.Tensor, grade: int) -> torch.Tensor:
    """output (K-1,) logits -> what has the gradient of log P(above the grade below) + log P(not above its own), but for
    a factor: that becomes too small for float32 where the network is sure."""
    signed = torch.cat([output[max(grade - 1, 0) : grade], -output[grade : grade + 1]])
    return (F.logsigmoid(-signed).softmax(dim=0).detach() * signed).sum()


@contextlib.contextmanager
def _only_looked_at(network: GradingNetwork) -> Iterator[None]:
    """The network in evaluation mode and without gradients of its own, then as it was."""
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
    """(N, C, s, s), (N, s, s, C) or tokens (N, L, C) -> (N, C, s, s); tokens before the places are left out."""
    if output.ndim == 3:
        side = _token_side(output.shape[1])
        return output[:, -side * side :].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return output if output.shape[2] == output.shape[3] else output.permute(0, 3, 1, 2)


def _token_side(count: int) -> int | None:
    """Tokens of a square of places, perhaps behind some that stand at no place -> its side; None for other counts."""
    side = math.isqrt(count)
    return side if count - side * side <= MOST_PREFIX_TOKENS else None


def _side(module: nn.Module, output: object, batch: int) -> int | None:
    """The side of the map that a module gives; None where it gives none. Of tokens only normalised ones count: maps of
    attention and hidden layers look like them."""
    if not isinstance(output, torch.Tensor) or output.ndim < 3 or len(output) != batch:
        return None
    if output.ndim == 4 and output.shape[2] == output.shape[3]:
        return output.shape[2]
    if output.ndim == 4 and output.shape[1] == output.shape[2]:
        return output.shape[1]
    normalised = "norm" in type(module).__name__.lower()
    return _token_side(output.shape[1]) if output.ndim == 3 and normalised else None


def last_map(network: GradingNetwork, picture: torch.Tensor) -> nn.Module:
    """picture (1, 3, P, P) uint8 RGB -> the last layer, in the order in which they are computed, that gives a map of
    several places which the outputs depend on: before the global pooling, or before a class token has gathered what it
    needs. Raises UsageError for a network that has none."""
    picture = picture.to(network.mean.device).float().requires_grad_()
    seen: list[tuple[nn.Module, torch.Tensor]] = []
    coarse = picture.shape[-1] // FINEST

    def note(module, _, output):
        side = _side(module, output, len(picture))
        if side is not None and 1 < side <= coarse:
            seen.append((module, output))

    hooks = [module.register_forward_hook(note) for module in network.backbone.modules()]
    with _only_looked_at(network), torch.inference_mode(False), torch.enable_grad():
        try:
            outputs = network(picture)
        finally:
            for hook in hooks:
                hook.remove()
        for module, output in reversed(seen):  # one by one: the backward pass seldom goes farther than one layer
            [gradient] = torch.autograd.grad(outputs.sum(), output, allow_unused=True, retain_graph=True)
            if gradient is not None and _as_map(gradient).abs().amax() > 0:
                return module
    raise UsageError(
        f"{type(network.backbone).__name__} has no layer with several places for pictures of {picture.shape[-1]} "
        "pixels, so no heat can be shown; give --explain 0"
    )
