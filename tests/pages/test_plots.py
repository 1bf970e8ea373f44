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

from dr.grading import metrics
from dr.pages import plots, score_plots, style
from dr.preprocessing import plots as preprocessing_plots

MATRIX = np.array([[1395, 3, 1, 1, 0], [20, 160, 55, 4, 1], [40, 60, 300, 30, 5], [0, 0, 0, 0, 0], [0, 1, 6, 7, 10]])

THRESHOLDS = [0.5, 1.5, 2.5, 3.5]


def history(epochs: int) -> pd.DataFrame:
    time = np.arange(1, epochs + 1) / epochs
    table = pd.DataFrame({"epoch": np.arange(1, epochs + 1), "lr": 3e-4 * (1 - time)})
    columns = ("train_loss", "val_loss", "macro_f1_rounded", "macro_f1_optimal", "macro_f1_cross_fitted", "kappa")
    return table.assign(**dict.fromkeys((*columns, "accuracy"), time * (1.5 - time)))


def draw_all(folder, scored, predicted) -> dict[str, Figure]:
    return {
        "balance.png": preprocessing_plots.class_balance(SOURCES_OF_GRADES, path=folder / "balance.png", target=1000),
        "crops.png": preprocessing_plots.crops_sheet([crop_pair()] * 5, path=folder / "crops.png"),
        "curves.png": plots.learning_curves(history(6), best=4, path=folder / "curves.png"),
        "confusion.png": plots.confusion_matrices(MATRIX, path=folder / "confusion.png"),
        "scores.png": score_plots.score_histograms(*scored([0, 1, 2, 4]), THRESHOLDS, path=folder / "scores.png"),
        "reliability.png": score_plots.reliability(*predicted, path=folder / "reliability.png"),
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, scored, predicted):
    folder = tmp_path_factory.mktemp("plots")
    return folder, draw_all(folder, scored, predicted)


def texts(subject) -> list[str]:
    return [text.get_text() for text in subject.findobj(Text) if text.get_text()]


def test_every_plot_is_a_png_of_the_size_of_its_figure_and_no_other_file(drawn):
    folder, figures = drawn
    assert sorted(path.name for path in folder.iterdir()) == sorted(figures)
    for name, figure in figures.items():
        assert (folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        image = cv2.imread(str(folder / name))
        assert image.shape[:2] == pytest.approx(figure.get_size_inches()[::-1] * style.DPI, abs=1)
        assert 400 < image.shape[1] < 2400
        assert image.std() > 10


def written(figure) -> list[tuple[str, Bbox]]:
    """Each painted text and its box, without the tick labels beyond the limits, which are never painted."""
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [(axis.get_view_interval(), tick) for axis in axes for tick in axis.get_major_ticks()]
    unused = [tick for (low, high), tick in ticks if not min(low, high) <= tick.get_loc() <= max(low, high)]
    hidden = {id(label) for tick in unused for label in (tick.label1, tick.label2)}
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and id(text) not in hidden]
    return [(text.get_text(), Text.get_window_extent(text)) for text in shown]  # an annotation's own adds its arrow


def test_no_text_exceeds_the_plot(drawn):
    for name, figure in drawn[1].items():
        for text, place in written(figure):
            assert figure.bbox.x0 <= place.x0 < place.x1 <= figure.bbox.x1, (name, text)
            assert figure.bbox.y0 <= place.y0 < place.y1 <= figure.bbox.y1, (name, text)


def test_no_two_texts_overlap(drawn):
    for name, figure in drawn[1].items():
        for (one, here), (other, there) in combinations(written(figure), 2):
            common = Bbox.intersection(here, there)
            assert common is None or min(common.width, common.height) < 1, (name, one, other)


def test_a_dark_notebook_style_changes_no_pixel(drawn, tmp_path, scored, predicted):
    with rc_context(matplotlib.style.library["dark_background"]):
        draw_all(tmp_path, scored, predicted)
    for name in drawn[1]:
        assert np.array_equal(cv2.imread(str(drawn[0] / name)), cv2.imread(str(tmp_path / name))), name


def test_a_plot_replaces_an_older_one(tmp_path):
    (tmp_path / "confusion.png").write_bytes(b"old")
    plots.confusion_matrices(MATRIX, path=tmp_path / "confusion.png")
    assert cv2.imread(str(tmp_path / "confusion.png")) is not None


def test_a_failed_save_keeps_the_older_plot_and_no_other_file(tmp_path, monkeypatch):
    def fill_the_disk(self, part, **_):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "confusion.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        plots.confusion_matrices(MATRIX, path=tmp_path / "confusion.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_the_selected_epoch_is_ringed(tmp_path, unrendered):
    table = history(6)
    table["macro_f1_cross_fitted"] = [0.1, 0.3, 0.512, 0.4, 0.2, 0.2]
    axes = plots.learning_curves(table, best=3, path=tmp_path / "curves.png").axes[1]
    assert axes.get_title(loc="left") == "Validation macro-F1\nselected epoch 3: 0.512"
    several = plots.learning_curves(table, best=3, path=tmp_path / "curves.png", views=4).axes[1]
    assert several.get_title(loc="left").endswith("0.512, one TTA view")
    assert axes.collections[0].get_offsets().tolist() == [[3, 0.512]]
    assert {"scores rounded", "optimal thresholds", "cross-fitted thresholds"} <= set(texts(axes))


def test_without_thresholds_macro_f1_is_one_curve(tmp_path, unrendered):
    table = history(3).drop(columns=["macro_f1_rounded", "macro_f1_optimal"])
    axes = plots.learning_curves(table, best=3, path=tmp_path / "curves.png").axes[1]
    assert [line.get_label() for line in axes.lines if line.get_label()[0] != "_"] == ["validation"]


@pytest.mark.parametrize("rate", [3e-4, 0.0])
def test_one_epoch_is_drawn_as_points(tmp_path, rate):
    figure = plots.learning_curves(history(1).assign(lr=rate), best=1, path=tmp_path / "curves.png")
    for axes in figure.axes:
        assert all(line.get_markersize() > 0 for line in axes.lines if line.get_label()[0] != "_")
        assert axes.get_xlim() == (0.5, 1.5)
        assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1]
        assert axes.get_ylim()[0] == 0
    for axes, lines in zip(figure.axes[:2], (2, 3), strict=True):  # the values, since one epoch draws no curve
        assert [text.get_text() for text in axes.texts] == ["0.500"] * lines
        assert np.diff([text.xyann[1] for text in axes.texts]).min() > 0


def cells(axes) -> list[list[str]]:
    cell_texts = [text.get_text() for text in axes.texts]
    return [cell_texts[start : start + 5] for start in range(0, 25, 5)]


def test_confusion_matrices_show_counts_and_percents_of_each_row(drawn):
    left, right = drawn[1]["confusion.png"].axes
    assert cells(left)[0] == ["1,395", "3", "1", "1", "0"]
    assert cells(left)[4] == ["0", "1", "6", "7", "10"]
    assert cells(right)[0] == [">99", "<1", "<1", "<1", "0"]
    assert cells(right)[1] == ["8", "67", "23", "2", "<1"]
    assert "0 No DR\nn = 1,400" in texts(left)


def test_confusion_matrices_have_the_title_of_the_run_and_split(tmp_path, unrendered):
    figure = plots.confusion_matrices(MATRIX, path=tmp_path / "confusion.png", title="run $5, test")
    assert "run $5, test" in texts(figure)


def test_a_grade_without_images_has_no_percents(drawn):
    assert cells(drawn[1]["confusion.png"].axes[1])[3] == ["-"] * 5


def test_an_empty_matrix_is_drawn_without_warnings(tmp_path):
    left, _ = plots.confusion_matrices(np.zeros((5, 5), int), path=tmp_path / "confusion.png").axes
    assert cells(left) == [["0"] * 5] * 5


def contrast(one, other) -> float:
    """WCAG 2.1 contrast ratio of two sRGB colours (3,) in 0..1: 3 is required of large text, 4.5 of small."""
    light = [
        np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722] for c in (one, other)
    ]
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_numbers_are_readable_on_every_shade():
    axes = Figure().subplots()
    plots._heatmap(axes, np.linspace(0, 1, 256).reshape(16, 16), [["0"] * 16] * 16)
    shades = np.asarray(axes.images[0].get_array())[..., :3].reshape(-1, 3)
    for text, shade in zip(axes.texts, shades, strict=True):
        assert contrast(np.array(to_rgb(text.get_color())), shade) > 3.5


def values_of(truth, grades, classes):
    class_scores = np.eye(classes)[grades]
    return metrics.per_class(truth, grades, class_scores), metrics.per_class_intervals(truth, grades, class_scores)


def test_each_class_is_a_point_with_its_interval_and_a_dash_if_never_predicted(tmp_path):
    truth = np.repeat([0, 1, 2], 20)
    grades = np.where(truth == 2, 1, truth)
    values, intervals = values_of(truth, grades, 3)
    drawn = plots.class_metrics(values, intervals, path=tmp_path / "classes.png", classes=["a", "b", "c"], title="run")
    assert cv2.imread(str(tmp_path / "classes.png")) is not None
    recall, precision, f1 = drawn.axes
    assert [text.get_text() for text in recall.texts] == ["100", "100", "0"]
    assert [text.get_text() for text in precision.texts] == ["100", "50", "-"]
    assert [text.get_text() for text in f1.texts] == ["100", "67", "0"]
    [bars] = [collection for collection in precision.collections if hasattr(collection, "get_segments")]
    assert np.allclose(bars.get_segments()[1][:, 0], 100 * intervals["precision"][:, 1])
    assert [label.get_text() for label in recall.get_yticklabels()] == ["0 a (20)", "1 b (20)", "2 c (20)"]


def test_of_many_classes_the_worst_are_drawn_and_the_title_reports_it(tmp_path):
    truth = np.repeat(np.arange(40), 5)
    grades = np.where(truth >= 10, truth, (truth + 1) % 10)  # the first ten are always wrong
    names = [f"class {number}" for number in range(40)]
    drawn = plots.class_metrics(*values_of(truth, grades, 40), path=tmp_path / "c.png", classes=names, title="run")
    labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert len(labels) == 30
    assert labels[:10] == [f"{number} class {number} (5)" for number in range(10)]
    assert any("the 30 with the lowest F1 of 40" in text for text in texts(drawn))


def test_each_split_is_a_panel_with_its_sources_stacked(tmp_path):
    index = pd.MultiIndex.from_tuples([("training", "main"), ("training", "2015"), ("validation", "main")])
    drawn = plots.split_bars(
        pd.DataFrame([[5, 2], [10, 0], [3, 1]], index=index), path=tmp_path / "split.png", classes=["a", "b"]
    )
    training, validation = drawn.axes
    assert [bar.get_height() for container in training.containers for bar in container] == [5, 2, 10, 0]
    assert [bar.get_y() for bar in training.containers[1]] == [5, 2]
    assert {"training: 17 images", "15", "2"} <= set(texts(training))
    assert "validation: 4 images" in texts(validation)
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == {"main", "2015"}
