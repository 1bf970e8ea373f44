"""The pictures of a run: learning curves, confusion matrices, scores, reliability. Each function draws one figure,
saves it as a PNG and returns it (a notebook shows it)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.optimize import isotonic_regression

from dr import GRADES
from dr.grading import metrics
from dr.pages.style import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PAPER, names_of, new_figure, plain, save, shades

MOST_PANELS = 8  # classes that have a panel of their own
SMALLEST_GROUP, LARGEST_GROUPS = 20, 10  # photographs of a point of a reliability diagram; points


def learning_curves(history: pd.DataFrame, *, best: int, path: Path, views: int = 1) -> Figure:
    """history: a row per epoch, columns epoch, train_loss, val_loss, lr, macro_f1_cross_fitted and, where cuts are
    fitted, macro_f1_{rounded,optimal}; best: the epoch that was kept, views: in how many it is seen in the end."""
    figure = new_figure(13, 4)
    loss, macro_f1, rate = figure.subplots(1, 3)
    _line(loss, history, "train_loss", BLUE, "training", "o")
    _line(loss, history, "val_loss", ORANGE, "validation", "s")
    fitted = "macro_f1_optimal" in history
    if fitted:
        _line(macro_f1, history, "macro_f1_rounded", GREY, "scores rounded", "^")
        _line(macro_f1, history, "macro_f1_optimal", GREEN, "optimal cuts", "o")
    _line(macro_f1, history, "macro_f1_cross_fitted", ORANGE, "cross-fitted cuts" if fitted else "validation", "s")
    _line(rate, history, "lr", INK, "learning rate", "o")
    power = 10.0 ** np.floor(np.log10(history["lr"].max())) if history["lr"].max() > 0 else 1.0
    titles = ["Loss", "Validation macro-F1", "Learning rate" if power == 1 else f"Learning rate, in units of {power:g}"]
    kept = history.loc[history["epoch"] == best, "macro_f1_cross_fitted"].item()
    titles[1] += f"\n{kept:.3f} at epoch {best}, which was kept{', by one view' if views > 1 else ''}"
    ring = {"s": 130, "facecolor": "none", "edgecolor": INK, "linewidth": 1.5, "zorder": 4}
    macro_f1.scatter(best, kept, **ring)
    for axes in (loss, macro_f1, rate):
        axes.axvline(best, color=FAINT, linewidth=1, zorder=0)
    for axes, title in zip((loss, macro_f1, rate), titles, strict=True):
        plain(axes, title=title)
        axes.set_xlabel("epoch", color=INK)
        axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 3, "columnspacing": 1.2}
    for axes in (loss, macro_f1):  # beneath the panel, where no curve can run through it
        axes.legend(**below, fontsize=9, frameon=False, labelcolor=INK)
        if len(history) == 1:
            _label_points(axes)
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / power:.3g}"))
    return save(figure, path)


def _label_points(axes: Axes) -> None:
    """The value beside the one point of each line, on an axis from 0: a single epoch has no curve to be read."""
    values = [line.get_ydata()[0] for line in axes.lines if line.get_label()[0] != "_"]
    low, high = min(0, *values), max(1e-3, *values)
    apart = 0.06 * (high - low) * np.arange(len(values))
    order = np.argsort(values)
    spots = isotonic_regression(np.array(values)[order] - apart).x + apart
    for place, spot in zip(order, spots, strict=True):
        text = {"xy": (1, values[place]), "xytext": (1.12, spot), "xycoords": "data", "textcoords": "data"}
        axes.annotate(f"{values[place]:.3f}", **text, va="center", color=INK, fontsize=9)
    axes.set_ylim(low, high + 0.15 * (high - low))


def _line(axes: Axes, history: pd.DataFrame, column: str, colour: str, label: str, marker: str) -> None:
    size = 4 if len(history) <= 40 else 0  # one epoch alone is visible only by its marker
    axes.plot(
        history["epoch"], history[column], color=colour, label=label, marker=marker, markersize=size, linewidth=1.6
    )


def confusion_matrices(
    matrix: np.ndarray, *, path: Path, classes: Sequence[str] = GRADES, title: str | None = None
) -> Figure:
    """matrix (K, K) int, rows truth, columns prediction: its counts, and the same in percent of each row. `title` says
    of which run and photographs."""
    matrix = np.asarray(matrix)
    totals = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(totals, 1)
    names = names_of(classes, len(matrix))
    figure = new_figure(2.1 * max(len(matrix), 3) + 2.0, 0.9 * max(len(matrix), 3) + 1.2)
    left, right = figure.subplots(1, 2)
    # the root lets 24 photographs of a scarce grade be seen beside 1,400 of a common one
    _heatmap(left, np.sqrt(matrix / max(matrix.max(), 1)), [[f"{count:,}" for count in row] for row in matrix])
    percents = [[_percent(cell) if total else "-" for cell in row] for row, (total,) in zip(share, totals, strict=True)]
    _heatmap(right, share, percents)
    if title is not None:
        figure.suptitle(title, color=INK, fontsize=12, parse_math=False)
    left.set_title("Photographs", color=INK, fontsize=12)
    right.set_title("Percent of each true grade", color=INK, fontsize=12)
    left.set_ylabel("true grade", color=INK)
    left.set_yticklabels([f"{name}\nn = {total:,}" for name, (total,) in zip(names, totals, strict=True)])
    right.set_yticklabels([])
    for axes in (left, right):
        axes.set_xticklabels(names)
        axes.set_xlabel("predicted grade", color=INK)
    return save(figure, path)


def _heatmap(axes: Axes, shade: np.ndarray, texts: list[list[str]]) -> None:
    """shade (K, K) in 0..1 colours the cells, texts fill them."""
    colours = colormaps["Blues"](shade)
    axes.imshow(colours, aspect="auto")
    for row, column in np.ndindex(shade.shape):
        luminance = colours[row, column, :3] @ [0.299, 0.587, 0.114]  # ITU-R BT.601
        ink = PAPER if luminance < 0.45 else INK
        axes.text(column, row, texts[row][column], ha="center", va="center", color=ink, fontsize=11)
    axes.set(xticks=range(len(shade)), yticks=range(len(shade)))
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.spines[:].set_color(FAINT)


def _percent(share: float) -> str:
    """share 0..1 -> whole percent; rounding never turns some into none nor most into all."""
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def score_histograms(
    scores: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, *, path: Path, classes: Sequence[str] = GRADES
) -> Figure:
    """scores (N,) float, truth (N,) int in 0..K-1, cuts (K-1,) ascending: a histogram per true grade, all cut alike."""
    scores, truth, thresholds = np.asarray(scores, float), np.asarray(truth), np.asarray(thresholds, float)
    names = names_of(classes, len(thresholds) + 1)
    finite = np.isfinite(scores)
    low, high = _score_range(thresholds, scores[finite])
    borders = np.concatenate([[low], np.clip(thresholds, low, high), [high]])
    figure = new_figure(10, 0.95 * len(names) + 1.3)
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False).ravel()
    bins = np.linspace(low, high, 61)
    for grade, (axes, colour) in enumerate(zip(panels, shades("YlGnBu", len(names), 0.4, 0.9), strict=True)):
        heights, _ = np.histogram(np.clip(scores[finite & (truth == grade)], low, high), bins)
        axes.axvspan(borders[grade], borders[grade + 1], color="#ececec", linewidth=0, zorder=0)
        axes.stairs(heights, bins, fill=True, color=colour, zorder=2)
        axes.vlines(
            thresholds[(low < thresholds) & (thresholds < high)],
            0,
            1,
            INK,
            transform=axes.get_xaxis_transform(),
            linewidth=1,
        )
        plain(axes)
        axes.spines["left"].set_visible(False)
        axes.set(xlim=(low, high), ylim=(0, 1.08 * heights.max(initial=1)), yticks=[])
        label = f"{names[grade]}\nn = {(truth == grade).sum():,}"
        axes.set_ylabel(label, rotation=0, ha="right", va="center", color=INK)
    _label_regions(panels[0], borders)
    notes = ["score (shaded: where the prediction is right)"]
    if outside := (finite & ((scores < low) | (scores > high))).sum():
        notes.append(f"{outside:,} beyond the axis: counted in its first and last bar")
    if missing := (~finite).sum():
        notes.append(f"{missing:,} without a finite score: not drawn")
    panels[-1].set_xlabel("\n".join(notes), color=INK)
    return save(figure, path)


def _score_range(thresholds: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """From the lowest to the highest of scores and cuts and a margin, without those that are absurdly far from the
    grades 0..K-1; half a grade at least beyond every cut, where the outermost grades are named."""
    count = len(thresholds) + 1
    near = thresholds[(-count < thresholds) & (thresholds < 2 * count)]
    usual = scores[(-0.2 * count <= scores) & (scores <= 1.2 * count - 1)]
    inner, outer = 0.02 * count, 0.1 * count
    low = min(usual.min(initial=count) - inner, near.min(initial=count) - outer)
    high = max(usual.max(initial=-count) + inner, near.max(initial=-count) + outer)
    return (low, high) if low < high else (-0.2 * count, 1.2 * count - 1)


def reliability(probabilities: np.ndarray, truth: np.ndarray, *, path: Path, classes: Sequence[str] = GRADES) -> Figure:
    """probabilities (N, K), or (R, N, K) of R repeats over the same samples, truth (N,): how often the likeliest class
    and, of a few classes, each one is right, against its probability. Groups of equally many samples (Nguyen and
    O'Connor, EMNLP 2015) with Wilson's 95 % intervals; the base shows how samples spread."""
    from dr.grading.calibration import (
        expected_calibration_error,  # torch takes seconds to import: data.py draws without it
    )

    repeats = np.reshape(probabilities, (-1, *np.shape(probabilities)[-2:]))
    error = np.mean([expected_calibration_error(each, truth) for each in repeats])
    truth, count = np.tile(truth, len(repeats)), repeats.shape[-1]
    flat = repeats.reshape(-1, count)
    panels = [("likeliest grade", flat.max(axis=1), flat.argmax(axis=1) == truth)]
    if count <= MOST_PANELS:
        panels += [(name, flat[:, k], truth == k) for k, name in enumerate(names_of(classes, count))]
    wide = min(3, len(panels))
    high = -(-len(panels) // wide)
    figure = new_figure(3.6 * wide, 3.4 * high + 0.5)
    grid = figure.subplots(high, wide, squeeze=False).ravel()
    for axes, (title, claimed, right) in zip(grid, panels, strict=False):
        _draw_reliability(axes, claimed, right, repeats=len(repeats))
        plain(axes, title=title.replace("\n", " "))
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("probability given, percent", color=INK, fontsize=11)
    figure.supylabel("share that is right, percent", color=INK, fontsize=11)
    figure.suptitle(f"Expected calibration error of the likeliest grade {error:.3f}", color=INK, fontsize=12)
    return save(figure, path)


def _draw_reliability(axes: Axes, claimed: np.ndarray, right: np.ndarray, *, repeats: int) -> None:
    """claimed (R N,) in 0..1, right (R N,) bool: one panel, in percent."""
    order = np.argsort(claimed, kind="stable")
    groups = np.array_split(order, min(LARGEST_GROUPS, max(1, len(order) // repeats // SMALLEST_GROUP)))
    means = np.array([claimed[rows].mean() for rows in groups])
    shares = np.array([right[rows].mean() for rows in groups])
    sizes = np.array([len(rows) / repeats for rows in groups])
    low, high = metrics.wilson(shares * sizes, sizes)
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, zorder=0)
    heights, bins = np.histogram(100 * claimed, 20, (0, 100))
    axes.stairs(15 * heights / max(heights.max(), 1), bins, fill=True, color=FAINT, zorder=1)
    spread = 100 * np.maximum([shares - low, high - shares], 0)
    axes.errorbar(100 * means, 100 * shares, spread, fmt="o-", color=BLUE, markersize=4, linewidth=1.4, elinewidth=1)
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xticks=range(0, 101, 25), yticks=range(0, 101, 25))


def _label_regions(axes: Axes, borders: np.ndarray) -> None:
    """Above the top panel the grade given between each two borders (K+1,), moved apart, to both sides and no farther
    than needed, where a region is narrow."""
    low, high = borders[[0, -1]]
    centres = (borders[:-1] + borders[1:]) / 2
    apart = min(0.04, 0.9 / len(centres)) * (high - low) * np.arange(len(centres))
    spots = isotonic_regression(centres - apart).x.clip(low, high - apart[-1]) + apart
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
