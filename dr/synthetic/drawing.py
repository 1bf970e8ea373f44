"""Synthetic fundus images whose lesions alone show the grade.

Size, framing, illumination and colour come from random numbers that do not depend on the grade, so that only the retina
is informative. Lengths are in radii of the field of view, x to the right, y down, from its centre; light is float32,
0..1, BGR.
"""

import cmath

import cv2
import numpy as np

from dr.synthetic.eye import MARGIN, background, bell, blend, draw_vessels, fill, random_eye, tint

# Number of lesions of each kind at each grade: minimum, maximum. After the definitions of the scale (see GRADES)
LESIONS: tuple[dict[str, tuple[int, int]], ...] = (
    {},
    {"microaneurysms": (5, 11)},
    {"microaneurysms": (6, 18), "haemorrhages": (5, 12), "exudates": (2, 4)},
    {"microaneurysms": (8, 20), "haemorrhages": (28, 45), "exudates": (0, 2), "cotton_wool": (3, 6), "beading": (1, 1)},
    {"microaneurysms": (4, 16), "haemorrhages": (4, 22), "exudates": (0, 3), "cotton_wool": (0, 2),
     "new_vessels": (1, 3), "preretinal": (0, 3)},
)  # fmt: skip

KINDS = tuple(dict.fromkeys(name for counts in LESIONS for name in counts))
EYES = ("left", "right")

BLOOD = (0.36, 0.24, 0.52)
EXUDATE = (0.50, 0.88, 0.97)
COTTON = (0.66, 0.83, 0.92)


def _blob(rng, centre, radius, *, rough=0.15, stretch=1.0, turned=0.0):
    """-> outline (40, 2) of a spot, irregular by `rough`, longer than wide by `stretch` in the direction `turned`."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = np.arange(2, 7)[:, None]
    ragged = (rng.normal(size=(5, 1)) / waves**0.5 * np.sin(waves * angles + rng.uniform(0, 6, (5, 1)))).sum(axis=0)
    outline = radius * np.maximum(1 + rough * ragged, 0.3) * np.exp(1j * angles)
    outline = (outline.real * stretch**0.5 + 1j * outline.imag / stretch**0.5) * cmath.rect(1, turned)
    return centre + np.stack([outline.real, outline.imag], axis=1)


def _places(rng, eye, count, *, reach=0.78) -> np.ndarray:
    """-> (count, 2) points, spread over all quadrants, outside the disc and the centre of the macula."""
    turns = (np.arange(count) + rng.uniform(size=count)) / max(1, count) + rng.uniform()
    places = []
    for turn in turns:
        point = eye.disc
        while np.hypot(*(point - eye.disc)) < 1.5 * eye.disc_radius or np.hypot(*(point - eye.macula)) < 0.09:
            angle = 2 * np.pi * (turn + rng.normal(0, 0.05))
            point = reach * np.sqrt(rng.uniform(0.02, 1)) * np.array([np.cos(angle), np.sin(angle)])
        places.append(point)
    return np.array(places).reshape(count, 2)


def _tangle(rng, mask, eye, centre) -> None:
    """New vessels: fine curls round a point."""
    t, waves, size = np.linspace(0, 2 * np.pi, 120), np.arange(1, 7)[:, None], rng.uniform(0.06, 0.11)
    thickness = max(1, round(0.009 * eye.side_px / 2))
    for _ in range(5):
        curl = rng.normal(size=(2, 6, 1)) / waves**0.5 * np.sin(waves * t + rng.uniform(0, 6, (2, 6, 1)))
        outline = eye.pixels(centre + size * curl.sum(axis=1).T)
        cv2.polylines(mask, [outline], False, 225, thickness, cv2.LINE_AA, 4)


def _pale_lesions(rng, eye, counts) -> tuple[np.ndarray, np.ndarray]:
    """-> masks of cotton-wool spots and of hard exudates, which form clusters, uint8."""
    cotton, exudate = (np.zeros((eye.side_px, eye.side_px), np.uint8) for _ in range(2))
    for centre in _places(rng, eye, counts["cotton_wool"], reach=0.65):
        fill(cotton, eye, _blob(rng, centre, rng.uniform(0.045, 0.07), stretch=1.5, turned=rng.uniform(0, 3)))
    for cluster in _places(rng, eye, counts["exudates"], reach=0.6):
        for centre in cluster + rng.normal(0, 0.055, (rng.integers(8, 22), 2)):
            fill(exudate, eye, _blob(rng, centre, rng.uniform(0.006, 0.02), rough=0.25, stretch=rng.uniform(1, 2)))
    return cotton, exudate


def _blood(rng, eye, counts) -> np.ndarray:
    """-> mask of microaneurysms, haemorrhages and new vessels, uint8."""
    mask = np.zeros((eye.side_px, eye.side_px), np.uint8)
    for centre in _places(rng, eye, counts["microaneurysms"], reach=0.7):
        fill(mask, eye, _blob(rng, centre, rng.uniform(0.015, 0.020), rough=0.05))
    for centre in _places(rng, eye, counts["haemorrhages"]):
        turned = np.arctan2(*(centre - eye.disc)[::-1])  # flames follow the nerve fibres, which leave the disc
        stretch = rng.uniform(2, 4) if rng.uniform() < 0.4 else rng.uniform(1, 1.4)
        fill(mask, eye, _blob(rng, centre, rng.uniform(0.020, 0.042), stretch=stretch, turned=turned))
    for i, centre in enumerate(_places(rng, eye, counts["new_vessels"], reach=0.6)):
        at_disc = i == 0 and rng.uniform() < 0.6
        _tangle(rng, mask, eye, eye.disc + rng.normal(0, 0.04, 2) if at_disc else centre)
    for centre in _places(rng, eye, counts["preretinal"], reach=0.55):
        boat = _blob(rng, centre, rng.uniform(0.18, 0.28), rough=0.05, stretch=1.3)
        above = np.minimum(boat[:, 1] - centre[1], 0)  # blood settles under a level surface
        boat[:, 1] -= 0.85 * above
        fill(mask, eye, boat)
    return mask


def _draw_lesions(light, eye, counts, rng) -> None:
    """Draws the lesions over light in place."""
    cotton, exudate = _pale_lesions(rng, eye, counts)
    blood = _blood(rng, eye, counts)
    layers = (
        (blend, cotton, 0.75, 0.012, COTTON),
        (blend, exudate, 0.9, 0.003, EXUDATE),
        (tint, blood, 0.95, 0.004, BLOOD),
    )
    for lay, mask, opacity, blur, colour in layers:
        if mask.any():
            lay(light, cv2.GaussianBlur(mask.astype(np.float32) * (opacity / 255), (0, 0), blur * eye.side_px), colour)


def _illuminate(light, eye, rng) -> None:
    """Uneven illumination, haze at one part of the rim, lens reflections, colour cast, exposure. In place."""
    x, y = eye.grid()
    slope, centre = rng.uniform(-0.25, 0.25, 2).astype(np.float32), rng.normal(0, 0.12, 2)
    falloff = np.float32(rng.uniform(0.15, 0.5))
    lamp = np.maximum((1 - falloff * eye.distance(centre) ** 2) * (1 + slope[0] * x + slope[1] * y), 0.05)
    light *= np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)[:, None, None] * lamp
    towards = cmath.rect(0.3, rng.uniform(0, 2 * np.pi))
    haze = np.clip((eye.distance(np.array([towards.real, towards.imag])) - 0.95) / 0.4, 0, 1)
    blend(light, np.float32(rng.uniform(0, 0.7)) * haze, (0.75, 0.65, 0.6))
    for _ in range(rng.poisson(0.3)):
        distance = eye.distance(rng.uniform(-0.7, 0.7, 2))
        blend(light, np.float32(0.18) * bell(distance**2, rng.uniform(0.03, 0.08) ** 2), (0.9, 0.85, 0.75))
    light *= np.float32(rng.uniform(0.75, 1.3))
    np.power(np.clip(light, 0, 1), np.float32(rng.uniform(0.85, 1.2)), out=light)


def _framing(rng, size_px) -> tuple[tuple[int, int], float, np.ndarray]:
    """-> (width, height) of the image, diameter and centre of the field of view; pixels."""
    width = round(np.exp(rng.uniform(*np.log(size_px))))
    kind = rng.choice(("whole", "flat", "cut"), p=(0.4, 0.35, 0.25))
    if kind == "whole":
        height = round(width * rng.choice((1.0, 0.9, 0.75, 0.67)))
        diameter = height * rng.uniform(0.86, 0.99)
    elif kind == "flat":  # top and bottom cut off
        diameter = width * rng.uniform(0.85, 0.99)
        height = round(diameter * rng.uniform(0.80, 0.93))
    else:  # left and right too
        diameter = width * rng.uniform(1.01, 1.10)
        height = round(width * rng.uniform(0.75, 0.85))
    centre = np.array([width, height]) / 2 + rng.normal(0, 0.012, 2) * diameter
    return (width, height), diameter, centre


def _rim(rng, eye) -> np.ndarray:
    """-> (side_px, side_px) float32, 1 inside the field of view, sometimes with a notch on its rim."""
    mask = np.zeros((eye.side_px, eye.side_px), np.uint8)
    cv2.circle(mask, eye.pixels(np.zeros(2)).tolist(), round(eye.side_px / 2 / MARGIN * 16), 255, -1, cv2.LINE_AA, 4)
    angle, half = rng.uniform(-1.2, -0.4), rng.choice((0.02, 0.045))
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    if rng.uniform() < 0.3:
        fill(mask, eye, corners + np.array([np.cos(angle), np.sin(angle)]))
    return mask.astype(np.float32) / 255


def _expose(light, rng, *, frame, diameter, centre) -> np.ndarray:
    """Canvas of light -> (H, W, 3) uint8 BGR: focus, framing, noise, residues of the camera in the black surround."""
    light = cv2.GaussianBlur(cv2.merge(list(light)), (0, 0), rng.uniform(0.0008, 0.0022) * diameter)
    left, top = np.round(centre - light.shape[0] / 2)
    image = cv2.warpAffine(light, np.array([[1, 0, left], [0, 1, top]], np.float32), frame) * 255
    black = 0.0 if rng.uniform() < 0.8 else rng.uniform(1, 8)  # some surrounds are not quite black
    grain = rng.standard_normal(image.shape[:2], dtype=np.float32)
    image += np.where(image[..., 2] > 0, rng.uniform(1, 3) * grain, black * np.abs(grain))[..., None]
    image = np.clip(image, 0, 255).astype(np.uint8)
    if rng.uniform() < 0.15:
        text, place = str(rng.choice(("OD", "OS", "45"))), (round(0.01 * frame[0]), round(0.06 * frame[1]))
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, frame[0] / 900, (200, 200, 200))
    return image


def fundus_image(
    grade: int, *, rng: np.random.Generator, size_px: tuple[int, int] = (320, 560), laterality: str | None = None
) -> np.ndarray:
    """An eye of grade 0..4 -> (H, W, 3) uint8 BGR with a width within size_px (low, high).

    `laterality`: "left", "right" or None (random). With rng in the same state, the images of two grades differ in their
    lesions alone.
    """
    plain, diseased = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=2))
    either = plain.choice(EYES)
    frame, diameter, centre = _framing(plain, size_px)
    eye = random_eye(plain, round(diameter * MARGIN), laterality or either)
    counts = {name: diseased.integers(*LESIONS[grade].get(name, (0, 0)), endpoint=True) for name in KINDS}
    light = background(plain, eye)
    draw_vessels(light, eye, beads=diseased.uniform(0, 6, len(eye.vessels)) if counts["beading"] else None)
    _draw_lesions(light, eye, counts, diseased)
    _illuminate(light, eye, plain)
    light *= _rim(plain, eye)
    return _expose(light, plain, frame=frame, diameter=diameter, centre=centre)
