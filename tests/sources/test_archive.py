"""A zip and its unpacked folder are read alike; harmful or damaged files are refused in one line."""

import gc
import os
import pickle
import stat
import struct
import tracemalloc
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from conftest import write_folder, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st

from dr import UsageError
from dr.sources.archive import Archive, is_image, stem

MEMBERS = {
    "a/train.csv": b"id_code,diagnosis\n",
    "a/train/x.PNG": b"pixels",
    "a/train/._x.PNG": b"",
    "a/y.tif": b"\0" * 99,
}


def refusal(path) -> str:
    """The message of the UsageError, which must be one line that begins with the file."""
    with pytest.raises(UsageError) as refused:
        Archive(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_zip_and_its_unpacked_folder_give_the_same_names_and_bytes(tmp_path):
    packed = Archive(write_zip(tmp_path / "a.zip", MEMBERS))
    unpacked = Archive(write_folder(tmp_path / "unpacked", MEMBERS))
    assert packed.names == unpacked.names == sorted(MEMBERS)
    assert packed.images() == unpacked.images() == ["a/train/x.PNG", "a/y.tif"]
    for name, content in MEMBERS.items():
        assert packed.read(name) == unpacked.read(name) == content


def test_folders_inside_a_zip_are_not_members(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train/", b"")
        archive.writestr("train/x.png", b"pixels")
    assert Archive(tmp_path / "a.zip").names == ["train/x.png"]


@pytest.mark.parametrize("name", ["x.png", "x.JPG", "a/b.Jpeg", "x.tif", "x.TIFF"])
def test_images_are_recognised_by_their_suffix_in_any_case(name):
    assert is_image(name)


@pytest.mark.parametrize("name", ["x.csv", "png", "x.png.txt", "__MACOSX/a/._x.png", "x.gif"])
def test_other_files_are_not_images(name):
    assert not is_image(name)


def test_the_size_is_that_of_the_zip_or_of_all_files(tmp_path):
    path = write_zip(tmp_path / "a.zip", MEMBERS)
    for archive in (Archive(path), Archive(write_folder(tmp_path / "unpacked", MEMBERS))):
        assert {name: archive.size(name) for name in MEMBERS} == {name: len(data) for name, data in MEMBERS.items()}
        assert archive.size("missing.png") == 0


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/x.png", "C:/x.png", "c:x.png", "..\\x.png", "a\\..\\..\\x.png", "\\x.png"]
)
def test_a_member_outside_the_archive_is_refused(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", {"fine.png": b"", name: b"pixels"})
    assert f"member {name!r} points outside the archive; do not use this file" in refusal(path)


def test_a_member_whose_name_hides_behind_a_zero_byte_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.png-and-more": b"pixels"})
    path.write_bytes(path.read_bytes().replace(b"x.png-and-more", b"x.png\0and-more"))
    assert "points outside the archive" in refusal(path)


def test_a_symbolic_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("train/x.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    message = refusal(tmp_path / "a.zip")
    assert "member 'train/x.png' is a symbolic link; pack the archive again with real files" in message


def test_a_member_without_a_name_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x": b"pixels"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, data.index(b"PK\x01\x02") + 28, 0, 1)  # its name becomes an extra field
    path.write_bytes(data)
    assert refusal(path) == f"{path}: a member has no name; pack the archive again"


def test_an_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.png": b"pixels"})
    data = bytearray(path.read_bytes())
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags_at] |= 1
    path.write_bytes(data)
    assert "encrypted (member 'x.png'); unpack it with its password and pass the folder" in refusal(path)


def test_a_member_of_absurd_expansion_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.png": b"\0" * (4 << 20)})
    message = refusal(path)
    assert "member 'x.png' would expand 1,0" in message
    assert "times to 4,194,304 bytes; do not use this file" in message


def test_a_member_that_declares_more_than_two_gigabytes_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.png": b"pixels"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 3 << 30)
    path.write_bytes(data)
    assert "to 3,221,225,472 bytes; do not use this file" in refusal(path)


def test_a_member_that_is_larger_than_it_declares_is_not_unpacked(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.png": b"\0" * (1 << 20)})
    data = bytearray(path.read_bytes())
    for signature, size_at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + size_at, 10)
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"the archive is damaged at x\.png"):
        Archive(path).read("x.png")


def test_a_truncated_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", MEMBERS)
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(path) == f"{path}: truncated or damaged; download it again, or pass an unpacked folder"


@pytest.mark.parametrize("content", [b"", b"P", b"Rar!\x1a\x07\x00", b"<html>not found</html>" * 99])
def test_a_file_that_is_no_zip_is_refused(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    assert refusal(path) == f"{path}: not a zip archive; download it again, or pass an unpacked folder"
    path.rename(table := path.with_name("labels.csv"))
    assert refusal(table) == f"{table}: not a zip archive; pass the folder that contains it"


def test_a_missing_archive_is_refused(tmp_path):
    path = tmp_path / "no.zip"
    assert refusal(path) == f"{path}: not found; pass the path of an archive or folder"


def test_two_members_of_one_name_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.png": b"one", "y.png": b"two"})
    path.write_bytes(path.read_bytes().replace(b"y.png", b"x.png"))
    assert "two members have the same name; pack the archive again" in refusal(path)


def test_a_damaged_member_is_an_error_of_its_own(tmp_path):
    content = {"x.png": b"these are the pixels", "y.png": b"more"}
    path = write_zip(tmp_path / "a.zip", content, compression=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"these are", b"those are"))
    archive = Archive(path)
    with pytest.raises(OSError, match=r"the archive is damaged at x\.png"):
        archive.read("x.png")
    assert archive.read("y.png") == b"more"


def test_a_missing_member_is_an_error(tmp_path):
    for archive in (Archive(write_zip(tmp_path / "a.zip", MEMBERS)), Archive(write_folder(tmp_path / "b", MEMBERS))):
        with pytest.raises(OSError, match=r"no\.png"):
            archive.read("no.png")


@given(place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255), kept=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_damage_anywhere_gives_the_two_known_errors_or_true_bytes(tmp_path_factory, place, flipped, kept):
    folder = tmp_path_factory.getbasetemp()
    data = bytearray(write_zip(folder / "whole.zip", MEMBERS).read_bytes())
    data[int(place * len(data))] ^= flipped
    (folder / "damaged.zip").write_bytes(data if kept > 0.2 else data[: int(5 * kept * len(data))])
    try:
        archive = Archive(folder / "damaged.zip")
        contents = {name: archive.read(name) for name in archive.names}
    except (UsageError, OSError):
        return
    assert set(contents.values()) <= set(MEMBERS.values())  # the list of members itself has no checksum


def read_elsewhere(archive, name):
    return os.getpid(), archive.read(name)


def test_an_archive_pickles_and_is_read_in_another_process(tmp_path):
    archive = Archive(write_zip(tmp_path / "a.zip", MEMBERS))
    archive.read("a/y.tif")  # an open file must not travel with it
    assert pickle.loads(pickle.dumps(archive)).read("a/train/x.PNG") == b"pixels"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        process, content = pool.submit(read_elsewhere, archive, "a/train/x.PNG").result()
    assert process != os.getpid()
    assert content == b"pixels"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_travels_without_the_list_of_the_others(tmp_path, compression):
    members = {f"{i:04}.png": b"pixels %d" % i * 50 for i in range(500)}
    path = write_zip(tmp_path / "a.zip", members, compression=compression)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())  # as of archives that unpack themselves
    packed = pickle.dumps(Archive(path).member("0321.png"))
    assert len(packed) < 1000
    assert pickle.loads(packed).read() == members["0321.png"]


def test_of_a_member_little_more_than_its_name_is_held(tmp_path):
    path = write_zip(tmp_path / "a.zip", {f"{i:04}.png": b"pixels" for i in range(2000)})
    Archive(path)  # imports and caches on first use
    tracemalloc.start()
    archive = Archive(path)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert archive.read("1999.png") == b"pixels"
    assert held / 2000 < 150  # a ZipInfo alone takes 480 bytes


def test_a_position_beyond_the_file_is_reported(tmp_path):
    path = tmp_path / "a.zip"
    info = zipfile.ZipInfo("a.png")
    info.extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)  # zip64: the place of the member
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(info, b"pixels")
    data = bytearray(b"#!" + path.read_bytes())  # bytes before the zip are added to the offset
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 42, 0xFFFFFFFF)
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"a\.zip: .*; download it again, or pass an unpacked folder"):
        Archive(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_share_the_position_in_the_file(tmp_path):
    archive = Archive(write_zip(tmp_path / "a.zip", MEMBERS))
    archive.read("a/y.tif")
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        future = pool.submit(read_elsewhere, archive, "a/train/x.PNG")
        assert archive.read("a/y.tif") == MEMBERS["a/y.tif"]
        assert future.result()[1] == b"pixels"


def test_a_link_that_leads_back_up_does_not_list_a_folder_twice(tmp_path):
    write_folder(tmp_path / "a", {"train/x.png": b"pixels"})
    (tmp_path / "a" / "train" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    assert Archive(tmp_path / "a").names == ["train/x.png"]


def test_a_linked_folder_is_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", {"x.png": b"pixels"})
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert Archive(tmp_path / "a").read("train/x.png") == b"pixels"


def test_folders_that_were_packed_with_backslashes_are_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = "test\\a.png"  # as old programs on Windows wrote them
        archive.writestr(info, b"pixels")
    archive = Archive(tmp_path / "a.zip")
    assert archive.names == ["test/a.png"]
    assert archive.read("test/a.png") == b"pixels"


def test_a_name_that_is_no_text_is_refused_before_images_are_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"")
    assert Archive(tmp_path).images() == []
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    assert refusal(tmp_path).endswith("caf\\udce9.png' is not UTF-8; rename it")


def test_a_name_has_one_stem_however_its_accents_are_written():
    assert stem("a/Mu\u0308ller.png") == stem("M\u00fcller.png") == "M\u00fcller"
