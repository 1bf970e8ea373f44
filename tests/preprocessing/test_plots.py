import itertools

import numpy as np
import pandas as pd
import pytest
from made import SOURCES_OF_GRADES, crop_pair
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from dr import GRADES
from dr.pages import style
from dr.preprocessing import plots as data_plots


@pytest.fixture(scope="module")
def balance(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "balance.png"
    return data_plots.class_balance(SOURCES_OF_GRADES, path=path, target=1000)


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return data_plots.crops_sheet([crop_pair()] * 5, path=tmp_path_factory.mktemp("images") / "crops.png")


def texts(subject) -> list[str]:
    return [text.get_text() for text in subject.findobj(Text) if text.get_text()]


def test_class_balance_writes_every_count_and_the_totals(balance):
    bars, table = balance.axes
    assert {"1,643", "288", "563", "94", "57", "61", "12", "32", "7", "8"} <= set(texts(bars))
    assert {"1,400", "243", "24", "33", "480", "2,165", "120"} <= set(texts(table))
    assert {"train: main", "train: 2015", "validation"} <= set(texts(table))
    assert "0 No DR" in texts(bars)


def test_class_balance_stacks_the_sources_and_sets_validation_beside_them(balance):
    bars = balance.axes[0]
    main, other, validation = ([bar.get_bbox() for bar in container] for container in bars.containers)
    assert [box.y1 for box in main] == [box.y0 for box in other] == [243, 48, 128, 28, 33]
    assert [box.y1 for box in other] == [1643, 288, 563, 94, 57]
    assert [(box.y0, box.y1) for box in validation] == [(0, 61), (0, 12), (0, 32), (0, 7), (0, 8)]
    assert all(left.x1 < right.x0 for left, right in zip(main, validation, strict=True))


def test_class_balance_sets_validation_and_test_beside_training(tmp_path, unrendered):
    figure = data_plots.class_balance(SOURCES_OF_GRADES.assign(test=[9, 8, 7, 6, 5]), path=tmp_path / "balance.png")
    *_, other, validation, test = ([bar.get_bbox() for bar in held.patches] for held in figure.axes[0].containers)
    assert [box.y1 for box in test] == [9, 8, 7, 6, 5]
    for left, right in ((other, validation), (validation, test)):
        assert all(a.x1 < b.x0 for a, b in zip(left, right, strict=True))
    assert all(a.x1 < b.x0 for a, b in zip(test[:-1], other[1:], strict=True))
    assert "test" in texts(figure)


def test_class_balance_puts_rows_in_the_order_of_grades_and_fills_the_gaps(tmp_path, unrendered):
    counts = pd.DataFrame({"train: mine": [9, 50, 20]}, index=[4, 0, 2])
    bars = data_plots.class_balance(counts, path=tmp_path / "balance.png").axes[0]
    assert [bar.get_height() for bar in bars.containers[0]] == [50, 0, 20, 0, 9]
    assert [label.get_text() for label in bars.get_xticklabels()] == style.names_of(GRADES, 5)


def test_class_balance_draws_the_target_only_where_there_is_one(balance, tmp_path, unrendered):
    with_target = balance.axes[0]
    assert [list(line.get_ydata()) for line in with_target.lines] == [[1000, 1000]]
    assert "target\n1,000" in texts(with_target)
    assert not data_plots.class_balance(SOURCES_OF_GRADES, path=tmp_path / "balance.png").axes[0].lines


def test_class_balance_shows_an_absent_class_as_zero_and_needs_no_validation(tmp_path):
    counts = pd.DataFrame({"train: mine": [12000, 0]})
    figure = data_plots.class_balance(counts, path=tmp_path / "b.png", classes=("Not referable", "Referable DR"))
    assert {"12,000", "0", "0 Not referable", "1 Referable DR"} <= set(texts(figure.axes[0]))
    assert "validation" not in texts(figure)


def test_names_of_other_classes_are_replaced_by_numbers(tmp_path, unrendered):
    figure = data_plots.class_balance(SOURCES_OF_GRADES.head(3), path=tmp_path / "balance.png")
    assert {"grade 0", "grade 1", "grade 2"} <= set(texts(figure))
    assert "0 No DR" not in texts(figure)


def test_crops_sheet_shows_each_pair_with_its_caption_and_colours_right(crops):
    [axes] = crops.axes
    assert [text.get_text() for text in axes.texts] == ["10_left, 2 Moderate"] * 5
    assert [tuple(image.get_array()[0, 0]) for image in axes.images] == [(200, 0, 0), (90, 90, 90)] * 5
    left, right, bottom, top = np.transpose([image.get_extent() for image in axes.images])
    for i, j in itertools.combinations(range(10), 2):  # none lies on another
        assert right[i] <= left[j] or right[j] <= left[i] or bottom[i] <= top[j] or bottom[j] <= top[i]
    (x0, x1), (y1, y0) = axes.get_xlim(), axes.get_ylim()
    assert x0 <= min(left) < max(right) <= x1
    assert y0 <= min(top) < max(bottom) <= y1
    for number, text in enumerate(axes.texts):  # beneath its own pair
        x, y = text.get_position()
        assert left[2 * number] < x < right[2 * number + 1]
        assert 0 < y - bottom[2 * number + 1] < 0.1


@pytest.mark.parametrize("box", [(30, 0, 110, 90), (-20, -40, 160, 140), (0, 0, 140, 90)])
def test_the_box_is_drawn_at_its_place_inside_its_cell(tmp_path, box):
    axes = data_plots.crops_sheet([crop_pair(box=box)], path=tmp_path / "crops.png").axes[0]
    (drawn_box,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    left, right, bottom, top = axes.images[0].get_extent()
    x, y, scale = drawn_box.get_x(), drawn_box.get_y(), (right - left) / 140
    assert bottom - top == pytest.approx(90 * scale)
    drawn = ((x - left), (y - top), (x + drawn_box.get_width() - left), (y + drawn_box.get_height() - top))
    assert np.array(drawn) / scale == pytest.approx(np.array(box))
    assert x >= -1e-9
    assert y >= -1e-9
    assert x + drawn_box.get_width() <= data_plots.BEFORE_ASPECT + 1e-9
    assert y + drawn_box.get_height() <= 1 + 1e-9


def test_a_long_caption_keeps_both_ends_and_a_dollar_sign_is_no_formula(tmp_path):
    caption = f"{'long_' * 40}left.jpeg\n$5 to $6"
    figure = data_plots.crops_sheet([crop_pair(caption)], path=tmp_path / "crops.png")
    [text] = figure.axes[0].texts
    first, second = text.get_text().splitlines()
    assert len(first) == 48
    assert first.startswith("long_long_")
    assert first.endswith("left.jpeg")
    assert second == "$5 to $6"


def test_crops_sheet_has_a_legend_for_the_box(crops):
    [legend] = crops.legends
    assert [text.get_text() for text in legend.get_texts()] == ["crop kept from the original (left)"]


def test_a_sheet_without_images_has_a_note(tmp_path):
    assert texts(data_plots.crops_sheet([], path=tmp_path / "crops.png")) == ["no images to show"]
