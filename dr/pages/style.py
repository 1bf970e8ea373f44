"""How every picture of the pipeline looks: colours, figures, axes, names of classes; and how it is saved as a PNG.

Figures are built without pyplot: no window, no backend to choose, no list of open figures that grows.
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
# Okabe & Ito's colours, told apart under every common colour blindness
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#808080"
MOST_CLASSES = 30  # of a matrix or histogram that can still be read


def names_of(classes: Sequence[str], count: int) -> list[str]:
    """Number and name of each grade, wrapped to stand beneath a bar; numbers alone where the names are not theirs."""
    if len(classes) != count:
        return [f"grade {grade}" for grade in range(count)]
    return [textwrap.fill(f"{grade} {name}", 15) for grade, name in enumerate(classes)]


def shades(colormap: str, count: int, start: float, stop: float) -> list[tuple[float, ...]]:
    return [tuple(colour) for colour in colormaps[colormap](np.linspace(start, stop, count))]


def new_figure(width: float, height: float, colour: str = PAPER) -> Figure:
    """width, height in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=colour)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    return figure


def plain(axes: Axes, *, title: str = "") -> None:
    """Colours are said, not inherited: a notebook's dark style must not print white on white."""
    axes.set_title(title, loc="left", color=INK, fontsize=12)
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(INK)
    axes.tick_params(labelsize=10, colors=INK)


def save(figure: Figure, path: Path) -> Figure:
    with files.atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=DPI, facecolor="auto")
    return figure


def label_bars(axes: Axes, at: np.ndarray, totals: np.ndarray) -> None:
    # a paper-coloured ground, so that the target line never runs through a number
    style = {"ha": "center", "color": INK, "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 1}}
    for x, total in zip(at, totals, strict=True):
        axes.annotate(f"{total:,}", (x, total), (0, 5), textcoords="offset points", **style)
