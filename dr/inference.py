"""Networks + batches -> scores: for validation, prediction, flips and ensembles, one function."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from dr.objectives import Objective

FLIPS = ((), (-1,), (-2,), (-2, -1))  # dimensions of (N, 3, H, W): none, left-right, top-bottom, both


@dataclass(frozen=True)
class Scorer:
    """One network that takes part: (N, 3, P, P) uint8 -> scores (N,); `image` is its key in a batch."""

    model: nn.Module
    objective: Objective
    image: str = "image"


@torch.inference_mode()
def infer(
    scorers: Sequence[Scorer], batches: Iterable[dict], *, accelerator: Accelerator, flips: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """batches of {"index": (N,) int64, scorer.image: (N, 3, P, P) uint8} -> index (M,) int64 ascending, scores (M,).

    Scores are averaged over the scorers and, with `flips`, over a photograph and its three flips.
    """
    views = FLIPS if flips else FLIPS[:1]
    indices, scores = [], []
    for scorer in scorers:
        scorer.model.eval()
    for batch in batches:
        total = torch.zeros(len(batch["index"]), dtype=torch.float64)
        for scorer in scorers:
            images = batch[scorer.image].to(accelerator.device, non_blocking=True)
            for dims in views:
                with accelerator.autocast():
                    outputs = scorer.model(images.flip(dims) if dims else images)
                total += scorer.objective.scores(outputs.float()).double().cpu()
        indices.append(batch["index"].cpu())
        scores.append(total / (len(scorers) * len(views)))
    if not indices:
        return np.empty(0, np.int64), np.empty(0)
    index, first = np.unique(torch.cat(indices).numpy(), return_index=True)
    return index, torch.cat(scores).numpy()[first]
