"""What the page keeps of an image: a thumbnail, and a fingerprint that finds duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dr.imaging import duplicates, fundus
from dr.imaging.retina import Retina
from dr.pages.html import thumbnail


@dataclass(frozen=True)
class Thumbnail:
    """The bytes of a JPEG, and the perceptual hash and signature (D,) float16 of the image."""

    jpeg: bytes
    hash: int
    signature: np.ndarray


def make_thumbnail(preprocessed: np.ndarray, retina: Retina) -> Thumbnail:
    """(S, S, 3) uint8 BGR preprocessed image and its crop -> its Thumbnail."""
    x0, y0, x1, y1 = fundus.comparison_box(preprocessed, retina, small=fundus.is_small(preprocessed))
    inside = preprocessed[y0:y1, x0:x1]
    jpeg = thumbnail(cv2.cvtColor(preprocessed, cv2.COLOR_BGR2RGB))
    return Thumbnail(jpeg, duplicates.perceptual_hash(inside), duplicates.signature(inside))


def duplicate_groups(thumbnails: Sequence[Thumbnail | None]) -> list[int | None]:
    """Thumbnails (N,), None where an image could not be read -> for each the number of its group of duplicates, from 0;
    None for an image without a duplicate."""
    places = [place for place, each in enumerate(thumbnails) if each is not None]
    numbers: list[int | None] = [None] * len(thumbnails)
    if not places:
        return numbers
    hashes = np.array([thumbnails[place].hash for place in places], np.uint64)
    pairs = duplicates.matching_pairs(hashes, lambda i: thumbnails[places[i]].signature)
    groups = duplicates.groups(len(places), pairs)
    several = np.flatnonzero(np.bincount(groups) > 1)
    for place, group in zip(places, groups, strict=True):
        if group in several:
            numbers[place] = int(np.searchsorted(several, group))
    return numbers
