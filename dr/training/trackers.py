"""Experiment trackers: each epoch's metrics, and the recipe as hyperparameters, in TensorBoard, Weights & Biases or
MLflow.

They are accelerate's, and write to NAME/logs/ unless their own environment variables name a server. None of the three
packages is imported before a run asks for it.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dr import UsageError
from dr.training.run_files import RunFiles

PROJECT = "retinopathy-grading"  # of Weights & Biases and MLflow, which collect the runs of a project
_RUN_ID = "run_id.txt"  # in NAME/logs/: the run that a resumed training continues


def check_installed(log: str | None) -> None:
    """Raises UsageError for a tracker whose package is not installed."""
    if log is not None and importlib.util.find_spec(log) is None:
        raise UsageError(f"--log {log}: {log} is not installed; pip install {log}")


@contextlib.contextmanager
def tracking(
    log: str | None, *, paths: RunFiles, hyperparameters: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields a function that logs one row of the history, with its `epoch` as the step; without `log` it does nothing.

    A run that finds logs in NAME/logs/ was resumed, and continues them: TensorBoard's by their folder, the others by
    the run's id.
    """
    if log is None:
        yield lambda row: None
        return
    check_installed(log)
    paths.logs.mkdir(parents=True, exist_ok=True)
    is_new = not any(paths.logs.iterdir())
    tracker = _start(log, paths=paths)
    if is_new:
        tracker.store_init_configuration({key: _plain(value) for key, value in hyperparameters.items()})
    try:
        yield lambda row: tracker.log({key: row[key] for key in row if key != "epoch"}, step=row["epoch"])
    finally:
        tracker.finish()


def _start(log: str, *, paths: RunFiles) -> Any:
    """-> accelerate's tracker, started."""
    from accelerate import tracking as accelerate_tracking

    id_file = paths.logs / _RUN_ID
    run_id = id_file.read_text() if id_file.is_file() else None
    if log == "tensorboard":
        tracker = accelerate_tracking.TensorBoardTracker(paths.logs.name, logging_dir=paths.run_folder)
    elif log == "wandb":
        named = {"name": paths.name, "dir": str(paths.logs), "id": run_id, "resume": "allow"}
        tracker = accelerate_tracking.WandBTracker(PROJECT, **named)
    else:
        _use_local_mlflow(paths.logs)
        tracker = accelerate_tracking.MLflowTracker(PROJECT, run_id=run_id, run_name=paths.name)
    if hasattr(tracker, "start"):  # before accelerate 1.10 a tracker starts when it is made
        tracker.start()
    started = {"wandb": lambda run: run.id, "mlflow": lambda run: run.info.run_id}
    if log in started:
        id_file.write_text(started[log](tracker.tracker))
    return tracker


def _use_local_mlflow(logs: Path) -> None:
    """MLflow's own default would be the working directory."""
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{(logs / 'mlflow.db').resolve()}")


def _plain(value: Any) -> str | int | float | bool:
    """A recipe's value as a type that every tracker takes."""
    if value is None:
        return "none"
    return value if isinstance(value, str | int | float | bool) else str(value)
