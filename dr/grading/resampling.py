"""Which rows a bootstrap draws: single rows, or whole patients."""

import numpy as np


class Rows:
    """The rows 0..N-1 to draw from. With `patients` (N,), numbers that are equal for rows of one patient, patients are
    drawn, each with all its rows: rows of one patient are not independent (Field and Welsh, J. R. Stat. Soc. B
    2007;69:369)."""

    def __init__(self, count: int, patients: np.ndarray | None = None):
        self._count = count
        self._members = None
        if patients is not None:
            order = np.argsort(patients, kind="stable")
            self._members = np.split(order, np.flatnonzero(np.diff(np.asarray(patients)[order])) + 1)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """-> the rows of one draw with replacement: (N,) int; of patients, as many rows as those drawn have."""
        if self._members is None:
            return rng.integers(self._count, size=self._count)
        chosen = rng.integers(len(self._members), size=len(self._members))
        return np.concatenate([self._members[place] for place in chosen])
