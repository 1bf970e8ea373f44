"""Tables as clinics keep them: several sheets in a workbook, a title above the header, archives beside the images."""

import openpyxl
import pytest
from conftest import write_zip
from labelled_folders import IMAGE, labels, read, refusal, write

from dr import GRADES, UsageError
from dr.prediction.labels import read_labels
from dr.sources.columns import Columns
from dr.sources.table import ImageNames, make_table

TEN = [f"photos/{name}" for name in "abcdefghij"]


def sheet(header: list[str], names: str) -> list[list]:
    return [header, *([name, number % 5, *[""] * (len(header) - 2)] for number, name in enumerate(names))]


def book(folder, *sheets: tuple[str, list[list]], images=TEN, name="labels.xlsx"):
    """A folder with images and a workbook of (title, rows)."""
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for title, content in sheets:
        added = workbook.create_sheet(title)
        for row in content:
            added.append(row)
    workbook.save(folder / name)
    return write(folder, images=images)


# --- sheets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [["Image ", "Grade"], ["image", "grade", "comment"], ["image", "grade"]])
def test_a_sheet_for_each_split_is_a_table_for_each_split(tmp_path, header):
    source = read(book(tmp_path, ("Train", sheet(["image", "grade"], "abcde")), ("Test", sheet(header, "fghij"))))
    assert dict(zip(source.table["original"], source.table["source_split"], strict=True)) == (
        dict.fromkeys("abcde", "train") | dict.fromkeys("fghij", "test")
    )
    assert source.unlabelled == 0


def test_a_sheet_is_of_its_own_split_whatever_the_file_is_called(tmp_path):
    splits = ("Train", sheet(["image", "grade"], "abcde")), ("Test", sheet(["image", "grade"], "fghij"))
    assert set(read(book(tmp_path, *splits, name="test.xlsx")).table["source_split"]) == {"train", "test"}


def test_sheets_of_hospitals_are_one_table_and_table_names_one_of_them(tmp_path):
    book(tmp_path, ("Lyon", sheet(["Bild", "DR grade"], "abcde")), ("Wien", sheet(["Bild", "dr_grade"], "fghij")))
    source = read(tmp_path)
    assert len(source.table) == 10
    assert "labels.xlsx[Lyon], labels.xlsx[Wien]: read as one table, they name different images" in source.notes
    for name in ("labels.xlsx[Wien]", "Wien"):
        assert set(read(tmp_path, table=name).table["original"]) == set("fghij")
    for name in ("labels.xlsx", "labels"):
        assert len(read(tmp_path, table=name).table) == 10
    for name in ("Rom", ""):
        assert refusal(tmp_path, table=name).endswith("use one of labels.xlsx[Lyon], labels.xlsx[Wien]")


def test_sheets_that_contradict_each_other_are_refused_with_the_flag(tmp_path):
    other = [["image", "grade"], ["a", 4], ["b", 3]]
    book(tmp_path, ("Reader 1", sheet(["image", "grade"], "abcdefghij")), ("Reader 2", other))
    assert refusal(tmp_path) == (
        "labels.xlsx[Reader 1] and labels.xlsx[Reader 2] label a differently; choose one, as "
        "--table 'labels.xlsx[Reader 1]'"
    )
    assert len(read(tmp_path, table="labels.xlsx[Reader 2]").table) == 2


@pytest.mark.parametrize("legend", [[["Legend"], ["0 = No DR"]], [["Grade", "Meaning"], [0, "No DR"], [1, "Mild"]]])
def test_a_legend_before_the_table_is_not_used_and_named(tmp_path, legend):
    source = read(book(tmp_path, ("Legend", legend), ("Data", sheet(["image", "grade"], "abcdefghij"))))
    assert len(source.table) == 10
    assert "labels.xlsx[Legend]: not used (no label column)" in source.notes


def test_a_legend_whose_numbers_are_names_of_images_is_not_used(tmp_path):
    names = [str(number) for number in range(10)]
    legend = [["Grade", "Meaning"], *([grade, word] for grade, word in enumerate(GRADES))]
    data = [["image", "grade"], *([int(name), number % 5] for number, name in enumerate(reversed(names)))]
    source = read(book(tmp_path, ("Data", data), ("Legend", legend), images=names))
    assert labels(source)["9"] == 0
    assert "labels.xlsx[Legend]: not used, it explains the grades" in source.notes
    assert len(read(book(tmp_path, ("Legend", legend), images=names)).table) == 5  # a table of its own


def test_a_row_of_a_sheet_has_the_number_that_excel_shows(tmp_path):
    content = [[], ["Findings 2021"], [], *sheet(["image", "grade"], "abcdefghij")]
    content[6][1] = "x"
    assert refusal(book(tmp_path, ("Data", content))).startswith("labels.xlsx, row 7: grade is 'x'")


def test_the_true_grades_for_predictions_are_in_the_sheet_that_names_the_images(tmp_path):
    train, test = sheet(["image", "grade"], "abcde"), sheet(["image", "grade"], "fghij")
    path = book(tmp_path, ("Train", train), ("Test", test), images=()) / "labels.xlsx"
    given = {"classes": ("0", "1", "2", "3", "4"), "columns": Columns()}
    found = read_labels(str(path), {f"{name}.png": name for name in "fghij"}, **given)
    assert found.grades.to_dict() == {name: grade for grade, name in enumerate("fghij")}
    with pytest.raises(UsageError, match=r"the sheets \[Train\] and \[Test\] each name images; save the one to use"):
        read_labels(str(path), {f"{name}.png": name for name in "aj"}, **given)


# --- titles ---------------------------------------------------------------------------------------

TITLES = {
    "cells": ["Findings 2021;;"],
    "line": ["Findings, Clinic, 2021"],
    "several": ["Export", "Clinic;Vienna;", "", "2021-03-01;;"],
}


@pytest.mark.parametrize("title", TITLES.values(), ids=TITLES)
def test_the_header_is_found_below_a_title(tmp_path, title):
    table = [*title, "Bild;Befund;Alter", *(f"{name};{number};60" for number, name in enumerate("abcde"))]
    (tmp_path / "labels.csv").write_text("\n".join(table))
    source = read(write(tmp_path, images=TEN[:5]))
    assert labels(source) == dict(zip("abcde", range(5), strict=True))
    assert source.notes[0] == "labels.csv: image 'Bild', label 'Befund'; not used: 'Alter'"


def test_a_title_in_a_sheet_does_not_set_its_width(tmp_path):
    content = [["Findings 2021"], ["image", "grade", "comment"], *(["abcde"[n], n] for n in range(5))]
    assert labels(read(book(tmp_path, ("Data", content), images=TEN[:5]))) == dict(zip("abcde", range(5), strict=True))


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ([["image", ""], ["a", "0"], ["b", "1"]], ("image", "column 2")),  # a header without some of its names
        ([["Bild", ""], ["a", "0"], ["b", "1"]], ("Bild", "column 2")),
        ([["a", ""], ["b", "0"], ["b", "1"]], ("column 1", "column 2")),  # a first image without its label
        ([["1", ""], ["2", "0"], ["3", "1"]], ("1", "column 2")),  # images that are not in the archive
        ([["names"], ["a"], ["b"]], ("names",)),
    ],
)
def test_a_first_row_with_fewer_values_may_be_the_header_or_data(content, header):
    assert make_table(content, place="t.csv", images=ImageNames(["a.png", "b.png"])).header == header


# --- lists and archives ---------------------------------------------------------------------------


def test_a_list_of_paths_with_spaces_has_no_labels(tmp_path):
    names = [f"{grade}/{grade[0]}{n}" for grade in ("No DR", "Mild", "Severe NPDR") for n in range(4)]
    (tmp_path / "all.txt").write_text("\n".join(f"{name}.png" for name in names))
    source = read(write(tmp_path, images=names))
    assert (source.kind, len(source.table)) == ("class folders", 12)


def test_archives_in_a_folder_without_images_are_to_be_unpacked(tmp_path):
    for name in ("train.zip", "test.zip"):
        write_zip(tmp_path / name, {"a.png": IMAGE})
    (tmp_path / "labels.csv").write_text("image,level\na,0\nb,1\n")
    assert refusal(tmp_path) == (
        "no images, but archives (test.zip, train.zip); unpack them there, or pass the path of one archive"
    )
    for name in ("a.rar", "b.tar.gz", "c.7z"):
        (tmp_path / name).write_bytes(b"")
    assert "(a.rar, b.tar.gz, c.7z and 2 more)" in refusal(tmp_path)


def test_archives_beside_images_are_noted_and_packed_tables_are_not(tmp_path):
    write(tmp_path, images=[f"{grade}/{grade}{n}" for grade in "012" for n in range(5)])
    write_zip(tmp_path / "more.csv.zip", {"more.csv": b"name,age\nx,1\n"})
    assert not any("not read" in note for note in read(tmp_path).notes)
    write_zip(tmp_path / "test.zip", {"a.png": IMAGE})
    assert "test.zip: not read; unpack to use the images in it" in read(tmp_path).notes
