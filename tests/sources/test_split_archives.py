"""The parts of a zip are read as the whole; a missing or damaged part is named."""

import io
import os
import pickle
import struct
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from conftest import write_folder, write_zip

from dr import UsageError
from dr.cli import parser
from dr.core import split_files
from dr.prediction.inputs import find_images
from dr.sources.archive import Archive

MEMBERS = {f"a/{number}.png": os.urandom(3000) for number in range(8)} | {"a/labels.csv": b"image,level\n0,1\n"}
NAMES = {
    "7-Zip": ["X.zip.001", "X.zip.002", "X.zip.003"],
    "upper case": ["X.ZIP.001", "X.ZIP.002", "X.ZIP.003"],
    "split": ["X.zip.partaa", "X.zip.partab", "X.zip.partac"],
    "letters": ["X.zip.aa", "X.zip.ab", "X.zip.ac"],
    "prefix": ["X.zipaa", "X.zipab", "X.zipac"],
    "from 0": ["X.zip.00", "X.zip.01", "X.zip.02"],
    "unpadded": [f"X.zip.{number}" for number in range(1, 12)],
    "part": ["X.zip.part1", "X.zip.part2", "X.zip.part3"],
    "one": ["X.zip.001"],
}


def write_parts(folder: Path, names: list[str]) -> Path:
    """A zip of MEMBERS, cut into parts of these names."""
    data = write_zip(folder.parent / f"{folder.name}.whole", MEMBERS).read_bytes()
    size = len(data) // len(names) + 1
    return write_folder(folder, {name: data[number * size :][:size] for number, name in enumerate(names)})


def refusal(path: Path) -> str:
    """The message of the UsageError, which must be one line."""
    with pytest.raises(UsageError) as refused:
        Archive(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_the_parts_the_whole_name_and_their_folder_give_one_archive(tmp_path, names):
    folder = write_parts(tmp_path / "parts", names)
    whole = folder / names[0][:5]
    (folder / ".DS_Store").write_bytes(b"")
    (folder / f"._{names[0]}").write_bytes(b"")
    for path in (folder / names[0], folder / names[-1], whole, folder):
        parser.check_exists(zip_main=[path])
        archive = Archive(path)
        assert archive.path == whole
        assert archive.names == sorted(MEMBERS)
        assert {name: archive.read(name) for name in archive.names} == MEMBERS
        assert archive.size("a/1.png") == 3000
        assert [len(find_images(path)[1]), find_images(path)[0].path] == [8, whole]


def read_elsewhere(member):
    return os.getpid(), member.read()


def test_a_member_of_parts_is_read_in_another_process(tmp_path):
    folder = write_parts(tmp_path / "parts", NAMES["unpadded"])
    member = Archive(folder).member("a/7.png")
    assert len(pickle.dumps(member)) < 1500
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        process, content = pool.submit(read_elsewhere, member).result()
    assert process != os.getpid()
    assert content == MEMBERS["a/7.png"]


def test_a_stream_of_parts_reads_and_seeks_as_one_file(tmp_path):
    data = bytes(range(100))
    parts = {f"X.zip.{n + 1:03}": data[35 * n : 35 * n + 35] for n in range(3)}
    split = split_files.find_split(write_folder(tmp_path / "parts", parts) / "X.zip")
    with split.open("rb") as file:
        assert file.read() == data
        for start in range(0, 101, 7):
            for count in (1, 30, 80):
                assert file.seek(start) == file.tell() == start
                assert file.read(count) == data[start : start + count]
        assert file.seek(-10, io.SEEK_END) == 90
        assert file.read(5) == data[90:95]
        assert file.seek(-60, io.SEEK_CUR) == 35
        assert file.read(1) == data[35:36]
        with pytest.raises(OSError, match="before its beginning"):
            file.seek(-1)
    (tmp_path / "parts" / "X.zip.001").write_bytes(data)  # a part that has grown does not shift the others
    with split.open() as file:
        assert file.read() == data


@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind not in ("one", "from 0")])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_part_is_named(tmp_path, kind, missing):
    names = NAMES[kind]
    folder = write_parts(tmp_path / "parts", names)
    (folder / names[missing]).unlink()
    message = f"{names[missing]} is missing; put all parts of {names[0][:5]} into one folder"
    for path in (folder / names[2], folder / names[missing], folder / names[0][:5]):
        assert refusal(path) == f"{path}: {message}"
    with pytest.raises(UsageError, match=message):
        parser.check_exists(images=[folder / names[0][:5]])
    assert refusal(folder).endswith(message)


def test_several_missing_parts_are_counted(tmp_path):
    folder = write_folder(tmp_path / "parts", {"X.zip.007": b"x"})
    assert "X.zip.001, X.zip.002, X.zip.003 and 3 more are missing" in refusal(folder / "X.zip.007")


def test_a_missing_last_part_shows_as_a_truncated_archive(tmp_path):
    folder = write_parts(tmp_path / "parts", NAMES["7-Zip"])
    (folder / "X.zip.003").unlink()
    assert refusal(folder / "X.zip.001") == (
        f"{folder / 'X.zip'}: truncated or damaged; add the parts after X.zip.002 if there are any, or download the "
        "parts again"
    )
    assert "X.zip.003 is missing" in refusal(folder / "X.zip.003")


def test_a_part_that_is_too_small_or_no_zip_is_named(tmp_path):
    folder = write_parts(tmp_path / "parts", NAMES["7-Zip"])
    part = folder / "X.zip.002"
    part.write_bytes(part.read_bytes()[:100])
    assert refusal(folder) == f"{folder / 'X.zip'}: X.zip.002 is smaller than the other parts; download again"
    (folder / "X.zip.001").write_bytes(b"<html>" * 9999)
    assert refusal(folder) == (
        f"{folder / 'X.zip'}: X.zip.001 is not the beginning of a zip archive; download it again, or add the parts "
        "before it"
    )
    folder = write_parts(tmp_path / "zero", NAMES["from 0"])
    (folder / "X.zip.00").unlink()
    assert "X.zip.01 is not the beginning of a zip archive" in refusal(folder)


def test_files_that_only_look_like_parts_are_archives_of_their_own(tmp_path):
    data = write_zip(tmp_path / "X.zip", MEMBERS).read_bytes()
    for name in ("X.zip.2", "X.zip.2015", "X.zip.gz", "X.zip.bak"):  # as a second download, or a copy, is called
        (tmp_path / name).write_bytes(data)
        assert Archive(tmp_path / name).path == tmp_path / name
    assert Archive(tmp_path / "X.zip").path == tmp_path / "X.zip"
    assert refusal(tmp_path / "Y.zip") == f"{tmp_path / 'Y.zip'}: not found; pass the path of an archive or folder"


def test_a_whole_file_beside_its_parts_is_read_itself(tmp_path):
    folder = write_parts(tmp_path / "parts", NAMES["7-Zip"])
    write_zip(folder / "X.zip", {"b.png": b"pixels"})
    (folder / "X.zip.002").unlink()
    assert Archive(folder / "X.zip").names == ["b.png"]


def test_parts_counted_in_two_ways_are_refused_unless_one_is_named(tmp_path):
    folder = write_parts(tmp_path / "parts", NAMES["7-Zip"])
    write_parts(folder, NAMES["letters"])
    assert "parts of two kinds (X.zip.001, X.zip.aa); pass the first part of one of them" in refusal(folder / "X.zip")
    assert Archive(folder / "X.zip.002").names == Archive(folder / "X.zip.aa").names == sorted(MEMBERS)


@pytest.mark.parametrize("other", ["Y.zip.001", "labels.csv", "trainLabels.csv.zip"])
def test_a_folder_with_more_than_one_split_archive_is_refused(tmp_path, other):
    folder = write_parts(tmp_path / "parts", NAMES["7-Zip"])
    (folder / "README.txt").write_text("three parts")
    assert len(Archive(folder).names) == 9
    (folder / other).write_bytes(b"x")
    shown = f"X.zip, {'Y.zip' if other == 'Y.zip.001' else other}"
    assert refusal(folder) == (
        f"{folder}: no images, but the parts of a zip beside other files ({shown}); unpack them there, or pass the "
        "path of one archive"
    )
    (folder / "image.png").write_bytes(b"x")
    assert Archive(folder).images() == ["image.png"]


def numbered_end(data: bytes, disk: int) -> bytes:
    """A zip whose end record says that it ends in part `disk`, from 0."""
    place = data.rindex(b"PK\5\6")
    return data[: place + 4] + struct.pack("<HH", disk, disk) + data[place + 8 :]


def test_segments_of_info_zip_are_refused_with_the_command_that_joins_them(tmp_path):
    data = write_zip(tmp_path / "whole", MEMBERS).read_bytes()
    files = {"X.z01": data[:9000], "X.z02": data[9000:18_000], "X.zip": numbered_end(data[18_000:], 2)}
    folder = write_folder(tmp_path / "segments", files)
    remedy = "join them with: zip -s 0 X.zip --out whole.zip; then pass whole.zip"
    for path in (folder / "X.z01", folder / "X.z02", folder / "X.zip"):
        assert refusal(path) == f"{path}: one of several parts; {remedy}"
        with pytest.raises(UsageError, match="one of several parts"):
            find_images(path)
    assert refusal(folder).endswith(f"one of several parts; {remedy}")
    (folder / "X.z02").unlink()
    for path in (folder / "X.z01", folder / "X.z02", folder / "X.zip"):
        assert refusal(path) == f"{path}: X.z02 is missing; put all parts into one folder, and {remedy}"
    (folder / "X.z01").unlink()
    assert "X.z01, X.z02 are missing; put all parts into one folder, and" in refusal(folder / "X.zip")
    assert "not found" in refusal(folder / "X.z01")
