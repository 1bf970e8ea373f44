"""The common style of all plots: colours, figures, axes, class labels, saving as PNG.

Figures are built without pyplot: there is no window, no backend, and no growing list of open figures.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dr.core import files

DPI = 120
INK, FAINT, PAPER = "#222222", "#c4c4c4", "white"
# colours of Okabe & Ito, distinguishable under every common colour blindness
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#808080"
MOST_CLASSES = 30  # of a readable matrix or histogram


def names_of(classes: Sequence[str], count: int) -> list[str]:
    """-> number and name of each of `count` grades, wrapped for the label of a bar; numbers alone where the number of
    names differs."""
    if len(classes) != count:
        return [f"grade {grade}" for grade in range(count)]
    return [textwrap.fill(f"{grade} {name}", 15) for grade, name in enumerate(classes)]


def shades(colormap: str, count: int, start: float, stop: float) -> list[tuple[float, ...]]:
    """-> `count` RGBA colours of a matplotlib colormap, evenly spaced from start to stop in 0..1."""
    return [tuple(colour) for colour in colormaps[colormap](np.linspace(start, stop, count))]


def new_figure(width: float, height: float, colour: str = PAPER) -> Figure:
    """width, height in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=colour)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    return figure


def plain(axes: Axes, *, title: str = "") -> None:
    """Style the axes of a plot. Colours are explicit: a notebook's dark style must not print white on white."""
    axes.set_title(title, loc="left", color=INK, fontsize=12)
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(INK)
    axes.tick_params(labelsize=10, colors=INK)


def save(figure: Figure, path: Path) -> Figure:
    """Write the figure as PNG, atomically -> the figure."""
    with files.atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=DPI, facecolor="auto")
    return figure


def label_bars(axes: Axes, at: np.ndarray, totals: np.ndarray) -> None:
    """Write totals (K,) above bars at the positions `at` (K,)."""
    # a background in the colour of the paper keeps the target line out of the number
    style = {"ha": "center", "color": INK, "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 1}}
    for x, total in zip(at, totals, strict=True):
        axes.annotate(f"{total:,}", (x, total), (0, 5), textcoords="offset points", **style)
