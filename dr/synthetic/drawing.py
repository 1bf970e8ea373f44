"""Drawn fundus photographs whose grade shows in their lesions alone.

Size, framing, light and colour come from random numbers that do not know the grade, so that nothing but looking at the
retina helps. Lengths are in radii of the field of view, x to the right, y down, from its centre; light is float32,
0..1, BGR.
"""

import cmath
from dataclasses import dataclass

import cv2
import numpy as np

# How many of each lesion a grade shows: lowest, highest. After the definitions of the scale (see GRADES)
LESIONS: tuple[dict[str, tuple[int, int]], ...] = (
    {},
    {"microaneurysms": (5, 11)},
    {"microaneurysms": (6, 18), "haemorrhages": (5, 12), "exudates": (2, 4)},
    {"microaneurysms": (8, 20), "haemorrhages": (28, 45), "exudates": (0, 2), "cotton_wool": (3, 6), "beading": (1, 1)},
    {"microaneurysms": (4, 16), "haemorrhages": (4, 22), "exudates": (0, 3), "cotton_wool": (0, 2),
     "new_vessels": (1, 3), "preretinal": (0, 3)},
)  # fmt: skip

KINDS = tuple(dict.fromkeys(name for counts in LESIONS for name in counts))
SPLITS = ("left", "right")

MARGIN = 1.06  # half of the canvas: a little beyond the rim, for the notch
STEP = 0.035  # of a growing vessel
ARTERY = (0.62, 0.60, 0.86)  # what vessels and blood let through
VEIN = (0.56, 0.44, 0.70)
BLOOD = (0.36, 0.24, 0.52)
EXUDATE = (0.50, 0.88, 0.97)
COTTON = (0.66, 0.83, 0.92)


@dataclass(frozen=True)
class Eye:
    """What one eye is like, whatever its grade. `vessels`: points (P, 2), widths (P,), and whether it is a vein."""

    side_px: int
    disc: np.ndarray
    macula: np.ndarray
    disc_radius: float
    vessels: list[tuple[np.ndarray, np.ndarray, bool]]

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """(P, 2) in radii -> (P, 2) int32 on the canvas, in sixteenths of a pixel (cv2's shift=4)."""
        return np.round((points / MARGIN + 1) / 2 * self.side_px * 16).astype(np.int32)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """-> x and y of the canvas's pixels in radii, (1, side_px) and (side_px, 1) float32."""
        line = ((np.arange(self.side_px, dtype=np.float32) + 0.5) / self.side_px * 2 - 1) * MARGIN
        return line[None, :], line[:, None]

    def distance(self, centre: np.ndarray) -> np.ndarray:
        """-> (side_px, side_px) float32, each pixel's distance from a point."""
        x, y = self.grid()
        return np.sqrt((x - np.float32(centre[0])) ** 2 + (y - np.float32(centre[1])) ** 2)


def _grow(rng, start, heading, target, width, *, macula):
    """A vessel and its branches -> list of points (P,) and widths (P,). Points are complex, headings are angles;
    a vessel bends towards `target` and ends at the macula, beyond the rim or where it is too fine."""
    growing, grown = [(start, heading, target, width)], []
    while growing:
        point, heading, target, width = growing.pop()
        points, widths, drift = [point], [width], 0.0
        while width > 0.005 and abs(point) < 1.05 and abs(point - macula) > 0.17:
            drift = 0.75 * drift + rng.normal(0, 0.05)
            heading += 1.5 * STEP * (target - heading) + drift
            point += cmath.rect(STEP, heading)
            width *= 0.98 if abs(point - macula) > 0.35 else 0.86
            if width > 0.008 and rng.random() < 0.10:
                aside = heading + rng.choice((-1, 1)) * rng.uniform(0.5, 1.1)
                growing.append((point, aside, aside + rng.normal(0, 0.4), width * rng.uniform(0.45, 0.75)))
                width *= 0.92
            points.append(point)
            widths.append(width)
        if len(points) > 2:
            grown.append((np.array(points), np.array(widths)))
    return grown


def _eye(rng, side_px, side) -> Eye:
    middle = rng.uniform(-0.15, 0.3)  # from the macula in the centre to the middle between macula and disc
    disc = complex(middle + rng.uniform(-0.68, -0.58), rng.normal(-0.03, 0.04))
    macula = complex(middle + rng.normal(0, 0.02), rng.normal(0.05, 0.03))
    temporal = 1 if side == "left" else -1  # drawn as a left eye, then mirrored
    vessels = []
    for upwards in (False, True):
        # artery and vein of each: an arcade round the macula, a nasal one, a small one towards the macula
        for heading, target, width in ((1.45, -0.15, 1.0), (2.1, 2.5, 0.7), (0.6, 0.1, 0.35)):
            for is_vein in (False, True):
                start = disc + complex(*rng.normal(0, 0.02, 2))
                course = (heading + rng.normal(0, 0.14), target + rng.normal(0, 0.12))
                full = rng.uniform(0.85, 1.15) * width * (0.038 if is_vein else 0.028)
                here, there = (start.conjugate(), macula.conjugate()) if upwards else (start, macula)
                for points, widths in _grow(rng, here, *course, full, macula=there):
                    y = -points.imag if upwards else points.imag
                    vessels.append((np.stack([temporal * points.real, y], axis=1), widths, is_vein))
    as_array = [np.array([temporal * point.real, point.imag]) for point in (disc, macula)]
    return Eye(side_px, *as_array, rng.uniform(0.12, 0.15), vessels)


def _noise(rng, side_px, cells):
    """-> (side_px, side_px) float32, smooth, deviation about 0.7, `cells` hills across."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(grid, (side_px, side_px), interpolation=cv2.INTER_CUBIC)


def _bell(distance, width):
    """-> 1 at distance 0, 0.37 at `width`, float32."""
    return np.exp(-((distance / np.float32(width)) ** 2))


def _blend(light, mask, colour):
    """Lays a colour (3,) over light (3, H, W) in place, as far as mask (H, W) float32, 0..1, says."""
    for channel, value in zip(light, colour, strict=True):
        channel += (np.float32(value) - channel) * mask


def _tint(light, mask, colour):
    """Lets light (3, H, W) through a filter of a colour (3,), in place, as far as mask (H, W) float32, 0..1, says."""
    for channel, value in zip(light, colour, strict=True):
        channel *= 1 + np.float32(value - 1) * mask


def _background(rng, eye) -> np.ndarray:
    """Retina without vessels: pigment, disc with its cup, macula -> (3, side_px, side_px)."""
    pale = rng.uniform()
    tone = (1 - pale) * np.array([0.13, 0.27, 0.66]) + pale * np.array([0.33, 0.52, 0.86])
    tone = (tone * np.exp(rng.normal(0, 0.07, 3))).astype(np.float32)
    texture = 1 + sum(size * _noise(rng, eye.side_px, cells) for cells, size in ((4, 0.06), (14, 0.04), (55, 0.03)))
    from_macula, from_disc = eye.distance(eye.macula), eye.distance(eye.disc)
    dark = np.float32(rng.uniform(0.3, 0.5)) * _bell(from_macula, 0.13) + np.float32(0.12) * _bell(from_macula, 0.4)
    light = tone[:, None, None] * (texture * (1 - dark) * (1 + _bell(from_disc, 0.35) / 4))
    ragged = eye.disc_radius + np.float32(0.004) * _noise(rng, eye.side_px, 7)
    _blend(light, np.float32(0.92) * np.clip((ragged - from_disc) / 0.03 + 0.5, 0, 1), (0.50, 0.78, 0.97))
    _blend(light, np.float32(0.6) * _bell(from_disc, 0.5 * eye.disc_radius), (0.75, 0.93, 1.0))
    return light


def _blob(rng, centre, radius, *, rough=0.15, stretch=1.0, turned=0.0):
    """-> outline (40, 2) of a spot, ragged as `rough` says, longer than wide by `stretch` in the direction `turned`."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = np.arange(2, 7)[:, None]
    ragged = (rng.normal(size=(5, 1)) / waves**0.5 * np.sin(waves * angles + rng.uniform(0, 6, (5, 1)))).sum(axis=0)
    outline = radius * np.maximum(1 + rough * ragged, 0.3) * np.exp(1j * angles)
    outline = (outline.real * stretch**0.5 + 1j * outline.imag / stretch**0.5) * cmath.rect(1, turned)
    return centre + np.stack([outline.real, outline.imag], axis=1)


def _fill(mask, eye, outline, value=255):
    cv2.fillPoly(mask, [eye.pixels(outline)], value, cv2.LINE_AA, 4)


def _draw_vessels(light, eye, *, beads) -> None:
    """Lays the vessels over light in place; `beads` (a phase for each, or None) makes veins swell and narrow."""
    for veins, colour in ((False, ARTERY), (True, VEIN)):
        mask = np.zeros(light.shape[1:], np.uint8)
        chosen = [(points, widths, i) for i, (points, widths, is_vein) in enumerate(eye.vessels) if is_vein is veins]
        for points, widths, i in sorted(chosen, key=lambda vessel: vessel[1][0]):  # wide ones over narrow ones
            if beads is not None and veins and widths[0] > 0.015:
                widths = widths * (1 + 0.5 * np.sin(1.1 * np.arange(len(widths)) + beads[i]))
            along = np.diff(points, axis=0, append=2 * points[-1:] - points[-2:-1])
            across = along[:, ::-1] * (-1, 1) / STEP * widths[:, None] / 2
            value = int(255 * min(1.0, 0.3 + 28 * widths[0]))
            _fill(mask, eye, np.concatenate([points + across, (points - across)[::-1]]), value)
        _tint(light, mask.astype(np.float32) / 255, colour)


def _places(rng, eye, count, *, reach=0.78) -> np.ndarray:
    """-> (count, 2) points, spread over all quadrants, off the disc and the very macula."""
    turns = (np.arange(count) + rng.uniform(size=count)) / max(1, count) + rng.uniform()
    found = []
    for turn in turns:
        point = eye.disc
        while np.hypot(*(point - eye.disc)) < 1.5 * eye.disc_radius or np.hypot(*(point - eye.macula)) < 0.09:
            angle = 2 * np.pi * (turn + rng.normal(0, 0.05))
            point = reach * np.sqrt(rng.uniform(0.02, 1)) * np.array([np.cos(angle), np.sin(angle)])
        found.append(point)
    return np.array(found).reshape(count, 2)


def _tangle(rng, mask, eye, centre) -> None:
    """New vessels: fine curls round a point."""
    t, waves, size = np.linspace(0, 2 * np.pi, 120), np.arange(1, 7)[:, None], rng.uniform(0.06, 0.11)
    thickness = max(1, round(0.009 * eye.side_px / 2))
    for _ in range(5):
        curl = rng.normal(size=(2, 6, 1)) / waves**0.5 * np.sin(waves * t + rng.uniform(0, 6, (2, 6, 1)))
        outline = eye.pixels(centre + size * curl.sum(axis=1).T)
        cv2.polylines(mask, [outline], False, 225, thickness, cv2.LINE_AA, 4)


def _pale_lesions(rng, eye, counts) -> tuple[np.ndarray, np.ndarray]:
    """-> masks of cotton-wool spots and of hard exudates, which lie in clusters, uint8."""
    cotton, exudate = (np.zeros((eye.side_px, eye.side_px), np.uint8) for _ in range(2))
    for centre in _places(rng, eye, counts["cotton_wool"], reach=0.65):
        _fill(cotton, eye, _blob(rng, centre, rng.uniform(0.045, 0.07), stretch=1.5, turned=rng.uniform(0, 3)))
    for cluster in _places(rng, eye, counts["exudates"], reach=0.6):
        for centre in cluster + rng.normal(0, 0.055, (rng.integers(8, 22), 2)):
            _fill(exudate, eye, _blob(rng, centre, rng.uniform(0.006, 0.02), rough=0.25, stretch=rng.uniform(1, 2)))
    return cotton, exudate


def _blood(rng, eye, counts) -> np.ndarray:
    """-> mask of microaneurysms, haemorrhages and new vessels, uint8."""
    mask = np.zeros((eye.side_px, eye.side_px), np.uint8)
    for centre in _places(rng, eye, counts["microaneurysms"], reach=0.7):
        _fill(mask, eye, _blob(rng, centre, rng.uniform(0.015, 0.020), rough=0.05))
    for centre in _places(rng, eye, counts["haemorrhages"]):
        turned = np.arctan2(*(centre - eye.disc)[::-1])  # flames follow the nerve fibres, which leave the disc
        stretch = rng.uniform(2, 4) if rng.uniform() < 0.4 else rng.uniform(1, 1.4)
        _fill(mask, eye, _blob(rng, centre, rng.uniform(0.020, 0.042), stretch=stretch, turned=turned))
    for i, centre in enumerate(_places(rng, eye, counts["new_vessels"], reach=0.6)):
        at_disc = i == 0 and rng.uniform() < 0.6
        _tangle(rng, mask, eye, eye.disc + rng.normal(0, 0.04, 2) if at_disc else centre)
    for centre in _places(rng, eye, counts["preretinal"], reach=0.55):
        boat = _blob(rng, centre, rng.uniform(0.18, 0.28), rough=0.05, stretch=1.3)
        above = np.minimum(boat[:, 1] - centre[1], 0)  # blood settles under a level surface
        boat[:, 1] -= 0.85 * above
        _fill(mask, eye, boat)
    return mask


def _draw_lesions(light, eye, counts, rng) -> None:
    """Lays the lesions over light in place."""
    cotton, exudate = _pale_lesions(rng, eye, counts)
    blood = _blood(rng, eye, counts)
    layers = (
        (_blend, cotton, 0.75, 0.012, COTTON),
        (_blend, exudate, 0.9, 0.003, EXUDATE),
        (_tint, blood, 0.95, 0.004, BLOOD),
    )
    for lay, mask, opacity, blur, colour in layers:
        if mask.any():
            lay(light, cv2.GaussianBlur(mask.astype(np.float32) * (opacity / 255), (0, 0), blur * eye.side_px), colour)


def _illuminate(light, eye, rng) -> None:
    """Uneven lamp, haze at one side of the rim, ghosts of the lens; colour cast, exposure. In place."""
    x, y = eye.grid()
    slope, centre = rng.uniform(-0.25, 0.25, 2).astype(np.float32), rng.normal(0, 0.12, 2)
    falloff = np.float32(rng.uniform(0.15, 0.5))
    lamp = np.maximum((1 - falloff * eye.distance(centre) ** 2) * (1 + slope[0] * x + slope[1] * y), 0.05)
    light *= np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)[:, None, None] * lamp
    towards = cmath.rect(0.3, rng.uniform(0, 2 * np.pi))
    haze = np.clip((eye.distance(np.array([towards.real, towards.imag])) - 0.95) / 0.4, 0, 1)
    _blend(light, np.float32(rng.uniform(0, 0.7)) * haze, (0.75, 0.65, 0.6))
    for _ in range(rng.poisson(0.3)):
        distance = eye.distance(rng.uniform(-0.7, 0.7, 2))
        _blend(light, np.float32(0.18) * _bell(distance**2, rng.uniform(0.03, 0.08) ** 2), (0.9, 0.85, 0.75))
    light *= np.float32(rng.uniform(0.75, 1.3))
    np.power(np.clip(light, 0, 1), np.float32(rng.uniform(0.85, 1.2)), out=light)


def _framing(rng, size_px) -> tuple[tuple[int, int], float, np.ndarray]:
    """-> (width, height) of the photograph, diameter of the field of view, where its centre is; pixels."""
    width = round(np.exp(rng.uniform(*np.log(size_px))))
    kind = rng.choice(("whole", "flat", "cut"), p=(0.4, 0.35, 0.25))
    if kind == "whole":
        height = round(width * rng.choice((1.0, 0.9, 0.75, 0.67)))
        diameter = height * rng.uniform(0.86, 0.99)
    elif kind == "flat":  # top and bottom cut off
        diameter = width * rng.uniform(0.85, 0.99)
        height = round(diameter * rng.uniform(0.80, 0.93))
    else:  # the sides too
        diameter = width * rng.uniform(1.01, 1.10)
        height = round(width * rng.uniform(0.75, 0.85))
    centre = np.array([width, height]) / 2 + rng.normal(0, 0.012, 2) * diameter
    return (width, height), diameter, centre


def _rim(rng, eye) -> np.ndarray:
    """-> (side_px, side_px) float32, 1 inside the field of view, in some photographs with a notch on its rim."""
    mask = np.zeros((eye.side_px, eye.side_px), np.uint8)
    cv2.circle(mask, eye.pixels(np.zeros(2)).tolist(), round(eye.side_px / 2 / MARGIN * 16), 255, -1, cv2.LINE_AA, 4)
    angle, half = rng.uniform(-1.2, -0.4), rng.choice((0.02, 0.045))
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    if rng.uniform() < 0.3:
        _fill(mask, eye, corners + np.array([np.cos(angle), np.sin(angle)]))
    return mask.astype(np.float32) / 255


def _expose(light, rng, *, frame, diameter, centre) -> np.ndarray:
    """Canvas of light -> (H, W, 3) uint8 BGR: focus, framing, noise, what cameras leave in the black surround."""
    light = cv2.GaussianBlur(cv2.merge(list(light)), (0, 0), rng.uniform(0.0008, 0.0022) * diameter)
    left, top = np.round(centre - light.shape[0] / 2)
    photo = cv2.warpAffine(light, np.array([[1, 0, left], [0, 1, top]], np.float32), frame) * 255
    black = 0.0 if rng.uniform() < 0.8 else rng.uniform(1, 8)  # some surrounds are not quite black
    grain = rng.standard_normal(photo.shape[:2], dtype=np.float32)
    photo += np.where(photo[..., 2] > 0, rng.uniform(1, 3) * grain, black * np.abs(grain))[..., None]
    photo = np.clip(photo, 0, 255).astype(np.uint8)
    if rng.uniform() < 0.15:
        text, place = str(rng.choice(("OD", "OS", "45"))), (round(0.01 * frame[0]), round(0.06 * frame[1]))
        cv2.putText(photo, text, place, cv2.FONT_HERSHEY_SIMPLEX, frame[0] / 900, (200, 200, 200))
    return photo


def photograph(
    grade: int, *, rng: np.random.Generator, size_px: tuple[int, int] = (320, 560), side: str | None = None
) -> np.ndarray:
    """One eye of a grade 0..4 as a camera might see it -> (H, W, 3) uint8 BGR, its width within size_px (low, high).

    `side` is "left" or "right"; None leaves it to rng. With rng in the same state, photographs of two grades differ in
    their lesions alone.
    """
    plain, diseased = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=2))
    either = plain.choice(SPLITS)
    frame, diameter, centre = _framing(plain, size_px)
    eye = _eye(plain, round(diameter * MARGIN), side or either)
    counts = {name: diseased.integers(*LESIONS[grade].get(name, (0, 0)), endpoint=True) for name in KINDS}
    light = _background(plain, eye)
    _draw_vessels(light, eye, beads=diseased.uniform(0, 6, len(eye.vessels)) if counts["beading"] else None)
    _draw_lesions(light, eye, counts, diseased)
    _illuminate(light, eye, plain)
    light *= _rim(plain, eye)
    return _expose(light, plain, frame=frame, diameter=diameter, centre=centre)
