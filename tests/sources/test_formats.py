"""A new format is one class and one entry in the list; whatever follows the protocols is a source."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import draw_retina, encode, write_folder, write_zip

from dr import UsageError
from dr.preprocessing.pipeline import preprocess_sources
from dr.preprocessing.settings import Settings
from dr.sources import detect
from dr.sources.archive import Archive, MemoryMember
from dr.sources.candidate import Candidate, ReadOptions
from dr.sources.columns import Columns
from dr.sources.medmnist import ArrayArchive
from dr.sources.source import COLUMNS, ImageArchive, LabelledImages, ReadableMember


class DictArchive:
    """Images in memory. It inherits nothing."""

    def __init__(self, path, images):
        self.path, self.images, self.names = path, images, list(images)

    def size(self, name):
        return len(self.images[name])

    def member(self, name):
        return MemoryMember(self.images[name])

    def read(self, name):
        return self.images[name]


class ToyFormat:
    """A text file, each line the label of an image that is drawn."""

    name = "toy"
    layout = "a .toy file"
    reads_columns = False

    def open(self, candidate: Candidate) -> LabelledImages | None:
        if not candidate.path.endswith(".toy"):
            return None
        with open(candidate.path, encoding="utf-8") as file:  # noqa: PTH123
            labels = [int(line) for line in file]
        names = [f"toy{number}" for number in range(len(labels))]
        images = {name: encode(draw_retina(shape=(60, 60), seed=seed)[0]) for seed, name in enumerate(names)}
        table = pd.DataFrame({"original": names, "patient": names, "member": names, "diagnosis": labels})
        table = table.assign(source="main", source_split=None)
        return LabelledImages(self.name, DictArchive(Path(candidate.path), images), table[list(COLUMNS)], ("a", "b"))


@pytest.fixture
def with_toy(monkeypatch):
    monkeypatch.setattr(detect, "FORMATS", [*detect.FORMATS[:1], ToyFormat(), *detect.FORMATS[1:]])


def test_a_format_is_one_class_and_one_entry(tmp_path, with_toy, no_plots):
    path = tmp_path / "mine.toy"
    path.write_text("\n".join(map(str, [0, 1] * 6)))
    sources = detect.open_sources(str(path))
    assert sources["mine"].kind == "toy"
    settings = Settings(size=48, val_fraction=0.34)
    report = preprocess_sources(sources, directory=str(tmp_path / "data"), settings=settings, workers=1)
    assert report["counts"] == {"validation": [2, 2], "train: mine": [4, 4]}


def test_the_other_formats_are_still_recognised_and_errors_list_the_new_one(tmp_path, with_toy, zips):
    assert detect.recognise(str(zips[0])).kind == "competition archive"
    path = write_folder(tmp_path / "nothing", {"x.png": b""})
    with pytest.raises(UsageError, match=r"expected one of: a MedMNIST \.npz; a \.toy file; train\.csv"):
        detect.recognise(str(path))


def test_a_format_that_reads_no_columns_is_not_tried_with_named_columns(tmp_path, with_toy):
    path = tmp_path / "mine.toy"
    path.write_text("0\n1")
    with pytest.raises(UsageError, match=r"mine\.toy: not a zip archive"):
        detect.recognise(str(path), options=ReadOptions(columns=Columns(label="kind")))


def test_the_formats_are_tried_in_a_documented_order():
    names = ["MedMNIST file", "competition archive", "CSV pairs", "label table", "class folders"]
    assert [each.name for each in detect.FORMATS] == names
    assert all(each.layout for each in detect.FORMATS)


def test_archives_and_members_follow_the_protocols(tmp_path):
    zipped = Archive(write_zip(tmp_path / "a.zip", {"x.png": b"pixels"}))
    arrays = {"train_images": np.zeros((2, 8, 8), np.uint8), "train_labels": np.array([[0], [1]])}
    np.savez(tmp_path / "a.npz", **arrays)
    for archive in (zipped, ArrayArchive(tmp_path / "a.npz"), DictArchive(tmp_path / "a", {"x": b"pixels"})):
        assert isinstance(archive, ImageArchive)
        assert isinstance(archive.member(archive.names[0]), ReadableMember)
        assert archive.read(archive.names[0]) == archive.member(archive.names[0]).read()
    assert ArrayArchive.__mro__ == (ArrayArchive, object)
