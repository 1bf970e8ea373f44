import dataclasses
import json
import re

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from browser import NARROW, page_of
from made import TINY, checkpoint_content, draw_fundus, write_checkpoint, write_images

from dr import GRADES, UsageError
from dr.imaging import novelty, quality
from dr.imaging.fundus import decode_and_preprocess
from dr.imaging.retina import Retina
from dr.inference.checkpoint import Checkpoint
from dr.inference.explain import Explainer
from dr.prediction import explanations
from dr.prediction.options import PredictOptions
from dr.prediction.pipeline import predict
from dr.prediction.report import Content, write
from dr.prediction.thumbnails import Thumbnail, make_thumbnail
from dr.recipes.load import from_dict

THRESHOLDS = (-0.5, 0.0, 0.5, 1.0)


def embedded(path, name="content"):
    """The content of a script block of the page."""
    block = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(block[1])


def model(path, *, objective="regression", thresholds=THRESHOLDS, classes=GRADES, **recipe_options):
    torch.manual_seed(1)
    recipe = from_dict(TINY.to_dict() | {"objective": objective, "loss": None} | recipe_options)
    write_checkpoint(path, checkpoint_content(recipe, thresholds=thresholds, classes=classes))
    return str(path)


def graded(models, images, out, *, explain=0, **options):
    given = {"models": [str(each) for each in models], "images": str(images), "output": str(out), "explain": explain}
    predict(PredictOptions(**{"workers": 0, "device": "cpu", "report": True} | given | options))
    return out / "report.html"


def content_of(details, network, *, thresholds=THRESHOLDS, engine="torch", metrics=None):
    facts = {"thresholds_source": None, "calibrated": True, "images": "images", "tta": "none", "engine": engine}
    return Content(details=details, checkpoints=[network], thresholds=np.array(thresholds), metrics=metrics, **facts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fourteen files: ten good images, a copy, a dark one, a blurred one, and one that is not an image."""
    images = tmp_path_factory.mktemp("page") / "images"
    write_images(images, [0, 1, 2, 3, 4] * 2, side_px=160)
    first = cv2.imread(str(images / "image_3.png"))
    cv2.imwrite(str(images / "copy.png"), cv2.resize(first, (140, 140), interpolation=cv2.INTER_AREA))
    cv2.imwrite(str(images / "dark.png"), np.uint8(0.1 * draw_fundus(2, seed=40, side_px=160)))
    cv2.imwrite(str(images / "blurred.png"), cv2.GaussianBlur(draw_fundus(2, seed=41, side_px=160), (0, 0), 9))
    (images / "none <b>.png").write_text("not an image")
    return images


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return graded([model(out / "tiny.pt")], folder, out, explain=4)


def test_the_page_shows_the_rows_of_details_csv(report):
    details = pd.read_csv(report.parent / "details.csv")
    content = embedded(report)
    rows = {row["file"]: row for row in content["rows"]}
    assert list(rows) == details["file"].tolist()
    assert content["labels"][2] == "2 Moderate"
    for line in details.itertuples():
        row = rows[line.file]
        if pd.isna(line.error):
            assert (row["score"], row["grade"], row["error"]) == (pytest.approx(line.score), line.grade, "")
            assert row["flags"] == ([] if pd.isna(line.flags) else line.flags.split())
            assert (row["brightness"], row["sharpness"]) == (line.brightness, line.sharpness)
            assert row["cut_off"] == pytest.approx(line.cut_off, abs=0.01)
            distance = np.abs(line.score - np.array(THRESHOLDS)).min()
            assert row["doubt"] == pytest.approx(max(0, 1 - 2 * distance), abs=1e-3)
        else:
            assert (row["score"], row["grade"], row["error"]) == (None, None, line.error)
    assert rows["image_3.png"]["group"] == rows["copy.png"]["group"] == 0
    assert [row["group"] for row in rows.values()].count(None) == 12
    assert "too_dark" in rows["dark.png"]["flags"]
    assert "blurred" in rows["blurred.png"]["flags"]


def test_details_are_the_same_without_the_page(report, folder, tmp_path):
    graded([report.parent / "tiny.pt"], folder, tmp_path, report=False)
    assert not (tmp_path / "report.html").exists()
    for name in ("details.csv", "result.csv"):
        assert (tmp_path / name).read_text() == (report.parent / name).read_text()


def test_every_readable_image_has_a_thumbnail_made_by_the_workers(report, folder, tmp_path):
    made = embedded(report, "thumbnails")
    assert [each is None for each in made] == [row["error"] != "" for row in embedded(report)["rows"]]
    out = tmp_path / "out"
    graded([report.parent / "tiny.pt"], folder, out, workers=2)
    assert embedded(out / "report.html", "thumbnails") == made


def test_too_many_images_have_no_thumbnails_and_the_page_reports_it(report, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("dr.prediction.report.MAX_THUMBNAILS", 5)
    path = graded([report.parent / "tiny.pt"], folder, tmp_path)
    assert embedded(path, "thumbnails") == []
    assert "For more than\n5 images" in path.read_text()


def test_a_folder_without_readable_images_has_its_page(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "empty.png").touch()
    for objective, thresholds in (("regression", THRESHOLDS), ("classification", None)):
        path = graded(
            [model(tmp_path / "m.pt", objective=objective, thresholds=thresholds)],
            tmp_path / "images",
            tmp_path,
            explain=2,
        )
        assert [row["error"] for row in embedded(path)["rows"]] == ["the file is empty"]
        assert "thumbnails and duplicates are left out" not in path.read_text()


def test_half_of_the_explained_images_have_the_highest_scores_half_the_highest_doubt():
    details = pd.DataFrame({"score": [3.0, 0.45, np.nan, 2.0, 1.49, 0.0], "doubt": [0.0, 0.9, np.nan, 0.0, 0.98, 0.0]})
    chosen = explanations.choose(details, count=4)
    assert [row for row, _ in chosen] == [0, 3, 4, 1]
    assert [row for row, _ in explanations.choose(details, count="all")] == [0, 3, 4, 1, 5]
    assert [row for row, _ in explanations.choose(details, count=1)] == [0]


def test_a_map_has_the_size_of_the_image_and_is_zero_outside_the_centre_crop(folder, tmp_path):
    checkpoint = Checkpoint.load(model(tmp_path / "crop.pt", crop_size=32, objective="classification", thresholds=None))
    data = (folder / "image_4.png").read_bytes()
    explainers = [Explainer(checkpoint)]
    image, _ = explanations.heat_map(data, explainers, grade=0)
    preprocessed, _, _ = decode_and_preprocess(data, size_px=explanations.SHOWN_PX)
    assert np.array_equal(image, preprocessed[..., ::-1])
    heats = [explanations.heat_map(data, explainers, grade=grade)[1] for grade in range(5)]
    assert all(heat.shape == image.shape[:2] for heat in heats)
    assert max(heat.max() for heat in heats) > 0.9
    assert all(heat[:20].max() == 0 and heat[:, -20:].max() == 0 for heat in heats)


def test_without_thresholds_doubt_follows_the_network_not_the_calibrated_probabilities(folder, tmp_path):
    path = model(tmp_path / "m.pt", objective="classification", thresholds=None)
    content = dict(torch.load(path, weights_only=True))
    content["calibration"] = {"slope": 1.0, "offsets": [5.0, 4.0, 3.0, 2.0, -5.0]}  # makes the last grade most probable
    write_checkpoint(path, content)
    report = graded([path], folder, tmp_path / "calibrated")
    details = pd.read_csv(report.parent / "details.csv").dropna(subset="grade")
    probabilities = details.filter(like="probability_").to_numpy()
    assert (probabilities.argmax(axis=1) == 4).all()
    assert (details["grade"] != 4).any()
    assert (details["doubt"] > 0.5).all()  # random weights
    assert "the most probable class may differ from the grade" in report.read_text()
    assert "calibrated on validation" in report.read_text()


def test_a_network_without_a_feature_map_is_refused_before_the_first_image(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("dr.inference.gradcam._side", lambda *_: None)
    with pytest.raises(UsageError, match="use --explain 0"):
        graded([model(tmp_path / "tiny.pt")], folder, tmp_path / "out", explain=2)
    assert not (tmp_path / "out" / "result.csv").exists()


METRICS = {
    "images": 13,
    "metrics": {"macro_f1": {"value": 0.5, "low": 0.4, "high": 0.625}},
    "referable": {"sensitivity": {"value": 0.75, "low": 0.5, "high": 0.875}},
    "per_class": [
        {"class": "No DR", "recall": {"value": 0.25, "low": 0.125, "high": 0.5}},
        {"class": "Mild", "recall": {"value": 1.0, "low": 0.75, "high": 1.0}},
    ],
    "confusion": [[5, 1], [0, 7]],
    "classes": ["No DR", "Mild"],
}


def test_the_page_shows_metrics_if_there_are_labels(tmp_path):
    checkpoint = Checkpoint.load(model(tmp_path / "tiny.pt"))
    details = pd.DataFrame([{"file": "a", "score": 1.0, "grade": 3, "doubt": 0.0, "brightness": 1.0,
                             "sharpness": 1.0, "cut_off": None, "flags": "", "error": ""}])  # fmt: skip
    undefined = METRICS | {"referable": {"sensitivity": {"value": None, "low": None, "high": None}}}
    undefined["per_class"] = [{"class": "No DR", "recall": {"value": None, "low": None, "high": None}}]
    for metrics in (None, METRICS, undefined):
        write(
            tmp_path / "page.html", content_of(details, checkpoint, engine="what ran it", metrics=metrics),
            thumbnails={}, maps=[], seconds=3
        )  # fmt: skip
        text = (tmp_path / "page.html").read_text()
        assert "what ran it" in text
        for phrase in ("Agreement with the labels", "macro-F1", "0.400 to 0.625", "referable: sensitivity"):
            assert (phrase in text) == (metrics is not None), phrase
        assert ("not defined" in text) == (metrics is undefined)
        assert "None" not in text


FLAGGED = ("no_retina", "too_dark", "too_bright", "blurred", "cut_off")


# --- in a browser ---------------------------------------------------------------------------------


def files(page):
    return page.locator("#list .file").all_text_contents()


def test_a_grade_that_differs_from_its_label_is_shown_and_can_be_filtered(browser, folder, tmp_path):
    labels = "\n".join(f"image_{n},{n % 5}" for n in range(10))
    (tmp_path / "truth.csv").write_text(f"id_code,diagnosis\n{labels}\n")
    path = graded([model(tmp_path / "tiny.pt")], folder, tmp_path / "out", labels=str(tmp_path / "truth.csv"))
    details = pd.read_csv(tmp_path / "out" / "details.csv").set_index("file")
    assert details.loc[[f"image_{n}.png" for n in range(10)], "truth"].tolist() == [n % 5 for n in range(10)]
    assert pd.isna(details.loc["dark.png", "truth"])
    wrong = details[details["truth"].notna() & (details["truth"] != details["grade"])]
    assert 0 < len(wrong) < 10
    with page_of(browser, path) as page:
        page.locator("#flags").get_by_text(f"differs from label ({len(wrong)})").click()
        assert sorted(files(page)) == sorted(wrong.index)
        shown = page.locator("#list .flag").all_text_contents()
        assert sum(flag.startswith("label ") for flag in shown) == len(wrong)


def test_without_thresholds_the_probability_of_the_grade_is_shown_beside_the_next_or_a_higher_one(browser, tmp_path):
    details = pd.DataFrame({"file": ["a", "b"], "score": 1.0, "grade": [4, 0], "doubt": 0.5, "flags": "", "error": ""})
    details[["brightness", "sharpness", "cut_off"]] = 100.0, 5.0, 0.1
    details[[f"probability_{k}" for k in range(5)]] = 0.4, 0.1, 0.2, 0.1, 0.2
    checkpoint = Checkpoint.load(model(tmp_path / "tiny.pt", objective="classification", thresholds=None))
    content = dataclasses.replace(content_of(details, checkpoint), thresholds=None)
    write(tmp_path / "report.html", content, thumbnails={}, maps=[], seconds=3)
    with page_of(browser, tmp_path / "report.html") as page:
        assert page.locator("#list .margin").all_text_contents() == [
            "score 1.00, probability 0.20, below 0 No DR 0.40",
            "score 1.00, probability 0.40, next 2 Moderate 0.20",
        ]


def test_images_are_filtered_by_grade_and_flag_searched_and_sorted(browser, report):
    rows = embedded(report)["rows"]
    with page_of(browser, report) as page:
        scores = [row["score"] for name in files(page) for row in rows if row["file"] == name]
        assert scores[:-1] == sorted(scores[:-1], reverse=True)
        assert scores[-1] is None  # ungraded images come last
        page.select_option("#sort", "doubt")
        doubt = [row["doubt"] for name in files(page)[:-1] for row in rows if row["file"] == name]
        assert doubt == sorted(doubt, reverse=True)
        page.select_option("#sort", "name")
        assert files(page) == [row["file"] for row in rows]
        grade = rows[0]["grade"]
        page.click(f"#grades button[data-value='{grade}']")
        assert files(page) == [row["file"] for row in rows if row["grade"] == grade]
        page.click(f"#grades button[data-value='{grade}']")
        page.click("#flags button[data-value='duplicate']")
        assert files(page) == ["copy.png", "image_3.png"]
        assert "duplicate of image_3.png" in page.text_content("#list .card >> nth=0")  # rendered only in view
        page.click("#flags button[data-value='too_dark']")  # one flag or the other
        assert files(page) == ["copy.png", "dark.png", "image_3.png"]
        page.fill("#search", "IMAGE_")
        page.wait_for_function("document.querySelectorAll('#list .card').length === 1")
        assert "1 of 14 shown" in page.inner_text("#shown")


def test_the_table_has_the_same_rows_and_sorts_by_its_heads(browser, report):
    with page_of(browser, report) as page:
        in_gallery = files(page)
        score = {row["file"]: row["score"] for row in embedded(report)["rows"]}
        page.click("#as-table")
        names = "#list td.file"
        assert page.locator(names).all_text_contents() == in_gallery
        page.click("th button:text('Score')")
        scores = [score[name] for name in page.locator(names).all_text_contents()]
        assert scores[:-1] == sorted(scores[:-1])
        assert scores[-1] is None
        assert page.get_attribute("th[aria-sort=ascending]", "aria-sort") == "ascending"
        assert "not an image" in page.inner_text("#list tr:last-child")
        assert re.search(r"too dark \d+", page.inner_text("#list"))


def test_unreadable_images_are_listed_with_their_error_and_escaped(browser, report):
    with page_of(browser, report) as page:
        assert "none <b>.png: not an image" in page.inner_text("[role=alert]")


def test_the_slider_moves_from_image_to_map_by_key_and_mouse(browser, report):
    with page_of(browser, report) as page:
        assert page.locator(".explained .pair").count() == 4
        pair = page.locator(".explained .pair").first
        reveal = "node => node.style.getPropertyValue('--seen')"
        pair.locator("input").focus()
        page.keyboard.press("ArrowRight")
        assert pair.evaluate(reveal) == "51%"
        box = pair.bounding_box()
        page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"])
        assert 15 <= float(pair.evaluate(reveal).rstrip("%")) <= 25
        natural = pair.evaluate("n => [...n.querySelectorAll('img')].map(i => [i.naturalWidth, i.naturalHeight])")
        assert natural[0] == natural[1]
        assert 96 < natural[0][0] <= explanations.SHOWN_PX  # larger than the input of the network


def test_the_keyboard_is_enough(browser, report):
    with page_of(browser, report) as page:
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        page.locator("#list .card >> nth=0").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        order = files(page)
        assert page.inner_text("#image-name") == order[1]
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#image-name") == order[2]
        page.keyboard.press("Escape")
        assert not page.evaluate("document.getElementById('image').open")
        page.wait_for_function(  # the dialog restores its own focus first
            "name => document.activeElement.querySelector('.file')?.textContent === name", arg=order[2], timeout=5000
        )


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_high_in_light_and_dark_mode_and_nothing_is_wider_than_a_phone(browser, report, dark):
    contrast = """() => {
      const light = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const style = getComputedStyle(document.body);
      const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), light(style.backgroundColor)]; }"""
    with page_of(browser, report, dark=dark, viewport=NARROW) as page:
        ratio, paper = page.evaluate(contrast)
        assert ratio > 7  # WCAG 2.2, 1.4.6
        assert (paper < 0.1) == dark
        for view in ("#as-gallery", "#as-table"):
            page.click(view)
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_print_shows_every_row_and_no_controls(browser, report):
    with page_of(browser, report) as page:
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#list .card").count() == 14
        assert not page.is_visible("#search")


@pytest.mark.parametrize(
    ("objective", "thresholds", "classes"),
    [
        ("classification", None, ("a", "b", "c")),
        ("ordinal", None, GRADES),
        ("ordinal", (0.5, 1.5, 2.5, 3.5), GRADES),
        ("binary", (0.4,), ("No DR", "DR")),
    ],
)
def test_other_objectives_have_their_page_too(browser, folder, tmp_path, objective, thresholds, classes):
    rule = {"thresholds": "argmax"} if objective == "ordinal" and thresholds is None else {}
    recipe = from_dict(TINY.to_dict() | {"objective": objective, "loss": None} | rule)
    torch.manual_seed(1)
    write_checkpoint(tmp_path / "m.pt", checkpoint_content(recipe, thresholds=thresholds, classes=classes))
    path = graded([tmp_path / "m.pt"], folder, tmp_path, explain=2)
    content = embedded(path)
    with page_of(browser, path) as page:
        assert len(files(page)) == 14
        assert page.locator("#list .scale").count() == 13
        assert page.locator(".explained .pair").count() == 2
        page.locator("#list .card >> nth=0").click()
        assert page.inner_text("#image-name") == files(page)[0]
        if thresholds is None:
            row = next(row for row in content["rows"] if row["file"] == files(page)[0])
            given = row["probabilities"][row["grade"]]
            assert f"probability {given:.2f}, " in page.inner_text("#image-body")


def test_every_flag_is_shown_with_its_value_and_can_be_filtered(browser, tmp_path):
    checkpoint = Checkpoint.load(model(tmp_path / "tiny.pt"))
    dark = {"brightness": 0.0, "sharpness": 0.0}
    raised = {*quality.flags(Retina((0, 0, 9, 9), False, (0, 0, 0)), dark), *FLAGGED, novelty.FLAG}
    details = pd.DataFrame({"file": sorted(raised), "score": 1.0, "grade": 1, "doubt": 0.0})
    details[["brightness", "sharpness", "cut_off", "training_distance"]] = 10.0, 1.5, 0.25, 2.5
    details = details.assign(flags=sorted(raised), error="")
    write(
        tmp_path / "report.html", content_of(details, checkpoint), thumbnails={}, maps=[], seconds=3
    )  # fmt: skip
    with page_of(browser, tmp_path / "report.html") as page:
        assert sorted(files(page)) == sorted(raised)
        assert "unlike training 2.50" in page.locator("#list .flag").all_text_contents()
        page.locator("#flags").get_by_text("unlike training").click()
        assert files(page) == [novelty.FLAG]


def test_five_thousand_images_stay_usable_and_below_60_mb(browser, tmp_path):
    checkpoint = Checkpoint.load(model(tmp_path / "tiny.pt"))
    rng = np.random.default_rng(0)
    images = [draw_fundus(k % 5, seed=k, side_px=256) for k in range(20)]  # noise: larger than real thumbnails
    retina = Retina((0, 0, 256, 256), True, (0, 0, 0))
    made = [make_thumbnail(image, retina) for image in images]
    names = [f"{number:012x}.png" for number in range(5000)]
    thumbnails = {
        name: Thumbnail(made[n % 20].jpeg, int(rng.integers(2**63)), rng.normal(size=1024) / 32)
        for n, name in enumerate(names)
    }
    scores = rng.uniform(-0.5, 4.5, 5000).round(4)
    grades = scores.clip(0, 4).round().astype(int)
    details = pd.DataFrame({"file": names, "score": scores, "grade": grades, "flags": "", "error": ""})
    details[["brightness", "sharpness", "cut_off", "doubt"]] = 100.0, 5.0, 0.1, 0.5
    path = tmp_path / "report.html"
    content = content_of(details, checkpoint, thresholds=[0.5, 1.5, 2.5, 3.5])
    write(path, content, thumbnails=thumbnails, maps=[], seconds=3)
    assert path.stat().st_size < 60e6
    with page_of(browser, path) as page:
        assert page.locator("#list .card").count() < 400  # the others are rendered on scrolling
        page.fill("#search", names[4321])
        page.wait_for_function("document.querySelectorAll('#list .card').length === 1")
        page.fill("#search", "")
        page.wait_for_function("document.querySelectorAll('#list .card').length > 1")
        before = page.locator("#list .card").count()
        page.evaluate("document.getElementById('more').scrollIntoView()")
        page.wait_for_function(f"document.querySelectorAll('#list .card').length > {before}")
