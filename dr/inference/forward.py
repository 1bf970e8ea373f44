"""Networks + batches -> outputs: for validation, test, prediction, views and ensembles, one function."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from dr.core import distributed
from dr.grading.objectives import Objective, class_scores, grades

TTAView = Callable[[torch.Tensor], torch.Tensor]  # (N, 3, H, W) uint8 -> the same shape
SHIFT = 1 / 16  # of the side, to each corner: what the five crops of AlexNet's test are to a picture that stays whole


def _as_it_is(images: torch.Tensor) -> torch.Tensor:
    return images


def _transposed(images: torch.Tensor, *, flip: TTAView) -> torch.Tensor:
    return flip(images.transpose(-2, -1))


def _shifted(images: torch.Tensor, *, down: int, right: int, mirrored: bool) -> torch.Tensor:
    """Moved by a sixteenth of the side to a corner (signs of `down` and `right`), the border repeated."""
    height, width = images.shape[-2:]
    dy, dx = max(1, round(SHIFT * height)), max(1, round(SHIFT * width))
    padded = F.pad(images.float(), (dx, dx, dy, dy), mode="replicate").to(images.dtype)
    top, left = dy - down * dy, dx - right * dx
    moved = padded[..., top : top + height, left : left + width]
    return moved.flip(-1) if mirrored else moved


_CORNERS = [(0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
_FIVE = [partial(_shifted, down=down, right=right, mirrored=False) for down, right in _CORNERS]
_MIRRORED = [partial(_shifted, down=down, right=right, mirrored=True) for down, right in _CORNERS]
_FLIPS = [_as_it_is, *(partial(torch.flip, dims=dims) for dims in ((-1,), (-2,), (-2, -1)))]
TTA_VIEWS: dict[str, Sequence[TTAView]] = {  # of a recipe's `tta`; five and ten after Krizhevsky et al., NeurIPS 2012
    "none": [_as_it_is],
    "flips": _FLIPS,
    "d4": [*_FLIPS, *(partial(_transposed, flip=flip) for flip in _FLIPS)],
    "five": _FIVE,
    "ten": [*_FIVE, *_MIRRORED],
}


@dataclass(frozen=True)
class Scorer:
    """One network that takes part: (N, 3, P, P) uint8 -> outputs (N, num_outputs); `image` is its key in a batch."""

    model: nn.Module
    objective: Objective
    image: str = "image"


@torch.inference_mode()
def infer(
    scorers: Sequence[Scorer],
    batches: Iterable[dict],
    *,
    accelerator: Accelerator,
    views: Sequence[TTAView] = TTA_VIEWS["none"],
) -> tuple[np.ndarray, list[torch.Tensor]]:
    """batches of {"index": (N,) int64, scorer.image: (N, 3, P, P) uint8} -> index (M,) int64 ascending, and for each
    scorer its outputs (V, M, num_outputs) float32 on the CPU, V views. Of several processes each brings its own batches
    and is given the outputs of all."""
    indices: list[torch.Tensor] = [torch.empty(0, dtype=torch.int64)]  # a process may have been left without a batch
    gathered = [[torch.empty(len(views), 0, scorer.objective.num_outputs)] for scorer in scorers]
    for scorer in scorers:
        scorer.model.eval()
    # on a CPU bfloat16 moves scores by tenths of a grade, and predict.py, whose engine is float32, would give others
    precision = contextlib.nullcontext if accelerator.device.type == "cpu" else accelerator.autocast
    for batch in batches:
        for scorer, outputs in zip(scorers, gathered, strict=True):
            images = batch[scorer.image].to(accelerator.device, non_blocking=True)
            with precision():
                seen = [scorer.model(view(images)).float().cpu() for view in views]
            outputs.append(torch.stack(seen))
        indices.append(batch["index"].cpu())
    own = torch.cat(indices), [torch.cat(outputs, dim=1) for outputs in gathered]
    everyones = distributed.all_gather(own)
    index, first = np.unique(torch.cat([index for index, _ in everyones]).numpy(), return_index=True)
    by_scorer = zip(*(outputs for _, outputs in everyones), strict=True)
    return index, [torch.cat(outputs, dim=1)[:, first] for outputs in by_scorer]


def mean_predictions(scorers: Sequence[Scorer], outputs: Sequence[torch.Tensor]) -> np.ndarray:
    """Outputs of each scorer (V, M, num_outputs) -> predictions (M, P), the mean over all views of all scorers."""
    views = [
        scorer.objective.predictions(view.double())
        for scorer, seen in zip(scorers, outputs, strict=True)
        for view in seen
    ]
    return torch.stack(views).mean(dim=0).numpy()


def voted_grades(
    scorers: Sequence[Scorer], outputs: Sequence[torch.Tensor], *, thresholds: Sequence[np.ndarray | None]
) -> np.ndarray:
    """Outputs of each scorer (V, M, num_outputs), its cuts -> grades (M,) int64: the grade that most views get, of
    equally many the likeliest one by the mean of all."""
    votes = [
        grades(scorer.objective, scorer.objective.predictions(view.double()).numpy(), own)
        for scorer, seen, own in zip(scorers, outputs, thresholds, strict=True)
        for view in seen
    ]
    given = np.array(votes)  # (voters, M)
    counts = (given[..., None] == np.arange(scorers[0].objective.num_classes)).sum(axis=0)
    mean = class_scores(scorers[0].objective, mean_predictions(scorers, outputs))
    return np.where(counts == counts.max(axis=1, keepdims=True), mean, -np.inf).argmax(axis=1)


def decide(
    scorers: Sequence[Scorer], outputs: Sequence[torch.Tensor], *, thresholds: Sequence[np.ndarray | None], by: str
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of each scorer (V, M, num_outputs), its cuts, a recipe's `tta_by` -> predictions (M, P), grades (M,)."""
    predictions = mean_predictions(scorers, outputs)
    if by == "vote":
        return predictions, voted_grades(scorers, outputs, thresholds=thresholds)
    mean_thresholds = None if thresholds[0] is None else np.mean(thresholds, axis=0)
    return predictions, grades(scorers[0].objective, predictions, mean_thresholds)
