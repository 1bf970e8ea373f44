"""Label tables and images of both archives become one table, or one line names the row to fix."""

import zipfile

import pandas as pd
import pytest
from conftest import SHARED, table, write_folder, write_zip

from dr import UsageError
from dr.sources.archive import Archive
from dr.sources.csv_tables import read_grades
from dr.sources.kaggle import competition, eyepacs_2015
from dr.sources.patients import find_patients

ROWS = {"aa": 0, "bb": 2, "cc": 4}


def grades(text: str | bytes) -> dict[str, int]:
    data = text if isinstance(text, bytes) else text.encode()
    read = read_grades(data, name="train.csv", id_column="id_code", grade_column="diagnosis")
    return dict(zip(read["original"], read["diagnosis"], strict=True))


def members(*, folder="kaggle_retina/", images="train/", suffix=".png", rows=ROWS, csv=None) -> dict[str, bytes]:
    images_of_rows = {f"{folder}{images}{name}{suffix}": b"pixels" for name in rows}
    return {f"{folder}train.csv": csv or table("id_code,diagnosis", rows)} | images_of_rows


# --- label tables ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "id_code,diagnosis\naa,0\nbb,2\ncc,4\n",
        "id_code,diagnosis\naa,0\nbb,2\ncc,4",
        "\ufeffid_code,diagnosis\naa,0\nbb,2\ncc,4\n",
        "id_code,diagnosis\r\naa,0\r\nbb,2\r\ncc,4\r\n",
        "id_code,diagnosis\raa,0\rbb,2\rcc,4\r",
        " id_code , diagnosis \n aa , 0 \nbb\t,2\n  cc,4  \n",
        "id_code,diagnosis\n\naa,0\n,\nbb,2\n\ncc,4\n\n\n",
        "diagnosis,more,id_code\n0,x,aa\n2,,bb\n4,z,cc\n",
        'id_code,diagnosis\n"aa",0\n"bb","2"\ncc,4\n',
        "id_code,diagnosis\naa,0.0\nbb,2.0\ncc,4.0\n",
        "id_code,diagnosis\naa.png,0\nbb.JPEG,2\ncc,4\n",
        "id_code,diagnosis\naa,0\nbb,2\naa,0\ncc,4\naa.png,0\n",
    ],
    ids=[
        *("plain", "no last line end", "byte-order mark", "CRLF", "CR", "spaces", "blank lines", "other columns"),
        *("quotation marks", "decimals", "file names", "the same row again"),
    ],
)
def test_every_usual_way_to_write_a_table_gives_the_same_grades(text):
    assert grades(text) == ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id_code,diagnosis\naa,0\nbb,x\n", "train.csv, row 3: diagnosis is 'x', expected 0 to 4; correct it"),
        ("id_code,diagnosis\naa,5\n", "train.csv, row 2: diagnosis is '5', expected 0 to 4; correct it"),
        ("id_code,diagnosis\n\n\naa,-1\n", "train.csv, row 4: diagnosis is '-1', expected 0 to 4; correct it"),
        ("id_code,diagnosis\naa,1.5\n", "train.csv, row 2: diagnosis is '1.5', expected 0 to 4; correct it"),
        ("id_code,diagnosis\naa,nan\n", "train.csv, row 2: diagnosis is 'nan', expected 0 to 4; correct it"),
        ("id_code,diagnosis\naa,\n", "train.csv, row 2: diagnosis is empty, expected 0 to 4; correct it"),
        ("id_code,diagnosis\naa\n", "train.csv, row 2: 1 values, expected 2; correct the row"),
        ("id_code,diagnosis\naa,1\n ,2\n", "train.csv, row 3: id_code is empty; fill it in, or remove the row"),
        ("id_code,grade\naa,1\n", "train.csv: no column 'diagnosis' (the header is id_code,grade); add or rename it"),
        ("id_code;grade\naa;1\n", "train.csv: no column 'diagnosis' (the header is id_code,grade); add or rename it"),
        ("", "train.csv: the table is empty; expected a header id_code,diagnosis and one row per image"),
        ("id_code,diagnosis\n", "train.csv: a header but no rows; add one row per image"),
        ("id_code,diagnosis\n\n,\n", "train.csv: a header but no rows; add one row per image"),
        ("id_code,diagnosis\naa,\0\n", "train.csv: not a text file; save it as CSV in UTF-8"),
        (
            "id_code,diagnosis\naa,1\nbb,0\naa,1\naa,3\n",
            "train.csv, row 5: aa has diagnosis 3, but 1 in row 2; keep one of them",
        ),
        (
            "id_code,diagnosis\naa,1\naa.png,3\n",
            "train.csv, row 3: aa has diagnosis 3, but 1 in row 2; keep one of them",
        ),
        (
            'id_code,diagnosis\n"aa,1\n' + "bb,2\n" * 30_000,
            "train.csv: not a CSV table (field larger than field limit (131072)); check for an unclosed quotation mark",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_its_row_and_column(text, message):
    with pytest.raises(UsageError) as refused:
        grades(text)
    assert str(refused.value) == message


def test_a_table_in_another_encoding_is_refused():
    with pytest.raises(UsageError, match=r"train\.csv: not UTF-8 text \(byte 18\); save it as CSV in UTF-8"):
        grades("id_code,diagnosis\nä,1\n".encode("latin-1"))


# --- archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["kaggle_retina/", "", "wrapped/twice/"])
@pytest.mark.parametrize("suffix", [".png", ".JPG", ".Jpeg", ".tif", ".TIFF"])
def test_the_wrapping_folder_and_the_case_of_suffixes_do_not_matter(tmp_path, folder, suffix):
    archive = Archive(write_zip(tmp_path / "a.zip", members(folder=folder, suffix=suffix)))
    expected = pd.DataFrame(
        {
            "original": list(ROWS),
            "patient": None,
            "diagnosis": list(ROWS.values()),
            "member": [f"{folder}train/{name}{suffix}" for name in ROWS],
            "source_split": None,
        }
    )
    pd.testing.assert_frame_equal(competition(archive).table, expected)


def test_both_eyes_of_2015_belong_to_one_patient(tmp_path):
    rows = {"10_left": 0, "10_right": 1, "7_left": 4}
    images = {f"train/{name}.jpeg": b"pixels" for name in rows}
    archive = Archive(write_folder(tmp_path / "a", {"trainLabels.csv": table("image,level", rows)} | images))
    read = eyepacs_2015(archive).table
    assert read["original"].tolist() == ["10_left", "10_right", "7_left"]
    assert find_patients(read, pattern=None, place="a").patient.tolist() == ["10", "10", "7"]
    assert read["diagnosis"].tolist() == [0, 1, 4]


def test_a_row_whose_image_is_missing_has_no_member(tmp_path):
    content = members()
    del content["kaggle_retina/train/bb.png"]
    read = competition(Archive(write_zip(tmp_path / "a.zip", content))).table
    assert dict(zip(read["original"], read["member"].isna(), strict=True)) == {"aa": False, "bb": True, "cc": False}


@pytest.mark.parametrize("outer", ["./", "k//", "k/./"])
def test_folders_may_be_spelt_in_odd_ways(tmp_path, outer):
    content = {name.replace("kaggle_retina/", outer): data for name, data in members().items()}
    assert competition(Archive(write_zip(tmp_path / "a.zip", content))).table["member"].notna().all()


def test_images_of_other_folders_and_without_a_grade_do_not_count(tmp_path):
    content = members() | {"kaggle_retina/test/aa.png": b"", "kaggle_retina/train/zz.png": b"", "aa.png": b""}
    read = competition(Archive(write_zip(tmp_path / "a.zip", content))).table
    assert read["member"].tolist() == [f"kaggle_retina/train/{name}.png" for name in ROWS]


def test_images_without_a_row_are_counted_as_unlabelled(tmp_path):
    content = members() | {
        "kaggle_retina/train/zz.png": b"",
        "kaggle_retina/train.csv": table("ID_Code,Diagnosis", ROWS),
    }
    source = competition(Archive(write_zip(tmp_path / "a.zip", content)))
    assert (len(source.table), source.unlabelled) == (len(ROWS), 1)


def test_of_2015_the_first_folder_that_holds_images_is_read(tmp_path):
    rows = {"1_left": 0, "1_right": 3}
    content = {name: table("image,level", rows) for name in ("trainLabels.csv", "trainLabels_cropped.csv")}
    for folder in ("resized_train", "resized_train_cropped"):
        content |= {f"{folder}/{folder}/{name}.jpeg": b"" for name in rows}
    read = eyepacs_2015(Archive(write_zip(tmp_path / "a.zip", content))).table
    assert read["member"].tolist() == [f"resized_train/resized_train/{name}.jpeg" for name in rows]


def test_images_may_be_in_two_folders_beside_their_table(tmp_path):
    content = members() | {"kaggle_retina/train_images/dd.png": b""}
    content["kaggle_retina/train.csv"] = table("id_code,diagnosis", ROWS | {"dd": 1})
    source = competition(Archive(write_zip(tmp_path / "a.zip", content)))
    assert source.table["member"].notna().all()
    assert source.unlabelled == 0


def test_a_name_with_a_dot_is_not_truncated(tmp_path):
    read = competition(Archive(write_zip(tmp_path / "a.zip", members(rows={"IM.0001": 1, "IM.0002": 3})))).table
    assert read["original"].tolist() == ["IM.0001", "IM.0002"]
    assert read["member"].tolist() == ["kaggle_retina/train/IM.0001.png", "kaggle_retina/train/IM.0002.png"]


def refusal(path, reader) -> str:
    with pytest.raises(UsageError) as refused:
        reader(Archive(path))
    return str(refused.value)


def test_two_images_of_one_name_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", members() | {"kaggle_retina/train/more/aa.jpeg": b"pixels"})
    expected = f"{path}: kaggle_retina/train/aa.png and kaggle_retina/train/more/aa.jpeg have the same name; rename one"
    assert refusal(path, competition) == expected


def test_an_archive_without_its_images_is_refused(tmp_path):
    content = members() | {"kaggle_retina/train.csv": table("id_code,diagnosis", {"dd": 1, "ee": 2})}
    path = write_zip(tmp_path / "a.zip", content)
    expected = (
        f"{path}: kaggle_retina/train.csv: none of the 2 listed images is in kaggle_retina/train/ "
        "or kaggle_retina/train_images/; add them"
    )
    assert refusal(path, competition) == expected


def test_an_archive_without_its_label_table_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", members())
    message = "no label table trainLabels.csv or trainLabels_cropped.csv; check that this is the right archive"
    assert refusal(path, eyepacs_2015) == f"{path}: {message}"


def test_the_archive_is_named_beside_the_row(tmp_path):
    path = write_zip(tmp_path / "a.zip", members(csv=b"id_code,diagnosis\naa,9\n"))
    assert (
        refusal(path, competition)
        == f"{path}: kaggle_retina/train.csv, row 2: diagnosis is '9', expected 0 to 4; correct it"
    )


def test_a_damaged_label_table_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", members(csv=b"id_code,diagnosis\naa,1"), compression=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"id_code,diagnosis\naa,1", b"id_code,diagnosis\naa,2", 1))
    message = f"{path}: kaggle_retina/train.csv cannot be read: the archive is damaged at kaggle_retina/train.csv"
    assert refusal(path, competition).startswith(message)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real archives are missing")
@pytest.mark.parametrize(
    ("name", "reader", "counts"),
    [
        ("diabetic-retinopathy-classification-f1-score-4.zip", competition, [304, 60, 160, 35, 41]),
        ("train_image_resized.zip", eyepacs_2015, [1400, 240, 435, 66, 24]),
    ],
)
def test_the_real_archives_have_their_known_counts(name, reader, counts):
    read = reader(Archive(SHARED / name)).table
    assert read["diagnosis"].value_counts().sort_index().tolist() == counts
    assert read["member"].notna().all()
