"""train.py and predict.py as a user runs them: exit code, message, files. data.py: preprocessing/test_data_script."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from made import write_images, write_preprocessed

from dr.cli.run import run_main
from dr.commands import predict, train
from dr.core import device

ROOT = Path(__file__).parent.parent
MAINS = {"train": train.main, "predict": predict.main}
TINY_FLAGS = ["--set", "backbone=test_efficientnet", "--set", "image_size=64", "--set", "augmentation=none",
              "--set", "precision=fp32", "--pretrained", "none", "--workers", "1", "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with preprocessed images and one short training, run as a command -> (folder, its completed process)."""
    folder = tmp_path_factory.mktemp("workplace")
    write_preprocessed(folder / "data", train=20, val=10)
    write_images(folder / "results" / "images", [0, 2, 4])
    command = [sys.executable, str(ROOT / "train.py"), "-b", "10", "-e", "1", *TINY_FLAGS]
    return folder, subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def script(workplace, monkeypatch, capsys):
    """Run a script in the workplace, within this process, because importing torch takes seconds -> (code, out, err)."""

    monkeypatch.setattr(device, "best_precision", lambda _: "fp32")  # scores are compared

    def call(name, *flags):
        monkeypatch.chdir(workplace[0])
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, flags)])
        with pytest.raises(SystemExit) as exit_info:
            run_main(MAINS[name], go_on="start again")
        return exit_info.value.code, *capsys.readouterr()

    return call


def test_training_ends_with_its_metrics_and_the_path_of_the_checkpoint(workplace):
    folder, finished = workplace
    assert finished.returncode == 0, finished.stderr
    name = "efficientnet_v2_m__size_380__crop__aug__adamw__lr_0001_10_01"
    assert "best epoch 1: macro-F1, cross-fitted 0." in finished.stdout
    assert finished.stdout.splitlines()[-1] == f"saved weights/{name}__best.pt"
    assert (folder / "weights" / f"{name}__best.pt").is_file()
    row = pd.read_csv(folder / "weights" / "runs.csv").iloc[0]
    assert row["overrides"].startswith("backbone=test_efficientnet image_size=64")
    assert row["overrides"].endswith("batch_size=10 epochs=1 pretrained=none")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_terminated_training_leaves_no_process_and_no_temporary_folder(workplace, tmp_path, request):
    command = [sys.executable, str(ROOT / "train.py"), "-b", "2", "-e", "1000", "-s", str(tmp_path), *TINY_FLAGS]
    folder = tempfile.mkdtemp()  # a short name: sockets of processes are in it
    request.addfinalizer(lambda: shutil.rmtree(folder))
    environment = {**os.environ, "TMPDIR": folder, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=workplace[0], env=environment, **pipes) as process:
        timer = threading.Timer(120, process.kill)
        timer.start()
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                break
        while not (loading := psutil.Process(process.pid).children(recursive=True)):
            time.sleep(0.01)
        process.terminate()
        _, err = process.communicate(timeout=30)
        timer.cancel()
    assert process.returncode == 143
    assert "\nstopped; start again, with --resume if an epoch was finished\n" in err
    assert psutil.wait_procs(loading, timeout=1)[1] == []
    assert list(Path(folder).iterdir()) == []


def test_prediction_finds_the_default_checkpoint_and_images(workplace, script):
    code, out, err = script("predict", "--workers", 1, "--device", "cpu")
    assert code == 0, err
    assert out.splitlines()[-2:] == ["wrote results/result.csv with 3 images", "wrote results/report.html"]
    assert len(pd.read_csv(workplace[0] / "results" / "result.csv")) == 3


def test_an_unreadable_image_gives_exit_code_1_and_its_name(script, tmp_path):
    write_images(tmp_path / "images", [1])
    (tmp_path / "images" / "bad.png").touch()
    code, _, err = script("predict", "-i", tmp_path / "images", "-o", tmp_path, "--workers", 1)
    assert code == 1
    assert "not graded: bad.png: the file is empty" in err
    assert len(pd.read_csv(tmp_path / "result.csv")) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-b", "0"], "error: --batch_size must be at least 1, got 0"),
        (["-e", "0"], "error: --epochs must be at least 1, got 0"),
        (["--seed", "-1"], "error: --seed must be at least 0, got -1"),
        (["--fold", "6/5"], "expected K/N as 1/5, K from 1 to N and N at least 2, got '6/5'"),
        (["--set", "image_size=8"], "--set: image_size must be at least 16 pixels, got 8"),
        (["--resume", "-n", "never"], "never__last.pt: nothing to resume; start without --resume"),
        (["-e", "many"], "argument -e/--epochs: invalid int value: 'many'; see train.py --help"),
        (["--colour"], "unrecognised flag --colour; see train.py --help"),
        (["-r", "lite"], "--recipe lite: not found; known are"),
        (["--set", "lr=fast"], "lr must be a number, got 'fast'"),
        (["-d", "nowhere"], "nowhere: folder not found; run data.py first, or pass the folder it wrote with"),
        (["-d", "weights"], "labels_train.csv: label table not found; run data.py first"),
        (["--workers", "-1"], "--workers must be at least 0, got -1"),
        (["--pretrained", "lost.pt", "-r", "lite0"], "lost.pt: file of weights not found"),
    ],
)
def test_wrong_flags_of_train_are_one_line(script, tmp_path, flags, message):
    code, out, err = script("train", "-s", tmp_path / "out", *flags)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-m", "lost.pt"], "lost.pt: file of weights not found"),
        (["-i", "nowhere"], "nowhere: not found; pass the images with --images"),
        (["-b", "0"], "--batch_size must be at least 1, got 0"),
        (
            ["--submission", "lost.csv"],
            "lost.csv: not found; pass a sample_submission.csv",
        ),
        (["-m", __file__], "test_scripts.py: not a file of weights; pass a NAME__best.pt of train.py"),
        (["--device", "cuda:9"], "device cuda:9: torch finds no such device"),
    ],
)
def test_wrong_flags_of_predict_are_one_line_and_write_nothing(script, tmp_path, flags, message):
    code, out, err = script("predict", "-o", tmp_path / "out", *flags)
    assert (code, out.removeprefix("loading PyTorch ...\n")) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("data", ["-m", "lost.zip"]),
        ("data", ["-m", ".", "-a", "lost.zip"]),
        ("train", ["-d", "lost"]),
        ("train", ["-d", ".", "--pretrained", "lost.pt"]),
        ("train", ["-d", ".", "-r", "lite0", "--resume", "-n", "lost"]),
        ("predict", ["-m", "lost.pt"]),
        ("predict", ["-m", str(ROOT / "README.md"), "-i", "lost"]),
        ("predict", ["-m", str(ROOT / "README.md"), "-i", ".", "--submission", "lost.csv"]),
    ],
)
def test_a_missing_path_is_reported_before_anything_slow_is_imported(tmp_path, name, flags):
    watched = (
        f"import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, {str(ROOT)!r})\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as ended: print(ended.code, {'torch', 'pandas'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", watched, str(ROOT / f"{name}.py"), *flags]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.stdout == "2 set()\n"
    assert finished.stderr.count("\n") == 1
    assert "lost" in finished.stderr
    assert "; " in finished.stderr  # the remedy
