"""Class weights and smoothed targets: what a loss compares the outputs with."""

import numpy as np
import torch

from dr.recipes.schema import Recipe


def inverse_frequency(truth: np.ndarray, num_classes: int) -> torch.Tensor:
    """truth (N,) int in 0..K-1 -> class weights (K,) float32, N / (K n_k): 1 for every class of a balanced set, 0 for
    an absent class."""
    counts = np.bincount(truth, minlength=num_classes)
    weights = np.where(counts > 0, len(truth) / (num_classes * np.maximum(counts, 1)), 0.0)
    return torch.from_numpy(weights.astype(np.float32))


def smoothed_targets(recipe: Recipe, num_classes: int) -> torch.Tensor:
    """-> (K, K) float32, whose row k is the target of class k.

    Label smoothing (Szegedy et al., CVPR 2016) spreads its share evenly over all classes. Neighbour smoothing s gives
    [s, 1 - 2 s, s] to the grades around, at the ends [1 - s, s].
    """
    near = torch.eye(num_classes)
    if recipe.neighbour_smoothing:
        share = recipe.neighbour_smoothing
        steps = share * (torch.diag(torch.ones(num_classes - 1), 1) + torch.diag(torch.ones(num_classes - 1), -1))
        near = steps + torch.diag(1 - steps.sum(dim=1))
    return (1 - recipe.label_smoothing) * near + recipe.label_smoothing / num_classes
