"""What is known of patients and of ungradable images is reported, and no more."""

import pandas as pd
import pytest
from conftest import draw_retina, encode, write_folder

from dr.datasets.preprocessed import read_preprocessed
from dr.preprocessing import facts
from dr.preprocessing.pipeline import preprocess_sources
from dr.preprocessing.settings import Settings
from dr.preprocessing.summary import summary_lines
from dr.preprocessing.workspace import file_prefixes
from dr.sources.detect import open_sources
from dr.sources.source import LabelledImages

SIZE = (900, 600)


def used(rows) -> pd.DataFrame:
    """(original, patient, split), ... -> the images in a split."""
    return pd.DataFrame(rows, columns=["original", "patient", "split"]).assign(source="mine")


def reported(rows, *, sizes=None) -> dict:
    table = used(rows)
    return facts.patient_facts(table, {("mine", name): (sizes or {}).get(name, SIZE) for name in table["original"]})


def test_known_patients_are_counted_and_unknown_ones_claim_nothing():
    known = reported([("a", "p", "train"), ("b", "p", "train"), ("c", "q", "val")])
    assert facts.known_sentence(known) == "2 patients; none of them has images in more than one split."
    assert facts.patient_lines(known) == []
    partly = reported([("a", "p", "train"), ("b", None, "train"), ("c", "q", "val")])
    assert facts.known_sentence(partly).startswith("The patients of 66 % of the images are known (2 patients); none of")
    assert facts.known_sentence(partly).endswith("counts as its own patient, and may be of one in another split.")
    unknown = reported([("a", None, "train"), ("c", None, "val")])
    assert facts.known_sentence(unknown).startswith(
        "Patients are not known: each image counts as its own, and both eyes"
    )


def test_a_patient_in_two_splits_of_the_source_is_reported():
    shared = reported([("a", "p", "train"), ("b", "p", "val"), ("c", "q", "val")])
    assert "1 of them have images" in facts.known_sentence(shared)
    assert facts.patient_lines(shared) == [
        "1 patient has images in more than one split, as the source splits them; metrics are optimistic"
    ]


def test_neighbouring_names_of_one_size_in_two_splits_are_reported():
    rows = [(f"IMG_{number}", None, "val" if number % 4 == 1 else "train") for number in (1, 2, 3, 7, 8, 9, 20, 31)]
    assert facts.patient_lines(reported(rows)) == [
        "6 images without a patient form 2 series of neighbouring names and one size; eyes of one patient may be in "
        "both splits"
    ]
    sizes = {f"IMG_{number}": (number, 600) for number in (1, 2, 3, 7, 8, 9)}
    assert facts.patient_lines(reported(rows, sizes=sizes)) == []
    assert facts.patient_lines(reported([(name, None, "train") for name, *_ in rows])) == []
    assert facts.patient_lines(reported([(name, name, split) for name, _, split in rows])) == []


def test_ungradable_images_are_counted_by_label_and_named():
    table = pd.DataFrame(
        {"source": "mine", "original": list("abcde"), "label": ["5", "5", "", None, "5"], "member": None}
    )
    assert facts.ungradable_line(facts.ungradable_facts(table)) == (
        "left out 5 images labelled ungradable (5: 3, empty: 2): a, b, c, ...; see ungradable.csv, or use --ungradable "
        "keep"
    )


def source(originals) -> LabelledImages:
    return LabelledImages("toy", None, pd.DataFrame({"original": originals}))


def test_no_two_images_have_one_file_name():
    sources = {"a": source(["x", "b_x", "b-2_y"]), "b": source(["x", "y"]), "Süd/Ost " + "z" * 40: source(["x"])}
    assert list(file_prefixes(sources).values()) == ["", "b-3_", "S-d-Ost-zzzzzzzzzzzzzzzz_"]


@pytest.fixture
def eyes(tmp_path):
    """Twelve patients in folders of classes, their eyes often of different grades."""
    members = {
        f"eyes/{(k * 7 // 2) % 2}/{k // 2}_{('left', 'right')[k % 2]}.png": encode(
            draw_retina(seed=k, shape=(60, 60))[0]
        )
        for k in range(24)
    }
    return write_folder(tmp_path / "in", members) / "eyes"


def test_no_patient_of_class_folders_is_in_two_splits(tmp_path, eyes, no_plots):
    settings = Settings(size=48, val_fraction=0.4)
    report = preprocess_sources(open_sources(str(eyes)), directory=str(tmp_path / "d"), settings=settings, workers=1)
    data = read_preprocessed(tmp_path / "d")
    assert len(data.train) + len(data.val) == 24
    assert len(data.val) >= 6
    assert not set(data.train["patient"]) & set(data.val["patient"])
    assert set(data.train["source"]) == {"eyes"}
    assert summary_lines(report)[0] == "patients: 12, from the names (..._left, ..._right)"
    assert "12 patients; none of them has images in more than one split" in (data.root / "report.html").read_text()
    other = eyes.rename(tmp_path / "renamed")
    preprocess_sources(open_sources(str(other)), directory=str(tmp_path / "e"), settings=settings, workers=1)
    again = read_preprocessed(tmp_path / "e")
    assert again.val["path"].tolist() == data.val["path"].tolist()  # the name of the source does not matter


def test_ungradable_images_are_listed_in_a_table_and_on_the_page(tmp_path, eyes, no_plots):
    sources = open_sources(str(eyes))
    name, only = next(iter(sources.items()))
    left_out = pd.DataFrame({"original": ["zz"], "label": ["5"], "member": ["eyes/zz.png"]})
    sources = {name: LabelledImages(only.kind, only.archive, only.table, only.classes, ungradable=left_out)}
    settings = Settings(size=48, val_fraction=0.4)
    report = preprocess_sources(sources, directory=str(tmp_path / "d"), settings=settings, workers=1)
    root = tmp_path / "d" / "kaggle_retina"
    assert (root / "ungradable.csv").read_text() == "source,original,label,member\neyes,zz,5,eyes/zz.png\n"
    assert summary_lines(report)[0].startswith(
        "note: left out 1 image labelled ungradable (5: 1): zz; see ungradable.csv"
    )
    assert "eyes/zz" in (root / "report.html").read_text()
    preprocess_sources(
        open_sources(str(eyes)), directory=str(tmp_path / "d"), settings=Settings(size=40), workers=1, force=True
    )
    assert not (root / "ungradable.csv").exists()


def test_unknown_patients_of_an_earlier_version_are_not_taken_for_known(tmp_path, eyes, no_plots):
    settings = Settings(size=48, val_fraction=0.4)
    preprocess_sources(open_sources(str(eyes)), directory=str(tmp_path / "d"), settings=settings, workers=1)
    root = tmp_path / "d" / "kaggle_retina"
    for split in ("train", "val"):
        table = pd.read_csv(root / f"labels_{split}.csv", dtype=str)
        table.assign(patient=table["original"]).to_csv(root / f"labels_{split}.csv", index=False)
    assert set(read_preprocessed(tmp_path / "d").val["patient"]) != {""}
    written = (root / "settings.json").read_text()
    (root / "settings.json").write_text(written.replace('"sources"', '"main_archive"'))
    assert set(read_preprocessed(tmp_path / "d").val["patient"]) == {""}
