"""More pictures of a run, beside those of report.py: how good each class is, and what the sides of the split hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dr import GRADES
from dr.pages.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MOST_CLASSES,
    ORANGE,
    label_bars,
    names_of,
    new_figure,
    plain,
    save,
    shades,
)

FIGURES = {"recall": BLUE, "precision": ORANGE, "f1": GREEN}


def class_metrics(
    figures: Mapping[str, np.ndarray],
    intervals: Mapping[str, np.ndarray],
    *,
    path: Path,
    classes: Sequence[str] = GRADES,
    title: str | None = None,
) -> Figure:
    """figures: n, recall, precision and f1 (K,) as metrics.per_class gives them, intervals of the last three (2, K):
    a point with its interval for each class; of many classes those with the lowest F1."""
    shown = np.arange(len(classes))
    worst = len(classes) > MOST_CLASSES
    if worst:
        shown = np.sort(np.argsort(figures["f1"], kind="stable")[:MOST_CLASSES])
    names = [names_of(classes, len(classes))[k] for k in shown]
    figure = new_figure(12, 0.44 * len(shown) + 1.5)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (name, colour) in zip(panels, FIGURES.items(), strict=True):
        _points(axes, 100 * figures[name][shown], 100 * intervals[name][:, shown], colour)
        plain(axes, title={"f1": "F1"}.get(name, name.capitalize()))
        axes.set_xlabel("percent", color=INK)
    labels = [f"{name} ({n:,})".replace("\n", " ") for name, n in zip(names, figures["n"][shown], strict=True)]
    panels[0].set_yticks(range(len(shown)), labels)
    panels[0].set(ylim=(len(shown) - 0.5, -0.5))
    for axes in panels[1:]:
        axes.tick_params(axis="y", length=0, labelleft=False)
    note = f", the {MOST_CLASSES} with the lowest F1 of {len(classes)}" if worst else ""
    if title is not None:
        figure.suptitle(f"{title}{note}", color=INK, fontsize=12, parse_math=False)
    return save(figure, path)


def _points(axes: Axes, values: np.ndarray, interval: np.ndarray, colour: str) -> None:
    """values (K,), interval (2, K), in percent; what is not defined (NaN) is a dash at 0."""
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
    """counts: a row for each side and source (a MultiIndex), a column for each class 0..K-1: a panel for each side, its
    sources stacked, each with an axis of its own, because training may be ten times as large."""
    sides, sources = (list(dict.fromkeys(counts.index.get_level_values(level))) for level in (0, 1))
    colours = dict(zip(sources, shades("Blues_r", len(sources), 0.15, 0.6), strict=True))
    figure = new_figure(max(7, 0.9 * len(classes) + 2), 2 * len(sides) + 0.8)
    panels = figure.subplots(len(sides), 1, sharex=True, squeeze=False).ravel()
    at = np.arange(len(classes))
    for axes, side in zip(panels, sides, strict=True):
        base = np.zeros(len(classes), dtype=int)
        for source, row in counts.loc[side].iterrows():
            axes.bar(at, row, 0.7, bottom=base, color=colours[source], label=source)
            base = base + row.to_numpy()
        label_bars(axes, at, base)
        plain(axes, title=f"{side}: {base.sum():,} photographs")
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
