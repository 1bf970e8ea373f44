"""The anatomy of a synthetic eye, independent of its grade: disc, macula, vessels, pigment.

Lengths are in radii of the field of view, x to the right, y down, from its centre; light is (3, H, W) float32, 0..1,
BGR.
"""

import cmath
from dataclasses import dataclass

import cv2
import numpy as np

MARGIN = 1.06  # half of the canvas: slightly beyond the rim, for the notch
STEP = 0.035  # of a growing vessel
ARTERY = (0.62, 0.60, 0.86)  # transmission of vessels and blood
VEIN = (0.56, 0.44, 0.70)


@dataclass(frozen=True)
class Eye:
    """The anatomy of one eye. `vessels`: points (P, 2), widths (P,), and whether it is a vein."""

    side_px: int
    disc: np.ndarray
    macula: np.ndarray
    disc_radius: float
    vessels: list[tuple[np.ndarray, np.ndarray, bool]]

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """(P, 2) in radii -> (P, 2) int32 on the canvas, in sixteenths of a pixel (cv2's shift=4)."""
        return np.round((points / MARGIN + 1) / 2 * self.side_px * 16).astype(np.int32)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """-> x and y of the pixels of the canvas in radii, (1, side_px) and (side_px, 1) float32."""
        line = ((np.arange(self.side_px, dtype=np.float32) + 0.5) / self.side_px * 2 - 1) * MARGIN
        return line[None, :], line[:, None]

    def distance(self, centre: np.ndarray) -> np.ndarray:
        """-> (side_px, side_px) float32, the distance of each pixel from a point."""
        x, y = self.grid()
        return np.sqrt((x - np.float32(centre[0])) ** 2 + (y - np.float32(centre[1])) ** 2)


def _grow(rng, start, heading, target, width, *, macula):
    """A vessel and its branches -> list of points (P,) and widths (P,). Points are complex, headings are angles;
    a vessel bends towards `target` and ends at the macula, beyond the rim or when it is too fine."""
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


def random_eye(rng, side_px, laterality) -> Eye:
    """Disc, macula and vessels at random places."""
    middle = rng.uniform(-0.15, 0.3)  # from the macula in the centre to the middle between macula and disc
    disc = complex(middle + rng.uniform(-0.68, -0.58), rng.normal(-0.03, 0.04))
    macula = complex(middle + rng.normal(0, 0.02), rng.normal(0.05, 0.03))
    temporal = 1 if laterality == "left" else -1  # drawn as a left eye, then mirrored
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


def noise(rng, side_px, cells):
    """-> (side_px, side_px) float32, smooth, deviation about 0.7, `cells` hills across."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(grid, (side_px, side_px), interpolation=cv2.INTER_CUBIC)


def bell(distance, width):
    """-> 1 at distance 0, 0.37 at `width`, float32."""
    return np.exp(-((distance / np.float32(width)) ** 2))


def blend(light, mask, colour):
    """Blends a colour (3,) over light (3, H, W) in place. mask (H, W) float32, 0..1: the opacity."""
    for channel, value in zip(light, colour, strict=True):
        channel += (np.float32(value) - channel) * mask


def tint(light, mask, colour):
    """Filters light (3, H, W) by a colour (3,) in place. mask (H, W) float32, 0..1: the strength."""
    for channel, value in zip(light, colour, strict=True):
        channel *= 1 + np.float32(value - 1) * mask


def background(rng, eye) -> np.ndarray:
    """Retina without vessels: pigment, disc with its cup, macula -> (3, side_px, side_px)."""
    pale = rng.uniform()
    tone = (1 - pale) * np.array([0.13, 0.27, 0.66]) + pale * np.array([0.33, 0.52, 0.86])
    tone = (tone * np.exp(rng.normal(0, 0.07, 3))).astype(np.float32)
    texture = 1 + sum(size * noise(rng, eye.side_px, cells) for cells, size in ((4, 0.06), (14, 0.04), (55, 0.03)))
    from_macula, from_disc = eye.distance(eye.macula), eye.distance(eye.disc)
    dark = np.float32(rng.uniform(0.3, 0.5)) * bell(from_macula, 0.13) + np.float32(0.12) * bell(from_macula, 0.4)
    light = tone[:, None, None] * (texture * (1 - dark) * (1 + bell(from_disc, 0.35) / 4))
    ragged = eye.disc_radius + np.float32(0.004) * noise(rng, eye.side_px, 7)
    blend(light, np.float32(0.92) * np.clip((ragged - from_disc) / 0.03 + 0.5, 0, 1), (0.50, 0.78, 0.97))
    blend(light, np.float32(0.6) * bell(from_disc, 0.5 * eye.disc_radius), (0.75, 0.93, 1.0))
    return light


def fill(mask, eye, outline, value=255) -> None:
    """Fills an outline (P, 2) in a mask (side_px, side_px) uint8 in place."""
    cv2.fillPoly(mask, [eye.pixels(outline)], value, cv2.LINE_AA, 4)


def draw_vessels(light, eye, *, beads) -> None:
    """Draws the vessels over light in place. `beads` (a phase for each, or None) makes veins swell and narrow."""
    for veins, colour in ((False, ARTERY), (True, VEIN)):
        mask = np.zeros(light.shape[1:], np.uint8)
        chosen = [(points, widths, i) for i, (points, widths, is_vein) in enumerate(eye.vessels) if is_vein is veins]
        for points, widths, i in sorted(chosen, key=lambda vessel: vessel[1][0]):  # wide ones over narrow ones
            if beads is not None and veins and widths[0] > 0.015:
                widths = widths * (1 + 0.5 * np.sin(1.1 * np.arange(len(widths)) + beads[i]))
            along = np.diff(points, axis=0, append=2 * points[-1:] - points[-2:-1])
            across = along[:, ::-1] * (-1, 1) / STEP * widths[:, None] / 2
            value = int(255 * min(1.0, 0.3 + 28 * widths[0]))
            fill(mask, eye, np.concatenate([points + across, (points - across)[::-1]]), value)
        tint(light, mask.astype(np.float32) / 255, colour)
