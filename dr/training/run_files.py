"""The files of a training run: FOLDER/NAME__best.pt, FOLDER/NAME__last.pt and all others in FOLDER/NAME/.

The only module that builds these paths. Nothing here takes long to import.
"""

import csv
from itertools import count
from pathlib import Path

from dr import UsageError

PLOTS = ("curves", "classes", "split", "confusion", "test_confusion", "scores", "reliability")
_RUNS_CSV, _RUNS_MD = "runs.csv", "runs.md"
_CHECKPOINTS = ("__best.pt", "__last.pt")
_SWEEP = ("sweep.csv", "sweep.md")


def runs_csv_path(folder: str | Path) -> Path:
    """The table with one row per finished run."""
    return Path(folder) / _RUNS_CSV


def runs_md_path(folder: str | Path) -> Path:
    """The comparison of these runs."""
    return Path(folder) / _RUNS_MD


def check_name(name: str) -> None:
    """Raises UsageError for a name of a run that is no plain name or that names another file of the output folder."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise UsageError(f"--name {name}: not a plain name; use a name without a path")
    if name in (_RUNS_CSV, _RUNS_MD) or name.endswith(_CHECKPOINTS):
        raise UsageError(f"--name {name}: reserved for a file that train.py writes; use another --name")


def run_of(checkpoint: str | Path) -> "RunFiles":
    """FOLDER/NAME__best.pt -> the files of its run. Raises UsageError for another name."""
    path = Path(checkpoint)
    if not path.name.endswith(_CHECKPOINTS[0]):
        raise UsageError(f"{path}: not NAME{_CHECKPOINTS[0]}; pass the checkpoint where train.py wrote it")
    return RunFiles(path.parent, path.name.removesuffix(_CHECKPOINTS[0]))


class RunFiles:
    """The paths of one run's files."""

    def __init__(self, folder: str | Path, name: str):
        self.folder, self.name = Path(folder), name
        self.best, self.last = (self.folder / f"{name}{ending}" for ending in _CHECKPOINTS)
        self.run_folder = self.folder / name
        self.history = self.run_folder / "history.csv"  # one row per epoch
        self.classes = self.run_folder / "classes.csv"  # one row per class; written at the end of the run
        self.oof = self.run_folder / "oof.csv"  # one row per image that a fold held out
        self.card = self.run_folder / "card.md"
        self.report = self.run_folder / "report.html"
        self.logs = self.run_folder / "logs"  # of experiment trackers
        self.sweep_csv, self.sweep_md = (self.run_folder / ending for ending in _SWEEP)

    def epoch(self, number: int) -> Path:
        """The checkpoint of an epoch in the recipe's `keep_epochs`."""
        return self.run_folder / f"epoch_{number}.pt"

    def predictions(self, split: str) -> Path:
        """The table with one row per image of "val" or "test"; written at the end of the run."""
        return self.run_folder / f"predictions_{split}.csv"

    def plot(self, name: str) -> Path:
        """The path of one of PLOTS."""
        return self.run_folder / f"{name}.png"

    def can_be_resumed(self) -> bool:
        """Whether at least one epoch was finished."""
        return self.last.is_file() and self.best.is_file()

    def interrupted(self) -> bool:
        """Whether the run finished an epoch but not its last one."""
        return self.last.is_file() and not self.classes.is_file()

    def existing(self) -> list[Path]:
        """The run's files and folders that exist, without the table of a sweep of the same name."""
        inside = self.run_folder.iterdir() if self.run_folder.is_dir() else ()
        return [path for path in (self.best, self.last) if path.exists()] + sorted(
            path for path in inside if path.name not in _SWEEP
        )

    def check_folder(self) -> None:
        """Raises UsageError where NAME/ is a file, or a folder with files but none that train.py writes."""
        if not self.run_folder.is_dir():
            if self.run_folder.exists():
                raise UsageError(f"{self.run_folder}: a file has the name of the run; use another --name")
            return
        names = {path.name for path in self.run_folder.iterdir()}
        own = [self.history, self.classes, self.card, self.report, self.logs, self.sweep_csv, self.sweep_md]
        if names and names.isdisjoint(path.name for path in [*own, *map(self.plot, PLOTS)]):
            raise UsageError(f"{self.run_folder}: not the folder of a run; use another --name")

    def keep_previous(self) -> str | None:
        """Renames the existing files to those of a run NAME__previous_N, so that a new run never overwrites an old one
        -> that name; None without files. The table of a sweep stays."""
        existing = self.existing()
        if not existing:
            return None
        numbered = (RunFiles(self.folder, f"{self.name}__previous_{number}") for number in count(1))
        previous = next(run for run in numbered if not run.existing())
        previous.run_folder.mkdir(exist_ok=True)
        renamed = {self.best: previous.best, self.last: previous.last}
        for path in existing:
            path.replace(renamed.get(path, previous.run_folder / path.name))
        return previous.name


def summary_lines(folder: str, name: str) -> list[str]:
    """-> where the tables, the report and the checkpoint of a finished run are."""
    paths = RunFiles(folder, name)
    return [*out_of_fold_lines(paths), f"wrote {paths.report}", f"saved {paths.best}"]


def out_of_fold_lines(paths: RunFiles) -> list[str]:
    """-> a line about the table of out-of-fold predictions and its folds; none without the table."""
    if not paths.oof.is_file():
        return []
    with paths.oof.open(encoding="utf-8", newline="") as file:
        folds = list(dict.fromkeys(row["fold"] for row in csv.DictReader(file)))
    numbers, of = ", ".join(fold.partition("/")[0] for fold in folds), folds[0].partition("/")[2]
    return [f"wrote {paths.oof}: out-of-fold predictions of fold{'s' if len(folds) > 1 else ''} {numbers} of {of}"]
