import base64
import json
import re

import cv2
import jinja2
import numpy as np
import pytest

from dr.pages import html

IMAGE = np.zeros((300, 400, 3), np.uint8) + np.uint8([200, 40, 40])  # red, as RGB


def decoded(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_a_thumbnail_keeps_the_shape_and_the_colours_and_enlarges_nothing():
    small = decoded(html.thumbnail(IMAGE, side_px=100))
    assert small.shape == (75, 100, 3)
    assert np.abs(small.astype(int) - IMAGE[0, 0]).max() < 8
    assert decoded(html.thumbnail(IMAGE[:20, :30], side_px=100)).shape == (20, 30, 3)
    assert html.shrunk(np.zeros((2, 3000, 3), np.uint8), longest_px=360).shape == (1, 360, 3)


def test_a_data_uri_embeds_the_image(tmp_path):
    (tmp_path / "a.PNG").write_bytes(b"of the file")
    assert html.data_uri(tmp_path / "a.PNG") == "data:image/png;base64," + base64.b64encode(b"of the file").decode()
    assert html.data_uri(b"abc") == "data:image/jpeg;base64,YWJj"


def test_no_text_in_a_script_block_ends_it():
    hostile = {"name": "</script><script>alert(1)</script> & <!--", "value": [1, None, "ü"]}
    text = str(html.as_json(hostile))
    assert json.loads(text) == hostile
    assert not re.search("[<>&]", text)
    with pytest.raises(ValueError, match="JSON"):
        html.as_json(float("nan"))


@pytest.fixture
def templates(tmp_path, monkeypatch):
    for own in html.TEMPLATES.iterdir():
        (tmp_path / own.name).write_text(own.read_text())
    monkeypatch.setattr(html, "TEMPLATES", tmp_path)
    return tmp_path


CHILD = """{% extends "base.html.j2" %}{% import "parts.html.j2" as parts %}
{% block title %}{{ title }}{% endblock %}
{% block content %}{{ parts.bars(rows, "counts") }}{{ parts.facts([("a", title)]) }}{{ parts.headlines([(1, "b")]) }}
{{ parts.pair("u", "v", "image", "map", "x") }}{{ parts.confusion([[3, 1], [0, 0]], ["a", "b"]) }}
{{ parts.grade("Mild", 1, 5) }}{{ parts.drawing("u", "chart") }}{% endblock %}"""


def test_pages_inherit_the_style_and_escape_their_content(templates, tmp_path):
    (templates / "child.html.j2").write_text(CHILD)
    html.write(tmp_path / "page.html", "child.html.j2", title="<b> & co", rows=[("x", 4), ("y", 1)])
    text = (tmp_path / "page.html").read_text()
    assert "<h1>&lt;b&gt; &amp; co</h1>" in text
    assert "<dd>&lt;b&gt; &amp; co</dd>" in text
    assert re.findall(r'<i style="width:([\d.]+)%" title="([\d.]+) %"', text) == [("100.0", "80.0"), ("25.0", "20.0")]
    for text_of_style in ("prefers-color-scheme: dark", "@media print", "max-width: 640px"):
        assert text_of_style in text


def test_a_missing_name_is_an_error(templates):
    (templates / "child.html.j2").write_text(CHILD)
    with pytest.raises(jinja2.UndefinedError, match="'rows' is undefined"):
        html.render("child.html.j2", title="t")


@pytest.mark.parametrize("template", sorted(path.name for path in html.TEMPLATES.iterdir()))
def test_no_template_refers_to_the_network_or_to_another_file(template):
    text = (html.TEMPLATES / template).read_text()
    assert not re.search(r"https?://(?!www\.w3\.org)|url\(|@import|src=\"(?!\{\{)", text)
