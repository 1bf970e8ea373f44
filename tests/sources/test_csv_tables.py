"""Every way of writing a label table gives the same rows; harmful and damaged files are refused in one line."""

import datetime
import gzip
import io
import re
import sys
import zipfile

import openpyxl
import pytest
from conftest import write_zip

from dr import UsageError
from dr.cli.run import _describe
from dr.prediction.labels import read_labels
from dr.prediction.submission import read_sample
from dr.sources import workbooks
from dr.sources.archive import Archive
from dr.sources.columns import Columns
from dr.sources.csv_tables import is_table, read_grades, read_header, read_rows, read_table, unsupported_table

ROWS = [["image", "level"], ["a", "0"], ["b", "2"]]
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def workbook(*sheets: list[list], hidden: int = 0) -> bytes:
    """An .xlsx of these sheets, each a list of rows; the first `hidden` ones are hidden."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {number}")
        sheet.sheet_state = "hidden" if number < hidden else "visible"
        for row in rows:
            sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file.getvalue()


def with_sheet(xml: bytes) -> bytes:
    """An .xlsx whose only sheet is this XML."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(workbook([["x"]]))) as book,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in book.namelist():
            new.writestr(name, xml if "worksheets" in name else book.read(name))
    return file.getvalue()


def refusal(data: bytes, name: str) -> str:
    """The message of the UsageError, which must be one line that begins with the name."""
    with pytest.raises(UsageError) as refused:
        read_rows(data, name=name)
    message = str(refused.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    return message.removeprefix(f"{name}: ")


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "\ufeffsep=;", "sep=;;", '\ufeff"sep=;"'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_first_line_with_the_delimiter_is_used_and_dropped(first, end):
    text = end.join([first, "image;Risk of edema, grade", "a;0,5", ""])
    assert read_rows(text.encode(), name="a.csv") == [["image", "Risk of edema, grade"], ["a", "0,5"]]


@pytest.mark.parametrize(("first", "row"), [("sep=,", "a;b,1"), ("sep=\t", "a;b\t1"), ("sep=\\t", "a;b\t1")])
def test_any_delimiter_may_be_stated(first, row):
    assert read_rows(f"{first}\n{row}\n".encode(), name="a.csv") == [["a;b", "1"]]


def test_a_file_with_nothing_but_the_delimiter_is_an_empty_table():
    with pytest.raises(UsageError, match=r"a\.csv: the table is empty"):
        read_table(b"sep=;\n", name="a.csv", columns=("image",))


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("name;Risk of edema, grade;x\na;1;2\nb;0;1", 3),  # a comma in the header alone
        ("name;grade;score\na;1;0,5\nb;0;1,5", 3),  # decimal commas
        ("name;edema, grade;score\na;1;0,5\nb;0;1,5", 3),  # one comma in each row
        ("name,notes;more,grade\na,x,1\nb,y;z,0", 3),
        ('name,grade\n"a;1","2"\n"b;1","3"', 2),
        ("path,grade\nx|y|1.png,0\nx|y|2.png,1", 2),
        ("name|grade\na, b|0\nc|1", 2),
        ("name\tgrade\na b\t0\nc, d\t1", 2),
        ("name;grade\na;0\nb\nc;1", 2),  # a damaged row does not change the delimiter
        ("name\na\nb", 1),
        ("", None),
    ],
)
def test_the_delimiter_is_the_one_that_gives_most_rows_equally_many_columns(text, columns):
    rows = read_rows(text.encode(), name="a.csv")
    assert (len(rows[0]) if rows else None) == columns


def test_on_a_tie_a_tsv_is_delimited_by_tabs_and_a_csv_by_commas():
    text = b"name, first\tgrade\na, b\t0"
    assert read_rows(text, name="a.tsv") == [["name, first", "grade"], ["a, b", "0"]]
    assert read_rows(text, name="a.csv") == [["name", "first\tgrade"], ["a", "b\t0"]]


def test_a_long_table_is_judged_by_whole_rows():
    rows = [f"image_{number};{number % 5}" for number in range(20_000)]
    assert {len(row) for row in read_rows("\n".join(["image;level", *rows]).encode(), name="a.csv")} == {2}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.xlsx"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_with_tabs_is_read_under_any_name_and_in_utf_16(name, encoding):
    text = "image\tlevel\r\na\t0\r\nb\t2\r\n".encode(encoding)
    assert read_rows(text, name=name) == ROWS


def test_other_encodings_are_refused():
    assert refusal("größe,1".encode("latin-1"), "a.csv") == "not UTF-8 text (byte 2); save it as CSV in UTF-8"
    assert refusal("a,1".encode("utf-16")[:-1], "a.csv") == "damaged UTF-16 text (byte 6); save it as CSV in UTF-8"
    assert refusal("a,1".encode("utf-16-le"), "a.csv") == "not a text file; save it as CSV in UTF-8"


def test_blank_rows_above_the_header_are_skipped_and_counted(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\n;;\nimage;level;\na;0;\nb;x;\n")
    assert read_header(Archive(tmp_path), "a.csv") == ["image", "level", ""]
    table = read_table((tmp_path / "a.csv").read_bytes(), name="a.csv", columns=("level",))
    assert table.to_dict("list") == {"level": ["0", "x"], "row": [4, 5]}


# --- lists in .txt --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("007-0004-000.jpg 0\n007-0007-100.jpg 1\n", [["007-0004-000.jpg", "0"], ["007-0007-100.jpg", "1"]]),
        ("my image 1.jpg 3\nmy image 2.jpg 0", [["my image 1.jpg", "3"], ["my image 2.jpg", "0"]]),
        ("IMG 1.jpg  3\nIMG 2.jpg\t0", [["IMG 1.jpg", "3"], ["IMG 2.jpg", "0"]]),
        ('"my image.jpg" 3\nb.jpg 0', [["my image.jpg", "3"], ["b.jpg", "0"]]),
        ("my image 1 3\nmy image 2 0", [["my image 1", "3"], ["my image 2", "0"]]),
        ("a.jpg 3 left\nb.jpg 0 right", [["a.jpg", "3", "left"], ["b.jpg", "0", "right"]]),
        ("image level eye\n1 3 L\n2 0 R", [["image", "level", "eye"], ["1", "3", "L"], ["2", "0", "R"]]),
        ("image level\nmy image.jpg 3", [["image", "level"], ["my image.jpg", "3"]]),
        ("a.jpg,3\nb.jpg,0", [["a.jpg", "3"], ["b.jpg", "0"]]),
        ("a b.jpg;3\nb.jpg;0", [["a b.jpg", "3"], ["b.jpg", "0"]]),
        ("a.jpg|3\r\n\r\nb.jpg|0", [["a.jpg", "3"], [], ["b.jpg", "0"]]),
        ("a.jpg 3\n\nb.jpg 0\n", [["a.jpg", "3"], [], ["b.jpg", "0"]]),
        ("a.jpg\nb.jpg", [["a.jpg"], ["b.jpg"]]),
        ("No DR/a.jpg\nMild/b.jpg", [["No DR/a.jpg"], ["Mild/b.jpg"]]),
        ("No DR/a.jpg\nMild NPDR/b.jpg", [["No DR/a.jpg"], ["Mild NPDR/b.jpg"]]),
        ("my image 1.jpg\nmy image 2.jpg", [["my image 1.jpg"], ["my image 2.jpg"]]),
        ("No DR/a.jpg 0\nMild/b.jpg 1", [["No DR/a.jpg", "0"], ["Mild/b.jpg", "1"]]),
        ("3 a.jpg\n0 b.jpg", [["3", "a.jpg"], ["0", "b.jpg"]]),
        ("No DR a.jpg\nMild b.jpg", [["No DR", "a.jpg"], ["Mild", "b.jpg"]]),
    ],
)
def test_a_list_has_a_name_and_a_label_in_each_line(text, rows):
    assert read_rows(text.encode(), name="train.txt") == rows


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\0\1\2",
        b'He said, "this is\nprose; it has, as such, commas.\n',
        b'"' + b"x" * 200_000,
        "Lizenz für größere Datensätze".encode("latin-1"),
        b"\xff\xfe\x00",
    ],
)
def test_prose_is_read_without_an_error(data):
    assert all(isinstance(value, str) for row in read_rows(data, name="README.txt") for value in row)


# --- Excel ----------------------------------------------------------------------------------------


def test_cells_are_the_text_that_a_csv_would_have():
    date = datetime.datetime(2024, 5, 1)
    cells = ["001", 2, 2.0, 0.5, True, None, date, date.replace(hour=3), "#N/A", " x "]
    expected = ["001", "2", "2", "0.5", "TRUE", "", "2024-05-01", "2024-05-01 03:00:00", "#N/A", "x"]
    assert read_rows(workbook([cells]), name="a.xlsx") == [expected]


def test_rows_are_as_wide_as_the_header_and_end_with_the_last_value():
    rows = [[], ["image", "level"], ["a"], [], ["b", 2], [None, None], ["", ""]]
    blank = ["", ""]  # counted: a message names the row as Excel does
    assert read_rows(workbook(rows), name="a.xlsx") == [blank, ["image", "level"], ["a", ""], blank, ["b", "2"]]


def test_the_first_visible_sheet_with_a_table_is_read():
    book = workbook([["list of choices"]], [], [["Legend"], ["0 = none"]], ROWS, [["0", "none"]], hidden=1)
    assert read_rows(book, name="a.xlsx") == ROWS
    assert read_rows(workbook(ROWS, hidden=0), name="A.XLSX") == ROWS
    assert read_rows(workbook([]), name="a.xlsx") == []


def test_two_sheets_with_one_header_are_refused():
    for header in (["image", "level"], ["Image ", "level", "comment"]):
        message = refusal(workbook(ROWS, [[], header, ["c", 1]]), "a.xlsx")
        assert message == "the sheets [sheet 0] and [sheet 1] have the same columns; save each as a CSV"
    assert read_rows(workbook(ROWS, [["image", "other"]]), name="a.xlsx") == ROWS


def test_rows_that_a_caller_changes_are_read_again_as_they_were():
    book = workbook(ROWS)
    read_rows(book, name="a.xlsx")[1].clear()
    assert read_rows(book, name="a.xlsx") == ROWS


def test_a_workbook_is_recognised_whatever_it_is_called():
    assert read_rows(workbook(ROWS), name="labels.csv") == ROWS


def test_a_sheet_that_declares_one_cell_is_read_whole():
    with zipfile.ZipFile(io.BytesIO(workbook(ROWS))) as book:
        xml = book.read("xl/worksheets/sheet1.xml")
    values = [b'<c r="%s%d"><v>%d</v></c>' % (column, row, row) for row in (1, 2) for column in (b"A", b"B")]
    rows = b"".join(b'<row r="%d">%s</row>' % (n + 1, b"".join(values[2 * n : 2 * n + 2])) for n in range(2))
    xml = re.sub(b"<sheetData>.*</sheetData>", b"<sheetData>%s</sheetData>" % rows, xml, flags=re.DOTALL)
    book = with_sheet(re.sub(b'<dimension ref="[^"]*"', b'<dimension ref="A1"', xml))
    assert read_rows(book, name="a.xlsx") == [["1", "1"], ["2", "2"]]


def sheet_of(rows: bytes) -> bytes:
    return with_sheet(f'<worksheet xmlns="{SHEET}"><sheetData>'.encode() + rows + b"</sheetData></worksheet>")


@pytest.mark.parametrize(
    ("book", "message"),
    [
        (workbook(ROWS)[:-50], "truncated or damaged; download it again, or save it as CSV"),
        (b"PK\3\4" + b"x" * 99, "truncated or damaged; download it again, or save it as CSV"),
        (with_sheet(b"<x>"), "damaged, or not as Excel writes it (no element found: line 1, column 3); save it as CSV"),
        (sheet_of(b" " * (2 << 20)), "member 'xl/worksheets/sheet1.xml' would expand 9"),
        (sheet_of(b'<row r="2000000000"><c r="A2000000000"><v>1</v></c></row>'), "more than 1,000 rows or"),
        (
            sheet_of(b"".join(b'<row r="%d"><c r="XFD%d"><v>1</v></c></row>' % (n, n) for n in range(1, 9))),
            "more than 1,000 rows or 100,000 cells; save the table as CSV",
        ),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99,
            "an old (.xls) or password-protected Excel file; save it as",
        ),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8 text (byte 0); save it as CSV in UTF-8"),
    ],
    ids=["truncated", "zip", "xml", "bomb", "row", "column", "xls", "png"],
)
def test_a_damaged_or_harmful_workbook_is_refused(book, message, monkeypatch):
    monkeypatch.setattr(workbooks, "MAX_ROWS", 1000)
    monkeypatch.setattr(workbooks, "MAX_VALUES", 100_000)
    assert refusal(book, "a.xlsx").startswith(message)


def test_without_openpyxl_the_error_has_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        read_rows(workbook([["read by no other test"]]), name="a.xlsx")
    line = _describe(raised.value, go_on="", memory="")
    assert line == "openpyxl is not installed; use the environment of `make env`, or pip install openpyxl"


# --- packed tables --------------------------------------------------------------------------------

TABLE = b"image,level\na,0\nb,2\n"


@pytest.mark.parametrize("name", ["trainLabels.csv.zip", "TRAINLABELS.CSV.ZIP", "trainLabels.csv"])
def test_a_zip_with_one_table_is_that_table(name):
    packed = zipped(
        {"trainLabels.csv": TABLE, "__MACOSX/._trainLabels.csv": b"\0", "README.txt": b"The labels, graded."}
    )
    assert read_rows(packed, name=name) == ROWS


def test_a_gzip_a_list_and_a_workbook_may_be_packed():
    assert read_rows(gzip.compress(TABLE), name="a.csv.gz") == ROWS
    assert read_rows(gzip.compress(b"a.jpg 0\nb.jpg 2"), name="a.txt.gz") == [["a.jpg", "0"], ["b.jpg", "2"]]
    assert read_rows(zipped({"list.txt": b"a b.jpg 0\nb.jpg 2"}), name="a.txt.zip") == [
        ["a b.jpg", "0"],
        ["b.jpg", "2"],
    ]
    assert read_rows(zipped({"book.xlsx": workbook(ROWS)}), name="a.xlsx.zip") == ROWS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            zipped({"a.csv": b"x", "b.csv": b"y"}),
            "2 tables in it (a.csv, b.csv); unpack it, and keep the one with the labels",
        ),
        (zipped({"picture.png": b"x"}), "no table in it (picture.png); unpack it, and keep the one with the labels"),
        (zipped({}), "no table in it (it is empty); unpack it, and keep the one with the labels"),
        (zipped({"a.csv": zipped({"b.csv": TABLE})}), "a.csv: packed twice; unpack it"),
        (
            zipped({"a.csv": b"a," * (1 << 20)}),
            "member 'a.csv' would expand 1,022 times to 2,097,152 bytes; do not use this file",
        ),
        (zipped({"a.csv": TABLE})[:-9], "truncated or damaged; download it again, or save it as CSV"),
        (gzip.compress(TABLE)[:-9], "truncated or damaged; download it again, or unpack it"),
        (gzip.compress(b"a," * (1 << 20)), "would expand to more than 1,048,576 bytes; do not use this file"),
    ],
    ids=["two", "none", "empty", "twice", "bomb", "truncated", "gzip", "gzip bomb"],
)
def test_a_packed_table_that_is_ambiguous_damaged_or_harmful_is_refused(data, message):
    assert refusal(data, "a.csv.zip").startswith(message)


def test_a_damaged_table_in_a_zip_is_refused(tmp_path):
    data = write_zip(tmp_path / "a.zip", {"a.csv": TABLE}, compression=zipfile.ZIP_STORED).read_bytes()
    assert refusal(data.replace(b"a,0", b"a,1"), "a.csv.zip") == "a.csv is damaged; download it again"


# --- which files are tables, and their readers ----------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "x/a.TSV", "list.txt", "a.xlsx", "trainLabels.csv.zip", "a.txt.gz"])
def test_tables_are_recognised_by_their_suffix(name):
    assert is_table(name)
    assert unsupported_table(name) is None


@pytest.mark.parametrize("name", ["a.zip", "csv", "a.png", "__MACOSX/a.csv", "x/._a.csv", "a.xls", "a.csv.bak"])
def test_other_files_are_no_tables(name):
    assert not is_table(name)


@pytest.mark.parametrize("suffix", [".xls", ".XLSB", ".ods", ".numbers"])
def test_tables_that_are_not_read_have_a_remedy(suffix):
    line = f"x/labels{suffix}: tables in {suffix.lower()} are not read; save it as .xlsx or as CSV"
    assert unsupported_table(f"x/labels{suffix}") == line
    assert unsupported_table(f"__MACOSX/._labels{suffix}") is None
    if suffix != ".xls":
        assert refusal(zipped({"content.xml": b""}), f"x/labels{suffix}") == line.partition(": ")[2]


FILES = {
    "labels.csv": b"sep=;\nimage;level\na;0\nb;2\n",
    "labels.tsv": b"image\tlevel\na\t0\nb\t2\n",
    "labels.txt": b"image level\na 0\nb 2\n",
    "labels.xlsx": workbook(ROWS),
    "labels.csv.zip": zipped({"labels.csv": TABLE}),
}


@pytest.mark.parametrize("name", FILES)
def test_all_readers_of_tables_take_every_kind(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert read_header(Archive(tmp_path), name) == ["image", "level"]
    grades = read_grades(FILES[name], name=name, id_column="image", grade_column="level")
    assert dict(zip(grades["original"], grades["diagnosis"], strict=True)) == {"a": 0, "b": 2}
    labels = read_labels(str(path), {"a.png": "a", "b.png": "b"}, classes=("no", "mild", "moderate"), columns=Columns())
    assert labels.grades.to_dict() == {"a": 0, "b": 2}


def test_a_sample_submission_may_be_of_any_kind(tmp_path):
    (tmp_path / "sample.csv.zip").write_bytes(zipped({"sample.csv": b"id_code,diagnosis\na,0\nb,0"}))
    (tmp_path / "sample.xlsx").write_bytes(workbook([["id_code", "diagnosis"], ["a", 0], ["b", 0]]))
    (tmp_path / "sample.tsv").write_bytes(b"id_code\tdiagnosis\na\t0\nb\t0")
    for name in ("sample.csv.zip", "sample.xlsx", "sample.tsv"):
        sample = read_sample(str(tmp_path / name), images=".", archive=Archive(tmp_path), names=["a.png", "b.png"])
        assert sample.ids == ["a", "b"]
