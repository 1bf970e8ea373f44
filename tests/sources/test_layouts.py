"""Every public data set is read as it is downloaded: labels, splits, patients, and what cannot be graded."""

from pathlib import Path

import layouts
import pytest

from dr.sources.candidate import ReadOptions
from dr.sources.columns import Columns
from dr.sources.detect import recognise

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
FLAGS = {"--table": "table", "--root": "root", "--ungradable": "ungradable"}
COLUMNS = {"--id_column": "id", "--label_column": "label", "--patient_column": "patient"}


def options(flags) -> ReadOptions:
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    columns = {COLUMNS[flag]: value for flag, value in given.items() if flag in COLUMNS}
    return ReadOptions(columns=Columns(**columns), **{FLAGS[f]: v for f, v in given.items() if f in FLAGS})


@pytest.mark.parametrize("name", [name for name in layouts.LAYOUTS if name != "retinamnist"])
def test_a_public_data_set_is_read_as_it_is_downloaded(tmp_path, name):
    layout = layouts.LAYOUTS[name](tmp_path / name)
    source = recognise(str(layout.root), options=options(layout.flags))
    rows = {row.member: row for row in source.table.dropna(subset="member").itertuples()}
    assert {m: (row.diagnosis, row.source_split) for m, row in rows.items()} == {
        m: (image.label, image.split) for m, image in layout.images.items()
    }
    left_out = set() if source.ungradable is None else set(source.ungradable["member"])
    assert left_out == layout.ungradable
    known = {m: image.patient for m, image in layout.images.items() if image.patient is not None}
    found = {m: rows[m].patient for m in known}
    pairs = {(known[m], found[m]) for m in known}
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_a_layout_has_the_images_that_it_promises(name, tmp_path):
    layout = layouts.LAYOUTS[name](tmp_path)
    labels = {image.label for image in layout.images.values()}
    assert labels == set(range(max(labels) + 1))
    assert len(layout.images) >= 5 * len(labels)
    assert not layout.images.keys() & (layout.ungradable | layout.unlabelled)
    if name != "retinamnist":
        assert all((tmp_path / path).is_file() for path in (*layout.images, *layout.ungradable, *layout.unlabelled))
    splits = {}
    for image in layout.images.values():
        if image.patient is not None:
            splits.setdefault(image.patient, set()).add(image.split)
    assert all(len(each) == 1 for each in splits.values())


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_the_page_of_data_sets_names_the_flags_of_a_layout(name, tmp_path):
    flags = layouts.LAYOUTS[name](tmp_path).flags
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        assert f'{flag} "{value}"' in PAGE or f"{flag} {value}" in PAGE
