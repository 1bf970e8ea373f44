import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from made import write_preprocessed
from runs import run, tiny

from dr import UsageError
from dr.core import distributed, files
from dr.datasets.preprocessed import read_preprocessed
from dr.training import finish, loop
from dr.training.run_files import RunFiles

pytestmark = pytest.mark.usefixtures("epochs_only")


@pytest.mark.parametrize(
    ("options", "workers"), [({"ema_decay": 0.9, "scheduler": "cosine"}, 0), ({"optimizer": "sgd", "dropout": 0.5}, 1)]
)
def test_a_resumed_run_ends_like_an_unbroken_one(data, tmp_path, monkeypatch, options, workers):
    recipe = tiny(epochs=3, augmentation="rotation_colour", **options)
    run(data, tmp_path / "unbroken", recipe=recipe, workers=workers)

    save, saved = loop._save, []

    def stop_after_the_first(*arguments, **options):
        save(*arguments, **options)
        saved.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(loop, "_save", stop_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "broken", recipe=recipe, workers=workers)
    assert saved == [1]
    run(data, tmp_path / "broken", recipe=recipe, workers=workers, resume=True)

    unbroken, broken = (
        torch.load(tmp_path / folder / "run__last.pt", weights_only=True) for folder in ("unbroken", "broken")
    )
    for key, value in unbroken["model"].items():
        assert torch.equal(value, broken["model"][key]), key
    history, continued = (saved["training_state"]["history"] for saved in (unbroken, broken))
    assert [row["val_loss"] for row in history] == [row["val_loss"] for row in continued]
    assert [row["lr"] for row in history] == [row["lr"] for row in continued]


def test_resuming_with_other_options_or_data_is_refused(finished, data):
    with pytest.raises(UsageError, match=r"run__last\.pt: trained with lr=0\.01, not 0\.5"):
        run(data, finished[0], recipe=tiny(lr=0.5), resume=True)
    with pytest.raises(UsageError, match="other label tables"):
        run(dataclasses.replace(data, fingerprint="another"), finished[0], resume=True)
    with pytest.raises(UsageError, match=r"never__last\.pt: not found, nothing to resume"):
        run(data, finished[0], name="never", resume=True)


def test_a_run_restarted_by_torchrun_resumes_but_not_from_a_finished_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "restart_count", 1)
    run(data, tmp_path, recipe=tiny(epochs=1))
    run(data, tmp_path, recipe=tiny(epochs=1, lr=0.02))  # the finished one is another run
    assert (tmp_path / "run__previous_1__best.pt").is_file()
    with monkeypatch.context() as failing:
        failing.setattr(finish, "finish", lambda *given, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(data, tmp_path, name="other", recipe=tiny(epochs=1))
    run(data, tmp_path, name="other", recipe=tiny(epochs=1))
    assert not list(tmp_path.glob("other__previous*"))


def test_a_finished_run_that_is_resumed_has_one_row_in_runs_csv(data, tmp_path):
    for resume in (False, True):
        run(data, tmp_path, recipe=tiny(epochs=1), resume=resume)
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 1


def test_a_run_is_not_resumed_with_images_of_another_size(tmp_path):
    folder = write_preprocessed(tmp_path / "data")
    run(read_preprocessed(folder), tmp_path, recipe=tiny(epochs=1))
    settings = folder / "kaggle_retina" / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"size": 64}))
    with pytest.raises(UsageError, match=r"on images preprocessed in another way; resume with the same --data"):
        run(read_preprocessed(folder), tmp_path, recipe=tiny(epochs=1), resume=True)


def test_resuming_without_the_best_checkpoint_names_the_missing_file(data, tmp_path):
    run(data, tmp_path, recipe=tiny(epochs=1))
    (tmp_path / "run__best.pt").unlink()
    with pytest.raises(UsageError, match=r"run__best\.pt: not found; --resume needs it beside run__last\.pt"):
        run(data, tmp_path, recipe=tiny(epochs=1), resume=True)


def test_the_training_state_of_a_finished_run_is_removed_at_the_very_end_unless_it_is_kept(data, tmp_path, monkeypatch):
    last = tmp_path / "run__last.pt"
    seen = []
    monkeypatch.setattr("dr.training.report.write", lambda *_, **__: seen.append(last.is_file()))
    run(data, tmp_path, recipe=tiny(epochs=1), keep_last=False)
    assert seen == [True]
    assert not last.exists()
    assert (tmp_path / "run__best.pt").is_file()
    run(data, tmp_path, recipe=tiny(epochs=1), keep_last=True)
    assert last.is_file()


def test_a_run_that_is_stopped_before_its_end_keeps_its_training_state(data, tmp_path, monkeypatch):
    with monkeypatch.context() as failing:
        failing.setattr("dr.training.report.write", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(data, tmp_path, recipe=tiny(epochs=1), keep_last=False)
    assert (tmp_path / "run__last.pt").is_file()
    run(data, tmp_path, recipe=tiny(epochs=1), keep_last=False, resume=True)
    assert not (tmp_path / "run__last.pt").exists()


def test_a_new_run_with_an_old_name_keeps_the_old_files(data, tmp_path):
    (tmp_path / "run__best.pt").write_bytes(b"hours of work")
    (tmp_path / "run__longer__best.pt").write_bytes(b"another run")
    run(data, tmp_path, recipe=tiny(epochs=1))
    assert (tmp_path / "run__previous_1__best.pt").read_bytes() == b"hours of work"
    assert (tmp_path / "run__longer__best.pt").read_bytes() == b"another run"
    run(data, tmp_path, recipe=tiny(epochs=1))
    assert (tmp_path / "run__previous_1__best.pt").read_bytes() == b"hours of work"
    assert (tmp_path / "run__previous_2__last.pt").is_file()


def test_a_new_run_with_an_old_name_keeps_every_old_file(data, tmp_path):
    for _ in range(2):
        run(data, tmp_path, recipe=tiny(keep_epochs=(1,), epochs=1))
    old, new = (RunFiles(tmp_path, name) for name in ("run__previous_1", "run"))
    assert [path.name for path in old.existing()][2:] == [path.name for path in new.existing()][2:]
    assert old.best.is_file()
    assert old.last.is_file()
    assert old.epoch(1).is_file()


def test_a_run_with_the_name_of_one_in_training_is_refused(data, tmp_path):
    with files.lock_file(tmp_path / "run__last.pt", wait=False):
        code = (
            "import sys; sys.path += ['tests']; from runs import run; "
            "from dr.datasets.preprocessed import read_preprocessed; "
            f"run(read_preprocessed({str(data.root)!r}), {str(tmp_path)!r})"
        )
        root = Path(__file__).parents[2]
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert "run__last.pt: another process writes it; wait until it ends, or pass another --name" in ended.stderr


def test_the_time_of_a_run_counts_from_its_start_and_adds_the_epochs_before_it_was_resumed(data, tmp_path, monkeypatch):
    seconds = []
    monkeypatch.setattr("dr.training.runs_csv.summary", lambda run, *, best: {"seconds": seconds.append(run.seconds)})
    started = time.monotonic() - 1000
    monkeypatch.setattr("dr.training.loop.processes.work_started", lambda: started)
    run(data, tmp_path, recipe=tiny(epochs=1, scheduler="none"), keep_last=True)
    run(data, tmp_path, recipe=tiny(epochs=1, scheduler="none"), keep_last=True, resume=True)
    [epoch] = torch.load(tmp_path / "run__last.pt", weights_only=True)["training_state"]["history"]
    assert 1000 < seconds[0] < seconds[1]
    assert seconds[1] > 1000 + epoch["seconds"]
