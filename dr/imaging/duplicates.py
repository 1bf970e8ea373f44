"""Which images are copies of each other: a perceptual hash proposes, the pixels decide. Arrays in, groups out."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np

SIGNATURE_SIDE_PX = 32  # coarse enough that a crop that differs by a few pixels changes little
MAX_HASH_DISTANCE = 12  # of 64 bits: re-encoded, darkened and halved copies of real images differ by up to 10
# Correlation of fine structure (see `signature`): of 584 such copies 581 reach it; among 8,823 pairs of different real
# images with similar hashes the highest is 0.84
MIN_CORRELATION = 0.9
LIT, RIM_PX = 0.15, 3  # of the median grey: darker is no retina; the reach of its rim in a signature
MIN_LIT = 0.2  # share of a signature that must be retina
BLOCK = 4096  # images that one is compared with at a time: 8 MiB of signatures


def _grey(image: np.ndarray, side_px: int) -> np.ndarray:
    small = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)


def perceptual_hash(preprocessed: np.ndarray) -> int:
    """(S, S, 3) uint8 preprocessed image -> 64 bits: the signs of its lowest 8 x 8 DCT coefficients against their
    median (pHash: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010)."""
    low = cv2.dct(_grey(preprocessed, 32))[:8, :8].ravel()
    bits = low > np.median(low)
    return int(sum(1 << place for place, bit in enumerate(bits) if bit))


def signature(preprocessed: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 -> (D,) float16, zero mean and unit length: the fine structure (vessels, lesions) without the
    shading that all fundus images share. The dot product of two is their correlation."""
    grey = _grey(preprocessed, SIGNATURE_SIDE_PX)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 2)
    inside = np.zeros(fine.shape, np.uint8)
    cv2.circle(inside, (SIGNATURE_SIDE_PX // 2,) * 2, int(0.42 * SIGNATURE_SIDE_PX), 1, cv2.FILLED)
    # the rim is strong and alike in all: leave it out, also where a crop left a margin around the retina
    lit = (grey > LIT * np.median(grey[inside > 0])).astype(np.uint8)
    around = 2 * RIM_PX + 1
    retina = cv2.erode(lit, np.ones((around, around), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    fine, retina = fine[inside > 0], retina[inside > 0] > 0
    if retina.sum() < MIN_LIT * len(fine):  # dark throughout
        retina[:] = True
    fine = np.where(retina, fine - fine[retina].mean(), 0)
    return (fine / (np.linalg.norm(fine) + 1e-6)).astype(np.float16)  # 1 KiB each


def near(hashes: np.ndarray, *, max_distance: int = MAX_HASH_DISTANCE) -> Iterator[tuple[int, np.ndarray]]:
    """hashes (N,) uint64 -> all pairs i < j whose hashes differ in at most `max_distance` bits, as i and a block of j
    (M,) int. The number of pairs grows with the square of N, the memory does not."""
    for i in range(len(hashes) - 1):
        alike = i + 1 + np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= max_distance)
        for start in range(0, len(alike), BLOCK):
            yield i, alike[start : start + BLOCK]


def matching_pairs(hashes: np.ndarray, signature_of: Callable[[int], np.ndarray]) -> np.ndarray:
    """hashes (N,) uint64, a function from i to the signature (D,) of image i -> (P, 2) int, every pair i < j with
    similar hashes and correlated fine structure."""
    pairs = [np.empty((0, 2), int)]
    for i, others in near(hashes):
        correlation = np.stack([signature_of(j) for j in others]).astype(np.float32) @ np.float32(signature_of(i))
        same = others[correlation >= MIN_CORRELATION]
        pairs.append(np.column_stack([np.full(len(same), i), same]))
    return np.concatenate(pairs)


def groups(count: int, pairs: np.ndarray) -> np.ndarray:
    """(P, 2) pairs among `count` images -> (count,) int, equal for images joined by a chain of pairs."""
    from scipy.sparse import coo_array  # 20 MiB, which the worker processes do not need
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]
