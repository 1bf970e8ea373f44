import shutil
import zipfile

import pytest

from dr import UsageError
from dr.prediction.inputs import find_images, ids, select
from dr.prediction.submission import read_sample, unused_lines
from dr.sources.columns import Columns

NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture
def images(tmp_path):
    """competition/test/ with three images."""
    folder = tmp_path / "competition" / "test"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).touch()
    return folder


def sample(submission, images, **columns):
    archive, names = find_images(images)
    found = read_sample(str(submission), images=str(images), archive=archive, names=names, columns=Columns(**columns))
    return found.ids, found.header


def lines(images):
    archive, names = find_images(images)
    return unused_lines(str(images), archive, dict(zip(names, ids(names), strict=True)))


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("id_code,diagnosis\nb,0\na,0\n", ("id_code", "diagnosis")),
        ("image,level\nb,0\na,0\n", ("image", "level")),
        ("Id;Expected\nb;0\na;0\n", ("Id", "Expected")),
        ("filename,split,level\nb,x,0\na,x,0\n", ("filename", "level")),
        ("id_code\nb\na\n", ("id_code", "diagnosis")),
    ],
)
def test_a_sample_keeps_its_order_and_its_own_header(images, tmp_path, text, header):
    (tmp_path / "any.csv").write_text(text)
    assert sample(tmp_path / "any.csv", images) == (["b", "a"], header)


def test_the_columns_of_a_sample_can_be_named(images, tmp_path):
    (tmp_path / "any.csv").write_text("x,key,one,two\nb,a,0,0\n")
    found = sample(tmp_path / "any.csv", images, id="key", label="two")
    assert found == (["a"], ("key", "two"))
    for columns, flag in (({"id": "k"}, "--id_column"), ({"id": "key", "label": "y"}, "--label_column")):
        with pytest.raises(
            UsageError, match=rf"any\.csv: no column '.' \(the header is x,key,one,two\); correct {flag}"
        ):
            sample(tmp_path / "any.csv", images, **columns)
    with pytest.raises(UsageError, match=r"'x' and 'one' and 'two' could each hold the grades; .*--label_column"):
        sample(tmp_path / "any.csv", images, id="key")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("number,level\n1,0\n", r"no column names the images \(the header is number,level\); name it with --id_column"),
        ("image,level\na,0\na,0\n", r"row 3: a occurs twice; delete one of the rows"),
        ("image,level\na,0\n,0\n", r"row 3: image is empty; fill it in"),
        ("image,level\n", r"no rows; pass a table with one row per image"),
    ],
)
def test_a_faulty_sample_is_refused_in_one_line(images, tmp_path, text, message):
    (tmp_path / "any.csv").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        sample(tmp_path / "any.csv", images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sample_submission.csv", "sampleSubmission.csv", "SampleSubmission.CSV"])
@pytest.mark.parametrize("place", ["competition/test", "competition", "."])
def test_auto_finds_the_sample_in_the_folder_and_above_it(images, tmp_path, name, place):
    (tmp_path / place / name).write_text("image,level\nc,0\na,0\n")
    assert sample("auto", images) == (["c", "a"], ("image", "level"))


def test_auto_finds_the_sample_in_a_zip_and_beside_it(images, tmp_path):
    shutil.make_archive(str(tmp_path / "plain"), "zip", images)
    with pytest.raises(UsageError, match=r"--submission auto: no sample_submission\.csv in .*plain\.zip, beside it or"):
        sample("auto", tmp_path / "plain.zip")
    (tmp_path / "sample_submission.csv").write_text("id_code,diagnosis\nb,0\n")
    assert sample("auto", tmp_path / "plain.zip")[0] == ["b"]
    shutil.copy(tmp_path / "plain.zip", tmp_path / "full.zip")
    with zipfile.ZipFile(tmp_path / "full.zip", "a") as packed:
        packed.writestr("deep/sample_submission.csv", "id_code,diagnosis\nc,0\n")
        packed.writestr("__MACOSX/sample_submission.csv", "junk")
    assert sample("auto", tmp_path / "full.zip")[0] == ["c"]


def test_a_zip_of_one_table_is_a_sample(images, tmp_path):
    with zipfile.ZipFile(tmp_path / "sampleSubmission.csv.zip", "w") as packed:  # as of 2015
        packed.writestr("sampleSubmission.csv", "image,level\nb,0\na,0\n")
    assert sample("auto", images) == (["b", "a"], ("image", "level"))
    with zipfile.ZipFile(tmp_path / "test.zip", "w") as packed:
        packed.writestr("test.csv", "id_code\nb\n")
    assert sample(tmp_path / "test.zip", images)[0] == ["b"]


def test_a_sample_that_is_there_is_named_and_so_is_the_flag_that_uses_it(images):
    assert lines(images) == []
    file = images.parent / "sample_submission.csv"
    file.write_text("id_code,diagnosis\nc,0\na,0\n")
    [line] = lines(images)
    assert line.endswith(
        "sample_submission.csv lists 2 ids, but result.csv has all 3 images and is not a valid submission; use "
        "--submission auto"
    )
    file.write_text("id_code,diagnosis\nc,0\na,0\nb,0\n")
    assert lines(images)[0].endswith("result.csv has its 3 ids; --submission auto also keeps their order")
    file.write_text("image,level\nc,0\na,0\nb,0\n")
    assert "lists 3 ids, but result.csv lacks the header image,level and is not a valid sub" in lines(images)[0]
    file.write_text("id_code,diagnosis\nc.png,0\na.png,0\nb.png,0\n")
    assert "lists 3 ids, but result.csv writes them otherwise, as a, and is not a valid sub" in lines(images)[0]
    file.write_text("image,level\nother,0\n")
    assert lines(images) == []  # of another competition
    shutil.move(file, images)
    assert "lists 1 ids" in lines(images)[0]
    (images / "sample_submission.csv").write_text("")
    assert lines(images)[0].endswith("sample_submission.csv is not used; --submission auto grades its ids")


def chosen(names, wanted):
    return select(names, wanted, images="images", submission="sample.csv")


def test_case_and_suffix_of_an_id_count_only_where_they_decide():
    assert chosen(["a.jpeg", "B.JPG"], ["b.png", "A"]) == ["B.JPG", "a.jpeg"]
    assert chosen(["a.png", "a.jpg"], ["a.jpg"]) == ["a.jpg"]
    with pytest.raises(UsageError, match=r"1 of the 1 images of sample\.csv are missing \(c\.png\)"):
        chosen(["a.png"], ["c.png"])


def test_of_two_images_with_one_name_that_of_the_test_is_submitted():
    assert chosen(["train/1.png", "test/1.png"], ["1"]) == ["test/1.png"]
    assert chosen(["test_images/1.png", "train_images/1.png"], ["1"]) == ["test_images/1.png"]
    with pytest.raises(UsageError, match=r"images: x/1\.png and y/1\.png both match 1 of sample\.csv; write their fol"):
        chosen(["x/1.png", "y/1.png"], ["1"])
