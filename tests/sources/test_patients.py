"""Patients by column, pattern, eyes in names, folders and pairs of names, and by nothing else."""

import re

import pandas as pd
import pytest

from dr import UsageError
from dr.sources.patients import UNKNOWN, distinct_patients, find_patients
from dr.sources.source import LabelledImages


def table(members, *, diagnosis=None, splits=None, patient=None) -> pd.DataFrame:
    count = len(members)
    return pd.DataFrame(
        {
            "original": [member.replace("/", "_") for member in members],
            "member": members,
            "patient": pd.Series(patient or [None] * count, dtype=object),
            "diagnosis": diagnosis or [0] * count,
            "source_split": pd.Series(splits or [None] * count, dtype=object),
        }
    )


def found(members, *, pattern=None, **columns) -> tuple[list[str], str]:
    """-> the patients, '' where unknown, and the note."""
    pattern = pattern and re.compile(pattern)
    patients = find_patients(table(members, **columns), pattern=pattern, place="x.zip")
    return patients.patient.fillna("").tolist(), patients.note


def members(name, count) -> list[str]:
    """Image k of `name`: p is the number of its patient, each with two images."""
    eyes = ("left", "right"), ("OD", "OS"), ("L", "R"), ("od", "os")
    eyes += ("OI", "OD"), ("LA", "RA"), ("links", "rechts"), ("OG", "OD"), ("左眼", "右眼")
    words = {f"e{k}": pair for k, pair in enumerate(eyes)}
    return [
        name.format(p=k // 2, n=k % 2 + 1, k=k, **{e: pair[k % 2] for e, pair in words.items()}) for k in range(count)
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("{p}_{e0}.jpg", "..._left, ..._right"),
        ("in/P{p}-{e1}.png", "...-OD, ...-OS"),
        ("P{p} {e1}.jpg", "... OD, ... OS"),
        ("{p}_{e2}.jpg", "..._L, ..._R"),
        ("P{p}.{e2}.jpg", "....L, ....R"),
        ("P{p}{e2}.jpg", "...L, ...R"),
        ("{e1}_{p}.jpg", "OD_..., OS_..."),
        ("P{p}_{e3}_20210304.jpg", "..._od_..., ..._os_..."),
        ("study_{e0}_{p}.jpg", "..._left_..., ..._right_..."),
        ("{p}_{e0} eye.jpg", "..._left eye, ..._right eye"),
        ("{e0}/{p}.jpg", "left/, right/"),
        ("P{p}_{e4}.jpg", "..._OD, ..._OI"),
        ("P{p}_{e5}.jpg", "..._LA, ..._RA"),
        ("P{p}_{e6}.jpg", "..._links, ..._rechts"),
        ("P{p}_{e7}.jpg", "..._OD, ..._OG"),
        ("张{p}{e8}.jpg", "...右眼, ...左眼"),
    ],
)
def test_both_eyes_of_a_patient_are_known_by_their_names(name, shown):
    patients, note = found(members(name, 30))
    assert len(set(patients)) == 15
    assert patients[::2] == patients[1::2]
    assert note == f"patients: 15, from the names ({shown})"


def test_acquisitions_of_an_eye_are_of_its_patient():
    patients, _ = found([f"{k // 4}_{'lr'[k // 2 % 2]}{k % 2 + 1}.jpg" for k in range(32)])  # DeepDRiD
    assert patients == [str(k // 4) for k in range(32)]


def test_folders_of_classes_and_splits_and_the_case_of_a_word_do_not_part_the_eyes():
    paths = ["train/0/7_left.jpg", "train/2/7_right.jpg", "val/0/8_LEFT.jpg", "train/1/8_right.jpg"]
    patients, _ = found(paths, diagnosis=[0, 2, 0, 1], splits=["train", "train", "val", "train"])
    assert patients == ["7", "7", "8", "8"]


def test_names_that_start_anew_in_each_split_or_site_are_of_different_patients():
    eyes = [f"{k // 2}_{('left', 'right')[k % 2]}.jpg" for k in range(20)]
    patients, _ = found([f"train/{name}" for name in eyes] + [f"test/{name}" for name in eyes],
                        splits=["train"] * 20 + ["test"] * 20)  # fmt: skip
    assert len(set(patients)) == 20
    patients, _ = found([f"{site}/{name}" for site in ("munich", "lima") for name in eyes])
    assert len(set(patients)) == 20


@pytest.mark.parametrize("name", ["OD1", "OD2", "OS_1", "left"])
def test_a_folder_for_each_patient_is_read(name):
    names = [name, "photo", name.replace("O", "I"), "4"]
    paths = [f"clinic/patient{k // 4:03d}/{names[k % 4]}.jpg" for k in range(48)]
    patients, note = found(paths, diagnosis=[k % 5 for k in range(48)])
    assert patients == [f"patient{k // 4:03d}" for k in range(48)]
    assert note == "patients: 12, from a folder for each, such as patient000"


def test_two_folders_with_nothing_but_eyes_are_patients():
    patients, _ = found([f"P{k // 2}/{('left', 'right')[k % 2]}.png" for k in range(4)], diagnosis=[0, 1, 0, 1])
    assert patients == ["P0", "P0", "P1", "P1"]


def test_names_without_an_eye_do_not_part_the_eyes_of_others():
    paths = [f"{split}/{grade}/{n}.png" for split in ("train", "test") for grade in "01" for n in range(4)]
    paths += ["test/1/7_left.png", "train/0/7_right.png"]
    splits = [path.partition("/")[0] for path in paths]
    assert found(paths, diagnosis=[int(path.split("/")[1]) for path in paths], splits=splits)[0][-2:] == ["7", "7"]


def test_a_folder_for_each_patient_below_its_class_is_read():
    paths = [f"set/{k // 3 % 2}/P{k // 3 // 2}/{k}.jpg" for k in range(48)]
    patients, _ = found(paths, diagnosis=[k // 3 % 2 for k in range(48)])
    assert patients == [f"P{k // 3 // 2}" for k in range(48)]


@pytest.mark.parametrize("names", [("trainset", "testset"), ("entrenamiento", "prueba"), ("train_val", "test")])
def test_folders_of_splits_by_any_of_their_names_do_not_part_a_patient(names):
    paths = [f"{names[k % 2]}/P{k // 4}/{k}.jpg" for k in range(80)]
    patients, _ = found(
        paths, diagnosis=[k % 5 for k in range(80)], splits=[("train", "test")[k % 2] for k in range(80)]
    )
    assert patients == [f"P{k // 4}" for k in range(80)]


VISITS = ("20180304", "20200512"), ("v1", "v2"), ("1", "2"), ("baseline", "follow-up"), ("04.03.2018", "12.5.2020")


@pytest.mark.parametrize("name", ["P{p}_{v}_{e}.jpg", "{p}-{v}-{e}.png"])
@pytest.mark.parametrize("visits", [*VISITS, ("macula", "disc"), ("v1_20180304", "v2_20190304")])
def test_a_visit_before_the_eye_is_no_part_of_the_patient(name, visits):
    paths = [name.format(p=1000 + k // 4, v=visits[k // 2 % 2], e=("OD", "OS")[k % 2]) for k in range(40)]
    patients, note = found(paths)
    assert [patients.index(patient) for patient in patients] == [k // 4 * 4 for k in range(40)]
    assert note.startswith("patients: 10, from the names")


def test_a_patient_of_many_visits_does_not_hide_those_of_others():
    eyes, names = ("OD", "OS"), [(p, v) for p in range(1000, 1012) for v in range(1, 30 if p == 1000 else 3)]
    patients, _ = found([f"P{p}_v{v}_{eye}.jpg" for p, v in names for eye in eyes])
    assert patients == [f"P{p}" for p, _ in names for _ in eyes]


@pytest.mark.parametrize("name", ["{d}_P{p}_{e}.jpg", "P{p}_{e}_{d}.jpg", "{e}_P{p}_{d}.jpg", "{e}_{p}_{d}.jpg"])
def test_a_date_elsewhere_in_the_name_is_no_part_of_the_patient_either(name):
    dates = "20180304", "20200512"
    paths = [name.format(p=1000 + k // 4, d=dates[k // 2 % 2], e=("OD", "OS")[k % 2]) for k in range(40)]
    patients, _ = found(paths)
    assert [patients.index(patient) for patient in patients] == [k // 4 * 4 for k in range(40)]


@pytest.mark.parametrize(
    "name",
    ["2018{m:02d}0{d}_{e}.jpg", "IMG_2018{m:02d}0{d}_{e}.jpg", "2018{m:02d}01_{d}_{e}.jpg", "site{m}_{d:02d}_{e}.jpg"],
)
def test_a_date_or_number_that_alone_tells_patients_apart_stays(name):
    eyes = ("OD", "OS")
    paths = [name.format(m=k // 6 + 1, d=k // 2 % 3 + 1, e=eyes[k % 2]) for k in range(36)]
    patients, _ = found(paths)
    assert [patients.index(patient) for patient in patients] == [k // 2 * 2 for k in range(36)]


@pytest.mark.parametrize(
    "above", ["visit1|visit2", "2019|2020", "2019-03-04|2020-05-12", "macula|disc", "color|redfree"]
)
@pytest.mark.parametrize(
    "name", ["{g}/{v}/P{p}_{e}.jpg", "{v}/P{p}/{e}.jpg", "P{p}/{v}/{e}.jpg", "{g}/{v}/{e}/P{p}.jpg"]
)
def test_folders_of_visits_years_and_modalities_are_no_sites(name, above):
    folders, eyes = above.split("|"), ("OD", "OS")
    paths = [name.format(g=k // 4 % 2, p=k // 4, v=folders[k // 2 % 2], e=eyes[k % 2]) for k in range(80)]
    patients, _ = found(paths, diagnosis=[k // 4 % 2 for k in range(80)])
    assert [patients.index(patient) for patient in patients] == [k // 4 * 4 for k in range(80)]


@pytest.mark.parametrize("name", ["{p}/{e}.jpg", "T{p}/{e}.jpg", "{d}/{e}.jpg"])
def test_folders_called_as_years_or_visits_are_patients_if_they_hold_an_eye_each(name):
    eyes = ("OD", "OS")
    paths = [
        name.format(p=2001 + k // 2 if name[0] == "{" else k // 2, d=20180101 + k // 2, e=eyes[k % 2])
        for k in range(30)
    ]
    assert len(set(found(paths)[0])) == 15


@pytest.mark.parametrize(("name", "each"), [("P{p:03d}", 6), ("P{p:03d}", 12), ("{p}", 12), ("Garcia_{p}", 6)])
def test_a_folder_of_many_images_below_its_class_is_of_a_patient(name, each):
    paths = [f"set/{k // each % 3}/{name.format(p=4711 + 37 * (k // each))}/{k % each}.jpg" for k in range(12 * each)]
    patients, note = found(paths, diagnosis=[k // each % 3 for k in range(12 * each)])
    assert [patients.index(patient) for patient in patients] == [k // each * each for k in range(12 * each)]
    assert note.startswith("patients: 12, from a folder for each")


@pytest.mark.parametrize("name", ["{p}.{n}.jpg", "P{p}-{n}.jpg", "{p}_{n}.jpg"])
def test_pairs_of_names_are_patients(name):
    patients, note = found(members(name, 32))
    assert patients[::2] == patients[1::2]
    assert note.startswith("patients: 16, from pairs of names (...")


@pytest.mark.parametrize(
    "paths",
    [
        [f"IMG-{k}.jpg" for k in range(1, 41)],
        [f"IDRiD_{k:03d}.jpg" for k in range(1, 41)],
        [*members("P{p}-{n}.jpg", 32), "P3-3.jpg"],
        [*members("P{p}-{n}.jpg", 8), *(f"Q{k}-1.jpg" for k in range(20))],
        [f"{'abcde'[k % 5]}/{k}.jpg" for k in range(10)],
        [f"{k:04x}_{'LM'[k % 2]}.jpg" for k in range(40)],
        [f"image_{k}_{('left', 'right')[k % 2]}.jpg" for k in range(60)],  # running numbers
        [f"{k:03d}/image.jpg" for k in range(20)],
        [f"IMG_{k:04d}_{('OD', 'OS')[k % 2]}.jpg" for k in range(12)],
        [f"P{k}_OI.jpg" for k in range(12)],
    ],
    ids=lambda paths: paths[-1],
)
def test_other_names_show_no_patients(paths):
    patients, note = found(paths, diagnosis=[k % 5 for k in range(len(paths))])
    assert set(patients) == {""}
    assert note == UNKNOWN


def test_the_column_comes_first_and_the_note_counts_images_without_a_patient():
    patients, note = found(["1_left.jpg", "1_right.jpg", "2_left.jpg"], patient=["a", "b", ""])
    assert patients == ["a", "b", ""]
    assert note == "patients: 2, from the column; unknown for 1 image, which counts as its own"


@pytest.mark.parametrize("pattern", [r"(P\d+)_", r"/(?:x|(?P<patient>P\d+))_"])
def test_a_pattern_finds_patients_in_paths(pattern):
    patients, note = found(["a/P1_x.jpg", "b/P1_y.jpg", "a/P2_left.jpg", "a/zz.jpg"], pattern=pattern)
    assert patients == ["P1", "P1", "P2", ""]
    assert note == "patients: 2, from --patient_pattern; unknown for 1 image, which counts as its own"


def test_a_pattern_without_a_match_is_refused():
    with pytest.raises(UsageError) as refused:
        found(["a/1.jpg"], pattern="(P[0-9])")
    assert str(refused.value) == "x.zip: --patient_pattern '(P[0-9])' matches no image, such as a/1.jpg; correct it"


def test_patients_of_two_sources_are_distinct_patients_unless_each_has_one_eye():
    names = {"lima": ["7_left", "8_left", "8_right", "9"], "oslo": ["7_right", "8_left", "8_right", "9"]}
    sources = {
        name: LabelledImages("toy", None, table(images).assign(patient=[each[0] for each in images]))
        for name, images in names.items()
    }
    patients = {name: source.table["patient"].tolist() for name, source in distinct_patients(sources).items()}
    assert patients == {"lima": ["7", "8", "8", "9"], "oslo": ["7", "oslo/8", "oslo/8", "oslo/9"]}
