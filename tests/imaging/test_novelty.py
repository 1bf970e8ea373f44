import cv2
import numpy as np
import pytest
from made import draw_fundus

from dr.imaging import novelty


@pytest.fixture(scope="module")
def training():
    return np.array([novelty.measure(draw_fundus(seed % 5, seed=seed)) for seed in range(150)])


@pytest.fixture(scope="module")
def reference(training):
    return novelty.fit(training)


def others():
    rng = np.random.default_rng(0)
    page = np.full((120, 120, 3), 255, np.uint8)
    for row in range(15, 120, 15):
        cv2.putText(page, "a letter", (5, row), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1)
    retina = draw_fundus(2, seed=999)
    yield "noise", rng.integers(0, 256, (96, 96, 3)).astype(np.uint8)
    yield "page", page
    yield "black", np.zeros((96, 96, 3), np.uint8)
    yield "inverted", 255 - retina
    yield "grey", np.repeat(cv2.cvtColor(retina, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2)
    yield "near", np.ascontiguousarray(np.kron(retina[40:60, 40:60], np.ones((5, 5, 1), np.uint8)))


def test_images_unlike_training_exceed_the_limit(reference):
    for name, image in others():
        assert reference.distance(novelty.measure(image)) > 1, name


def test_few_images_like_those_of_training_are_marked(reference):
    distances = [reference.distance(novelty.measure(draw_fundus(seed % 5, seed=seed))) for seed in range(500, 600)]
    assert np.mean(np.array(distances) > 1) <= 0.1


def test_the_limit_holds_all_of_training_but_one_in_a_hundred(training, reference):
    distances = np.array([reference.distance(row) for row in training])
    assert np.mean(distances > 1) == pytest.approx(0.01, abs=0.007)


def test_another_size_of_an_image_hardly_changes_its_features(reference):
    image = draw_fundus(1, seed=700, side_px=256)
    half = cv2.resize(image, (160, 160), interpolation=cv2.INTER_AREA)
    assert np.abs(novelty.measure(image) - novelty.measure(half))[:13].max() < 1


def test_images_that_are_all_alike_leave_a_finite_distance():
    same = novelty.fit(np.array([novelty.measure(draw_fundus(0, seed=1))] * 3))
    assert same.distance(novelty.measure(draw_fundus(0, seed=1))) == 0
    assert np.isfinite(same.distance(novelty.measure(draw_fundus(0, seed=2))))
