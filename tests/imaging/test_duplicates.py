"""Copies of a photograph are found however they were saved; other eyes, and the same eye taken again, are not."""

import zipfile

import cv2
import numpy as np
import pytest
from conftest import SHARED, draw_retina
from hypothesis import given
from hypothesis import strategies as st

from dr.imaging import duplicates, fundus


def prepared(photo):
    return fundus.preprocess(photo, size_px=256)[0]


def saved_again(photo, *, quality):
    return cv2.imdecode(cv2.imencode(".jpeg", photo, (cv2.IMWRITE_JPEG_QUALITY, quality))[1], cv2.IMREAD_COLOR)


def brighter(photo, *, gain, offset):
    return np.clip(photo * gain + offset, 0, 255).astype(np.uint8)


COPIES = {
    "the same pixels": lambda photo: photo,
    "saved at a low quality": lambda photo: saved_again(photo, quality=40),
    "smaller": lambda photo: cv2.resize(photo, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
    "larger": lambda photo: cv2.resize(photo, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
    "brighter": lambda photo: brighter(photo, gain=1.15, offset=8),
    "darker": lambda photo: brighter(photo, gain=0.7, offset=0),
    "all at once": lambda photo: saved_again(brighter(COPIES["smaller"](photo), gain=0.9, offset=5), quality=60),
}


def found(photos):
    """The pairs that are taken for one picture."""
    photos = [prepared(photo) for photo in photos]
    hashes = np.array([duplicates.perceptual_hash(photo) for photo in photos], np.uint64)
    same = duplicates.same_pictures(hashes, [duplicates.signature(photo) for photo in photos].__getitem__)
    return {tuple(pair) for pair in same.tolist()}


@pytest.fixture(scope="module")
def drawn():
    return [draw_retina(shape=(320, 400), radius=150, seed=number)[0] for number in range(8)]


@pytest.fixture(scope="module")
def real():
    if not SHARED.is_dir():
        pytest.skip("the real photographs are not there")
    with zipfile.ZipFile(SHARED / "train_image_resized.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpeg"))[:50]  # both eyes of most patients
        return [fundus.decode(archive.read(name)) for name in names]


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_a_changed_copy_is_found_and_nothing_else(kind, change, request):
    photos = request.getfixturevalue(kind)
    copied = photos[:5]
    expected = {(number, len(photos) + number) for number in range(len(copied))}
    assert found([*photos, *map(change, copied)]) == expected


def test_a_copy_keeps_its_hash_within_a_few_bits(drawn):
    for photo in drawn[:4]:
        for change in COPIES.values():
            apart = duplicates.perceptual_hash(prepared(photo)) ^ duplicates.perceptual_hash(prepared(change(photo)))
            assert apart.bit_count() <= 6


def test_real_eyes_that_are_near_by_their_hash_are_told_apart_by_their_pixels(real):
    assert list(duplicates.near(np.array([duplicates.perceptual_hash(prepared(photo)) for photo in real], np.uint64)))
    assert found(real) == set()


def test_a_mirrored_eye_is_another_picture(drawn):
    assert found([drawn[0], np.ascontiguousarray(drawn[0][:, ::-1])]) == set()


def test_a_hash_has_sixty_four_bits_about_half_of_them_set(drawn):
    for photo in drawn:
        value = duplicates.perceptual_hash(prepared(photo))
        assert 0 <= value < 1 << 64
        assert value.bit_count() == 32  # the signs against the median


def test_a_signature_has_zero_mean_and_unit_length(drawn):
    vector = duplicates.signature(prepared(drawn[0]))
    assert 500 < len(vector) < np.pi * 14**2  # what lies in the circle
    assert vector.sum() == pytest.approx(0, abs=1e-3)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("at_once", [1, 5, 4096])
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=12), st.integers(0, 64))
def test_near_pairs_are_those_of_a_plain_double_loop(at_once, hashes, bits_apart):
    expected = [
        [i, j] for i in range(len(hashes)) for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= bits_apart
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "AT_ONCE", at_once)
        given_out = list(duplicates.near(np.array(hashes, np.uint64), bits_apart=bits_apart))
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
