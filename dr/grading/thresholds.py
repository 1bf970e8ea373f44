"""Where to cut a continuous score into grades: by rounding, or exactly where the macro-F1 is highest.

Scores are floats, roughly 0..num_classes - 1; grades are integers 0..num_classes - 1; cuts are num_classes - 1
ascending floats. A score equal to a cut gets the higher grade.
"""

import numpy as np

MOST_PLACES = 500  # that expected_cuts tries
MIXED = -1  # stands for the grade of several samples that share one score but not one grade


def apply_thresholds(scores, thresholds):
    """Grade scores by cuts.

    scores (N,) finite float; cuts (K-1,) finite float, ascending; the grade between two equal cuts is never given
    -> grades (N,) int64 in 0..K-1. Raises ValueError for scores or cuts that are not finite or not one-dimensional,
    and for cuts that descend.
    """
    scores, thresholds = _finite(scores, "scores"), _finite(thresholds, "thresholds")
    if np.any(thresholds[1:] < thresholds[:-1]):
        raise ValueError(f"cuts must ascend, got {thresholds.tolist()}")
    return np.searchsorted(thresholds, scores, side="right").astype(np.int64)


def rounding_thresholds(num_classes=5):
    """Cuts that round a score to the nearest grade -> (num_classes - 1,) float64: .5, 1.5, 2.5, 3.5 for five grades.

    Raises ValueError for fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, got {num_classes}")
    return np.arange(num_classes - 1) + 0.5


def optimal_thresholds(scores, grades, num_classes=5, *, prevalence=None):
    """The cuts with the highest macro-F1 that any cuts reach on these samples, where a class neither present nor given
    counts 0. With `prevalence` (K,), each grade is weighed so that it has that share.

    scores (N,) finite float, grades (N,) int in 0..num_classes - 1, N >= 1 -> cuts (num_classes - 1,) finite float64,
    ascending.

    Each cut lies midway between two neighbouring distinct scores. A cut with every score on one side is where rounding
    would put it, or half a grade beyond the outermost score, whichever is further out. Of equally good cuts (up to
    float rounding) those win that, from the highest class down, leave the class empty, or else begin it lowest.

    Raises ValueError for empty input, unequal lengths, scores that are not finite and grades outside the range.
    """
    scores, grades = _in_order(scores, grades, num_classes)
    positions = _best_positions(scores, grades, _weights(grades, prevalence), num_classes)
    return _thresholds_at(scores, positions, num_classes)


def _weights(grades, prevalence):
    """grades (N,) int, prevalence (K,) or None -> (N,): what each sample counts, so that each grade has that share; 1
    for None, and on average where the samples have every grade."""
    if prevalence is None:
        return np.ones(len(grades))
    shares = np.asarray(prevalence, np.float64)
    return (shares / np.maximum(np.bincount(grades, minlength=len(shares)), 1))[grades] * len(grades)


def bagged_thresholds(scores, grades, num_classes=5, *, prevalence=None, repeats=25, seed=0):
    """The mean of the optimal cuts of bootstrap samples (Breiman, Machine Learning 1996;24:123): steadier than the
    optimal cuts where samples are few -> (num_classes - 1,) float64, ascending.

    Arguments and errors are those of optimal_cuts.
    """
    scores, grades = checked(scores, grades, num_classes)
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(scores), size=(repeats, len(scores)))
    found = [optimal_thresholds(scores[drawn], grades[drawn], num_classes, prevalence=prevalence) for drawn in rows]
    return np.mean(found, axis=0)


def kappa_thresholds(scores, grades, num_classes=5, *, prevalence=None):
    """The cuts with the highest quadratic weighted kappa that any cuts reach on these samples -> (num_classes - 1,)
    finite float64, ascending. Arguments and errors are those of optimal_cuts.

    Kappa is 1 - O / E, where a sample of grade i given j adds (i - j)^2 to O and the mean of (i' - j)^2 over all true
    grades i' to E. For a fixed ratio r the sum O - r E is over samples, so that dynamic programming over sorted scores
    finds its minimum; r becomes O / E there, until the minimum is 0 and r the lowest ratio (Dinkelbach, Management
    Science 1967;13:492).
    """
    scores, grades = _in_order(scores, grades, num_classes)
    places = _between_distinct(scores)
    classes = np.arange(num_classes)
    counts = _weights(grades, prevalence)[:, None]
    distance = counts * (grades[:, None] - classes) ** 2.0  # (N, K), if j were given to the sample
    by_chance = counts * distance.sum(axis=0) / counts.sum()
    # of the samples below each place, if all of them were given j
    observed, expected = (
        np.concatenate((np.zeros((1, num_classes)), np.cumsum(each, axis=0)))[places] for each in (distance, by_chance)
    )
    ratio, chosen = 1.0, None  # kappa 0, which any single grade for all has
    while True:
        at = _least_sum(observed - ratio * expected)
        borders = np.concatenate(([0], at, [len(places) - 1]))
        found, chance = (np.diff(each[borders], axis=0)[classes, classes].sum() for each in (observed, expected))
        if chosen is None or (chance > 0 and found / chance < ratio * (1 - 1e-12)):
            ratio, chosen = found / chance if chance > 0 else ratio, at
        else:
            return _thresholds_at(scores, places[chosen], num_classes)


def _least_sum(below):
    """below (P, K): the cost of the samples below each place, if all were of class j -> (K-1,) int: the ascending
    places where classes 1..K-1 begin, so that the costs of what each class owns have the least sum."""
    best, begins = below[:, 0], [np.zeros(len(below), int)]
    for k in range(1, below.shape[1]):
        gain = best - below[:, k]  # up to a place, and less what class k would have cost there
        least = np.minimum.accumulate(gain)
        new = np.concatenate(([True], gain[1:] < least[:-1]))
        begins.append(np.maximum.accumulate(np.where(new, np.arange(len(gain)), 0)))
        best = below[:, k] + least
    return _traced_back(begins)


def expected_f1_thresholds(scores, masses):
    """The cuts with the highest macro-F1 to be expected, F1 taken of expected counts, where it is known of each sample
    how likely it is of each grade (the plug-in rule of Koyejo et al., NeurIPS 2014).

    scores (N,) finite float, N >= 1; masses (N, K) >= 0: the probability of each grade, times the sample's weight
    -> (K-1,) finite float64, ascending. Found by the dynamic programme of optimal_cuts; of more than MOST_PLACES places
    where a cut may lie as many are tried, as the sums change little between them. Raises ValueError for scores that
    are not finite.
    """
    scores, masses = _finite(scores, "scores"), np.asarray(masses, np.float64)
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    places = _between_distinct(scores)
    if len(places) > MOST_PLACES:
        places = places[np.linspace(0, len(places) - 1, MOST_PLACES).round().astype(int)]
    num_classes = masses.shape[1]
    below = np.concatenate((np.zeros((1, num_classes)), np.cumsum(masses[order], axis=0)))[places]
    within = below.sum(axis=1) - below.sum(axis=1)[:, None]  # mass between a start (row) and an end
    ascending = np.triu(np.ones(within.shape, bool))
    best, begins = np.where(np.arange(len(places)) == 0, 0.0, -np.inf), []
    for seen in below.T:
        f1 = 2 * (seen - seen[:, None]) / np.maximum(seen[-1] + np.maximum(within, 0), np.finfo(float).tiny)
        totals = np.where(ascending, f1, -np.inf) + best[:, None]
        begins.append(totals.argmax(axis=0))
        best = totals.max(axis=0)
    return _thresholds_at(scores, places[_traced_back(begins)], num_classes)


def _best_positions(scores, grades, weights, num_classes):
    """Sorted scores (N,), their grades (N,), what each counts (N,) > 0 -> (K-1,) int: how many samples lie below each
    of the best cuts.

    Dynamic programming over the classes. Class k owns the samples between two places; its F1 = 2 TP / (class size +
    interval size) depends on these two places alone, so the best sum of F1 of the classes up to k that end at a place
    is the best over the places where class k may begin.
    """
    places, below, above = _places(scores, grades)
    mass = np.concatenate(([0.0], np.cumsum(weights)))[places]
    best = np.full(len(places), -np.inf)  # of the classes so far, by the place where the last of them ends
    best[0] = 0.0
    begins = []
    for k in range(num_classes):
        seen = np.concatenate(([0.0], np.cumsum(weights * (grades == k))))[places]
        may_begin = _any_parts(below, above, [(a, k) for a in range(k)]) & np.isfinite(best)
        may_end = _any_parts(below, above, [(k, b) for b in range(k + 1, num_classes)])
        may_begin[0], may_end[-1] = np.isfinite(best[0]), True
        best, begin = _add_class(best, mass, seen, np.flatnonzero(may_begin), np.flatnonzero(may_end))
        begins.append(begin)

    return places[_traced_back(begins)]


def _traced_back(begins):
    """begins: of each class (P,) int, the place where it begins if it ends at a place -> (K-1,) int: the places where
    classes 1..K-1 begin, if the last one ends at the last place."""
    places, end = [], len(begins[0]) - 1
    for begin in begins[:0:-1]:
        end = begin[end]
        places.append(end)
    return np.array(places[::-1])


def _add_class(best, mass, seen, starts, ends):
    """One step of the dynamic programme: let one more class own the samples between a start and an end.

    best (P,) float, -inf where nothing ends; mass, seen (P,): what the samples below each place count, all and those of
    the class; starts, ends: indices of places, ascending -> best (P,) with the class, begin (P,) index of the place
    where the class begins.
    """
    new_best, begin = best.copy(), np.arange(len(best))  # the class may be empty: F1 is 0 and it begins where it ends
    best_start, seen_start, mass_start = best[starts], 2.0 * seen[starts], mass[starts]
    class_size = seen[-1]
    for end, reach in zip(ends, np.searchsorted(starts, ends), strict=True):
        if reach == 0:
            continue
        totals = 2.0 * seen[end] - seen_start[:reach]
        totals /= class_size + mass[end] - mass_start[:reach]
        totals += best_start[:reach]
        winner = totals.argmax()
        if totals[winner] > new_best[end]:
            new_best[end], begin[end] = totals[winner], starts[winner]
    return new_best, begin


def _between_distinct(scores):
    """Sorted scores (N,) -> how many samples lie below each place where a cut parts no equal scores, from 0 to N."""
    return np.flatnonzero(np.concatenate(([True], scores[1:] != scores[:-1], [True])))


def _places(scores, grades):
    """Sorted scores (N,), their grades (N,) -> the places where a cut may lie, as three int arrays of equal length P.

    places: how many samples lie below, from 0 to N, only between distinct scores and never inside a run of one grade
    (see _any_parts for why that is safe); below, above: the grade of the samples next to the place, MIXED where equal
    scores have several grades, and at both ends.
    """
    places = _between_distinct(scores)
    first = places[:-1]  # of each distinct score
    lowest, highest = np.minimum.reduceat(grades, first), np.maximum.reduceat(grades, first)
    grade = np.where(lowest == highest, lowest, MIXED)
    below, above = np.append(MIXED, grade), np.append(grade, MIXED)
    keep = (below != above) | (below == MIXED)
    return places[keep], below[keep], above[keep]


def _any_parts(below, above, pairs):
    """Whether a best cut may part any pair of classes (a, b), a < b, at each place.

    below, above (P,) int: the grades next to each place, or MIXED -> (P,) bool.

    Why the other places need no trial. Fix all cuts but the one between a, below it, and b, above it, and let it move.
    - If the sample above it is of class a, give it to a: the TP and the interval of a grow by one, and (2 TP + 2) /
      (x + 1) is no less than 2 TP / x, which is at most 1; b loses a false one. Neither F1 falls. The same holds the
      other way round for a sample of class b below the cut.
    - If the samples on both sides are of other classes, passing t of them changes no TP: the F1 become A / (B + t) and
      C / (D - t), both convex in t, so their sum is highest at an end of the stretch of other classes.
    So the cut moves, losing nothing, to a place that these rules leave, or until it meets a neighbouring cut. Then a
    class is empty, its F1 is 0 wherever it lies, and the argument goes on with the next class on that side in its
    stead. Samples of equal score move together: the rules hold for a group of one grade; a MIXED group ends the move.
    """
    allowed = np.zeros(len(below), dtype=bool)
    for a, b in pairs:
        useful = (below == a) | (above == b) | (below == MIXED) | (above == MIXED)
        allowed |= useful & (below != b) & (above != a)
    return allowed


def _thresholds_at(scores, positions, num_classes):
    """Sorted scores (N,), samples below each cut (K-1,) int in 0..N -> cuts (K-1,) finite float64, ascending."""
    last = len(scores) - 1
    lower, upper = scores[np.maximum(positions - 1, 0)], scores[np.minimum(positions, last)]
    middle = 0.5 * lower + 0.5 * upper  # halved first, or the sum of two large scores overflows
    # Between neighbouring floats the midpoint may round onto the lower score, which would then get the higher grade.
    middle = np.where(lower < middle, middle, upper)

    rounding = rounding_thresholds(num_classes)
    above_all = np.maximum(scores[last] + 0.5, np.nextafter(scores[last], np.inf))  # + 0.5 is lost on a large score
    thresholds = np.where(positions == 0, np.minimum(rounding, scores[0] - 0.5), middle)
    return np.where(positions == len(scores), np.maximum(rounding, above_all), thresholds)


def _finite(values, name):
    """values (N,) -> (N,) float64. Raises ValueError naming the first one that is not finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {values.shape}")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {values[bad[0]]}, expected a finite number")
    return values


def _in_order(scores, grades, num_classes):
    """scores, grades (N,) as given -> both sorted by score. Raises ValueError as optimal_cuts says."""
    scores, grades = checked(scores, grades, num_classes)
    order = np.argsort(scores, kind="stable")
    return scores[order], grades[order]


def checked(scores, grades, num_classes):
    """scores, grades (N,) as given -> (N,) float64, (N,) int64. Raises ValueError as optimal_cuts says."""
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, got {num_classes}")
    scores, grades = _finite(scores, "scores"), np.asarray(grades)
    if grades.shape != scores.shape:
        raise ValueError(f"scores and grades must have one length, got shapes {scores.shape} and {grades.shape}")
    if len(scores) == 0:
        raise ValueError("there are no samples: cuts need at least one score and its grade")
    if scores.max() == np.finfo(np.float64).max:
        raise ValueError(f"scores[{scores.argmax()}] is the largest float there is: no finite cut lies above it")
    bad = np.flatnonzero(~np.isin(grades, np.arange(num_classes)))
    if len(bad):
        raise ValueError(f"grades[{bad[0]}] is {grades[bad[0]]}, expected a whole number from 0 to {num_classes - 1}")
    return scores, grades.astype(np.int64)
