import re

import pytest

from dr import GRADES, UsageError
from dr.prediction.labels import read_labels
from dr.sources.columns import Columns


def read(tmp_path, text, images=("a.png", "b.png", "c.png"), *, classes=GRADES, name="labels.csv", **columns):
    """The labels of a table of these images, whose ids are their stems."""
    (tmp_path / name).write_text(text)
    id_of = {image: image.rpartition(".")[0] for image in images}
    return read_labels(str(tmp_path / name), id_of, classes=classes, columns=Columns(**columns))


def grades(*given, **named):
    return read(*given, **named).grades.to_dict()


def test_numbers_are_class_names_if_all_names_are_numbers_and_indices_otherwise(tmp_path):
    for twice in ("2", "2.0"):
        table = f"id_code,diagnosis\na,1\nb,{twice}\nc,4\n"
        assert grades(tmp_path, table, classes=("1", "2", "4")) == {"a": 0, "b": 1, "c": 2}
    for wrong in ("3", "5", "1_0", "1.5"):
        with pytest.raises(UsageError, match=rf"row 3: diagnosis is '{wrong}', expected one of 1, 2, 4$"):
            read(tmp_path, f"id_code,diagnosis\na,1\nb,{wrong}\n", classes=("1", "2", "4"))
    with pytest.raises(UsageError, match=r"row 3: diagnosis is 'brid', expected one of cat, bird$"):
        read(tmp_path, "id_code,diagnosis\na,cat\nb,brid\n", classes=("cat", "bird"))
    assert grades(tmp_path, "id_code,diagnosis\na,1\nb,0\n", classes=("cat", "dog")) == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("classes", "spellings"),
    [
        (("No_DR", "DR"), ("no dr", "DR")),
        (("No DR", "Mild"), ("normal", "mild NPDR")),
        (("cat", "dog"), ("Cat", "dog")),
    ],
)
def test_labels_match_classes_in_every_spelling_that_data_py_knows(tmp_path, classes, spellings):
    table = "id_code,diagnosis\na,{}\nb,{}\n".format(*spellings)
    assert grades(tmp_path, table, classes=classes) == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("aptos.csv", "id_code,diagnosis\na,2\nb,0\n"),
        ("eyepacs.csv", "image,level\na,2\nb,0\n"),
        ("idrid.csv", "Image name,Retinopathy grade,Risk of macular edema ,,\na,2,0,,\nb,0,1,,\n"),
        (
            "messidor.csv",
            "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable\na.png,2,0,1\nb.png,0,0,1\n",
        ),
        ("words.csv", "extra,filename,grade\nx,a.PNG,Moderate NPDR\nx,b.png,No DR\n"),
        ("solution.csv", "image,level,Usage\na,2,Public\nb,0,Private\n"),
        ("list.txt", "a.png,2\nb.png,0\n"),
        ("tabs.csv", "image\tlevel\na\t2\nb\t0\n"),
    ],
)
def test_tables_of_public_datasets_are_read_without_flags(tmp_path, name, text):
    assert grades(tmp_path, text, name=name) == {"a": 2, "b": 0}


@pytest.mark.parametrize("text", ["", "nan", "-1", "5", "5.0", "ungradable", "Not gradable"])
def test_rows_without_a_grade_are_not_scored(tmp_path, text):
    found = read(tmp_path, f"image_id,adjudicated_dr_grade\na,2\nb,{text}\nc,0\n")
    assert (found.grades.to_dict(), found.ungraded) == ({"a": 2, "c": 0}, {"b"})
    assert found.note == f"{tmp_path}/labels.csv: image 'image_id', label 'adjudicated_dr_grade'"


def test_5_is_an_error_where_it_cannot_mean_ungradable(tmp_path):
    with pytest.raises(UsageError, match=r"row 3: diagnosis is '5', expected one of 1, 2, 4"):
        read(tmp_path, "id_code,diagnosis\na,1\nb,5\n", classes=("1", "2", "4"))


@pytest.mark.parametrize(
    "images", [("val/main_a.jpeg", "val/main_b.jpeg"), ("main_a.jpeg", "main_b.jpeg"), ("a.png", "b.png")]
)
def test_the_label_table_of_data_py_matches_preprocessed_images_and_their_originals(tmp_path, images):
    table = "path,diagnosis,source,original,patient,group\nval/main_a.jpeg,3,main,a,7,\nval/main_b.jpeg,1,main,b,7,1\n"
    found = read(tmp_path, table, images)
    assert list(found.grades) == [3, 1]
    assert list(found.patients) == ["main/7", "main/7"]
    assert list(found.originals.values()) == ["a", "b"]


def test_a_split_in_front_of_an_original_is_no_part_of_its_name(tmp_path):
    table = "path,diagnosis,source,original,patient,group\ntest/main_test_x_1.jpeg,3,main,test_x_1,,\n"
    for images in (("b. Testing Set/x_1.jpg",), ("a. Training Set/x_1.jpg", "b. Testing Set/x_1.jpg")):
        assert grades(tmp_path, table, images, name="labels_test.csv") == {"b. Testing Set/x_1": 3}


def test_the_table_of_a_split_means_the_images_of_that_split(tmp_path):
    images = ("a. Training Set/x_1.jpg", "b. Testing Set/x_1.jpg", "b. Testing Set/x_2.jpg")
    table = "Image name,Retinopathy grade\nx_1,4\nx_2,0\n"
    assert grades(tmp_path, table, images, name="b. IDRiD_Disease Grading_Testing Labels.csv") == {
        "b. Testing Set/x_1": 4,
        "b. Testing Set/x_2": 0,
    }
    with pytest.raises(UsageError, match=r"both match x_1 in the table; add their folders to it, or pass one of"):
        read(tmp_path, table, images)


def test_columns_can_be_named(tmp_path):
    text = "photo,first,second,person\na,1,4,7\nb,0,3,7\n"
    found = read(tmp_path, text, id="photo", label="second", patient="person")
    assert (found.grades.to_dict(), found.patients.to_dict()) == ({"a": 4, "b": 3}, {"a": "7", "b": "7"})
    with pytest.raises(UsageError, match=r"no column 'third' \(the header is photo,first,second,person\)"):
        read(tmp_path, text, label="third")


def test_a_choice_between_two_columns_is_refused_with_its_flag(tmp_path):
    text = "image,reader one grade of dr,reader two grade of dr\na,1,4\nb,0,3\nc,2,2\n"
    with pytest.raises(UsageError, match=r"could each be the label; choose one, as --label_column") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_the_grade_of_the_own_eye_is_taken(tmp_path):
    text = "image_id,patient_DR_Level,left_eye_DR_Level,right_eye_DR_Level\na,3,3,\nb,3,,1\n"
    assert grades(tmp_path, text) == {"a": 3, "b": 1}


def test_two_classes_are_not_taken_for_the_first_two_of_five_grades(tmp_path):
    with pytest.raises(UsageError, match=r"'DR' holds 0 and 1, without and with retinopathy, but the checkpoint has 5"):
        read(tmp_path, "ID,Disease_Risk,DR\na,1,1\nb,0,0\n")
    assert grades(tmp_path, "ID,Disease_Risk,DR\na,1,1\nb,0,0\n", classes=("No DR", "DR")) == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id_code,diagnosis\na,1\nb,7\n", r"labels\.csv, row 3: diagnosis is '7', expected 0 to 4"),
        ("id_code,diagnosis\na,1\na,2\n", r"labels\.csv, row 3: a has diagnosis 2, but 1 in row 2; keep one"),
        ("id_code,diagnosis\n,1\nb,1\n", r"labels\.csv, row 2: id_code is empty"),
        ("id_code,diagnosis\n", r"labels\.csv: no rows with labels; pass a table"),
        ("", r"labels\.csv: no rows with labels; pass a table"),
        ("id_code,diagnosis\nelsewhere,1\n", r"none of its 1 ids matches one of the 3 images .*elsewhere and a"),
        ("id_code,diagnosis\na,\nelsewhere,1\n", r"no image has a grade in the column 'diagnosis'"),
        ("x/a,1\ny/a,2\n", r"none of its 2 ids"),
    ],
)
def test_an_invalid_table_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, text)
    assert re.match(r"--labels \S+labels\.csv\b", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_missing_table_and_a_folder_are_refused(tmp_path):
    for path, fault in (("none.csv", "not found"), (str(tmp_path), "a folder")):
        with pytest.raises(UsageError, match=rf"--labels {path}: {fault}; pass a table"):
            read_labels(path, {"a.png": "a"}, classes=GRADES, columns=Columns())
