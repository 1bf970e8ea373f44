"""Where thresholds may separate sorted scores, and the best of these positions by dynamic programming over the classes.

A position is the number of samples, in the order of their scores, below a threshold: 0 to N for N samples.
"""

import numpy as np

MIXED = -1  # the grade of several samples with one score but different grades


def best_positions(scores, grades, weights, num_classes):
    """Sorted scores (N,), their grades (N,), their weights (N,) > 0 -> positions (K-1,) int of the optimal thresholds.

    Dynamic programming over the classes. Class k owns the samples between two positions. Its F1 = 2 TP / (class size +
    interval size) depends on these two positions alone. So the best sum of F1 of the classes up to k that end at a
    position is the maximum over the positions where class k may begin.
    """
    positions, below, above = _positions(scores, grades)
    mass = np.concatenate(([0.0], np.cumsum(weights)))[positions]
    best = np.full(len(positions), -np.inf)  # of the classes so far, by the position where the last of them ends
    best[0] = 0.0
    begins = []
    for k in range(num_classes):
        hits = np.concatenate(([0.0], np.cumsum(weights * (grades == k))))[positions]
        may_begin = _any_parts(below, above, [(a, k) for a in range(k)]) & np.isfinite(best)
        may_end = _any_parts(below, above, [(k, b) for b in range(k + 1, num_classes)])
        may_begin[0], may_end[-1] = np.isfinite(best[0]), True
        best, begin = _add_class(best, mass, hits, np.flatnonzero(may_begin), np.flatnonzero(may_end))
        begins.append(begin)

    return positions[traced_back(begins)]


def traced_back(begins):
    """begins: for each class (P,) int, the position where it begins if it ends at a position -> (K-1,) int: the
    positions where classes 1..K-1 begin, if the last one ends at the last position."""
    starts, end = [], len(begins[0]) - 1
    for begin in begins[:0:-1]:
        end = begin[end]
        starts.append(end)
    return np.array(starts[::-1])


def _add_class(best, mass, hits, starts, ends):
    """One step of the dynamic programme: let one more class own the samples between a start and an end.

    best (P,) float, -inf where nothing ends; mass, hits (P,): the weight below each position of all samples and of
    those of the class; starts, ends: indices of positions, ascending -> best (P,) with the class, begin (P,) the index
    of the position where the class begins.
    """
    new_best, begin = best.copy(), np.arange(len(best))  # the class may be empty: F1 is 0 and it begins where it ends
    best_start, hits_start, mass_start = best[starts], 2.0 * hits[starts], mass[starts]
    class_size = hits[-1]
    for end, reach in zip(ends, np.searchsorted(starts, ends), strict=True):
        if reach == 0:
            continue
        totals = 2.0 * hits[end] - hits_start[:reach]
        totals /= class_size + mass[end] - mass_start[:reach]
        totals += best_start[:reach]
        winner = totals.argmax()
        if totals[winner] > new_best[end]:
            new_best[end], begin[end] = totals[winner], starts[winner]
    return new_best, begin


def between_distinct(scores):
    """Sorted scores (N,) -> the positions, from 0 to N, where a threshold separates no equal scores."""
    return np.flatnonzero(np.concatenate(([True], scores[1:] != scores[:-1], [True])))


def _positions(scores, grades):
    """Sorted scores (N,), their grades (N,) -> the positions to try for thresholds, as three int arrays (P,).

    positions: from 0 to N, only between distinct scores and never inside a run of one grade (for the reason see
    _any_parts); below, above: the grade of the samples next to the position, MIXED where equal scores have several
    grades, and at both ends.
    """
    positions = between_distinct(scores)
    first = positions[:-1]  # of each distinct score
    lowest, highest = np.minimum.reduceat(grades, first), np.maximum.reduceat(grades, first)
    grade = np.where(lowest == highest, lowest, MIXED)
    below, above = np.append(MIXED, grade), np.append(grade, MIXED)
    keep = (below != above) | (below == MIXED)
    return positions[keep], below[keep], above[keep]


def _any_parts(below, above, pairs):
    """Whether an optimal threshold may separate any pair of classes (a, b), a < b, at each position.

    below, above (P,) int: the grades next to each position, or MIXED -> (P,) bool.

    Why no other position needs a trial. Fix all thresholds except the one between a, below it, and b, above it, and
    move that one.
    - If the sample above it is of class a, give it to a: the TP and the interval of a grow by one, and (2 TP + 2) /
      (x + 1) is no less than 2 TP / x, which is at most 1; b loses a false positive. Neither F1 falls. The same holds
      in the other direction for a sample of class b below the threshold.
    - If the samples on both sides are of other classes, passing t of them changes no TP: the F1 become A / (B + t) and
      C / (D - t), both convex in t, so their sum is highest at an end of the run of other classes.
    So the threshold moves, losing nothing, to a position that these rules leave, or until it meets a neighbouring
    threshold. Then a class is empty with F1 0 wherever it is, and the argument continues with the next class on that
    side in its place. Samples of equal score move together: the rules hold for a group of one grade, and a MIXED group
    ends the move.
    """
    allowed = np.zeros(len(below), dtype=bool)
    for a, b in pairs:
        useful = (below == a) | (above == b) | (below == MIXED) | (above == MIXED)
        allowed |= useful & (below != b) & (above != a)
    return allowed


def least_sum(below):
    """below (P, K): the cost of the samples below each position, if all were of class j -> (K-1,) int: the indices of
    the positions, ascending, where classes 1..K-1 begin, for the least sum of the costs of the classes."""
    best, begins = below[:, 0], [np.zeros(len(below), int)]
    for k in range(1, below.shape[1]):
        gain = best - below[:, k]  # up to a position, less the cost of class k there
        least = np.minimum.accumulate(gain)
        new = np.concatenate(([True], gain[1:] < least[:-1]))
        begins.append(np.maximum.accumulate(np.where(new, np.arange(len(gain)), 0)))
        best = below[:, k] + least
    return traced_back(begins)
