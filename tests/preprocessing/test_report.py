import re

import cv2
import numpy as np
import pytest
from conftest import draw_retina, encode, table, write_zip

from dr.imaging.retina import find_retina
from dr.preprocessing.pipeline import preprocess_sources
from dr.preprocessing.report import Crop, _crop_card
from dr.preprocessing.settings import Settings
from dr.sources.detect import open_sources

ODD = "<b>odd&name"


@pytest.fixture(scope="module")
def page_of_two(tmp_path_factory):
    """Two archives with an agreeing duplicate, a conflicting one and a broken image -> (page, content of
    report.json, sources)."""
    folder = tmp_path_factory.mktemp("report")
    grades = {f"m{number:02}": max(0, number // 4 - 1) for number in range(24)}
    images = {name: draw_retina(shape=(148, 200), seed=seed, radius=66)[0] for seed, name in enumerate(grades)}
    images |= {"contrary": images["m02"], ODD: cv2.resize(images["m09"], None, fx=0.9, fy=0.9)}
    grades |= {"contrary": 3, ODD: grades["m09"], "broken": 2}
    members = {f"kaggle_retina/train/{name}.png": encode(image) for name, image in images.items()}
    members |= {
        "kaggle_retina/train/broken.png": b"never",
        "kaggle_retina/train.csv": table("id_code,diagnosis", grades),
    }
    extra = {f"{patient}_left": patient % 5 for patient in range(40, 60)}
    more = {"train_image_resized/trainLabels.csv": table("image,level", extra)}
    for name, grade in extra.items():
        image, _ = draw_retina(shape=(140, 180), seed=100 + grade + 5 * int(name[:2]), radius=60)
        more[f"train_image_resized/train/{name}.jpeg"] = encode(image, ".jpeg")
    paths = write_zip(folder / "main.zip", members), write_zip(folder / "2015.zip", more)
    sources = open_sources(*map(str, paths))
    settings = Settings(size=96, per_class=5, val_fraction=0.25)
    content = preprocess_sources(sources, directory=str(folder / "data"), settings=settings, workers=1)
    return folder / "data" / "kaggle_retina" / "report.html", content, sources


def rows(text: str) -> list[list[str]]:
    """The rows of all tables of data, as plain text."""
    tables = re.findall(r'<table class="data">(.*?)</table>', text, flags=re.DOTALL)
    found = re.findall(r"<tr>(.*?)</tr>", "".join(tables), flags=re.DOTALL)
    return [[re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in found]


def test_every_image_found_has_one_outcome(page_of_two):
    header, main, extra = rows(page_of_two[0].read_text())[:3]
    assert header[:2] == ["source", "found"]
    for source, found, *outcomes in (main, extra):
        assert int(found) == len(page_of_two[2][source].table) == sum(map(int, outcomes))
    outcome = dict(zip(header, main, strict=True))
    assert (outcome["duplicate"], outcome["duplicates with conflicting grades"], outcome["missing or unreadable"]) == (
        "1",
        "2",
        "1",
    )


def test_the_counts_by_class_are_those_of_the_report(page_of_two):
    text, counts = page_of_two[0].read_text(), page_of_two[1]["counts"]
    found = {(row[0], row[1]): row[2:] for row in rows(text) if row[1] in ("training", "validation", "found")}
    for key, name in {
        ("main", "training"): "train: main",
        ("2015", "training"): "train: 2015",
        ("main", "validation"): "validation",
    }.items():
        assert found[key] == [*map(str, counts[name]), str(sum(counts[name]))]
    assert found["main", "found"][-1] == "27"


def test_the_page_explains_images_not_drawn_and_conflicting_grades(page_of_two):
    text = page_of_two[0].read_text()
    assert '"per_class reached" includes images that were never drawn.' in text
    assert "Conflicting grades were settled by <code>--conflicts drop</code>" in text


def test_duplicates_are_shown_side_by_side_with_grades_and_outcomes(page_of_two):
    cards = re.findall(
        r'<li class="card">\s*<div class="copies">(.*?)</li>', page_of_two[0].read_text(), flags=re.DOTALL
    )
    contrary, agreeing = cards  # the contradiction first
    assert contrary.count("duplicates with conflicting grades") == contrary.count("<img") == 2
    assert "main/contrary" in contrary
    assert ">Severe<" in contrary
    assert ">No DR<" in contrary
    assert "conflicting grades</span>" in contrary
    assert "main/&lt;b&gt;odd&amp;name" in agreeing
    assert len(re.findall(r"kept, (training|validation)|>duplicate<", agreeing)) == 2


def test_an_image_that_could_not_be_used_is_named_with_the_reason(page_of_two):
    assert ["main/broken", page_of_two[1]["skipped"][0]["reason"]] in rows(page_of_two[0].read_text())


def test_crops_are_shown_before_and_after(page_of_two):
    text = page_of_two[0].read_text()
    assert text.count('<div class="before-after">') == 24
    assert text.count(", before") == text.count(", after") == 24


def test_the_page_needs_nothing_else_is_small_and_loads_without_errors(page_of_two, open_page):
    assert page_of_two[0].stat().st_size < 1_000_000
    for options in ({}, {"dark": True}, {"width": 390}):
        errors, broken, wider, text = open_page(page_of_two[0], **options)
        assert (errors, broken) == ([], [])
        assert wider <= 0
        assert ODD in text


def test_the_page_of_a_source_with_its_own_split_explains_its_duplicates(tmp_path, no_plots):
    for number, split in enumerate(("train", "train", "valid", "test")):
        for grade in ("healthy", "ill"):
            seed = 0 if split == "valid" else number  # validation repeats what training has
            folder = tmp_path / "own" / split / grade
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{split}_{grade}_{number}.png"
            (folder / name).write_bytes(encode(draw_retina(shape=(150, 200), seed=2 * seed + (grade == "ill"))[0]))
    sources = open_sources(str(tmp_path / "own"), "none")
    preprocess_sources(sources, directory=str(tmp_path / "data"), settings=Settings(size=96), workers=1)
    text = (tmp_path / "data" / "kaggle_retina" / "report.html").read_text()
    assert "own has its own split: its duplicates stay in their splits." in text
    assert "Conflicting grades were" not in text
    assert "per_class reached" not in text


def test_the_page_of_such_a_source_also_covers_the_2015_archive(tmp_path, no_plots):
    for number, split in enumerate(("train", "valid", "test")):
        for grade in range(5):
            folder = tmp_path / "own" / split / str(grade)
            folder.mkdir(parents=True)
            (folder / f"{split}_{grade}.png").write_bytes(
                encode(draw_retina(shape=(150, 200), seed=10 * number + grade)[0])
            )
    extra = {f"{patient}_left": patient % 5 for patient in range(40, 55)}
    images = {name: draw_retina(shape=(150, 200), seed=100 + seed)[0] for seed, name in enumerate(extra)}
    images |= {
        "70_left": images["41_left"],
        "70_right": draw_retina(shape=(150, 200), seed=200)[0],
    }  # one image graded twice
    extra |= {"70_left": 4, "70_right": 4}
    members = {f"train_image_resized/train/{name}.jpeg": encode(image, ".jpeg") for name, image in images.items()}
    members |= {"train_image_resized/trainLabels.csv": table("image,level", extra)}
    sources = open_sources(str(tmp_path / "own"), str(write_zip(tmp_path / "2015.zip", members)))
    settings = Settings(size=96, per_class=3)
    preprocess_sources(sources, directory=str(tmp_path / "data"), settings=settings, workers=1)
    text = (tmp_path / "data" / "kaggle_retina" / "report.html").read_text()
    assert "own has its own split: its duplicates stay in their splits." in text
    assert "Conflicting grades were" in text
    assert rows(text)[:3] == [
        ["source", "found", "training", "validation", "test", "duplicates with conflicting grades",
         "per_class reached"],
        ["own", "15", "5", "5", "5", "0", "0"],
        ["2015", "17", "10", "0", "0", "2", "5"],
    ]  # fmt: skip


def test_each_crop_has_the_box_of_its_own_image(tmp_path, monkeypatch):
    sizes = {f"m{number}": (300 + 40 * number, 420 + 60 * number) for number in range(8)}
    members = {
        f"kaggle_retina/train/{name}.jpeg": encode(
            draw_retina(shape=shape, seed=seed, radius=90 + 10 * seed)[0], ".jpeg"
        )
        for seed, (name, shape) in enumerate(sizes.items())
    }
    members["kaggle_retina/train.csv"] = table("id_code,diagnosis", {name: k % 2 for k, name in enumerate(sizes)})
    images = []
    monkeypatch.setattr("dr.preprocessing.plots.crops_sheet", lambda rows, path: images.extend(rows))
    settings = Settings(size=96, per_class=5, val_fraction=0.3)
    sources = open_sources(str(write_zip(tmp_path / "main.zip", members)), "none")
    preprocess_sources(sources, directory=str(tmp_path / "data"), settings=settings, workers=1)
    assert len(images) == len(sizes)
    for before, box, _, _ in images:
        assert np.abs(np.array(box) - find_retina(before).box).max() <= 4


def test_the_box_of_a_crop_stays_on_the_image():
    image, _ = draw_retina(shape=(120, 160))
    shown = _crop_card(Crop(image, (-30, -10, 400, 130), image, "name\n39% kept"))
    assert shown["before"].startswith("data:image/jpeg;base64,")
    assert (shown["name"], shown["note"]) == ("name", "39% kept")
