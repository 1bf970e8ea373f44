"""Duplicates of an image are found however they were saved; other eyes, and other images of the same eye, are not."""

import zipfile

import cv2
import numpy as np
import pytest
from conftest import SHARED, draw_retina
from hypothesis import given
from hypothesis import strategies as st
from made import draw_fundus

from dr.imaging import duplicates, fundus


def preprocessed(image):
    return fundus.preprocess(image, size_px=256)[0]


def reencoded(image, *, quality):
    return cv2.imdecode(cv2.imencode(".jpeg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1], cv2.IMREAD_COLOR)


def brighter(image, *, gain, offset):
    return np.clip(image * gain + offset, 0, 255).astype(np.uint8)


COPIES = {
    "the same pixels": lambda image: image,
    "saved at a low quality": lambda image: reencoded(image, quality=40),
    "smaller": lambda image: cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
    "brighter": lambda image: brighter(image, gain=1.15, offset=8),
    "darker": lambda image: brighter(image, gain=0.7, offset=0),
    "all at once": lambda image: reencoded(brighter(COPIES["smaller"](image), gain=0.9, offset=5), quality=60),
}


def matches(images):
    """The pairs of indices of matching images."""
    images = [preprocessed(image) for image in images]
    hashes = np.array([duplicates.perceptual_hash(image) for image in images], np.uint64)
    same = duplicates.matching_pairs(hashes, [duplicates.signature(image) for image in images].__getitem__)
    return {tuple(pair) for pair in same.tolist()}


@pytest.fixture(scope="module")
def drawn():
    return [draw_retina(shape=(320, 400), radius=150, seed=number)[0] for number in range(8)]


@pytest.fixture(scope="module")
def real():
    if not SHARED.is_dir():
        pytest.skip("the real images are missing")
    with zipfile.ZipFile(SHARED / "train_image_resized.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpeg"))[:50]  # both eyes of most patients
        return [fundus.decode(archive.read(name)) for name in names]


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_a_changed_copy_is_found_and_nothing_else(kind, change, request):
    images = request.getfixturevalue(kind)
    copied = images[:5]
    expected = {(number, len(images) + number) for number in range(len(copied))}
    assert matches([*images, *map(change, copied)]) == expected


def test_a_copy_keeps_its_hash_within_a_few_bits(drawn):
    for image in drawn[:4]:
        for change in COPIES.values():
            apart = duplicates.perceptual_hash(preprocessed(image)) ^ duplicates.perceptual_hash(
                preprocessed(change(image))
            )
            assert apart.bit_count() <= 6


def test_pixels_distinguish_real_eyes_with_similar_hashes(real):
    assert list(
        duplicates.near(np.array([duplicates.perceptual_hash(preprocessed(image)) for image in real], np.uint64))
    )
    assert matches(real) == set()


def test_a_mirrored_eye_is_another_image(drawn):
    assert matches([drawn[0], np.ascontiguousarray(drawn[0][:, ::-1])]) == set()


def test_a_hash_has_sixty_four_bits_about_half_of_them_set(drawn):
    for image in drawn:
        value = duplicates.perceptual_hash(preprocessed(image))
        assert 0 <= value < 1 << 64
        assert value.bit_count() == 32  # the signs against the median


def test_a_signature_has_zero_mean_and_unit_length(drawn):
    vector = duplicates.signature(preprocessed(drawn[0]))
    assert 500 < len(vector) < np.pi * 14**2  # what lies in the circle
    assert vector.sum() == pytest.approx(0, abs=1e-3)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("at_once", [1, 5, 4096])
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=12), st.integers(0, 64))
def test_near_pairs_are_those_of_a_plain_double_loop(at_once, hashes, max_distance):
    expected = [
        [i, j] for i in range(len(hashes)) for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= max_distance
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", at_once)
        given_out = list(duplicates.near(np.array(hashes, np.uint64), max_distance=max_distance))
    assert [[i, j] for i, others in given_out for j in others.tolist()] == expected
    assert all(1 <= len(others) <= at_once for _, others in given_out)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_groups_are_the_chains_of_pairs(pairs):
    group = list(range(10))
    for i, j in pairs:  # the plain way: rename one group to the other
        group = [group[i] if number == group[j] else number for number in group]
    labels = duplicates.groups(10, np.array(pairs, int).reshape(-1, 2))
    assert [[a == b for b in labels] for a in labels] == [[a == b for b in group] for a in group]


def test_a_chain_of_copies_is_one_group():
    assert duplicates.groups(5, np.array([[0, 2], [2, 4]])).tolist() == [0, 1, 0, 2, 0]


def test_the_rim_of_a_retina_within_a_margin_does_not_make_two_eyes_alike():
    framed = []
    for seed in (1, 2):
        frame = np.zeros((300, 420, 3), np.uint8)  # cut off above and below, dark on both sides: as IDRiD's
        frame[60:240, 60:360] = draw_fundus(seed, seed=seed, side_px=300)[60:240]
        framed.append(duplicates.signature(cv2.resize(frame, (512, 512))).astype(np.float32))
    assert framed[0] @ framed[1] < 0.5
    assert framed[0] @ framed[0] > 0.99
