"""Plots of a preprocessed folder: images per class, and crops beside their originals. Each function draws one figure,
saves it as a PNG and returns it (a notebook shows it)."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dr import GRADES
from dr.pages.html import shrunk
from dr.pages.style import GREEN, INK, MOST_CLASSES, ORANGE, label_bars, names_of, new_figure, plain, save, shades

HELD_OUT = {"validation": ORANGE, "test": GREEN}  # columns of class_balance other than training
SURROUND = "#8c8c8c"  # of crops_sheet: differs from the black and white surrounds of images
BOX = "#56d4ff"
PAIRS_PER_ROW = 4
LEGEND_INCHES = 0.3
MAX_NAME = 48  # characters of a source in class_balance
SIDE_INCHES = 1.25  # of a crop; the lengths below are in this unit
BEFORE_ASPECT = 1.5  # cameras write 4:3 or 3:2; squares fit as well
GAP, MARGIN = 0.04, 0.42
PITCH = (BEFORE_ASPECT + GAP + 1 + MARGIN, 1.4)  # from one pair to the next


def draw_all(
    counts: pd.DataFrame, crops: list[tuple], *, root: Path, classes: Sequence[str], target: int | None
) -> None:
    """ROOT/class_balance.png unless there are too many classes for bars; ROOT/crops.png if anything was cropped."""
    if len(classes) <= MOST_CLASSES:
        class_balance(counts, path=root / "class_balance.png", classes=classes, target=target)
    if crops:
        crops_sheet(crops, path=root / "crops.png")


def class_balance(
    counts: pd.DataFrame, *, path: Path, classes: Sequence[str] = GRADES, target: int | None = None
) -> Figure:
    """counts: a row for each class 0..K-1; int columns "validation", optional "test", and one for each training source.
    `target`: a dashed line, e.g. --per_class."""
    # value_counts sorts by frequency and leaves out classes without images
    counts = counts.reindex(range(counts.index.max() + 1), fill_value=0)
    sources = [column for column in counts.columns if column not in HELD_OUT]
    colours = dict(zip(sources, shades("Blues_r", len(sources), 0.15, 0.6), strict=True)) | HELD_OUT
    columns = [column for column in (*sources, *HELD_OUT) if column in counts.columns]
    held_out = columns[len(sources) :]
    bars = max(2, 1 + len(held_out))
    figure = new_figure(0.8 * bars * max(len(counts), 4) + 2.4, 4.4 + 0.28 * len(columns))
    axes, table = figure.subplots(2, 1, height_ratios=[4, 0.28 * (len(columns) + 1)])

    places, width = (np.arange(1 + len(held_out)) - len(held_out) / 2) * 0.8 / bars, 0.72 / bars
    training, *beside = np.arange(len(counts)) + places[:, None]
    base = np.zeros(len(counts), dtype=int)
    for source in sources:
        axes.bar(training, counts[source], width, bottom=base, color=colours[source])
        base = base + counts[source].to_numpy()
    label_bars(axes, training, base)
    for split, at in zip(held_out, beside, strict=True):
        axes.bar(at, counts[split], width, color=colours[split])
        label_bars(axes, at, counts[split].to_numpy())
    if target is not None:
        axes.axhline(target, color=INK, linestyle="--", linewidth=1)
        axes.text(1.01, target, f"target\n{target:,}", transform=axes.get_yaxis_transform(), va="center", color=INK)

    tallest = max(base.max(initial=1), counts.to_numpy().max(initial=1), target or 1)
    plain(axes, title="Images per class")
    axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(0, 1.1 * tallest))
    axes.set_xticks(range(len(counts)), names_of(classes, len(counts)))
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _count_table(table, counts[columns], colours)
    return save(figure, path)


def _count_table(axes: Axes, counts: pd.DataFrame, colours: dict[str, object]) -> None:
    """The legend and every count, including bars too thin to be seen."""
    for row, column in enumerate(counts.columns, start=1):
        axes.scatter(-0.5, row, s=80, marker="s", color=[colours[column]], clip_on=False)
        for x, count in enumerate(counts[column]):
            axes.text(x, row, f"{count:,}", ha="center", va="center", color=INK)
        axes.text(len(counts) - 0.3, row, f"{counts[column].sum():,}", ha="center", va="center", color=INK)
    axes.text(len(counts) - 0.3, 0, "all", ha="center", va="center", color=INK)
    axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(counts.shape[1] + 0.5, -0.5), xticks=[])
    names = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 15]}...{name[-12:]}" for name in counts.columns]
    axes.set_yticks(range(1, counts.shape[1] + 1), names, parse_math=False)
    axes.tick_params(length=0, pad=12, labelsize=10, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("none")


def crops_sheet(
    rows: list[tuple[np.ndarray, tuple[float, float, float, float], np.ndarray, str]], *, path: Path
) -> Figure:
    """rows: (before (H, W, 3) uint8 BGR, box (x0, y0, x1, y1) in its pixels, after (S, S, 3) uint8 BGR, caption)."""
    wide = max(1, min(PAIRS_PER_ROW, len(rows)))
    high = max(1, -(-len(rows) // wide))
    figure = new_figure(SIDE_INCHES * wide * PITCH[0], SIDE_INCHES * high * PITCH[1] + LEGEND_INCHES, SURROUND)
    axes = figure.subplots()  # one for all pairs: two dozen axes take two seconds
    for number, (before, box, after, caption) in enumerate(rows):
        x, y = PITCH[0] * (number % wide), PITCH[1] * (number // wide)
        _draw_before(axes, before, box, at=(x, y))
        left = x + BEFORE_ASPECT + GAP
        axes.imshow(_thumbnail(after), extent=(left, left + 1, y + 1, y))
        middle = x + (BEFORE_ASPECT + GAP + 1) / 2
        style = {"fontsize": 8, "color": "black", "ha": "center", "va": "top", "parse_math": False}
        axes.text(middle, y + 1 + GAP, _shorten(caption), **style)
    axes.set(xlim=(0, PITCH[0] * wide - MARGIN), ylim=(PITCH[1] * high, 0), aspect="equal")  # imshow changed the limits
    axes.set_axis_off()
    if not rows:
        axes.text(0.5, 0.5, "no images to show", transform=axes.transAxes, ha="center", color="black")
        return save(figure, path)
    box = Rectangle((0, 0), 1, 1, fill=False, edgecolor=BOX, linewidth=1.2, label="crop kept from the original (left)")
    figure.legend(handles=[box], loc="outside upper left", frameon=False, labelcolor="black", fontsize=9)
    return save(figure, path)


def _draw_before(
    axes: Axes, image: np.ndarray, box: tuple[float, float, float, float], *, at: tuple[float, float]
) -> None:
    """The image and its box, centred in the cell of BEFORE_ASPECT x 1 with its corner at `at`. The box may extend
    beyond the image."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    left, top, right, bottom = min(0, x0), min(0, y0), max(width, x1), max(height, y1)
    scale = min(BEFORE_ASPECT / (right - left), 1 / (bottom - top))
    dx = at[0] + BEFORE_ASPECT / 2 - scale * (left + right) / 2
    dy = at[1] + 1 / 2 - scale * (top + bottom) / 2
    axes.imshow(_thumbnail(image), extent=(dx, dx + scale * width, dy + scale * height, dy))
    corner = (dx + scale * x0, dy + scale * y0)
    axes.add_patch(Rectangle(corner, scale * (x1 - x0), scale * (y1 - y0), fill=False, edgecolor=BOX, linewidth=1.2))


def _thumbnail(image: np.ndarray, *, side_px: int = 360) -> np.ndarray:
    """(H, W, 3) uint8 BGR -> RGB, at most side_px on the longer side: a sheet of originals would fill the memory."""
    return cv2.cvtColor(shrunk(image, longest_px=side_px), cv2.COLOR_BGR2RGB)


def _shorten(caption: str, *, most: int = 48) -> str:
    """Lines of at most `most` characters, shortened in the middle: both ends of a file name identify it."""
    half = most // 2
    lines = caption.splitlines()
    return "\n".join(line if len(line) <= most else f"{line[: half - 1]}…{line[-half:]}" for line in lines)
