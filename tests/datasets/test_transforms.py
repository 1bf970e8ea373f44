import random

import cv2
import numpy as np
import pytest
from made import draw_fundus

from dr.datasets.augmentation import A, Elastic, seed, train_transform
from dr.imaging.resize import resize_and_crop
from dr.recipes.schema import OPTIONS


@pytest.mark.parametrize("augmentation", OPTIONS["augmentation"])
@pytest.mark.parametrize("side_px", [40, 96, 300])
def test_every_augmentation_gives_a_square_of_the_requested_size(augmentation, side_px):
    transform = train_transform(augmentation, size_px=64)
    for number in range(5):
        seed(transform, number)
        image = transform(image=draw_fundus(2, seed=0, side_px=side_px))["image"]
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8


@pytest.mark.parametrize(
    ("augmentation", "steps"),
    [
        ("retinamnist", {"Transpose": 0.5, "HorizontalFlip": 0.5, "VerticalFlip": 0.5, "GridDistortion": 0.5,
                         "Affine": 0.5, "HueSaturationValue": 0.5, "RandomBrightnessContrast": 0.5}),
        ("small", {"HorizontalFlip": 0.5, "Solarize": 0.1, "Affine": 0.5, "Rotate": 0.5, "GaussianBlur": 0.1}),
        ("d4_colour", {"D4": 1.0, "RandomBrightnessContrast": 0.5, "HueSaturationValue": 0.5}),
        ("flips", {"HorizontalFlip": 0.5, "VerticalFlip": 0.5}),
        ("none", {}),
    ],
)  # fmt: skip
def test_published_augmentations_have_their_steps_with_their_probabilities(augmentation, steps):
    made = train_transform(augmentation, size_px=64).transforms
    assert {type(step).__name__: step.p for step in made if type(step).__name__ != "EvaluationResize"} == steps


@pytest.mark.parametrize("augmentation", ["published", "rotation_colour"])
def test_augmentation_depends_on_the_seed_and_on_nothing_else(augmentation):
    original = draw_fundus(3, seed=1)
    first, second = (train_transform(augmentation, size_px=64) for _ in range(2))
    second(image=original)  # another history
    images = []
    for transform, number in ((first, 5), (second, 5), (first, 6)):
        seed(transform, number)
        images.append(transform(image=original)["image"])
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_elastic_displacement_is_as_wide_and_as_smooth_as_that_of_albumentations():
    widths, slopes = [], []
    for transform in (Elastic(alpha=11, sigma=6), A.ElasticTransform(alpha=120, sigma=6)):
        transform.set_random_state(np.random.default_rng(0), random.Random(0))
        maps = [transform.get_params_dependent_on_data({"shape": (380, 380, 3)}, {}) for _ in range(20)]
        # without the border, which albumentations' own smears
        moved = np.array([m["map_x"] - np.arange(380) for m in maps])[:, 30:-30, 30:-30]
        assert np.allclose(moved.mean(), 0, atol=0.1)
        widths.append(moved.std())
        slopes.append(np.diff(moved, axis=1).std())
        down = np.array([m["map_y"] - np.arange(380)[:, None] for m in maps])[:, 30:-30, 30:-30]
        assert down.std() == pytest.approx(moved.std(), rel=0.1)
        assert abs(np.corrcoef(moved.ravel(), down.ravel())[0, 1]) < 0.1
    assert widths[0] == pytest.approx(widths[1], rel=0.1)
    assert slopes[0] == pytest.approx(slopes[1], rel=0.1)


def test_an_elastic_displacement_takes_each_pixel_from_where_its_maps_say():
    original = draw_fundus(2, seed=0, side_px=96)
    transform = Elastic(alpha=11, sigma=6, p=1.0)
    transform.set_random_state(np.random.default_rng(0), random.Random(0))
    maps = transform.get_params_dependent_on_data({"shape": original.shape}, {})
    expected = cv2.remap(original, maps["map_x"], maps["map_y"], cv2.INTER_LINEAR)
    moved = transform.apply(original, **maps)
    assert np.abs(expected.astype(int) - original).mean() > 1
    assert np.abs(expected.astype(int) - moved).mean() < 0.5  # 1/32 pixel


def test_steps_are_taken_independently_of_each_other():
    original = draw_fundus(2, seed=0, side_px=32)
    transform = A.ReplayCompose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    taken = []
    for number in range(200):
        seed(transform, 10, number)
        taken.append([step["applied"] for step in transform(image=original)["replay"]["transforms"]])
    together = np.corrcoef(np.array(taken, float).T)[0, 1]
    assert abs(together) < 0.25
    assert 0.35 < np.mean(taken) < 0.65


def test_evaluation_only_resizes():
    flat = np.full((128, 128, 3), (10, 200, 30), np.uint8)
    assert np.array_equal(resize_and_crop(flat, size_px=64), flat[:64, :64])
    original = draw_fundus(1, seed=0, side_px=64)
    assert np.array_equal(resize_and_crop(original, size_px=64), original)


@pytest.mark.parametrize("shape", [(100, 100), (64, 64), (40, 40), (100, 40), (64, 50)])
def test_training_without_augmentation_resizes_as_evaluation_does(shape):
    original = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    resized_image = resize_and_crop(original, size_px=64)
    assert np.array_equal(train_transform("none", size_px=64)(image=original)["image"], resized_image)
    resized = A.Resize(64, 64, interpolation=cv2.INTER_LINEAR, area_for_downscale="image")
    assert np.array_equal(resized(image=original)["image"], resized_image)


def test_shrinking_averages_so_that_small_lesions_do_not_alias():
    checkerboard = np.indices((128, 128)).sum(axis=0)[..., None] % 2 * np.full(3, 255)
    shrunk = resize_and_crop(checkerboard.astype(np.uint8), size_px=64)
    assert np.abs(shrunk.astype(int) - 127).max() <= 1


def test_crops_are_random_in_training_and_central_in_evaluation():
    original = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
    centre = resize_and_crop(original, size_px=64, crop_px=48)
    assert np.array_equal(centre, original[8:56, 8:56])
    transform = train_transform("none", size_px=64, crop_px=48)
    corners = set()
    for number in range(20):
        seed(transform, number)
        image = transform(image=original)["image"]
        assert image.shape == (48, 48, 3)
        corners.add(tuple(image[0, 0]))
    assert len(corners) > 10


def test_a_rotated_image_keeps_the_contrast_of_its_smallest_lesions():
    original = np.full((96, 96, 3), 100, np.uint8)
    original[24:72:8, 24:72:8] = 220  # single pixels, which linear interpolation leaves 65 % of their contrast
    inside = (slice(20, 76), slice(20, 76), 1)
    transform, contrasts = train_transform("rotation_colour", size_px=96), []
    for number in range(60):
        seed(transform, number)
        contrasts.append(transform(image=original)["image"][inside].std())
    assert np.mean(contrasts) > 0.75 * original[inside].std()
