"""Synthetic images with a known retina, and two small archives of them."""

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import opened

SHARED = Path(__file__).parents[2] / "shared" / "data"
Box = tuple[int, int, int, int]
Members = dict[str, bytes]  # name in the archive -> content


def draw_retina(
    *,
    shape: tuple[int, int] = (360, 480),
    centre: tuple[float, float] | None = None,
    radius: float | None = None,
    flat: float = 0.0,
    colour: tuple[int, int, int] = (45, 95, 190),
    surround: tuple[int, int, int] = (0, 0, 0),
    seed: int = 0,
) -> tuple[np.ndarray, Box]:
    """-> ((H, W, 3) uint8 BGR, the retina's box in the frame, x1 and y1 exclusive).

    A disc with a darker rim, an optic disc, a fovea and vessels; `flat` is the fraction of its radius cut off at
    the top and at the bottom, as by a sensor lower than the image.
    """
    rng = np.random.default_rng(seed)
    height, width = shape
    cx, cy = centre or (width / 2, height / 2)
    radius = radius or 0.45 * min(shape)
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    u, v = (x - cx) / radius, (y - cy) / radius
    inside = (np.hypot(u, v) <= 1) & (np.abs(v) <= 1 - flat)

    optic_disc = rng.choice((-0.5, 0.5))
    light = 1 - 0.45 * (u**2 + v**2)
    light += 0.8 * np.exp(-((u - optic_disc) ** 2 + v**2) / 0.02) - 0.3 * np.exp(-((u + 0.1) ** 2 + v**2) / 0.05)
    vessels = np.zeros(shape, np.float32)
    away = np.linspace(0, 1.5, 40)
    for angle in rng.uniform(0, 2 * np.pi, 8):
        bent = angle + rng.uniform(-1, 1) * away
        points = np.column_stack([optic_disc + away * np.cos(bent), away * np.sin(bent)]) * radius + (cx, cy)
        cv2.polylines(vessels, [points.astype(np.int32)], False, 1.0, max(1, round(radius / 45)), cv2.LINE_AA)
    light *= 1 - 0.45 * vessels

    image = np.where(inside[..., None], light[..., None] * np.float32(colour), np.float32(surround))
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return np.clip(image, 0, 255).astype(np.uint8), box


def encode(image: np.ndarray, suffix: str = ".png", *options: int) -> bytes:
    """The image as the bytes of a file."""
    return cv2.imencode(suffix, image, options)[1].tobytes()


def write_zip(path: Path, members: Members, *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_folder(path: Path, members: Members) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def table(header: str, rows: dict[str, int]) -> bytes:
    return "\n".join([header, *(f"{name},{grade}" for name, grade in rows.items())]).encode() + b"\n"


@pytest.fixture(scope="session")
def main_members() -> Members:
    """A small competition archive: 24 images, 8, 4, 4, 4 and 4 of grades 0 to 4, and two without a grade."""
    grades = {f"m{number:02}": max(0, number // 4 - 1) for number in range(24)}
    members = {"kaggle_retina/train.csv": table("id_code,diagnosis", grades)}
    for number, name in enumerate(grades):
        image, _ = draw_retina(shape=(96, 128), seed=number, radius=44)
        members[f"kaggle_retina/train/{name}.png"] = encode(image)
    return members | {f"kaggle_retina/test/t{number}.png": b"never read" for number in range(2)}


@pytest.fixture(scope="session")
def extra_members() -> Members:
    """A small 2015 archive: both eyes of ten patients, four images of each grade."""
    grades = {f"{patient}_{eye}": patient % 5 for patient in range(10) for eye in ("left", "right")}
    members = {"train_image_resized/trainLabels.csv": table("image,level", grades)}
    for number, name in enumerate(grades):
        image, _ = draw_retina(shape=(100, 130), seed=100 + number, radius=46)
        members[f"train_image_resized/train/{name}.jpeg"] = encode(image, ".jpeg")
    return members


@pytest.fixture(scope="session")
def zips(tmp_path_factory, main_members, extra_members) -> tuple[Path, Path]:
    """Both archives as zips."""
    folder = tmp_path_factory.mktemp("zips")
    return write_zip(folder / "main.zip", main_members), write_zip(folder / "2015.zip", extra_members)


@pytest.fixture
def no_plots(monkeypatch):
    """Draw no plots: they take longer than preprocessing forty images."""
    for name in ("class_balance", "crops_sheet"):
        monkeypatch.setattr(f"dr.preprocessing.plots.{name}", lambda *_, path, **__: path.write_bytes(b"not drawn"))


@pytest.fixture
def unrendered(monkeypatch):
    """Build plots but do not render them, which takes most of the time."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, part, **_: part.touch())


@pytest.fixture
def no_report(quick_finish, monkeypatch):
    """End training runs without plots and report, which take longer than training."""
    monkeypatch.setattr("dr.training.report.write", lambda *_, **__: None)
    monkeypatch.setattr("dr.training.plots.draw", lambda *_, **__: None)


@pytest.fixture
def quick_finish(unrendered, monkeypatch):
    """Shorten the end of training runs: do not render plots, and repeat bootstrap and cross-fitting less often."""
    from dr.grading import bootstrap, calibration, cross_fitting

    original = bootstrap.bootstrap

    def few(statistic, *arrays, repeats=1000, **options):
        return original(statistic, *arrays, repeats=min(repeats, 20), **options)

    monkeypatch.setattr(bootstrap, "bootstrap", few)
    monkeypatch.setattr(calibration, "REPEATS", 2)
    monkeypatch.setitem(cross_fitting.cross_fitted_grades.__kwdefaults__, "repeats", 2)


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests: Playwright runs once in a process. Skips tests without it."""
    with opened() as started:
        yield started


@pytest.fixture(scope="session")
def open_page(browser):
    """A page in headless Chromium, `look(path, width=1280, dark=False)` -> (errors on its console, images that did not
    load, pixels by which it is wider than its window, its text). Skips tests without a browser."""

    def visit(path, *, width=1280, dark=False):
        scheme = "dark" if dark else "light"
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        errors = []
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or errors.append(request.url))
        tab.goto(Path(path).resolve().as_uri())
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
        wider = "document.documentElement.scrollWidth - innerWidth"
        result = errors, tab.evaluate(broken), tab.evaluate(wider), tab.inner_text("body")
        tab.close()
        return result

    return visit
