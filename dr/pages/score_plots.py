"""Plots of scores and probabilities: histograms of the scores with the thresholds, reliability diagrams.

Each function draws one figure, saves it as a PNG and returns it, so that a notebook shows it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from dr import GRADES
from dr.grading import calibration, metrics
from dr.pages.style import BLUE, FAINT, INK, names_of, new_figure, plain, save, shades

MOST_PANELS = 8  # of a reliability diagram: with more classes only the most probable one has a panel
SMALLEST_GROUP, MOST_GROUPS = 20, 10  # samples of a point of a reliability diagram; points


def score_histograms(
    scores: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, *, path: Path, classes: Sequence[str] = GRADES
) -> Figure:
    """scores (N,) float, truth (N,) int in 0..K-1, thresholds (K-1,) ascending: a histogram for each true grade, with
    the same thresholds through all of them."""
    scores, truth, thresholds = np.asarray(scores, float), np.asarray(truth), np.asarray(thresholds, float)
    names = names_of(classes, len(thresholds) + 1)
    finite = np.isfinite(scores)
    low, high = _score_range(thresholds, scores[finite])
    borders = np.concatenate([[low], np.clip(thresholds, low, high), [high]])
    inside = thresholds[(low < thresholds) & (thresholds < high)]
    figure = new_figure(10, 0.95 * len(names) + 1.3)
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False).ravel()
    bins = np.linspace(low, high, 61)
    for grade, (axes, colour) in enumerate(zip(panels, shades("YlGnBu", len(names), 0.4, 0.9), strict=True)):
        heights, _ = np.histogram(np.clip(scores[finite & (truth == grade)], low, high), bins)
        axes.axvspan(borders[grade], borders[grade + 1], color="#ececec", linewidth=0, zorder=0)
        axes.stairs(heights, bins, fill=True, color=colour, zorder=2)
        axes.vlines(inside, 0, 1, INK, transform=axes.get_xaxis_transform(), linewidth=1)
        plain(axes)
        axes.spines["left"].set_visible(False)
        axes.set(xlim=(low, high), ylim=(0, 1.08 * heights.max(initial=1)), yticks=[])
        label = f"{names[grade]}\nn = {(truth == grade).sum():,}"
        axes.set_ylabel(label, rotation=0, ha="right", va="center", color=INK)
    _label_regions(panels[0], borders)
    notes = ["score (shaded: correct prediction)"]
    if outside := (finite & ((scores < low) | (scores > high))).sum():
        notes.append(f"{outside:,} beyond the axis, counted in its first and last bar")
    if missing := (~finite).sum():
        notes.append(f"{missing:,} without a finite score, not drawn")
    panels[-1].set_xlabel("\n".join(notes), color=INK)
    return save(figure, path)


def _score_range(thresholds: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """-> (low, high) that cover scores and thresholds with a margin, except those far outside the grades 0..K-1. At
    least half a grade beyond every threshold leaves room for the labels of the outermost grades."""
    count = len(thresholds) + 1
    near = thresholds[(-count < thresholds) & (thresholds < 2 * count)]
    usual = scores[(-0.2 * count <= scores) & (scores <= 1.2 * count - 1)]
    inner, outer = 0.02 * count, 0.1 * count
    low = min(usual.min(initial=count) - inner, near.min(initial=count) - outer)
    high = max(usual.max(initial=-count) + inner, near.max(initial=-count) + outer)
    return (low, high) if low < high else (-0.2 * count, 1.2 * count - 1)


def _label_regions(axes: Axes, borders: np.ndarray) -> None:
    """Write the predicted grade of the region between each two borders (K+1,) above the top panel. Labels of narrow
    regions move apart to both sides, no farther than needed."""
    low, high = borders[[0, -1]]
    centres = (borders[:-1] + borders[1:]) / 2
    distance = min(0.04, 0.9 / len(centres)) * (high - low) * np.arange(len(centres))
    spots = isotonic_regression(centres - distance).x.clip(low, high - distance[-1]) + distance
    place = axes.get_xaxis_transform()
    for grade, (centre, spot) in enumerate(zip(centres, spots, strict=True)):
        axes.annotate(
            str(grade),
            (centre, 1.0),
            (spot, 1.22),
            xycoords=place,
            textcoords=place,
            ha="center",
            color=INK,
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": FAINT, "shrinkA": 0, "shrinkB": 0},
        )
    axes.text(-0.02, 1.22, "predicted", transform=axes.transAxes, ha="right", color=INK, fontweight="bold")


def reliability(probabilities: np.ndarray, truth: np.ndarray, *, path: Path, classes: Sequence[str] = GRADES) -> Figure:
    """probabilities (N, K), or (R, N, K) of R repeats over the same samples, truth (N,): the share that is correct
    against the predicted probability, for the most probable class and, of at most MOST_PANELS classes, each class.

    A point is a group of equally many samples (Nguyen and O'Connor, EMNLP 2015) with Wilson's 95 % interval. The
    histogram at the base shows the distribution of the samples.
    """
    repeats = np.reshape(probabilities, (-1, *np.shape(probabilities)[-2:]))
    error = np.mean([calibration.expected_calibration_error(each, truth) for each in repeats])
    truth, count = np.tile(truth, len(repeats)), repeats.shape[-1]
    flat = repeats.reshape(-1, count)
    panels = [("most probable grade", flat.max(axis=1), flat.argmax(axis=1) == truth)]
    if count <= MOST_PANELS:
        panels += [(name, flat[:, k], truth == k) for k, name in enumerate(names_of(classes, count))]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.6 * columns, 3.4 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, predicted, correct) in zip(grid, panels, strict=False):
        _draw_reliability(axes, predicted, correct, repeats=len(repeats))
        plain(axes, title=title.replace("\n", " "))
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("predicted probability, percent", color=INK, fontsize=11)
    figure.supylabel("share that is correct, percent", color=INK, fontsize=11)
    figure.suptitle(f"Expected calibration error of the most probable grade {error:.3f}", color=INK, fontsize=12)
    return save(figure, path)


def _draw_reliability(axes: Axes, predicted: np.ndarray, correct: np.ndarray, *, repeats: int) -> None:
    """predicted (R N,) in 0..1, correct (R N,) bool: one panel, in percent."""
    order = np.argsort(predicted, kind="stable")
    groups = np.array_split(order, min(MOST_GROUPS, max(1, len(order) // repeats // SMALLEST_GROUP)))
    means = np.array([predicted[rows].mean() for rows in groups])
    shares = np.array([correct[rows].mean() for rows in groups])
    sizes = np.array([len(rows) / repeats for rows in groups])
    low, high = metrics.wilson(shares * sizes, sizes)
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, zorder=0)
    heights, bins = np.histogram(100 * predicted, 20, (0, 100))
    axes.stairs(15 * heights / max(heights.max(), 1), bins, fill=True, color=FAINT, zorder=1)
    spread = 100 * np.maximum([shares - low, high - shares], 0)
    axes.errorbar(100 * means, 100 * shares, spread, fmt="o-", color=BLUE, markersize=4, linewidth=1.4, elinewidth=1)
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xticks=range(0, 101, 25), yticks=range(0, 101, 25))
