"""Which photographs are the same picture: a perceptual hash proposes, the pixels decide. Arrays in, groups out."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np

SIGNATURE_SIDE_PX = 32  # coarse enough that a crop that differs by a few pixels changes little
HASH_BITS_APART = 12  # of 64: re-encoded, darkened and halved copies of real photographs differ by up to 10
# of fine structure (see `signature`): of 584 such copies 581 reach it; among 8,823 pairs of other real photographs
# that are near by their hash the highest is 0.84
SAME_CORRELATION = 0.9
AT_ONCE = 4096  # photographs that one is compared with: 8 MiB of signatures


def _grey(prepared: np.ndarray, side_px: int) -> np.ndarray:
    small = cv2.resize(prepared, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)


def perceptual_hash(prepared: np.ndarray) -> int:
    """(S, S, 3) uint8 prepared photograph -> 64 bits: the signs of its lowest 8 x 8 DCT coefficients against their
    median (pHash: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010)."""
    low = cv2.dct(_grey(prepared, 32))[:8, :8].ravel()
    bits = low > np.median(low)
    return int(sum(1 << place for place, bit in enumerate(bits) if bit))


def signature(prepared: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 -> (D,) float16, zero mean and unit length: its fine structure (vessels, lesions) without the
    shading that all fundus photographs share, so that the dot product of two is their correlation."""
    grey = _grey(prepared, SIGNATURE_SIDE_PX)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 2)
    inside = np.zeros(fine.shape, np.uint8)
    cv2.circle(inside, (SIGNATURE_SIDE_PX // 2,) * 2, int(0.42 * SIGNATURE_SIDE_PX), 1, cv2.FILLED)
    fine = fine[inside > 0]  # the rim is strong and alike in all: leave it out
    fine -= fine.mean()
    return (fine / (np.linalg.norm(fine) + 1e-6)).astype(np.float16)  # most photographs have one: 1 KiB


def near(hashes: np.ndarray, *, bits_apart: int = HASH_BITS_APART) -> Iterator[tuple[int, np.ndarray]]:
    """hashes (N,) uint64 -> i, the j (M,) int of some pairs i < j whose hashes differ in at most `bits_apart` bits, and
    so on until all such pairs were given: their number grows with the square of N, the memory does not."""
    for i in range(len(hashes) - 1):
        alike = i + 1 + np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= bits_apart)
        for start in range(0, len(alike), AT_ONCE):
            yield i, alike[start : start + AT_ONCE]


def same_pictures(hashes: np.ndarray, signature_of: Callable[[int], np.ndarray]) -> np.ndarray:
    """hashes (N,) uint64, what gives the signature (D,) of photograph i -> (P, 2) int, every pair i < j that is near by
    its hashes and whose fine structure agrees."""
    pairs = [np.empty((0, 2), int)]
    for i, others in near(hashes):
        agreement = np.stack([signature_of(j) for j in others]).astype(np.float32) @ np.float32(signature_of(i))
        same = others[agreement >= SAME_CORRELATION]
        pairs.append(np.column_stack([np.full(len(same), i), same]))
    return np.concatenate(pairs)


def groups(count: int, pairs: np.ndarray) -> np.ndarray:
    """(P, 2) pairs among `count` photographs -> (count,) int, equal for photographs joined by a chain of pairs."""
    from scipy.sparse import coo_array  # 20 MiB, which the processes that prepare photographs do without
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]
