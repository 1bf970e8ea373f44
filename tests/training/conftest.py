import pytest
from made import write_preprocessed


@pytest.fixture(autouse=True)
def short_end(quick_finish):
    """Shorten the end of runs that tests start; fixtures with a wider scope run before this and end in full."""


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """30 training and 15 validation images."""
    from dr.datasets.preprocessed import read_preprocessed

    return read_preprocessed(write_preprocessed(tmp_path_factory.mktemp("data")))


@pytest.fixture
def epochs_only(no_report, monkeypatch):
    """Runs end after their last epoch, without test, intervals and calibration."""

    def finish(run, paths, *, workers):
        paths.classes.touch()
        return {}

    monkeypatch.setattr("dr.training.finish.finish", finish)
    monkeypatch.setattr("dr.training.out_of_fold.write", lambda paths, best: None)
    monkeypatch.setattr("dr.training.runs_csv.summary", lambda run, *, best: {"epochs": run.epoch})


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    """A run of two epochs with all its files -> (folder, its row of runs.csv); tests do not change it."""
    from runs import run

    folder = tmp_path_factory.mktemp("finished")
    return folder, run(data, folder, recorded={"recipe": "tiny", "overrides": ""})
