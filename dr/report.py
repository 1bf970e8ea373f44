"""The pictures of the pipeline: each function draws one figure, saves it as a PNG and returns it (a notebook shows it).

Figures are built without pyplot: no window, no backend to choose, no list of open figures that grows.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.optimize import isotonic_regression

from dr import GRADES, files

DPI = 120
INK, FAINT, PAPER = "#222222", "#c4c4c4", "white"
# Okabe & Ito's colours, told apart under every common colour blindness
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#808080"
HELD_OUT = {"validation": ORANGE, "test": GREEN}  # columns of class_balance that are not training
PAGE = "#8c8c8c"  # of crops_sheet: neither the black nor the white surround of a photograph melts into it
BOX = "#56d4ff"
PAIRS_PER_ROW = 4
MOST_CLASSES = 30  # of a matrix or histogram that can still be read
MOST_PANELS = 8  # classes that have a panel of their own
SMALLEST_GROUP, LARGEST_GROUPS = 20, 10  # photographs of a point of a reliability diagram; points
BEFORE_ASPECT = 1.5  # cameras write 4:3 or 3:2, squares fit as well


def class_balance(
    counts: pd.DataFrame, *, path: Path, classes: Sequence[str] = GRADES, target: int | None = None
) -> Figure:
    """counts: a row per grade 0..K-1, int columns "validation" and "test" (optional) and one per training source."""
    # a table made by counting comes in the order of frequency, without the grades nobody has
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
    for side, at in zip(held_out, beside, strict=True):
        axes.bar(at, counts[side], width, color=colours[side])
        label_bars(axes, at, counts[side].to_numpy())
    if target is not None:
        axes.axhline(target, color=INK, linestyle="--", linewidth=1)
        axes.text(1.01, target, f"target\n{target:,}", transform=axes.get_yaxis_transform(), va="center", color=INK)

    tallest = max(base.max(initial=1), counts.to_numpy().max(initial=1), target or 1)
    plain(axes, title="Photographs per grade")
    axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(0, 1.1 * tallest))
    axes.set_xticks(range(len(counts)), names_of(classes, len(counts)))
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _count_table(table, counts[columns], colours)
    return save(figure, path)


def label_bars(axes: Axes, at: np.ndarray, totals: np.ndarray) -> None:
    # a paper-coloured ground, so that the target line never runs through a number
    style = {"ha": "center", "color": INK, "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 1}}
    for x, total in zip(at, totals, strict=True):
        axes.annotate(f"{total:,}", (x, total), (0, 5), textcoords="offset points", **style)


def _count_table(axes: Axes, counts: pd.DataFrame, colours: dict[str, object]) -> None:
    """The legend and every count, also of the slices too thin to be seen."""
    for row, column in enumerate(counts.columns, start=1):
        axes.scatter(-0.5, row, s=80, marker="s", color=[colours[column]], clip_on=False)
        for x, count in enumerate(counts[column]):
            axes.text(x, row, f"{count:,}", ha="center", va="center", color=INK)
        axes.text(len(counts) - 0.3, row, f"{counts[column].sum():,}", ha="center", va="center", color=INK)
    axes.text(len(counts) - 0.3, 0, "all", ha="center", va="center", color=INK)
    axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(counts.shape[1] + 0.5, -0.5), xticks=[])
    axes.set_yticks(range(1, counts.shape[1] + 1), counts.columns)
    axes.tick_params(length=0, pad=12, labelsize=10, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("none")


def crops_sheet(
    rows: list[tuple[np.ndarray, tuple[float, float, float, float], np.ndarray, str]], *, path: Path
) -> Figure:
    """rows: (before (H, W, 3) uint8 BGR, box (x0, y0, x1, y1) in its pixels, after (S, S, 3) uint8 BGR, caption)."""
    wide = max(1, min(PAIRS_PER_ROW, len(rows)))
    high = max(1, -(-len(rows) // wide))
    figure = new_figure(3.7 * wide, 1.8 * high, PAGE)
    grid = figure.subplots(high, wide, squeeze=False).ravel()
    for axes in grid:
        axes.set(xlim=(0, BEFORE_ASPECT + 1.04), ylim=(1, 0), aspect="equal", xticks=[], yticks=[], facecolor=PAGE)
        axes.spines[:].set_visible(False)
    for axes, (before, box, after, caption) in zip(grid, rows, strict=False):
        _draw_before(axes, before, box)
        axes.imshow(_thumbnail(after), extent=(BEFORE_ASPECT + 0.04, BEFORE_ASPECT + 1.04, 1, 0))
        axes.set(xlim=(0, BEFORE_ASPECT + 1.04), ylim=(1, 0))  # imshow moved them
        axes.set_xlabel(_shorten(caption), fontsize=8, color="black", labelpad=3, parse_math=False)
    if not rows:
        grid[0].text(0.5, 0.5, "no photographs to show", transform=grid[0].transAxes, ha="center", color="black")
        return save(figure, path)
    box = Rectangle(
        (0, 0), 1, 1, fill=False, edgecolor=BOX, linewidth=1.2, label="what is kept of the photograph (left)"
    )
    figure.legend(handles=[box], loc="outside upper left", frameon=False, labelcolor="black", fontsize=9)
    return save(figure, path)


def _draw_before(axes: Axes, photo: np.ndarray, box: tuple[float, float, float, float]) -> None:
    """The photograph and its box, centred in the cell 0..BEFORE_ASPECT x 0..1; the box may reach beyond it."""
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = box
    left, top, right, bottom = min(0, x0), min(0, y0), max(width, x1), max(height, y1)
    scale = min(BEFORE_ASPECT / (right - left), 1 / (bottom - top))
    dx = BEFORE_ASPECT / 2 - scale * (left + right) / 2
    dy = 1 / 2 - scale * (top + bottom) / 2
    axes.imshow(_thumbnail(photo), extent=(dx, dx + scale * width, dy + scale * height, dy))
    corner = (dx + scale * x0, dy + scale * y0)
    axes.add_patch(Rectangle(corner, scale * (x1 - x0), scale * (y1 - y0), fill=False, edgecolor=BOX, linewidth=1.2))


def _thumbnail(photo: np.ndarray, *, side_px: int = 360) -> np.ndarray:
    """(H, W, 3) uint8 BGR -> RGB, at most side_px on the longer side: a sheet of camera originals would fill memory."""
    scale = min(1.0, side_px / max(photo.shape[:2]))
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


def _shorten(caption: str, *, most: int = 48) -> str:
    """Each line at most so long, the middle left out: both ends of a file name tell."""
    half = most // 2
    lines = caption.splitlines()
    return "\n".join(line if len(line) <= most else f"{line[: half - 1]}…{line[-half:]}" for line in lines)


def learning_curves(history: pd.DataFrame, *, best: int, path: Path) -> Figure:
    """history: a row per epoch, columns epoch, train_loss, val_loss, lr, macro_f1_cross_fitted and, where cuts are
    fitted, macro_f1_{rounded,optimal}; best: the epoch that was kept."""
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
    titles[1] += f", {kept:.3f} at the epoch kept ({best})"
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
    scores: np.ndarray, truth: np.ndarray, cuts: np.ndarray, *, path: Path, classes: Sequence[str] = GRADES
) -> Figure:
    """scores (N,) float, truth (N,) int in 0..K-1, cuts (K-1,) ascending: a histogram per true grade, all cut alike."""
    scores, truth, cuts = np.asarray(scores, float), np.asarray(truth), np.asarray(cuts, float)
    names = names_of(classes, len(cuts) + 1)
    finite = np.isfinite(scores)
    low, high = _score_range(cuts, scores[finite])
    borders = np.concatenate([[low], np.clip(cuts, low, high), [high]])
    figure = new_figure(10, 0.95 * len(names) + 1.3)
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False).ravel()
    bins = np.linspace(low, high, 61)
    for grade, (axes, colour) in enumerate(zip(panels, shades("YlGnBu", len(names), 0.4, 0.9), strict=True)):
        heights, _ = np.histogram(np.clip(scores[finite & (truth == grade)], low, high), bins)
        axes.axvspan(borders[grade], borders[grade + 1], color="#ececec", linewidth=0, zorder=0)
        axes.stairs(heights, bins, fill=True, color=colour, zorder=2)
        axes.vlines(cuts[(low < cuts) & (cuts < high)], 0, 1, INK, transform=axes.get_xaxis_transform(), linewidth=1)
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


def _score_range(cuts: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """From the lowest to the highest of scores and cuts and a margin, without those that are absurdly far from the
    grades 0..K-1; half a grade at least beyond every cut, where the outermost grades are named."""
    count = len(cuts) + 1
    near = cuts[(-count < cuts) & (cuts < 2 * count)]
    usual = scores[(-0.2 * count <= scores) & (scores <= 1.2 * count - 1)]
    inner, outer = 0.02 * count, 0.1 * count
    low = min(usual.min(initial=count) - inner, near.min(initial=count) - outer)
    high = max(usual.max(initial=-count) + inner, near.max(initial=-count) + outer)
    return (low, high) if low < high else (-0.2 * count, 1.2 * count - 1)


def reliability(probabilities: np.ndarray, truth: np.ndarray, *, path: Path, classes: Sequence[str] = GRADES) -> Figure:
    """probabilities (N, K), or (R, N, K) of R repeats over the same samples, truth (N,): how often the likeliest class
    and, of a few classes, each one is right, against its probability. Groups of equally many samples (Nguyen and
    O'Connor, EMNLP 2015) with Wilson's 95 % intervals; the base shows how samples spread."""
    from dr.calibration import expected_calibration_error  # torch takes seconds to import: data.py draws without it

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
    z = 1.96
    centre = (shares + z**2 / (2 * sizes)) / (1 + z**2 / sizes)
    half = z / (1 + z**2 / sizes) * np.sqrt(shares * (1 - shares) / sizes + z**2 / (4 * sizes**2))
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, zorder=0)
    heights, bins = np.histogram(100 * claimed, 20, (0, 100))
    axes.stairs(15 * heights / max(heights.max(), 1), bins, fill=True, color=FAINT, zorder=1)
    spread = 100 * np.maximum([shares - (centre - half), centre + half - shares], 0)
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
    with files.whole(path) as part:
        figure.savefig(part, format="png", dpi=DPI, facecolor="auto")
    return figure
