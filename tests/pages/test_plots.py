from itertools import combinations

import cv2
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from made import SOURCES_OF_GRADES, crop_pair
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from dr import GRADES
from dr.pages import plots as report
from dr.pages import style
from dr.preprocessing import plots as data_pictures

MATRIX = np.array([[1395, 3, 1, 1, 0], [20, 160, 55, 4, 1], [40, 60, 300, 30, 5], [0, 0, 0, 0, 0], [0, 1, 6, 7, 10]])


def history(epochs: int) -> pd.DataFrame:
    time = np.arange(1, epochs + 1) / epochs
    table = pd.DataFrame({"epoch": np.arange(1, epochs + 1), "lr": 3e-4 * (1 - time)})
    columns = ("train_loss", "val_loss", "macro_f1_rounded", "macro_f1_optimal", "macro_f1_cross_fitted", "kappa")
    return table.assign(**dict.fromkeys((*columns, "accuracy"), time * (1.5 - time)))


def scored(grades: list[int]) -> tuple[np.ndarray, np.ndarray]:
    truth = np.repeat(grades, 12)
    return truth + np.random.default_rng(0).normal(0, 0.4, len(truth)), truth


def claimed() -> tuple[np.ndarray, np.ndarray]:
    """Two repeats over 200 photographs: probabilities that the truth was drawn from, and ones that are too sure."""
    rng = np.random.default_rng(0)
    right = rng.dirichlet([4, 1, 2, 1, 1], 200)
    truth = (rng.random(200)[:, None] > right.cumsum(axis=1)).sum(axis=1)
    sure = right**3
    return np.stack([right, sure / sure.sum(axis=1, keepdims=True)]), truth


def draw_all(folder) -> dict[str, Figure]:
    return {
        "balance.png": data_pictures.class_balance(SOURCES_OF_GRADES, path=folder / "balance.png", target=1000),
        "crops.png": data_pictures.crops_sheet([crop_pair()] * 5, path=folder / "crops.png"),
        "curves.png": report.learning_curves(history(6), best=4, path=folder / "curves.png"),
        "confusion.png": report.confusion_matrices(MATRIX, path=folder / "confusion.png"),
        "scores.png": report.score_histograms(*scored([0, 1, 2, 4]), [0.5, 1.5, 2.5, 3.5], path=folder / "scores.png"),
        "reliability.png": report.reliability(*claimed(), path=folder / "reliability.png"),
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return folder, draw_all(folder)


def texts(subject) -> list[str]:
    return [text.get_text() for text in subject.findobj(Text) if text.get_text()]


def test_every_picture_is_a_png_of_the_figure_s_size_and_nothing_is_left_beside_it(drawn):
    folder, figures = drawn
    assert sorted(path.name for path in folder.iterdir()) == sorted(figures)
    for name, figure in figures.items():
        assert (folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        picture = cv2.imread(str(folder / name))
        assert picture.shape[:2] == pytest.approx(figure.get_size_inches()[::-1] * style.DPI, abs=1)
        assert 400 < picture.shape[1] < 2400
        assert picture.std() > 10


def written(figure) -> list[tuple[str, Bbox]]:
    """Each painted text and its place; matplotlib keeps tick labels beyond the limits and never paints them."""
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [(axis.get_view_interval(), tick) for axis in axes for tick in axis.get_major_ticks()]
    unused = [tick for (low, high), tick in ticks if not min(low, high) <= tick.get_loc() <= max(low, high)]
    hidden = {id(label) for tick in unused for label in (tick.label1, tick.label2)}
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and id(text) not in hidden]
    return [(text.get_text(), Text.get_window_extent(text)) for text in shown]  # an annotation's own adds its arrow


def test_nothing_written_reaches_beyond_the_picture(drawn):
    for name, figure in drawn[1].items():
        for text, place in written(figure):
            assert figure.bbox.x0 <= place.x0 < place.x1 <= figure.bbox.x1, (name, text)
            assert figure.bbox.y0 <= place.y0 < place.y1 <= figure.bbox.y1, (name, text)


def test_no_two_texts_overlap(drawn):
    for name, figure in drawn[1].items():
        for (one, here), (other, there) in combinations(written(figure), 2):
            common = Bbox.intersection(here, there)
            assert common is None or min(common.width, common.height) < 1, (name, one, other)


def test_a_dark_notebook_style_changes_no_pixel(drawn, tmp_path):
    with rc_context(matplotlib.style.library["dark_background"]):
        draw_all(tmp_path)
    for name in drawn[1]:
        assert np.array_equal(cv2.imread(str(drawn[0] / name)), cv2.imread(str(tmp_path / name))), name


def test_a_picture_replaces_an_older_one(tmp_path):
    (tmp_path / "confusion.png").write_bytes(b"old")
    report.confusion_matrices(MATRIX, path=tmp_path / "confusion.png")
    assert cv2.imread(str(tmp_path / "confusion.png")) is not None


def test_a_failed_save_keeps_the_older_picture_and_leaves_nothing_beside_it(tmp_path, monkeypatch):
    def fill_the_disk(self, part, **_):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "confusion.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        report.confusion_matrices(MATRIX, path=tmp_path / "confusion.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_the_epoch_that_was_kept_is_ringed(tmp_path, unpainted):
    table = history(6)
    table["macro_f1_cross_fitted"] = [0.1, 0.3, 0.512, 0.4, 0.2, 0.2]
    axes = report.learning_curves(table, best=3, path=tmp_path / "curves.png").axes[1]
    assert axes.get_title(loc="left") == "Validation macro-F1\n0.512 at epoch 3, which was kept"
    several = report.learning_curves(table, best=3, path=tmp_path / "curves.png", views=4).axes[1]
    assert several.get_title(loc="left").endswith("which was kept, by one view")
    assert axes.collections[0].get_offsets().tolist() == [[3, 0.512]]
    assert {"scores rounded", "optimal cuts", "cross-fitted cuts"} <= set(texts(axes))


def test_without_cuts_there_is_one_curve_of_the_macro_f1(tmp_path, unpainted):
    table = history(3).drop(columns=["macro_f1_rounded", "macro_f1_optimal"])
    axes = report.learning_curves(table, best=3, path=tmp_path / "curves.png").axes[1]
    assert [line.get_label() for line in axes.lines if line.get_label()[0] != "_"] == ["validation"]


@pytest.mark.parametrize("rate", [3e-4, 0.0])
def test_one_epoch_is_drawn_as_points(tmp_path, rate):
    figure = report.learning_curves(history(1).assign(lr=rate), best=1, path=tmp_path / "curves.png")
    for axes in figure.axes:
        assert all(line.get_markersize() > 0 for line in axes.lines if line.get_label()[0] != "_")
        assert axes.get_xlim() == (0.5, 1.5)
        assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1]
        assert axes.get_ylim()[0] == 0
    for axes, lines in zip(figure.axes[:2], (2, 3), strict=True):  # the values, where there is no curve to be read
        assert [text.get_text() for text in axes.texts] == ["0.500"] * lines
        assert np.diff([text.xyann[1] for text in axes.texts]).min() > 0


def cells(axes) -> list[list[str]]:
    found = [text.get_text() for text in axes.texts]
    return [found[start : start + 5] for start in range(0, 25, 5)]


def test_confusion_matrices_show_counts_and_percents_of_each_row(drawn):
    left, right = drawn[1]["confusion.png"].axes
    assert cells(left)[0] == ["1,395", "3", "1", "1", "0"]
    assert cells(left)[4] == ["0", "1", "6", "7", "10"]
    assert cells(right)[0] == [">99", "<1", "<1", "<1", "0"]
    assert cells(right)[1] == ["8", "67", "23", "2", "<1"]
    assert "0 No DR\nn = 1,400" in texts(left)


def test_confusion_matrices_say_of_which_run_and_photographs(tmp_path, unpainted):
    figure = report.confusion_matrices(MATRIX, path=tmp_path / "confusion.png", title="run $5, test")
    assert "run $5, test" in texts(figure)


def test_a_grade_without_photographs_has_no_percents(drawn):
    assert cells(drawn[1]["confusion.png"].axes[1])[3] == ["-"] * 5


def test_an_empty_matrix_is_drawn_without_warnings(tmp_path):
    left, _ = report.confusion_matrices(np.zeros((5, 5), int), path=tmp_path / "confusion.png").axes
    assert cells(left) == [["0"] * 5] * 5


def contrast(one, other) -> float:
    """WCAG 2.1 contrast ratio of two sRGB colours (3,) in 0..1: 3 is asked of large text, 4.5 of small."""
    light = [
        np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722] for c in (one, other)
    ]
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_numbers_can_be_read_on_every_shade():
    axes = Figure().subplots()
    report._heatmap(axes, np.linspace(0, 1, 256).reshape(16, 16), [["0"] * 16] * 16)
    shades = np.asarray(axes.images[0].get_array())[..., :3].reshape(-1, 3)
    for text, shade in zip(axes.texts, shades, strict=True):
        assert contrast(np.array(to_rgb(text.get_color())), shade) > 3.5


def test_score_histograms_count_every_photograph_of_each_true_grade(drawn):
    panels = drawn[1]["scores.png"].axes
    assert [panel.get_ylabel() for panel in panels] == [
        f"{name}\nn = {count}" for name, count in zip(style.names_of(GRADES, 5), [12, 12, 12, 0, 12], strict=True)
    ]
    assert [panel.patches[-1].get_data().values.sum() for panel in panels] == [12, 12, 12, 0, 12]


def test_the_cuts_run_through_every_row_and_the_predicted_grades_stand_between_them(drawn):
    panels = drawn[1]["scores.png"].axes
    for panel in panels:
        assert [segment[0, 0] for segment in panel.collections[0].get_segments()] == [0.5, 1.5, 2.5, 3.5]
    labels = {text.get_text(): text.xyann[0] for text in panels[0].texts if hasattr(text, "xyann")}
    low, high = panels[0].get_xlim()
    assert labels == pytest.approx({"0": (low + 0.5) / 2, "1": 1, "2": 2, "3": 3, "4": (3.5 + high) / 2})


def test_the_axis_ends_near_the_scores_and_beyond_every_cut(tmp_path, unpainted):
    scores, truth = np.linspace(0.2, 1.9, 50), np.repeat([0, 4], 25)
    axes = report.score_histograms(scores, truth, [0.5, 0.9, 1.2, 3.1], path=tmp_path / "scores.png").axes[0]
    assert axes.get_xlim() == pytest.approx((0.0, 3.6))
    axes = report.score_histograms(scores, truth, [0.5, 0.9, 1.2, 1.3], path=tmp_path / "scores.png").axes[0]
    assert axes.get_xlim() == pytest.approx((0.0, 2.0))


@pytest.mark.parametrize("thresholds", [[1.4, 1.4, 1.41, 1.42], [-np.inf, -np.inf, 1.0, np.inf], [0.5, 1.5, 2.5, 1e6]])
def test_labels_of_narrow_regions_keep_apart_and_on_the_axis(tmp_path, unpainted, thresholds):
    axes = report.score_histograms(*scored([0, 4]), thresholds, path=tmp_path / "scores.png").axes[0]
    spots = [text.xyann[0] for text in axes.texts if hasattr(text, "xyann")]
    low, high = axes.get_xlim()
    assert len(spots) == 5
    assert np.diff(spots).min() > 0.02 * (high - low)
    assert low <= min(spots)
    assert max(spots) <= high


def test_extreme_scores_stay_in_the_outermost_bars_and_are_told(tmp_path):
    scores, truth = np.array([0.1, 50.0, -1e9, np.nan, np.inf]), np.array([0, 4, 0, 1, 2])
    panels = report.score_histograms(scores, truth, [0.5, 1.5, 2.5, 3.5], path=tmp_path / "scores.png").axes
    assert panels[0].get_xlim() == pytest.approx((0, 4))  # half a grade beyond the outermost cuts, no score near
    assert panels[4].patches[-1].get_data().values[-1] == 1
    assert panels[0].patches[-1].get_data().values[0] == 1
    assert "2 beyond the axis" in panels[4].get_xlabel()
    assert "2 without a finite score" in panels[4].get_xlabel()


def test_a_reliability_diagram_shows_how_often_each_group_is_right(drawn, tmp_path, unpainted):
    panels = [axes for axes in drawn[1]["reliability.png"].axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels][:2] == ["likeliest grade", "0 No DR"]
    assert len(panels) == 1 + 5
    (probabilities, _), truth = claimed()
    axes = report.reliability(probabilities, truth, path=tmp_path / "one.png").axes[0]
    sure = probabilities.max(axis=1)
    groups = np.array_split(np.argsort(sure, kind="stable"), 10)
    points = axes.containers[0].lines[0].get_xydata()
    right = probabilities.argmax(axis=1) == truth
    assert np.allclose(points, [[100 * sure[rows].mean(), 100 * right[rows].mean()] for rows in groups])


def test_of_many_classes_only_the_likeliest_has_a_panel_and_few_photographs_are_one_point(tmp_path, unpainted):
    made = report.reliability(np.full((6, 9), 1 / 9), np.zeros(6, int), path=tmp_path / "nine.png")
    (axes,) = made.axes
    assert len(axes.containers[0].lines[0].get_xydata()) == 1
