import numpy as np
import pytest

from dr import GRADES
from dr.pages import score_plots, style


@pytest.fixture(scope="module")
def panels(tmp_path_factory, scored):
    path = tmp_path_factory.mktemp("plots") / "scores.png"
    return score_plots.score_histograms(*scored([0, 1, 2, 4]), [0.5, 1.5, 2.5, 3.5], path=path).axes


def test_score_histograms_count_every_image_of_each_true_grade(panels):
    assert [panel.get_ylabel() for panel in panels] == [
        f"{name}\nn = {count}" for name, count in zip(style.names_of(GRADES, 5), [12, 12, 12, 0, 12], strict=True)
    ]
    assert [panel.patches[-1].get_data().values.sum() for panel in panels] == [12, 12, 12, 0, 12]


def test_thresholds_cross_every_row_and_the_predicted_grades_are_between_them(panels):
    for panel in panels:
        assert [segment[0, 0] for segment in panel.collections[0].get_segments()] == [0.5, 1.5, 2.5, 3.5]
    labels = {text.get_text(): text.xyann[0] for text in panels[0].texts if hasattr(text, "xyann")}
    low, high = panels[0].get_xlim()
    assert labels == pytest.approx({"0": (low + 0.5) / 2, "1": 1, "2": 2, "3": 3, "4": (3.5 + high) / 2})


def test_the_axis_ends_near_the_scores_and_beyond_every_threshold(tmp_path, unrendered):
    scores, truth = np.linspace(0.2, 1.9, 50), np.repeat([0, 4], 25)
    axes = score_plots.score_histograms(scores, truth, [0.5, 0.9, 1.2, 3.1], path=tmp_path / "scores.png").axes[0]
    assert axes.get_xlim() == pytest.approx((0.0, 3.6))
    axes = score_plots.score_histograms(scores, truth, [0.5, 0.9, 1.2, 1.3], path=tmp_path / "scores.png").axes[0]
    assert axes.get_xlim() == pytest.approx((0.0, 2.0))


@pytest.mark.parametrize("thresholds", [[1.4, 1.4, 1.41, 1.42], [-np.inf, -np.inf, 1.0, np.inf], [0.5, 1.5, 2.5, 1e6]])
def test_labels_of_narrow_regions_keep_apart_and_on_the_axis(tmp_path, unrendered, scored, thresholds):
    axes = score_plots.score_histograms(*scored([0, 4]), thresholds, path=tmp_path / "scores.png").axes[0]
    spots = [text.xyann[0] for text in axes.texts if hasattr(text, "xyann")]
    low, high = axes.get_xlim()
    assert len(spots) == 5
    assert np.diff(spots).min() > 0.02 * (high - low)
    assert low <= min(spots)
    assert max(spots) <= high


def test_extreme_scores_are_in_the_outermost_bars_and_in_the_note(tmp_path):
    scores, truth = np.array([0.1, 50.0, -1e9, np.nan, np.inf]), np.array([0, 4, 0, 1, 2])
    panels = score_plots.score_histograms(scores, truth, [0.5, 1.5, 2.5, 3.5], path=tmp_path / "scores.png").axes
    assert panels[0].get_xlim() == pytest.approx((0, 4))  # half a grade beyond the outermost thresholds, no score near
    assert panels[4].patches[-1].get_data().values[-1] == 1
    assert panels[0].patches[-1].get_data().values[0] == 1
    assert "2 beyond the axis" in panels[4].get_xlabel()
    assert "2 without a finite score" in panels[4].get_xlabel()


def test_a_reliability_diagram_shows_the_share_that_is_correct_of_each_group(tmp_path, unrendered, predicted):
    (probabilities, _), truth = predicted
    figure = score_plots.reliability(*predicted, path=tmp_path / "reliability.png")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels][:2] == ["most probable grade", "0 No DR"]
    assert len(panels) == 1 + 5
    axes = score_plots.reliability(probabilities, truth, path=tmp_path / "one.png").axes[0]
    confidence = probabilities.max(axis=1)
    groups = np.array_split(np.argsort(confidence, kind="stable"), 10)
    points = axes.containers[0].lines[0].get_xydata()
    correct = probabilities.argmax(axis=1) == truth
    assert np.allclose(points, [[100 * confidence[rows].mean(), 100 * correct[rows].mean()] for rows in groups])


def test_of_many_classes_only_the_most_probable_has_a_panel_and_few_samples_are_one_point(tmp_path, unrendered):
    figure = score_plots.reliability(np.full((6, 9), 1 / 9), np.zeros(6, int), path=tmp_path / "nine.png")
    (axes,) = figure.axes
    assert len(axes.containers[0].lines[0].get_xydata()) == 1
