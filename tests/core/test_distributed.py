"""The scripts under torchrun: two processes on one CPU do what one does."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from made import write_images, write_preprocessed

from dr import UsageError
from dr.datasets.preprocessed import read_preprocessed
from dr.datasets.torch_datasets import EpochSampler
from dr.recipes.load import from_dict
from dr.training.loop import train

ROOT = Path(__file__).parents[2]
# without batch statistics: those of a batch of five are not those of ten, and on CPUs they cannot be synchronised
STATELESS = ["--set", "backbone=test_convnext", "--set", "image_size=32", "--set", "augmentation=flips",
             "--set", "precision=fp32", "--set", "optimizer=sgd", "--pretrained", "none", "--workers", "0",
             "--device", "cpu", "-e", "2"]  # fmt: skip

KILLED = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from dr.cli import run as cli
from dr.commands import train
from dr.core import distributed
from dr.training import loop as training

train_epoch = training.train_epoch

def killed(run, batches):
    if run.epoch == 1 and distributed.rank == 1 and distributed.restart_count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_epoch(run, batches)

training.train_epoch = killed
cli.run(train.main, go_on="start again")
"""


def torchrun(script, *flags, cwd, processes=2, restarts=0):
    """Runs a script in so many processes, to its end -> exit code, stdout, stderr."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", processes, "--max-restarts", restarts]
    command = [sys.executable, "-m", *launcher, ROOT / f"{script}.py", *flags]
    return run(command, cwd=cwd)


def alone(script, *flags, cwd):
    return run([sys.executable, ROOT / f"{script}.py", *flags], cwd=cwd)


def run(command, *, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    return ended.returncode, ended.stdout, ended.stderr


def history(folder, name="run"):
    return pd.read_csv(folder / "weights" / f"{name}__history.csv")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_preprocessed(tmp_path_factory.mktemp("data"), train=33, val=15, test=7)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """One process with batches of ten and two with batches of five -> their folders, and what the two said."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    code, _, err = alone("train", "-d", data, "-n", "run", "-b", 10, *STATELESS, cwd=one)
    assert code == 0, err
    code, out, err = torchrun("train", "-d", data, "-n", "run", "-b", 5, *STATELESS, cwd=two)
    assert code == 0, err
    return one, two, out, err


def test_two_processes_learn_as_one_with_twice_the_batch(trained):
    one, two, *_ = trained
    before, after = history(one), history(two)
    figures = [name for name in before.columns if name not in ("seconds",)]
    pd.testing.assert_frame_equal(before[figures], after[figures], rtol=1e-4)
    first, second = (torch.load(folder / "weights" / "run__best.pt", weights_only=True) for folder in (one, two))
    for side in ("validation", "test"):  # each photograph once, in its place
        assert torch.equal(first[side]["truth"], second[side]["truth"])
        assert torch.allclose(first[side]["predictions"], second[side]["predictions"], rtol=1e-4)
    assert torch.allclose(torch.tensor(first["thresholds"]), torch.tensor(second["thresholds"]), rtol=1e-4)


def test_one_of_two_processes_prints_and_writes(trained):
    one, two, out, err = trained
    names = [sorted(path.name for path in (folder / "weights").iterdir()) for folder in (one, two)]
    assert names[0] == names[1]
    assert len(pd.read_csv(two / "weights" / "runs.csv")) == 1
    assert pd.read_csv(two / "weights" / "runs.csv")["processes"].tolist() == [2]
    assert out.count("epoch 1/2  loss") == out.count("saved weights/run__best.pt") == 1
    assert err.count("epoch 2:   0%") == 1
    assert "Traceback" not in err


def test_as_many_processes_go_on_as_have_trained(trained, data):
    weights = trained[1] / "weights"
    recipe = from_dict(torch.load(weights / "run__last.pt", weights_only=True)["recipe"])
    with pytest.raises(UsageError, match=r"run__last\.pt: 2 processes trained it, not 1; resume with as many"):
        train(recipe, data=read_preprocessed(data), folder=str(weights), name="run", device_name="cpu", go_on=True)


def test_a_killed_process_ends_the_run_and_a_restart_goes_on_as_if_nothing_had_been(data, tmp_path):
    flags = ["-d", data, "-n", "run", "-b", 5, *STATELESS, "--set", "dropout=0.5"]
    code, _, err = torchrun("train", *flags, cwd=tmp_path)
    assert code == 0, err
    unbroken = torch.load(tmp_path / "weights" / "run__last.pt", weights_only=True)
    assert not torch.equal(*(random["torch"] for random in unbroken["random"]))  # each draws its own dropout

    (tmp_path / "killed.py").write_text(KILLED)
    code, out, err = torchrun(tmp_path / "killed", *flags, "-s", "broken", cwd=tmp_path, restarts=1)
    assert code == 0, err
    assert out.count("epoch 1/2  loss") == out.count("epoch 2/2  loss") == 1
    broken = torch.load(tmp_path / "broken" / "run__last.pt", weights_only=True)
    for key, value in unbroken["model"].items():
        assert torch.equal(value, broken["model"][key]), key
    assert [row["val_loss"] for row in unbroken["history"]] == [row["val_loss"] for row in broken["history"]]


def test_what_one_process_meets_alone_is_told_with_its_rank_and_ends_all(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    prepared = read_preprocessed(data)
    order = EpochSampler(prepared.train["diagnosis"].to_numpy(), sampling="shuffle", seed=10)
    _, second, _ = list(order)[5]  # the first of the second process
    damaged = tmp_path / "data" / "kaggle_retina" / prepared.train["path"][second]
    damaged.write_bytes(b"not a photograph")
    code, out, err = torchrun("train", "-d", tmp_path / "data", "-b", 5, *STATELESS, cwd=tmp_path)
    assert code == 1  # torchrun's own
    assert out.endswith("epochs 1 to 2 of 3 batches of 5 in each of 2 processes; cpu:0, fp32\n")
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert told == [f"error: process 1 of 2: {damaged}: it cannot be decoded; delete it and run data.py again"]
    assert f"{ROOT}/dr/" not in err  # the one traceback is torchrun's


def test_what_all_processes_meet_is_told_once(tmp_path):
    code, out, err = torchrun("train", "-d", "nowhere", *STATELESS, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.count("nowhere: there is no such folder; run data.py first") == 1
    (tmp_path / "nowhere").mkdir()
    code, out, err = torchrun("train", "-d", "nowhere", *STATELESS, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.count("labels_train.csv: there is no such label table; run data.py first") == 1


def test_two_processes_grade_as_one(trained, tmp_path):
    write_images(tmp_path / "images", [0, 1, 2, 3, 4, 0, 1, 2])
    (tmp_path / "images" / "bad.png").touch()
    flags = ["-m", trained[0] / "weights" / "run__best.pt", "-i", "images", "-b", 4, "--workers", 0, "--device", "cpu"]
    code, expected, err = alone("predict", *flags, "-o", "one", cwd=tmp_path)
    assert code == 1, err
    code, out, err = torchrun("predict", *flags, "-o", "two", cwd=tmp_path)
    assert (code, out) == (1, expected.replace("one/", "two/"))
    assert err.count("not graded: bad.png: the file is empty") == 1
    for name in ("result.csv", "details.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    pages = [(tmp_path / folder / "report.html").read_text() for folder in ("one", "two")]
    blocks = [re.findall(r'<script type="application/json".*?</script>', page, re.DOTALL) for page in pages]
    assert len(blocks[0]) == 2
    assert blocks[0] == blocks[1]
    explained = [re.findall(r'class="pair"><img src="[^"]+" alt="([^"]+)"', page) for page in pages]
    assert len(explained[0]) == 8
    assert explained[0] == explained[1]


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_two_processes_take_the_engine_that_one_takes(trained, tmp_path):
    write_images(tmp_path / "images", [0, 1, 2, 3, 4] * 14, side_px=64)
    flags = ["-m", trained[0] / "weights" / "run__best.pt", "-i", "images", "--workers", 0, "--device", "cpu",
             "--no-report"]  # fmt: skip
    assert "graded by OpenVINO" in alone("predict", *flags, "-o", "one", cwd=tmp_path)[1]
    assert "graded by OpenVINO" in torchrun("predict", *flags, "-o", "two", cwd=tmp_path)[1]


def test_two_processes_prepare_as_one(zips, tmp_path):
    flags = ["-m", zips[0], "-a", zips[1], "--size", 64, "--per_class", 6, "--workers", 1]
    code, expected, err = alone("data", *flags, "-d", "one", cwd=tmp_path)
    assert code == 0, err
    code, out, err = torchrun("data", *flags, "-d", "two", cwd=tmp_path)
    assert (code, out) == (0, expected.replace("one/", "two/")), err
    one, two = (
        {path.relative_to(tmp_path / side): path.read_bytes() for path in (tmp_path / side).rglob("*.*")}
        for side in ("one", "two")
    )
    assert one.keys() == two.keys()
    changing = {"report.json", "prepared.jsonl"}  # the seconds; the order in which photographs were finished
    assert [path for path in one if one[path] != two[path] and path.name not in changing] == []
    reports = [json.loads(files[Path("kaggle_retina/report.json")]) | {"seconds": 0} for files in (one, two)]
    assert reports[0] == reports[1]
    lines = [sorted(files[Path("kaggle_retina/prepared.jsonl")].splitlines()) for files in (one, two)]
    assert lines[0] == lines[1]


def test_preparing_in_one_process_imports_no_torch(zips, tmp_path):
    (tmp_path / "looked.py").write_text(
        f"import sys, runpy\nsys.path.insert(0, {str(ROOT)!r})\ntry:\n    runpy.run_path({str(ROOT / 'data.py')!r}, "
        "run_name='__main__')\nfinally:\n    print('torch' in sys.modules)\n"
    )
    code, out, err = alone(tmp_path / "looked", "-m", zips[0], "-a", "none", "--size", 64, "--workers", 1, cwd=tmp_path)
    assert (code, out.splitlines()[-1]) == (0, "False"), err
