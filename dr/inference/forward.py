"""Networks + batches -> outputs -> mean predictions and grades: for validation, test, predict.py and the API."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from dr.core import distributed
from dr.grading.objective import Objective

TTAView = Callable[[torch.Tensor], torch.Tensor]  # (N, 3, H, W) uint8 -> the same shape
SHIFT = 1 / 16  # of the side, towards each corner: as the five test crops of AlexNet, without cropping


def _identity(images: torch.Tensor) -> torch.Tensor:
    return images


def _transposed(images: torch.Tensor, *, flip: TTAView) -> torch.Tensor:
    return flip(images.transpose(-2, -1))


def _shifted(images: torch.Tensor, *, down: int, right: int, mirrored: bool) -> torch.Tensor:
    """Shifted by SHIFT of the side towards a corner (signs of `down` and `right`), with a replicated border."""
    height, width = images.shape[-2:]
    dy, dx = max(1, round(SHIFT * height)), max(1, round(SHIFT * width))
    padded = F.pad(images.float(), (dx, dx, dy, dy), mode="replicate").to(images.dtype)
    top, left = dy - down * dy, dx - right * dx
    moved = padded[..., top : top + height, left : left + width]
    return moved.flip(-1) if mirrored else moved


_CORNERS = [(0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
_FIVE = [partial(_shifted, down=down, right=right, mirrored=False) for down, right in _CORNERS]
_MIRRORED = [partial(_shifted, down=down, right=right, mirrored=True) for down, right in _CORNERS]
_FLIPS = [_identity, *(partial(torch.flip, dims=dims) for dims in ((-1,), (-2,), (-2, -1)))]
TTA_VIEWS: dict[str, Sequence[TTAView]] = {  # of a recipe's `tta`; five and ten after Krizhevsky et al., NeurIPS 2012
    "none": [_identity],
    "flips": _FLIPS,
    "d4": [*_FLIPS, *(partial(_transposed, flip=flip) for flip in _FLIPS)],
    "five": _FIVE,
    "ten": [*_FIVE, *_MIRRORED],
}


class HasObjective(Protocol):
    """A Scorer or a Checkpoint."""

    objective: Objective


@dataclass(frozen=True)
class Scorer:
    """A network to run: (N, 3, P, P) uint8 -> outputs (N, num_outputs); `input_key` names its input in a batch."""

    model: nn.Module
    objective: Objective
    input_key: str = "image"


@dataclass(frozen=True)
class Compute:
    """Device and mixed precision (no, fp16 or bf16) of an Accelerator, whose own state the next Accelerator of the same
    process replaces."""

    device: torch.device
    precision: str

    @classmethod
    def of(cls, accelerator: Accelerator) -> "Compute":
        return cls(accelerator.device, accelerator.mixed_precision)

    def autocast(self) -> contextlib.AbstractContextManager:
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision)
        return contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)


@torch.inference_mode()
def infer(
    scorers: Sequence[Scorer],
    batches: Iterable[dict],
    *,
    accelerator: Accelerator | Compute,
    views: Sequence[TTAView] = TTA_VIEWS["none"],
    gather: bool = True,
) -> tuple[np.ndarray, list[torch.Tensor]]:
    """Batches {"index": (N,) int64, scorer.input_key: (N, 3, P, P) uint8} -> index (M,) int64, ascending, and for each
    scorer its outputs (V, M, num_outputs) float32 on the CPU, V views. With `gather` each process of torchrun brings
    its own batches and returns the outputs of all."""
    indices: list[torch.Tensor] = [torch.empty(0, dtype=torch.int64)]  # a process may have no batch
    collected = [[torch.empty(len(views), 0, scorer.objective.num_outputs)] for scorer in scorers]
    for scorer in scorers:
        scorer.model.eval()
    # on a CPU bfloat16 shifts scores by tenths of a grade, and OpenVINO, which computes in float32, would differ
    precision = contextlib.nullcontext if accelerator.device.type == "cpu" else accelerator.autocast
    for batch in batches:
        for scorer, outputs in zip(scorers, collected, strict=True):
            images = batch[scorer.input_key].to(accelerator.device, non_blocking=True)
            with precision():
                by_view = [scorer.model(view(images)).float().cpu() for view in views]
            outputs.append(torch.stack(by_view))
        indices.append(batch["index"].cpu())
    own = torch.cat(indices), [torch.cat(outputs, dim=1) for outputs in collected]
    parts = distributed.all_gather(own) if gather else [own]
    index, first = np.unique(torch.cat([index for index, _ in parts]).numpy(), return_index=True)
    by_scorer = zip(*(outputs for _, outputs in parts), strict=True)
    return index, [torch.cat(outputs, dim=1)[:, first] for outputs in by_scorer]


def mean_predictions(scorers: Sequence[HasObjective], outputs: Sequence[torch.Tensor]) -> np.ndarray:
    """Outputs of each scorer (V, M, num_outputs) -> predictions (M, P), the mean over all views of all scorers."""
    predictions = [
        scorer.objective.predictions(view.double())
        for scorer, by_view in zip(scorers, outputs, strict=True)
        for view in by_view
    ]
    return torch.stack(predictions).mean(dim=0).numpy()


def voted_grades(
    scorers: Sequence[HasObjective], outputs: Sequence[torch.Tensor], *, thresholds: Sequence[np.ndarray | None]
) -> np.ndarray:
    """Outputs of each scorer (V, M, num_outputs), its thresholds -> grades (M,) int64: the grade of most views; of
    tied grades the most probable one by the mean prediction."""
    votes = [
        scorer.objective.grades(scorer.objective.predictions(view.double()).numpy(), own)
        for scorer, by_view, own in zip(scorers, outputs, thresholds, strict=True)
        for view in by_view
    ]
    objective = scorers[0].objective
    counts = (np.array(votes)[..., None] == np.arange(objective.num_classes)).sum(axis=0)  # (M, K)
    mean = objective.class_scores(mean_predictions(scorers, outputs))
    return np.where(counts == counts.max(axis=1, keepdims=True), mean, -np.inf).argmax(axis=1)


def decide(
    scorers: Sequence[HasObjective],
    outputs: Sequence[torch.Tensor],
    *,
    thresholds: Sequence[np.ndarray | None],
    by: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of each scorer (V, M, num_outputs), its thresholds, `by` mean or vote -> predictions (M, P), grades
    (M,)."""
    predictions = mean_predictions(scorers, outputs)
    if by == "vote":
        return predictions, voted_grades(scorers, outputs, thresholds=thresholds)
    mean_thresholds = None if thresholds[0] is None else np.mean(thresholds, axis=0)
    return predictions, scorers[0].objective.grades(predictions, mean_thresholds)
