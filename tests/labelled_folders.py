"""Folders of images and label tables, and what data.py reads from them."""

import pytest
from conftest import draw_retina, encode

from dr import UsageError
from dr.sources.candidate import ReadOptions
from dr.sources.detect import recognise

IMAGE = encode(draw_retina()[0])


def write(root, *, images=(), **tables):
    """A folder with images of these names and tables, `labels_csv="..."` as labels.csv -> `root`."""
    for name in images:
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(IMAGE)
    for name, text in tables.items():
        (root / name.replace("_csv", ".csv").replace("_txt", ".txt")).write_text(text)
    return root


def read(folder, **options):
    """The source that `recognise` finds with these ReadOptions."""
    return recognise(str(folder), options=ReadOptions(**options))


def refusal(folder, **options) -> str:
    """The message of the UsageError of `read`, which must be one line, without the folder at its start."""
    with pytest.raises(UsageError) as refused:
        read(folder, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix(f"{folder}: ")


def labels(source) -> dict[str, int]:
    """{name of an image: index of its class}."""
    return dict(zip(source.table["original"], source.table["diagnosis"], strict=True))
