"""data.py as a user runs it: exit code, output, files."""

import errno
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from conftest import draw_retina, encode, write_folder, write_zip

SCRIPT = Path(__file__).parents[2] / "data.py"
FLAGS = ("--size", "64", "--per_class", "6", "--val_fraction", "0.25")
UNKNOWN = "patients unknown: each image counts as its own; use --patient_column or --patient_pattern"
SERIES = (
    "note: 24 images without a patient form 1 series of neighbouring names and one size; eyes of one patient may be in "
    "both splits"
)
SUMMARY = f"""\
main: {UNKNOWN}
2015: patients: 10, from the names (..._left, ..._right)
{SERIES}
validation    No DR: 2  Mild: 1  Moderate: 1  Severe: 1  Proliferative DR: 1
train: main   No DR: 6  Mild: 3  Moderate: 3  Severe: 3  Proliferative DR: 3
train: 2015   No DR: 0  Mild: 3  Moderate: 3  Severe: 3  Proliferative DR: 3
"""


def summary(directory):
    """The output for two archives preprocessed in `directory`."""
    flagged = "note: 4 of 36 images are flagged blurred; see report.html\n"
    return f"{SUMMARY}{flagged}report: {directory}/kaggle_retina/report.html\n"


@pytest.fixture
def data(monkeypatch, capfd):
    """Run data.py in this process -> (exit code, stdout, lines of stderr without the progress bar)."""

    def run(*arguments, cwd=None):
        if cwd:
            monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["data.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if line and not line.startswith("preprocessing:")]
        return ended.value.code, out, lines

    return run


def started(*arguments, cwd, **options):
    """Run data.py in its own process."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def content(directory):
    """The bytes of label tables and images."""
    root = directory / "kaggle_retina"
    paths = [*root.rglob("*.csv"), *root.rglob("*.jpeg")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def reference(tmp_path_factory, zips):
    """An uninterrupted run with two workers in its own process: its files and output."""
    cwd = tmp_path_factory.mktemp("reference")
    for path in zips:
        (cwd / path.name).symlink_to(path)
    process = started("-m", "main.zip", "-a", "2015.zip", "--workers", "2", *FLAGS, cwd=cwd)
    out, err = process.communicate(timeout=120)
    return cwd / "data", process.returncode, out, err


def test_two_archives_become_a_preprocessed_folder_with_lines_of_progress(reference):
    directory, code, out, err = reference
    assert (code, out) == (0, summary("data"))
    assert "preprocessing: 100 %, 40 of 40 images" in err
    assert "\r" not in err
    assert "Traceback" not in err
    for split, count in (("train", 30), ("val", 6)):
        rows = pd.read_csv(directory / "kaggle_retina" / f"labels_{split}.csv")
        assert len(rows) == count
        assert all((directory / "kaggle_retina" / path).is_file() for path in rows["path"])


def test_one_worker_absolute_paths_and_another_folder_give_the_same_bytes(tmp_path, zips, reference, data, no_plots):
    code, out, err = data("-m", zips[0], "-a", zips[1], "-d", tmp_path / "a" / "b", "--workers", 1, *FLAGS)
    assert (code, out, err) == (0, summary(tmp_path / "a" / "b"), [])
    assert content(tmp_path / "a" / "b") == content(reference[0])


def test_a_second_run_has_nothing_to_do(reference, zips, data):
    before = {path: path.stat().st_mtime_ns for path in reference[0].rglob("*.jpeg")}
    code, out, err = data("-m", "main.zip", "-a", "2015.zip", *FLAGS, cwd=reference[0].parent)
    assert (code, out, err) == (0, "already preprocessed with these settings; nothing to do\n" + summary("data"), [])
    assert {path: path.stat().st_mtime_ns for path in reference[0].rglob("*.jpeg")} == before


def test_other_settings_stop_with_one_line_that_names_them(reference, data):
    code, out, err = data("-m", "main.zip", "-a", "2015.zip", *FLAGS, "--seed", 11, cwd=reference[0].parent)
    root = Path("data") / "kaggle_retina"
    assert (code, out) == (2, "")
    assert err == [
        f"error: {root}: preprocessed with seed 10, not 11; choose another -d, or replace it with --force",
    ]


def test_force_replaces_the_images_of_other_settings(tmp_path, zips, data, no_plots):
    assert data("-m", zips[0], "-a", "none", "-d", tmp_path, "--workers", 1, *FLAGS, "--seed", 11)[0] == 0
    code, out, _ = data("-m", zips[0], "-a", "none", "-d", tmp_path, "--workers", 1, *FLAGS, "--force")
    assert code == 0
    assert out.splitlines()[2].startswith("validation    No DR: 2")


def test_grades_that_cannot_be_filled_are_reported_with_their_counts(tmp_path, zips, data, no_plots):
    code, out, err = data("-m", zips[0], "-a", "none", "-d", tmp_path, "--workers", 1, *FLAGS)
    assert (code, err) == (0, [])
    assert out.splitlines()[4:-2] == [
        f"note: grade {grade} has 3 training images, not 6; no more are available" for grade in (1, 2, 3, 4)
    ]


def test_missing_and_unreadable_images_are_named_and_the_others_done(tmp_path, main_members, data, no_plots):
    broken = dict(main_members)
    del broken["kaggle_retina/train/m00.png"]
    broken["kaggle_retina/train/m05.png"] = broken["kaggle_retina/train/m05.png"][:300]
    path = write_zip(tmp_path / "main.zip", broken)
    code, out, err = data("-m", path, "-a", "none", "-d", tmp_path, "--workers", 1, *FLAGS)
    assert code == 1
    assert err == [
        "skipped main/m00: the archive lacks its file",
        "skipped main/m05: the image is truncated: its end is missing",
        "fix the images listed above and run again; only they are retried",
    ]
    assert out.splitlines()[2:4] == [
        "validation    No DR: 2  Mild: 1  Moderate: 1  Severe: 1  Proliferative DR: 1",
        "train: main   No DR: 4  Mild: 3  Moderate: 3  Severe: 3  Proliferative DR: 3",
    ]
    assert len(list((tmp_path / "kaggle_retina").glob("*/*.jpeg"))) == 22


def test_an_image_fixed_in_an_archive_of_the_same_size_is_used(tmp_path, main_members, data, no_plots):
    name = "kaggle_retina/train/m05.png"
    whole = main_members[name]
    damaged = {**main_members, name: whole[:300] + bytes(len(whole) - 300)}
    path = write_zip(tmp_path / "main.zip", damaged, compression=zipfile.ZIP_STORED)
    size = path.stat().st_size
    assert data("-m", path, "-a", "none", "-d", tmp_path, "--workers", 1, *FLAGS)[0] == 1
    write_zip(path, main_members, compression=zipfile.ZIP_STORED)
    assert path.stat().st_size == size
    code, out, err = data("-m", path, "-a", "none", "-d", tmp_path, "--workers", 1, *FLAGS)
    assert (code, err) == (0, [])
    assert "nothing to do" not in out
    assert len(list((tmp_path / "kaggle_retina").glob("*/m05.jpeg"))) == 1


def test_of_a_folder_in_which_an_image_was_fixed_nothing_else_is_preprocessed_again(
    tmp_path, main_members, data, no_plots
):
    """Also if its size has not changed. Excluded images, such as conflicting duplicates, are not read again either."""
    name = "kaggle_retina/train/m05.png"
    copies = {"kaggle_retina/train/m01.png": main_members["kaggle_retina/train/m00.png"]}
    members = main_members | copies
    root = write_folder(tmp_path / "source", members | {name: members[name][:300]})
    log = tmp_path / "kaggle_retina" / "preprocessed.jsonl"

    def preprocessed():
        code, _, err = data("-m", root, "-a", "none", "-d", tmp_path, "--workers", 1, *FLAGS)
        return code, err, [json.loads(line)["original"] for line in log.read_text().splitlines() if line]

    code, err, first = preprocessed()
    assert (code, err[0].startswith("skipped source/m05: the image is truncated")) == (1, True)
    (root / name).write_bytes(members[name])
    code, err, second = preprocessed()
    assert (code, err) == (0, [])
    assert second == [*first, "m05"]
    assert not (tmp_path / "kaggle_retina" / "preprocessed").exists()
    whole = root / "kaggle_retina" / "train" / "m02.png"
    whole.write_bytes(whole.read_bytes() + b"more")  # a finished one that has changed since
    assert preprocessed()[2] == [*second, "m01", "m02"]  # m01 is one of the copies, which nobody needed any more


def test_a_name_too_long_for_the_file_system_is_shortened(tmp_path, data, no_plots):
    names = [f"{kind * 60}/{kind}{'ä' * 90}{n}.png" for kind in "ab" for n in range(4)]
    members = {name: encode(draw_retina(seed=seed)[0]) for seed, name in enumerate(names)}
    root = write_folder(tmp_path / "source", members)
    code, _, err = data("-m", root, "-d", tmp_path, "--workers", 1, "--size", 64, "--val_fraction", 0.5)
    assert (code, err) == (0, [])
    names = [path.name for path in (tmp_path / "kaggle_retina").glob("*/*.jpeg")]
    assert len(names) == 8
    assert max(len(name.encode()) for name in names) <= 205


# --- other sources --------------------------------------------------------------------------------


def test_a_table_of_any_classes_is_preprocessed_with_the_columns_named(tmp_path, data, no_plots):
    rows = [f"{name},{('cow', 'cat')[number % 2]},{number // 2}" for number, name in enumerate("abcdefgh")]
    members = {f"images/{name}.png": encode(draw_retina(seed=n)[0]) for n, name in enumerate("abcdefgh")}
    write_folder(tmp_path / "mine", members | {"labels.csv": "\n".join(["file,animal,owner", *rows]).encode()})
    named = ("--id_column", "file", "--label_column", "animal", "--patient_column", "owner", "--no_crop")
    code, out, err = data("-m", "mine", *named, "--workers", 1, "--size", 64, "--val_fraction", 0.5, cwd=tmp_path)
    assert (code, err) == (0, [])
    lines = "patients: 4, from the column", "validation    cat: 2  cow: 2", "train: mine   cat: 2  cow: 2"
    taken = "labels.csv: image 'file', label 'animal', patient 'owner'"
    assert out.splitlines() == [taken, *lines, "report: data/kaggle_retina/report.html"]
    settings = json.loads((tmp_path / "data" / "kaggle_retina" / "settings.json").read_text())
    assert (settings["classes"], settings["crop"], settings["per_class"]) == (["cat", "cow"], False, "all")


def test_an_output_folder_inside_the_input_is_refused(tmp_path, data):
    write_folder(tmp_path / "data", {f"{name}/{n}.png": b"" for name in ("cat", "dog") for n in range(4)})
    code, _, err = data("-m", "data", "--workers", 1, cwd=tmp_path)
    assert (code, err) == (2, ["error: -d data: is inside data, where images are read; use a folder outside"])
    assert not (tmp_path / "data" / "kaggle_retina").exists()


# --- what the user must change: exit code 2, one line, nothing written ------------------------------


def write_bad_archives(folder, main_members):
    for name in ("good.zip", "another.zip"):
        write_zip(folder / name, main_members)
    truncated = (folder / "good.zip").read_bytes()[:-200]
    (folder / "truncated.zip").write_bytes(truncated)
    (folder / "text.zip").write_text("not found")
    write_zip(folder / "outside.zip", {**main_members, "../../x.png": b""})
    table = main_members["kaggle_retina/train.csv"]
    write_zip(folder / "grade.zip", {**main_members, "kaggle_retina/train.csv": table.replace(b"m01,0", b"m01,9")})
    write_zip(folder / "no_table.zip", {name: data for name, data in main_members.items() if name.endswith("png")})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "diabetic-retinopathy-classification-f1-score-4.zip: not found; pass the path of"),
        (
            ["-m", "good.zip"],
            "train_image_resized.zip: 2015 archive not found; pass its path with -a, or use -a none to go without it",
        ),
        (["-m", "truncated.zip"], "truncated.zip: truncated or damaged; download it again"),
        (["-m", "text.zip"], "text.zip: not a zip archive; download it again"),
        (["-m", "outside.zip"], "outside.zip: member '../../x.png' points outside the archive; do not use this file"),
        (["-m", "grade.zip"], "grade.zip: kaggle_retina/train.csv, row 3: diagnosis is '9', expected 0 to 4"),
        (
            ["-m", "no_table.zip"],
            "no_table.zip: the folders test, train are named after splits, not classes; put the images of each",
        ),
        (["-m", "good.zip", "-a", "another.zip"], "another.zip: no label table trainLabels.csv"),
        (["-m", "good.zip", "-a", "good.zip"], "-a good.zip: the same file as -m; pass the 2015 archive"),
        (["-m", "good.zip", "--size", "5"], "--size must lie between 16 and 4096 pixels, got 5"),
        (["--size", "large"], "argument --size: invalid int value: 'large'; see data.py --help"),
        (["-m", "good.zip", "--per_class", "0"], "--per_class must be at least 1 or 'all', got 0"),
        (["--per_class", "few"], "'few'"),
        (["-m", "good.zip", "--val_fraction", "1"], "--val_fraction must lie between 0 and 1, got 1.0"),
        (["--conflicts", "ask"], "argument --conflicts: invalid choice: 'ask'"),
        (
            ["-m", "good.zip", "--label_column", "kind"],
            "kaggle_retina/train.csv: no column 'kind' (the header is id_code,diagnosis); correct",
        ),
        (["--workers", "0"], "--workers must be at least 1, got 0"),
        (["--sise", "64"], "unrecognised flag --sise; use --size 64; see data.py --help"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(tmp_path, main_members, data, arguments, message):
    write_bad_archives(tmp_path, main_members)
    others = [] if arguments[-1:] in (["good.zip"], ["another.zip"]) else ["-a", "none"]
    code, out, err = data(*arguments, *others, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert not (tmp_path / "data").exists()


def test_a_process_of_its_own_ends_the_same_way(tmp_path):
    process = started("-m", "no.zip", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "error: no.zip: not found; pass the path of the archive or folder with -m\n"


def test_a_folder_with_other_files_is_refused(tmp_path, zips, data):
    root = write_folder(tmp_path / "data" / "kaggle_retina", {"mine.txt": b"mine"})
    code, _, err = data("-m", zips[0], "-a", "none", cwd=tmp_path)
    assert code == 2
    expected = "error: data/kaggle_retina: holds files that are not from data.py; choose another -d"
    assert err == [expected]
    assert [path.name for path in root.iterdir()] == ["mine.txt"]


# --- stopped in the middle ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 25, 42, 44], ids=["first images", "images", "label table", "report"])
def test_a_full_disk_is_reported_in_one_line_and_leaves_nothing_half_written(
    tmp_path, zips, reference, data, no_plots, monkeypatch, number
):
    written = []
    write_bytes = Path.write_bytes

    def fill_up(path, content):
        written.append(path)
        if len(written) < number:
            return write_bytes(path, content)
        write_bytes(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = ("-m", zips[0], "-a", zips[1], "-d", tmp_path, "--workers", 1, *FLAGS)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", fill_up)
        code, out, err = data(*arguments)
    assert (code, out) == (2, "")
    full = tmp_path / "kaggle_retina"
    assert len(err) == 1
    assert err[0].startswith(f"error: {full}")
    assert ": disk full; " in err[0]
    assert err[0].endswith("start again to continue")
    assert list(full.rglob("*.part")) == []
    assert not (full / "report.json").exists()
    assert data(*arguments) == (0, summary(tmp_path), [])
    assert content(tmp_path) == content(reference[0])


KILLED = """
import os, runpy, signal, sys
from dr.preprocessing.workspace import Workspace

add = Workspace.add

def add_and_die(self, record):
    if len(self.records) < 10:
        return add(self, record)
    with self.log.open("a") as log:
        log.write('\\n{"source": "main", "orig')
    (self.staging / ".half.jpeg.1.part").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

Workspace.add = add_and_die
sys.argv = ["data.py", *sys.argv[2:]]
runpy.run_path("SCRIPT", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_run_is_continued_and_ends_like_an_unbroken_one(tmp_path, zips, reference, data, no_plots):
    arguments = ("-m", zips[0], "-a", zips[1], "-d", tmp_path, "--workers", 1, *FLAGS)
    command = [sys.executable, "-c", KILLED.replace("SCRIPT", str(SCRIPT)), "data.py", *map(str, arguments)]
    killed = subprocess.run(command, cwd=SCRIPT.parent, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    preprocessed = tmp_path / "kaggle_retina" / "preprocessed"
    before = {path.name: path.stat().st_mtime_ns for path in preprocessed.glob("*.jpeg")}
    assert len(before) == 11
    assert data(*arguments) == (0, summary(tmp_path), [])
    assert content(tmp_path) == content(reference[0])
    assert list((tmp_path / "kaggle_retina").rglob("*.part")) == []
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kaggle_retina").glob("*/*.jpeg")}
    kept = [name for name in before if name in after]
    assert sum(after[name] != before[name] for name in kept) <= 1  # the one whose record was cut short


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent in another way")
def test_ctrl_c_stops_without_a_traceback_and_the_next_run_goes_on(tmp_path, zips, reference, data, no_plots):
    arguments = ("-m", zips[0], "-a", zips[1], "-d", tmp_path, *FLAGS)
    # where the tests run in the background, SIGINT is ignored by inheritance
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = started(*arguments, "--workers", 2, cwd=tmp_path, start_new_session=True, preexec_fn=heard)
    deadline = time.monotonic() + 60
    while not (tmp_path / "kaggle_retina" / "val").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.6)  # the workers are being started
    os.killpg(process.pid, signal.SIGINT)  # the terminal sends it to the workers as well
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out == ""
    assert err.endswith("\nstopped; start again to continue\n")
    assert "Traceback" not in err
    assert data(*arguments, "--workers", 1) == (0, summary(tmp_path), [])
    assert content(tmp_path) == content(reference[0])
