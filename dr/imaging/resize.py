"""A preprocessed image at the size of the network. Without albumentations, whose import takes a second."""

import cv2
import numpy as np
import torch


def resize_and_crop(image: np.ndarray, *, size_px: int, crop_px: int | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (size_px, size_px, 3) uint8, or its centre of crop_px. Shrinking averages over areas, so
    that small lesions do not alias."""
    shrinks = size_px < max(image.shape[:2])
    resized = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if crop_px is None:
        return resized
    before = (size_px - crop_px) // 2
    return resized[before : before + crop_px, before : before + crop_px]


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
