"""What the network's outputs mean: size of the head, loss, outputs -> scores."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from dr.recipes import Recipe


class Objective(Protocol):
    """outputs (N, num_outputs) float32 -> a loss to train with and scores (N,) roughly 0..K-1 to cut into grades."""

    num_outputs: int

    def loss(self, outputs: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
        """outputs (N, num_outputs), grades (N,) int64 -> loss of each sample (N,)."""

    def scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """outputs (N, num_outputs) -> scores (N,)."""


_REGRESSION_LOSSES = {"smooth_l1": F.smooth_l1_loss, "l1": F.l1_loss, "mse": F.mse_loss}


@dataclass(frozen=True)
class Regression:
    """One output, the grade as a number."""

    loss_name: str
    num_outputs: int = 1

    def loss(self, outputs: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
        return _REGRESSION_LOSSES[self.loss_name](outputs[:, 0], grades.to(outputs.dtype), reduction="none")

    def scores(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0]


def build(recipe: Recipe) -> Objective:
    """The objective that a recipe names."""
    return {"regression": Regression}[recipe.objective](recipe.loss)
