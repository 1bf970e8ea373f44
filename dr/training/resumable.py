"""What `--resume` asks for, and the command of a new run where a run cannot be resumed.

Nothing here takes long to import: train.py reports a run that cannot be resumed before it imports torch.
"""

import csv
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dr import UsageError
from dr.recipes.load import option_text, parse_override
from dr.training.run_files import RunFiles, runs_csv_path


@dataclass(frozen=True)
class Request:
    """A run to resume, and the flags that were passed with `--resume`: all others are the run's own. `given` are
    options of its recipe."""

    paths: RunFiles
    data: str
    recipe: str | None
    given: Mapping[str, Any]
    fold: tuple[int, int] | None


def options_of(text: str) -> dict[str, Any]:
    """The column `overrides` of runs.csv, as "epochs=2 milestones=[1, 2]" -> options by name."""
    return dict(parse_override(each) for each in re.split(r" (?=\w+=)", text) if each)


def text_of(options: Mapping[str, Any]) -> str:
    """The inverse of `options_of`."""
    return " ".join(f"{key}={option_text(value)}" for key, value in options.items())


def checked(
    paths: RunFiles, data: str, recipe: str | None, given: Mapping[str, Any], fold: tuple[int, int] | None
) -> Request:
    """-> the request for a run that has its NAME__last.pt. Raises UsageError for one that has finished, or none."""
    request = Request(paths, data, recipe, given, fold)
    if paths.last.is_file():
        return request
    if paths.best.is_file() and paths.classes.is_file():
        command = new_run_command(request, _recorded(paths), trained=_epochs(paths))
        raise UsageError(
            f"{paths.last}: removed when the run finished (--keep_last keeps it), so the optimizer state is lost; "
            f"to start a new run from its weights: {command}"
        )
    names = sorted(path.name.removesuffix("__last.pt") for path in paths.folder.glob("*__last.pt"))
    others = f"pass -n {' or '.join(names[:3])}, or start" if names else "start"
    raise UsageError(f"{paths.last}: nothing to resume; {others} without --resume")


def _recorded(paths: RunFiles) -> dict[str, str]:
    """The columns of runs.csv about the command of a finished run: its recipe, overrides and fold."""
    path = runs_csv_path(paths.folder)
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, restval="") if row.get("name") == paths.name]
    return {key: rows[-1].get(key, "") for key in ("recipe", "overrides", "fold")} if rows else {}


def _epochs(paths: RunFiles) -> int:
    """How many epochs a run has finished."""
    if not paths.history.is_file():
        return 0
    with paths.history.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def new_run_command(request: Request, recorded: Mapping[str, str], *, trained: int) -> str:
    """The command of a new run that starts from the weights of one that has `trained` epochs, with its options and its
    fold, which are `recorded`, for as many epochs as are left of those that were asked for."""
    fold = recorded.get("fold", "") if request.fold is None else "{}/{}".format(*request.fold)
    paths, name = request.paths, recorded.get("recipe") or request.recipe
    options = options_of(recorded.get("overrides", "")) | dict(request.given)
    asked = request.given.get("epochs")
    epochs = max(1, asked - trained) if asked is not None else options.get("epochs")
    options = {key: value for key, value in options.items() if key not in ("epochs", "pretrained")}
    flags = [] if name in (None, "published") else ["-r", name]
    flags += [part for key, value in options.items() for part in ("--set", f"{key}={option_text(value)}")]
    flags += [] if epochs is None else ["-e", str(epochs)]
    flags += [] if request.data == "data" else ["-d", request.data]
    flags += [] if str(paths.folder) == "weights" else ["-s", str(paths.folder)]
    flags += ["--fold", fold] if fold else []
    flags += ["-n", f"{paths.name}_longer", "--pretrained", str(paths.best)]
    return shlex.join(["python", "train.py", *flags])
