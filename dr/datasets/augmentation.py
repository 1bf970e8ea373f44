"""The augmentations of training: a preprocessed image -> a square at the size of the network."""

import os
import random

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import looks for a newer version online
import albumentations as A

from dr.imaging.resize import resize_and_crop


class Elastic(A.ElasticTransform):
    """A.ElasticTransform in less than a third of the time: uniform noise of `alpha` pixels at every fourth pixel,
    smoothed and interpolated; coordinates in OpenCV's fixed-point numbers, to 1/32 pixel. `approximate`, `same_dxdy`
    and `noise_distribution` have no effect."""

    EVERY = 4

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict[str, np.ndarray]:
        height, width = params["shape"][:2]
        coarse = (2, -(-height // self.EVERY), -(-width // self.EVERY))
        noise = self.random_generator.uniform(-self.alpha, self.alpha, coarse).astype(np.float32)
        smooth = (cv2.GaussianBlur(axis, (0, 0), self.sigma / self.EVERY) for axis in noise)
        dx, dy = (cv2.resize(axis, (width, height), interpolation=cv2.INTER_CUBIC) for axis in smooth)
        dx += np.arange(width, dtype=np.float32)
        dy += np.arange(height, dtype=np.float32)[:, None]
        return {"map_x": dx, "map_y": dy}

    def apply(self, img: np.ndarray, map_x: np.ndarray, map_y: np.ndarray, **_: object) -> np.ndarray:
        places = cv2.convertMaps(map_x, map_y, cv2.CV_16SC2)
        return cv2.remap(img, *places, self.interpolation, borderMode=self.border_mode, borderValue=self.fill)


class EvaluationResize(A.ImageOnlyTransform):
    """The resize of evaluation, as a step of a training transform."""

    def __init__(self, size_px: int):
        super().__init__(p=1.0)
        self.size_px = size_px

    def apply(self, img: np.ndarray, **_: object) -> np.ndarray:
        return resize_and_crop(img, size_px=self.size_px)


def _published(size_px: int) -> list[A.BasicTransform]:
    """The published augmentation, each with probability 0.5."""
    return [
        A.RandomResizedCrop((size_px, size_px), scale=(0.7, 1.0), ratio=(1.0, 1.0), area_for_downscale="image", p=0.5),
        EvaluationResize(size_px),
        Elastic(alpha=11, sigma=6, p=0.5),  # bends as A.ElasticTransform(alpha=120, sigma=6) does
        A.Rotate(limit=45, p=0.5),
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.HueSaturationValue(p=0.5),
        A.CLAHE(p=0.5),
        A.RandomBrightnessContrast(p=0.5),
        A.Blur(blur_limit=(3, 5), p=0.5),
    ]


def _rotation_colour(size_px: int) -> list[A.BasicTransform]:
    """Keeps fundus images realistic: any orientation, small changes of scale, brightness and colour."""
    return [
        EvaluationResize(size_px),
        # not linear: it removes a third of the contrast of lesions of one pixel, which images to be graded still have
        A.Affine(
            rotate=(-180, 180),
            scale=(0.9, 1.1),
            translate_percent=(-0.03, 0.03),
            interpolation=cv2.INTER_CUBIC,
            p=1.0,
        ),
        A.HorizontalFlip(p=0.5),
        A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.5),
        A.HueSaturationValue(hue_shift_limit=8, sat_shift_limit=20, val_shift_limit=10, p=0.5),
    ]


def _d4_colour(size_px: int) -> list[A.BasicTransform]:
    """One of the eight orientations of a square, brightness and colour. No interpolation, which would remove the fine
    structure of a small image."""
    return [
        EvaluationResize(size_px),
        A.D4(p=1.0),
        A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.5),
        A.HueSaturationValue(hue_shift_limit=8, sat_shift_limit=20, val_shift_limit=10, p=0.5),
    ]


def _retinamnist(size_px: int) -> list[A.BasicTransform]:
    """The base augmentation published for RetinaMNIST, each with probability 0.5."""
    return [
        EvaluationResize(size_px),
        A.Transpose(p=0.5),
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.GridDistortion(p=0.5),
        A.Affine(translate_percent=(-0.0625, 0.0625), scale=(0.9, 1.1), rotate=(-45, 45), p=0.5),  # ShiftScaleRotate's
        A.HueSaturationValue(p=0.5),
        A.RandomBrightnessContrast(p=0.5),
    ]


def _flips(size_px: int) -> list[A.BasicTransform]:
    """Flips alone."""
    return [EvaluationResize(size_px), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]


def _small(size_px: int) -> list[A.BasicTransform]:
    """Published for 64 x 64 images of objects with a fixed orientation."""
    return [
        EvaluationResize(size_px),
        A.HorizontalFlip(p=0.5),
        A.Solarize(p=0.1),
        A.Affine(translate_percent=(-1 / 8, 1 / 8), p=0.5),
        A.Rotate(limit=10, p=0.5),
        A.GaussianBlur(blur_limit=(3, 5), p=0.1),
    ]


_AUGMENTATIONS = {
    "published": _published,
    "rotation_colour": _rotation_colour,
    "d4_colour": _d4_colour,
    "retinamnist": _retinamnist,
    "flips": _flips,
    "small": _small,
    "none": lambda size_px: [EvaluationResize(size_px)],
}


def train_transform(augmentation: str, *, size_px: int, crop_px: int | None = None) -> A.Compose:
    """-> a transform of (S, S, 3) uint8 RGB to (size_px, size_px, 3) uint8, or to a random crop of crop_px. With `seed`
    called before each image, the result depends on nothing else."""
    cropped = [] if crop_px is None else [A.RandomCrop(crop_px, crop_px)]
    return A.Compose([*_AUGMENTATIONS[augmentation](size_px), *cropped])


def seed(transform: A.Compose, *key: int) -> None:
    """Makes the next result of `transform` a function of `key`. `set_random_seed` would seed every step alike:
    all steps of one probability would be applied together or not at all."""
    state = np.random.SeedSequence(key)
    transform.set_random_state(np.random.default_rng(state), random.Random(int(state.generate_state(1)[0])))
