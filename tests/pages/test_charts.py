import cv2
import numpy as np
import pandas as pd
from matplotlib.text import Text

from dr.grading import metrics
from dr.pages import charts


def texts(subject) -> list[str]:
    return [text.get_text() for text in subject.findobj(Text) if text.get_text()]


def figures_of(truth, grades, classes):
    class_scores = np.eye(classes)[grades]
    return metrics.per_class(truth, grades, class_scores), metrics.per_class_intervals(truth, grades, class_scores)


def test_each_class_is_a_point_with_its_interval_and_a_dash_where_it_is_never_given(tmp_path):
    truth = np.repeat([0, 1, 2], 20)
    grades = np.where(truth == 2, 1, truth)
    figures, intervals = figures_of(truth, grades, 3)
    drawn = charts.class_metrics(
        figures, intervals, path=tmp_path / "classes.png", classes=["a", "b", "c"], title="run"
    )
    assert cv2.imread(str(tmp_path / "classes.png")) is not None
    recall, precision, f1 = drawn.axes
    assert [text.get_text() for text in recall.texts] == ["100", "100", "0"]
    assert [text.get_text() for text in precision.texts] == ["100", "50", "-"]
    assert [text.get_text() for text in f1.texts] == ["100", "67", "0"]
    [bars] = [collection for collection in precision.collections if hasattr(collection, "get_segments")]
    assert np.allclose(bars.get_segments()[1][:, 0], 100 * intervals["precision"][:, 1])
    assert [label.get_text() for label in recall.get_yticklabels()] == ["0 a (20)", "1 b (20)", "2 c (20)"]


def test_of_many_classes_the_worst_are_drawn_and_it_is_said(tmp_path):
    truth = np.repeat(np.arange(40), 5)
    grades = np.where(truth >= 10, truth, (truth + 1) % 10)  # the first ten are always wrong
    names = [f"class {number}" for number in range(40)]
    drawn = charts.class_metrics(*figures_of(truth, grades, 40), path=tmp_path / "c.png", classes=names, title="run")
    labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert len(labels) == 30
    assert labels[:10] == [f"{number} class {number} (5)" for number in range(10)]
    assert any("the 30 with the lowest F1 of 40" in text for text in texts(drawn))


def test_the_split_is_a_panel_for_each_side_with_its_sources_stacked(tmp_path):
    index = pd.MultiIndex.from_tuples([("training", "main"), ("training", "2015"), ("validation", "main")])
    drawn = charts.split_bars(
        pd.DataFrame([[5, 2], [10, 0], [3, 1]], index=index), path=tmp_path / "split.png", classes=["a", "b"]
    )
    training, validation = drawn.axes
    assert [bar.get_height() for container in training.containers for bar in container] == [5, 2, 10, 0]
    assert [bar.get_y() for bar in training.containers[1]] == [5, 2]
    assert {"training: 17 photographs", "15", "2"} <= set(texts(training))
    assert "validation: 4 photographs" in texts(validation)
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == {"main", "2015"}
