"""Scores and probabilities for several plots."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def scored():
    """(grades) -> scores (N,) around them and truth (N,), twelve samples of each."""

    def draw(grades: list[int]) -> tuple[np.ndarray, np.ndarray]:
        truth = np.repeat(grades, 12)
        return truth + np.random.default_rng(0).normal(0, 0.4, len(truth)), truth

    return draw


@pytest.fixture(scope="session")
def predicted() -> tuple[np.ndarray, np.ndarray]:
    """Two repeats (2, 200, 5) over 200 samples: probabilities that the truth (200,) is drawn from, and overconfident
    ones."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet([4, 1, 2, 1, 1], 200)
    truth = (rng.random(200)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    overconfident = true**3
    return np.stack([true, overconfident / overconfident.sum(axis=1, keepdims=True)]), truth
