"""Plots of a run: learning curves, confusion matrices, metrics per class, images per split.

Each function draws one figure, saves it as a PNG and returns it, so that a notebook shows it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.optimize import isotonic_regression

from dr import GRADES, SPLIT_NAMES
from dr.grading import registry
from dr.pages.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    MOST_CLASSES,
    ORANGE,
    PAPER,
    label_bars,
    names_of,
    new_figure,
    plain,
    save,
    shades,
)

CLASS_COLOURS = {"recall": BLUE, "precision": ORANGE, "f1": GREEN}  # by key of registry.CLASS_METRICS
# registry.Metric.decision -> colour and marker, in the order of drawing
DECISION_STYLES = {"rounded": (GREY, "^"), "optimal": (GREEN, "o"), "cross_fitted": (ORANGE, "s")}


def learning_curves(history: pd.DataFrame, *, best: int, path: Path, views: int = 1) -> Figure:
    """history: a row per epoch, columns epoch, train_loss, val_loss, lr and the metrics of validation, of which the
    family of registry.SELECTION is drawn; best: the selected epoch; views: number of TTA views of the finished run."""
    figure = new_figure(13, 4)
    loss, macro_f1, rate = figure.subplots(1, 3)
    _line(loss, history, "train_loss", BLUE, "training", "o")
    _line(loss, history, "val_loss", ORANGE, "validation", "s")
    variants = _selection_variants(history)
    for decision, metric in variants.items():
        label = registry.DECISIONS[decision] if len(variants) > 1 else SPLIT_NAMES["val"]
        _line(macro_f1, history, metric, DECISION_STYLES[decision][0], label, DECISION_STYLES[decision][1])
    _line(rate, history, "lr", INK, "learning rate", "o")
    selected = history.loc[history["epoch"] == best, registry.SELECTION].item()
    macro_f1.scatter(best, selected, s=130, facecolor="none", edgecolor=INK, linewidth=1.5, zorder=4)
    one_view = ", one TTA view" if views > 1 else ""
    power = 10.0 ** np.floor(np.log10(history["lr"].max())) if history["lr"].max() > 0 else 1.0
    titles = (
        "Loss",
        f"Validation macro-F1\nselected epoch {best}: {selected:.3f}{one_view}",
        "Learning rate" if power == 1 else f"Learning rate, in units of {power:g}",
    )
    for axes, title in zip((loss, macro_f1, rate), titles, strict=True):
        axes.axvline(best, color=FAINT, linewidth=1, zorder=0)
        plain(axes, title=title)
        axes.set_xlabel("epoch", color=INK)
        axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    for axes in (loss, macro_f1):
        _legend_below(axes)
        if len(history) == 1:
            _label_points(axes)
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / power:.3g}"))
    return save(figure, path)


def _selection_variants(history: pd.DataFrame) -> dict[str, str]:
    """-> {decision: column} of the variants of the metric that selects runs, in the order of DECISION_STYLES."""
    family = registry.by_key(registry.SELECTION).family
    columns = {
        metric.decision: metric.key for metric in registry.for_split("val", "confusion") if metric.family == family
    }
    return {decision: columns[decision] for decision in DECISION_STYLES if columns.get(decision) in history}


def _legend_below(axes: Axes) -> None:
    """A legend below the panel, where no curve runs through it."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 3, "columnspacing": 1.2}
    axes.legend(**place, fontsize=9, frameon=False, labelcolor=INK)


def _label_points(axes: Axes) -> None:
    """Write the value beside the single point of each line, on an axis from 0: one epoch draws no curve."""
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
    size = 4 if len(history) <= 40 else 0  # without a marker a single epoch is invisible
    axes.plot(
        history["epoch"], history[column], color=colour, label=label, marker=marker, markersize=size, linewidth=1.6
    )


def confusion_matrices(
    matrix: np.ndarray, *, path: Path, classes: Sequence[str] = GRADES, title: str | None = None
) -> Figure:
    """matrix (K, K) int, rows the true class, columns the predicted one: its counts, and the same in percent of each
    row. `title` names the run and the split."""
    matrix = np.asarray(matrix)
    totals = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(totals, 1)
    names = names_of(classes, len(matrix))
    figure = new_figure(2.1 * max(len(matrix), 3) + 2.0, 0.9 * max(len(matrix), 3) + 1.2)
    left, right = figure.subplots(1, 2)
    # the square root makes 24 images of a rare grade visible beside 1,400 of a common one
    _heatmap(left, np.sqrt(matrix / max(matrix.max(), 1)), [[f"{count:,}" for count in row] for row in matrix])
    percents = [[_percent(cell) if total else "-" for cell in row] for row, (total,) in zip(share, totals, strict=True)]
    _heatmap(right, share, percents)
    if title is not None:
        figure.suptitle(title, color=INK, fontsize=12, parse_math=False)
    left.set_title("Images", color=INK, fontsize=12)
    right.set_title("Percent of each true grade", color=INK, fontsize=12)
    left.set_ylabel("true grade", color=INK)
    left.set_yticklabels([f"{name}\nn = {total:,}" for name, (total,) in zip(names, totals, strict=True)])
    right.set_yticklabels([])
    for axes in (left, right):
        axes.set_xticklabels(names)
        axes.set_xlabel("predicted grade", color=INK)
    return save(figure, path)


def _heatmap(axes: Axes, shade: np.ndarray, texts: list[list[str]]) -> None:
    """shade (K, K) in 0..1 colours the cells; texts (K, K) fill them."""
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
    """share 0..1 -> whole percent; "<1" and ">99" instead of rounding to 0 or 100."""
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def class_metrics(
    values: Mapping[str, np.ndarray],
    intervals: Mapping[str, np.ndarray],
    *,
    path: Path,
    classes: Sequence[str] = GRADES,
    title: str | None = None,
) -> Figure:
    """values {metric: (K,)} of metrics.per_class and intervals {metric: (2, K)} of metrics.per_class_intervals: a point
    with its interval for recall, precision and F1 of each class. Above MOST_CLASSES classes it draws those with the
    lowest F1."""
    shown = np.arange(len(classes))
    worst = len(classes) > MOST_CLASSES
    if worst:
        shown = np.sort(np.argsort(values["f1"], kind="stable")[:MOST_CLASSES])
    names = [names_of(classes, len(classes))[k] for k in shown]
    figure = new_figure(12, 0.44 * len(shown) + 1.5)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (name, colour) in zip(panels, CLASS_COLOURS.items(), strict=True):
        _points(axes, 100 * values[name][shown], 100 * intervals[name][:, shown], colour)
        label = registry.CLASS_METRICS[name]
        plain(axes, title=label[0].upper() + label[1:])
        axes.set_xlabel("percent", color=INK)
    labels = [f"{name} ({n:,})".replace("\n", " ") for name, n in zip(names, values["n"][shown], strict=True)]
    panels[0].set_yticks(range(len(shown)), labels)
    panels[0].set(ylim=(len(shown) - 0.5, -0.5))
    for axes in panels[1:]:
        axes.tick_params(axis="y", length=0, labelleft=False)
    note = f", the {MOST_CLASSES} with the lowest F1 of {len(classes)}" if worst else ""
    if title is not None:
        figure.suptitle(f"{title}{note}", color=INK, fontsize=12, parse_math=False)
    return save(figure, path)


def _points(axes: Axes, values: np.ndarray, interval: np.ndarray, colour: str) -> None:
    """values (K,), interval (2, K), in percent; a value that is not defined (NaN) is a dash at 0."""
    rows = np.arange(len(values))
    axes.hlines(rows, *interval, color=colour, linewidth=2, alpha=0.55)
    axes.scatter(values, rows, color=colour, s=28, zorder=3)
    for row, (value, high) in enumerate(zip(values, interval[1], strict=True)):
        text = "-" if np.isnan(value) else f"{value:.0f}"
        place = np.nanmax([0, value, high])
        axes.annotate(text, (place, row), (6, 0), textcoords="offset points", va="center", color=INK, fontsize=9)
    axes.set(xlim=(0, 112), xticks=range(0, 101, 25))
    axes.grid(axis="x", color=FAINT, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)


def split_bars(counts: pd.DataFrame, *, path: Path, classes: Sequence[str] = GRADES) -> Figure:
    """counts: a row for each split and source (a MultiIndex), a column for each class 0..K-1. Each split is a panel
    with its sources stacked, on an axis of its own, because training may have ten times as many images."""
    splits, sources = (list(dict.fromkeys(counts.index.get_level_values(level))) for level in (0, 1))
    colours = dict(zip(sources, shades("Blues_r", len(sources), 0.15, 0.6), strict=True))
    figure = new_figure(max(7, 0.9 * len(classes) + 2), 2 * len(splits) + 0.8)
    panels = figure.subplots(len(splits), 1, sharex=True, squeeze=False).ravel()
    at = np.arange(len(classes))
    for axes, split in zip(panels, splits, strict=True):
        base = np.zeros(len(classes), dtype=int)
        for source, row in counts.loc[split].iterrows():
            axes.bar(at, row, 0.7, bottom=base, color=colours[source], label=source)
            base = base + row.to_numpy()
        label_bars(axes, at, base)
        plain(axes, title=f"{split}: {base.sum():,} images")
        axes.set_ylim(0, 1.25 * max(1, base.max()))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    panels[-1].set_xticks(at, names_of(classes, len(classes)))
    panels[-1].tick_params(axis="x", length=0)
    if len(sources) > 1:
        handles = {
            label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=6, frameon=False, labelcolor=INK
        )
    return save(figure, path)
