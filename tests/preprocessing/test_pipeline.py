"""Two small archives become a preprocessed folder, in one run or several, with correct tables and report."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from pkgutil import resolve_name

import cv2
import pandas as pd
import pytest
from conftest import draw_retina, encode, write_folder, write_zip

from dr import UsageError
from dr.preprocessing import worker_pool
from dr.preprocessing.pipeline import _write_tables, preprocess_sources
from dr.preprocessing.selection import Selection
from dr.preprocessing.settings import Settings
from dr.preprocessing.workspace import RECORD_FIELDS, Workspace, folder_in
from dr.sources.detect import open_sources

SMALL = Settings(size=64, per_class=6, val_fraction=0.25, seed=10)
TABLES = ("labels_train.csv", "labels_val.csv", "duplicates.csv")


def run(archives, directory, *, settings=SMALL, force=False):
    main, extra = archives
    sources = open_sources(str(main), str(extra or "none"))
    return preprocess_sources(sources, directory=str(directory), settings=settings, workers=1, force=force)


def tables_of(directory):
    return {name: (directory / "kaggle_retina" / name).read_bytes() for name in TABLES}


def images_of(directory):
    root = directory / "kaggle_retina"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.jpeg")}


def labels(directory):
    return pd.concat(pd.read_csv(directory / "kaggle_retina" / name, dtype=str) for name in TABLES[:2])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, zips):
    """A finished folder and its report."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, run(zips, directory)


# --- what is written ------------------------------------------------------------------------------


def test_every_row_has_its_file_and_every_file_its_row(finished):
    directory, _ = finished
    root = directory / "kaggle_retina"
    for split in ("train", "val"):
        content = pd.read_csv(root / f"labels_{split}.csv", dtype=str)
        assert list(content.columns) == ["path", "diagnosis", "source", "original", "patient", "group"]
        assert content["group"].isna().all()  # no copies
        assert content["path"].tolist() == sorted(f"{split}/{path.name}" for path in (root / split).iterdir())
        prefix = content["source"].map({"main": "", "2015": "2015_"})
        assert (content["path"] == f"{split}/" + prefix + content["original"] + ".jpeg").all()


def test_every_image_keeps_its_grade_and_patient(finished, main_members, extra_members):
    rows = labels(finished[0])
    lines = main_members["kaggle_retina/train.csv"] + extra_members["train_image_resized/trainLabels.csv"]
    grades = dict(line.split(",") for line in lines.decode().splitlines())
    assert rows["diagnosis"].tolist() == rows["original"].map(grades).tolist()
    eyes = rows["original"].str.fullmatch(r"\d+_(left|right)")
    assert rows["patient"][eyes].tolist() == rows["original"][eyes].str.replace(r"_\w+", "", regex=True).tolist()
    assert rows["patient"][~eyes].isna().all()  # unknown


def test_the_counts_are_those_of_the_tables(finished):
    directory, report = finished
    assert report["counts"] == {
        "validation": [2, 1, 1, 1, 1],
        "train: main": [6, 3, 3, 3, 3],
        "train: 2015": [0, 3, 3, 3, 3],
    }
    rows = labels(directory)
    assert Counter(rows["path"].str.split("/").str[0] + " " + rows["source"]) == {
        "val main": 6,
        "train main": 18,
        "train 2015": 12,
    }
    assert report["below_per_class"] == {}
    assert report["skipped"] == []
    assert report["excluded"] == {"per_class reached": 4}
    assert report["duplicates"] == {"images": 0, "groups": 0, "conflicting_groups": 0}


def test_report_json_is_the_return_value_and_its_hashes_match(finished):
    directory, report = finished
    root = directory / "kaggle_retina"
    assert json.loads((root / "report.json").read_text()) == report
    expected = {*TABLES[:2], *images_of(directory)}
    assert set(report["sha256"]) == expected
    for name in expected:
        assert report["sha256"][name] == hashlib.sha256((root / name).read_bytes()).hexdigest()
    assert report["settings"]["seed"] == 10
    assert report["settings"]["sources"] == ["main.zip", "2015.zip"]


def test_the_images_are_pngs_and_nothing_is_left_over(finished):
    directory, _ = finished
    root = directory / "kaggle_retina"
    for name in ("class_balance.png", "crops.png"):
        assert cv2.imread(str(root / name)).shape[1] > 300
        assert (root / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [path.name for path in directory.iterdir()] == ["kaggle_retina"]
    assert {path.name for path in root.iterdir()} == {
        *("train", "val", "preprocessed.jsonl", "settings.json", "report.json"),
        *("class_balance.png", "crops.png", "report.html", *TABLES),
    }


def test_images_are_square_jpegs_of_the_requested_size(finished):
    for content in images_of(finished[0]).values():
        assert content.startswith(b"\xff\xd8")
    for path in (finished[0] / "kaggle_retina" / "val").iterdir():
        assert cv2.imread(str(path)).shape == (64, 64, 3)


def unpacked(folder, members, *, wrapped):
    path = write_folder(folder, members if wrapped else {name.split("/", 1)[1]: data for name, data in members.items()})
    for inside in [path, *path.rglob("*")]:
        inside.chmod(0o555 if inside.is_dir() else 0o444)
    return path


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_read_only_folder_gives_the_same_as_its_zip(
    tmp_path, finished, main_members, extra_members, no_plots, wrapped
):
    members = {"main": main_members, "2015": extra_members}
    folders = [unpacked(tmp_path / name, content, wrapped=wrapped) for name, content in members.items()]
    run(folders, tmp_path / "data")
    assert tables_of(tmp_path / "data") == tables_of(finished[0])
    assert images_of(tmp_path / "data") == images_of(finished[0])


def test_without_2015_grades_stay_short_and_are_reported_with_their_counts(tmp_path, zips, no_plots):
    report = run((zips[0], None), tmp_path)
    assert report["counts"] == {"validation": [2, 1, 1, 1, 1], "train: main": [6, 3, 3, 3, 3]}
    assert report["below_per_class"] == {"1": 3, "2": 3, "3": 3, "4": 3}
    assert report["settings"]["sources"] == ["main.zip"]


def test_all_takes_every_image(tmp_path, zips, no_plots):
    report = run(zips, tmp_path, settings=Settings(size=64, per_class="all", val_fraction=0.25))
    assert report["counts"]["train: 2015"] == [4, 4, 4, 4, 4]
    assert report["excluded"] == {}
    assert report["below_per_class"] == {}
    assert report["settings"]["per_class"] == "all"


# --- images that cannot be used --------------------------------------------------------------


def test_images_that_cannot_be_read_are_named_and_all_others_done(tmp_path, main_members, zips, no_plots):
    broken = dict(main_members)
    del broken["kaggle_retina/train/m00.png"]
    broken["kaggle_retina/train/m05.png"] = broken["kaggle_retina/train/m05.png"][:300]
    broken["kaggle_retina/train/m10.png"] = b""
    report = run((write_zip(tmp_path / "main.zip", broken), zips[1]), tmp_path)
    assert report["skipped"] == [
        {"source": "main", "original": "m00", "reason": "the archive lacks its file"},
        {"source": "main", "original": "m05", "reason": "the image is truncated: its end is missing"},
        {"source": "main", "original": "m10", "reason": "the file is empty"},
    ]
    rows = labels(tmp_path)
    assert rows["source"].eq("main").sum() == 21
    here = images_of(tmp_path)  # and those left out, which may be needed when the others are fixed
    assert sorted(path for path in here if not path.startswith("preprocessed/")) == sorted(rows["path"])


def test_others_are_drawn_for_2015_images_that_cannot_be_read(tmp_path, zips, extra_members, no_plots):
    reference = run(zips, tmp_path / "reference")
    drawn = labels(tmp_path / "reference").query("source == '2015' and diagnosis == '3'")["original"]
    broken = extra_members | {f"train_image_resized/train/{drawn.iloc[0]}.jpeg": b"broken"}
    report = run((zips[0], write_zip(tmp_path / "2015.zip", broken)), tmp_path / "data")
    assert [skipped["original"] for skipped in report["skipped"]] == [drawn.iloc[0]]
    assert report["counts"] == reference["counts"]


def test_a_main_archive_without_a_readable_image_is_refused(tmp_path, zips, main_members):
    broken = {name: b"broken" if name.endswith(".png") else data for name, data in main_members.items()}
    path = write_zip(tmp_path / "main.zip", broken)
    with pytest.raises(UsageError) as refused:
        run((path, zips[1]), tmp_path)
    reason = "not an image, or its beginning or end is missing"
    assert str(refused.value) == f"{path}: none of its images could be read (m00: {reason}); check that it is intact"


def test_an_empty_split_has_a_table_without_rows(tmp_path):
    workspace = Workspace(folder_in(tmp_path), identity={}, force=False, splits=("train", "val"))
    (workspace.staging / "main_a.png").write_bytes(b"pixels")
    workspace.add({"source": "main", "original": "a"} | dict.fromkeys(RECORD_FIELDS) | {"file": "main_a.png"})
    row = {"source": "main", "original": "a", "patient": "a", "diagnosis": 3, "person": 0, "split": "train"}
    duplicates = pd.DataFrame(columns=["group"])
    selection = Selection(pd.DataFrame([row]), duplicates, {})
    assert _write_tables(selection, workspace) == {"train": ["main_a.png"], "val": []}
    header = "path,diagnosis,source,original,patient,group\n"
    assert (workspace.root / "labels_train.csv").read_text() == f"{header}train/main_a.png,3,main,a,a,\n"
    assert (workspace.root / "labels_val.csv").read_text() == header


# --- duplicates -----------------------------------------------------------------------------------


@pytest.fixture
def with_copies(tmp_path, main_members, extra_members):
    """Archives with duplicates: m00 is also 0_left of 2015, m08 is also zz with another grade. 0_right is the fellow
    eye of 0_left."""
    image, _ = draw_retina(shape=(96, 128), seed=0, radius=44)
    main = main_members | {"kaggle_retina/train/zz.png": main_members["kaggle_retina/train/m08.png"]}
    main["kaggle_retina/train.csv"] += b"zz,4\n"
    copy = encode(cv2.convertScaleAbs(image, alpha=0.9), ".jpeg", cv2.IMWRITE_JPEG_QUALITY, 80)
    extra = extra_members | {"train_image_resized/train/0_left.jpeg": copy}
    return write_zip(tmp_path / "main.zip", main), write_zip(tmp_path / "2015.zip", extra)


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [("drop", "duplicates with conflicting grades"), ("keep", "kept")],
)
def test_duplicates_are_listed_with_their_outcome(tmp_path, with_copies, no_plots, policy, outcome):
    chosen = Settings(size=64, per_class="all", val_fraction=0.25, conflicts=policy)
    report = run(with_copies, tmp_path, settings=chosen)
    listed = pd.read_csv(tmp_path / "kaggle_retina" / "duplicates.csv")
    assert listed.to_numpy().tolist() == [
        [1, "main", "m00", 0, False, "kept"],
        [1, "2015", "0_left", 0, False, "duplicate"],
        [2, "main", "m08", 1, True, outcome],
        [2, "main", "zz", 4, True, outcome],
    ]
    assert report["duplicates"] == {"images": 4, "groups": 2, "conflicting_groups": 1}
    used = set(labels(tmp_path)["original"])
    assert {"m00", "0_left"} & used == {"m00"}
    assert {"m08", "zz"} & used == ({"m08", "zz"} if policy == "keep" else set())
    group = labels(tmp_path).set_index("original")["group"].dropna().to_dict()
    # 0_right shares no image with m00, but its patient does, by the copy that was left out
    joined = {"m00": "1", **({"0_right": "1"} if "0_right" in used else {})}
    assert group == joined | ({"m08": "2", "zz": "2"} if policy == "keep" else {})


def test_no_patient_of_2015_is_in_both_splits_through_a_duplicate(tmp_path, with_copies, no_plots):
    for seed in range(4):
        chosen = Settings(size=64, per_class="all", val_fraction=0.5, seed=seed)
        run(with_copies, tmp_path / str(seed), settings=chosen)
        split = labels(tmp_path / str(seed)).set_index("original")["path"].str.split("/").str[0]
        assert ("0_right" in split) == (split["m00"] == "train")


# --- stopped and started again --------------------------------------------------------------------


@pytest.fixture
def count_preprocessed(monkeypatch):
    """{name: number of times that the image was preprocessed}."""
    counted = Counter()
    original = worker_pool._write_image

    def write_image(*, member, **options):
        counted[member.info.filename] += 1
        return original(member=member, **options)

    monkeypatch.setattr(worker_pool, "_write_image", write_image)
    return counted


def stop_at(call, *, number):
    """`call`, but its number-th call raises KeyboardInterrupt."""
    calls = []

    def stopped(*args, **options):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return call(*args, **options)

    return stopped


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ("dr.preprocessing.worker_pool._write_image", 1),
        ("dr.preprocessing.worker_pool._write_image", 17),
        ("dr.preprocessing.workspace.Workspace.add", 17),
        ("dr.preprocessing.workspace.Workspace.move_to_splits", 1),
        ("pathlib.Path.replace", 60),  # after 40 images, while they go to their splits
        ("dr.preprocessing.pipeline.write_csv", 2),
        ("dr.preprocessing.plots.crops_sheet", 1),
        ("dr.preprocessing.pipeline.sha256", 20),
        ("dr.preprocessing.workspace.Workspace.remove_others", 1),
    ],
)
def test_a_stopped_run_is_continued_without_doing_finished_work_again(
    tmp_path, zips, finished, no_plots, count_preprocessed, monkeypatch, target, number
):
    with monkeypatch.context() as patched:
        patched.setattr(target, stop_at(resolve_name(target), number=number))
        with pytest.raises(KeyboardInterrupt):
            run(zips, tmp_path)
    assert not (tmp_path / "kaggle_retina" / "report.json").exists()
    report = run(zips, tmp_path)
    assert "already_finished" not in report
    assert tables_of(tmp_path) == tables_of(finished[0])
    assert images_of(tmp_path) == images_of(finished[0])
    assert report["sha256"] == finished[1]["sha256"]
    again = (
        1 if target in ("dr.preprocessing.worker_pool._write_image", "dr.preprocessing.workspace.Workspace.add") else 0
    )  # the one it was stopped in
    assert sum(count_preprocessed.values()) <= 40 + again


def test_a_record_cut_short_by_a_kill_costs_one_image(tmp_path, zips, finished, no_plots, count_preprocessed):
    run(zips, tmp_path)
    root = tmp_path / "kaggle_retina"
    (root / "report.json").unlink()
    lines = (root / "preprocessed.jsonl").read_text().splitlines()
    (root / "preprocessed.jsonl").write_text("\n".join(lines)[:-30])
    (root / "train" / ".main_m01.jpeg.77.part").write_bytes(b"half")
    count_preprocessed.clear()
    run(zips, tmp_path)
    assert sum(count_preprocessed.values()) == 1 + 4  # and those that no split has, which are removed at the end
    assert tables_of(tmp_path) == tables_of(finished[0])
    assert list(root.rglob("*.part")) == []
    (root / "report.json").unlink()
    count_preprocessed.clear()
    run(zips, tmp_path)
    assert sum(count_preprocessed.values()) == 4  # the record after the one cut short was not lost


def test_a_folder_of_a_run_killed_before_its_first_image_is_recognised(tmp_path, zips, no_plots):
    root = tmp_path / "kaggle_retina"
    root.mkdir()
    (root / ".settings.json.77.part").write_bytes(b"{")
    assert run(zips, tmp_path)["skipped"] == []


def test_an_image_that_was_deleted_is_preprocessed_again(tmp_path, zips, finished, no_plots):
    run(zips, tmp_path)
    (tmp_path / "kaggle_retina" / labels(tmp_path)["path"].iloc[3]).unlink()
    assert "already_finished" not in run(zips, tmp_path)
    assert images_of(tmp_path) == images_of(finished[0])


def test_a_finished_folder_is_left_as_it_is(finished, zips, monkeypatch):
    directory, report = finished
    monkeypatch.setattr("dr.imaging.fundus.decode", None)
    assert run(zips, directory) == report | {"already_finished": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 96}, "size 64, not 96"),
        ({"per_class": "all"}, "per_class 6, not all"),
        ({"val_fraction": 0.5}, "val_fraction 0.25, not 0.5"),
        ({"seed": 11}, "seed 10, not 11"),
        ({"conflicts": "keep"}, "conflicts drop, not keep"),
    ],
)
def test_other_settings_are_refused_by_name(finished, zips, change, message):
    directory, report = finished
    with pytest.raises(UsageError) as refused:
        run(zips, directory, settings=Settings(**{**vars(SMALL), **change}))
    root = directory / "kaggle_retina"
    assert str(refused.value) == f"{root}: preprocessed with {message}; choose another -d, or replace it with --force"
    assert json.loads((root / "report.json").read_text()) == report


def test_other_archives_are_refused_by_name(finished, zips):
    with pytest.raises(UsageError, match=r"preprocessed with sources main\.zip, 2015\.zip, not main\.zip;"):
        run((zips[0], None), finished[0])


def test_a_folder_of_an_earlier_version_is_refused_as_such(tmp_path, zips):
    root = write_folder(tmp_path / "kaggle_retina", {"settings.json": b'{"size": 64, "seed": 10}'})
    with pytest.raises(UsageError) as refused:
        run(zips, tmp_path)
    message = "preprocessed by another version; choose another -d, or replace it with --force"
    assert str(refused.value) == f"{root}: {message}"


def test_a_corrected_label_table_is_noticed(tmp_path, main_members, no_plots):
    folder = write_folder(tmp_path / "main", main_members)
    run((folder, None), tmp_path)
    path = folder / "kaggle_retina" / "train.csv"
    path.write_bytes(path.read_bytes().replace(b"m23,4", b"m23,3"))
    with pytest.raises(UsageError, match=r"preprocessed with labels_sha256 [0-9a-f]{12}, not [0-9a-f]{12}; choose"):
        run((folder, None), tmp_path)


def test_force_replaces_the_images_of_other_settings(tmp_path, zips, no_plots):
    reference = run(zips, tmp_path / "fresh", settings=Settings(size=48, per_class=3, val_fraction=0.25))
    run(zips, tmp_path / "data")
    report = run(zips, tmp_path / "data", settings=Settings(size=48, per_class=3, val_fraction=0.25), force=True)
    assert report["sha256"] == reference["sha256"]
    assert images_of(tmp_path / "data") == images_of(tmp_path / "fresh")


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path, zips, force):
    root = write_folder(tmp_path / "kaggle_retina", {"train/mine.jpeg": b"mine"})
    with pytest.raises(UsageError) as refused:
        run(zips, tmp_path, force=force)
    assert str(refused.value) == f"{root}: holds files that are not from data.py; choose another -d"
    assert [path.name for path in root.rglob("*")] == ["train", "mine.jpeg"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, zips):
    (tmp_path / "data").write_bytes(b"mine")
    with pytest.raises(UsageError) as refused:
        run(zips, tmp_path / "data")
    root = tmp_path / "data" / "kaggle_retina"
    assert str(refused.value) == f"{root}: a file blocks this folder; choose another -d"


def test_a_worker_that_was_killed_is_reported_in_one_line(tmp_path, zips, monkeypatch):
    def submit(*_, **__):
        raise BrokenProcessPool

    monkeypatch.setattr("dr.preprocessing.worker_pool.ProcessPoolExecutor.submit", submit)
    with pytest.raises(UsageError, match=r"was killed, .*; reduce --workers and run again to continue"):
        preprocess_sources(open_sources(str(zips[0]), "none"), directory=str(tmp_path), settings=SMALL, workers=2)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 15}, "--size must lie between 16 and 4096 pixels, got 15"),
        ({"size": 4097}, "--size must lie between 16 and 4096 pixels, got 4097"),
        ({"per_class": 0}, "--per_class must be at least 1 or 'all', got 0"),
        ({"val_fraction": 0.0}, "--val_fraction must lie between 0 and 1, got 0.0"),
        ({"val_fraction": 1.0}, "--val_fraction must lie between 0 and 1, got 1.0"),
        ({"val_fraction": float("nan")}, "--val_fraction must lie between 0 and 1, got nan"),
        ({"conflicts": "ask"}, "--conflicts must be one of drop, majority, keep, got ask"),
    ],
)
def test_settings_are_checked_when_they_are_made(change, message):
    with pytest.raises(UsageError) as refused:
        Settings(**change)
    assert str(refused.value) == message


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot lock folders")
def test_a_folder_that_another_process_fills_is_refused(tmp_path, zips, no_plots):
    (tmp_path / "kaggle_retina").mkdir()
    holds = "import sys, time; from pathlib import Path; from dr.core.files import lock_folder\n"
    holds += "with lock_folder(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(60)"
    command = [sys.executable, "-c", holds, tmp_path / "kaggle_retina"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(
            UsageError, match="kaggle_retina: another process writes to it; wait until it ends, or choose"
        ):
            run(zips, tmp_path)
        assert list((tmp_path / "kaggle_retina").iterdir()) == []
        other.kill()
    assert run(zips, tmp_path)["skipped"] == []
