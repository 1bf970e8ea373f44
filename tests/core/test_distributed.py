"""The scripts under torchrun: two processes on one CPU give the results of one."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from made import write_images, write_preprocessed

from dr import UsageError
from dr.datasets.preprocessed import read_preprocessed
from dr.datasets.torch_datasets import EpochSampler
from dr.recipes.load import from_dict
from dr.training.loop import train
from dr.training.options import RunOptions

ROOT = Path(__file__).parents[2]
# no batch statistics: those of five images differ from those of ten, and CPUs cannot synchronise them
STATELESS = ["--set", "backbone=test_convnext", "--set", "image_size=32", "--set", "augmentation=flips",
             "--set", "precision=fp32", "--set", "optimizer=sgd", "--pretrained", "none", "--workers", "0",
             "--device", "cpu", "-e", "2", "--keep_last"]  # fmt: skip

JOBS = f"""
import contextlib, json, os, sys
sys.path.insert(0, {str(ROOT)!r})
from dr import UsageError
from dr.commands import data, predict, train
from dr.core import distributed

def main():
    for script, *flags in json.loads(sys.argv[1]):
        sys.argv = [script + ".py", *flags]
        with distributed.silence_other_ranks():
            print("=== job", file=sys.stderr, flush=True)
            print("=== job", flush=True)
            code = {{"data": data.main, "train": train.main, "predict": predict.main}}[script]()
            print("=== code", code, flush=True)
    distributed.destroy()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # as the commands end: threads of libraries may abort the end of an interpreter

if __name__ == "__main__":
    main()
"""

KILLED = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from dr.cli.run import run_main
from dr.commands import train
from dr.core import distributed
from dr.training import epoch

train_epoch = epoch.train_epoch

def killed(run, batches):
    if run.epoch == 1 and distributed.rank == 1 and distributed.restart_count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_epoch(run, batches)

epoch.train_epoch = killed
run_main(train.main, go_on="start again")
"""


def torchrun(script, *flags, cwd, processes=2, restarts=0):
    """Run a script in several processes -> exit code, stdout, stderr."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", processes, "--max-restarts", restarts]
    return start([sys.executable, "-m", *launcher, script, *flags], cwd=cwd)


def start(command, *, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    return ended.returncode, ended.stdout, ended.stderr


def jobs(data, zips, *, batch_size):
    """Every stage, as (name, [script, flags]); all write into the working directory."""
    predict = ["predict", "-m", "../1/weights/run__best.pt", "-i", "../images", "--workers", "0", "--device", "cpu"]
    return {
        "train": ["train", "-d", str(data), "-b", str(batch_size), *STATELESS, "-n", "run"],
        "predict": [*predict, "-b", "4"],
        "engine": [*predict, "-i", "../small", "-o", "engine", "--no_report"],
        "data": ["data", "-m", str(zips[0]), "-a", str(zips[1]), "--size", "64", "--per_class", "6", "--workers", "1"],
    }


class Finished(NamedTuple):
    """The results of the jobs of one start: their folder, and by job exit code, stdout and stderr."""

    folder: Path
    codes: dict[str, int]
    out: dict[str, str]
    err: dict[str, str]


def run_jobs(folder, planned, *, processes):
    (folder / "jobs.py").write_text(JOBS)
    flags = [folder / "jobs.py", json.dumps(list(planned.values()))]
    if processes == 1:
        code, out, err = start([sys.executable, *flags], cwd=folder)
    else:
        code, out, err = torchrun(*flags, cwd=folder, processes=processes)
    assert code == 0, err
    parts = [part.rpartition("=== code ") for part in out.split("=== job\n")[1:]]
    codes = dict(zip(planned, [int(code) for *_, code in parts], strict=True))
    texts = dict(zip(planned, [text for text, *_ in parts], strict=True))
    return Finished(folder, codes, texts, dict(zip(planned, err.split("=== job\n")[1:], strict=True)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_preprocessed(tmp_path_factory.mktemp("data"), train=33, val=15, test=7)


@pytest.fixture(scope="module")
def both(data, zips, tmp_path_factory):
    """Every stage in one process with batches of ten, and in two with batches of five, each in one start."""
    place = tmp_path_factory.mktemp("stages")
    write_images(place / "images", [0, 1, 2, 3, 4, 0, 1, 2])
    (place / "images" / "bad.png").touch()
    write_images(place / "small", [0, 1, 2, 3, 4] * 14, side_px=64)
    finished = []
    for processes in (1, 2):
        (place / str(processes)).mkdir()
        planned = jobs(data, zips, batch_size=10 // processes)
        finished.append(run_jobs(place / str(processes), planned, processes=processes))
    return finished


def history(folder, name="run"):
    return pd.read_csv(folder / "weights" / name / "history.csv")


def test_two_processes_train_like_one_with_twice_the_batch(both):
    one, two = (finished.folder for finished in both)
    before, after = history(one), history(two)
    compared = [name for name in before.columns if name != "seconds"]
    pd.testing.assert_frame_equal(before[compared], after[compared], rtol=1e-4)
    first, second = (torch.load(folder / "weights" / "run__best.pt", weights_only=True) for folder in (one, two))
    for split, kept in first["predictions"].items():  # each image once, in order
        assert torch.equal(kept["truth"], second["predictions"][split]["truth"])
        assert torch.allclose(kept["predictions"], second["predictions"][split]["predictions"], rtol=1e-4)
    assert torch.allclose(torch.tensor(first["thresholds"]), torch.tensor(second["thresholds"]), rtol=1e-4)


def test_one_of_two_processes_prints_and_writes(both):
    one, two = both
    names = [sorted(str(path.relative_to(run.folder)) for path in run.folder.glob("weights/**/*")) for run in both]
    assert names[0] == names[1]
    assert pd.read_csv(two.folder / "weights" / "runs.csv")["processes"].tolist() == [2]
    assert two.out["train"].count("epoch 1/2  loss") == two.out["train"].count("saved weights/run__best.pt") == 1
    assert "Traceback" not in "".join(two.err.values())
    assert one.codes == two.codes == {"train": 0, "predict": 1, "engine": 0, "data": 0}


def test_a_run_is_resumed_by_as_many_processes_as_trained_it(both, data):
    weights = both[1].folder / "weights"
    recipe = from_dict(torch.load(weights / "run__last.pt", weights_only=True)["recipe"])
    options = RunOptions(folder=str(weights), name="run", device="cpu", resume=True)
    with pytest.raises(UsageError, match=r"run__last\.pt: trained by 2 processes, not 1; resume with as many"):
        train(recipe, data=read_preprocessed(data), options=options)


@pytest.mark.slow
def test_a_restart_after_a_killed_process_ends_like_an_unbroken_run(data, tmp_path):
    flags = ["-d", data, "-b", 5, *STATELESS, "--set", "dropout=0.5"]
    code, _, err = torchrun(ROOT / "train.py", *flags, "-n", "unbroken", cwd=tmp_path)
    assert code == 0, err
    unbroken = torch.load(tmp_path / "weights" / "unbroken__last.pt", weights_only=True)
    states = unbroken["training_state"]["random"]
    assert not torch.equal(*(state["torch"] for state in states))  # each process draws its own dropout

    (tmp_path / "killed.py").write_text(KILLED)
    code, out, err = torchrun("killed.py", *flags, "-n", "broken", cwd=tmp_path, restarts=1)
    assert code == 0, err
    assert out.count("epoch 1/2  loss") == out.count("epoch 2/2  loss") == 1
    broken = torch.load(tmp_path / "weights" / "broken__last.pt", weights_only=True)
    for key, value in unbroken["model"].items():
        assert torch.equal(value, broken["model"][key]), key
    whole, continued = (saved["training_state"]["history"] for saved in (unbroken, broken))
    assert [row["val_loss"] for row in whole] == [row["val_loss"] for row in continued]


@pytest.mark.slow
def test_an_error_of_one_process_is_reported_with_its_rank_and_ends_all(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    preprocessed = read_preprocessed(data)
    order = EpochSampler(preprocessed.train["diagnosis"].to_numpy(), sampling="shuffle", seed=10)
    _, second, _ = list(order)[5]  # the first of the second process
    damaged = tmp_path / "data" / "kaggle_retina" / preprocessed.train["path"][second]
    damaged.write_bytes(b"not an image")
    code, out, err = torchrun(ROOT / "train.py", "-d", tmp_path / "data", "-b", 5, *STATELESS, cwd=tmp_path)
    assert code == 1  # torchrun's own
    assert out.endswith("epochs 1 to 2, 3 batches of 5 in each of 2 processes; cpu:0, fp32\n")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: process 1 of 2: {damaged}: cannot be decoded; delete it and run data.py again"]
    assert f"{ROOT}/dr/" not in err  # the one traceback is torchrun's


@pytest.mark.slow
def test_an_error_of_all_processes_is_reported_once(tmp_path):
    (tmp_path / "nowhere").mkdir()
    code, out, err = torchrun(ROOT / "train.py", "-d", "nowhere", *STATELESS, cwd=tmp_path)
    assert (code, out) == (1, "loading PyTorch ...\n")
    assert err.count("labels_train.csv: label table not found; run data.py first") == 1


def test_two_processes_grade_like_one(both):
    one, two = both
    assert one.out["predict"] == two.out["predict"]
    assert two.err["predict"].count("not graded: bad.png: the file is empty") == 1
    results = [finished.folder / "results" for finished in both]
    for name in ("result.csv", "details.csv"):
        assert (results[0] / name).read_bytes() == (results[1] / name).read_bytes()
    pages = [(folder / "report.html").read_text() for folder in results]
    blocks = [re.findall(r'<script type="application/json".*?</script>', page, re.DOTALL) for page in pages]
    assert len(blocks[0]) == 2
    assert blocks[0] == blocks[1]
    explained = [re.findall(r'class="pair"><img src="[^"]+" alt="([^"]+)"', page) for page in pages]
    assert len(explained[0]) == 8
    assert explained[0] == explained[1]


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_two_processes_use_the_engine_that_one_uses(both):
    assert ["graded by OpenVINO" in finished.out["engine"] for finished in both] == [True, True]


def test_two_processes_preprocess_like_one(both):
    one, two = both
    assert one.out["data"] == two.out["data"]
    written = [
        {path.relative_to(run.folder): path.read_bytes() for path in (run.folder / "data").rglob("*.*")} for run in both
    ]
    assert written[0].keys() == written[1].keys()
    # of the seconds, and of the order in which images were finished
    differing = {path.name for path in written[0] if written[0][path] != written[1][path]}
    [log] = [path for path in written[0] if path.suffix == ".jsonl"]
    report = Path("data/kaggle_retina/report.json")
    assert differing <= {report.name, log.name}
    reports = [json.loads(files[report]) | {"seconds": 0} for files in written]
    assert reports[0] == reports[1]
    lines = [sorted(files[log].splitlines()) for files in written]
    assert lines[0] == lines[1]


def test_preprocessing_in_one_process_imports_no_torch(zips, tmp_path):
    (tmp_path / "imports.py").write_text(
        f"import sys, runpy\nsys.path.insert(0, {str(ROOT)!r})\ntry:\n    runpy.run_path({str(ROOT / 'data.py')!r}, "
        "run_name='__main__')\nfinally:\n    print('torch' in sys.modules)\n"
    )
    flags = ["-m", zips[0], "-a", "none", "--size", 64, "--workers", 1]
    code, out, err = start([sys.executable, "imports.py", *flags], cwd=tmp_path)
    assert (code, out.splitlines()[-1]) == (0, "False"), err
