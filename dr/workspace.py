"""DIR/kaggle_retina: which photographs are finished, and under which settings. One run at a time may use it."""

import json
from pathlib import Path

import pandas as pd

from dr import UsageError
from dr.files import write_json

FOLDER = "kaggle_retina"
SPLITS = ("train", "val")
STAGING = "prepared"


def file_name(source: str, original: str) -> str:
    """The prepared photograph's file name; two sources may use the same name."""
    return f"{source}_{original}.jpeg"


class Workspace:
    """The folder that data.py fills. Each finished photograph has a line in prepared.jsonl, so that a stopped run goes
    on.

    Raises UsageError where the folder holds other people's files, or photographs prepared with other settings and not
    `force`.
    """

    def __init__(self, directory: Path, *, identity: dict, force: bool):
        self.root = directory / FOLDER
        self.log = self.root / "prepared.jsonl"
        marker = self.root / "settings.json"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as exc:
            raise UsageError(f"{self.root}: a file stands in the way of this folder; choose another -d") from exc
        if not marker.exists() and any(path.suffix != ".part" for path in self.root.iterdir()):
            raise UsageError(f"{self.root}: it holds files that are not from data.py; choose another -d")
        before = json.loads(marker.read_text(encoding="utf-8")) if marker.exists() else identity
        if before != identity:
            if not force:
                changed = difference(before, identity)
                raise UsageError(f"{self.root}: {changed}; choose another -d, or --force to replace it")
            self._remove_own()
        write_json(marker, identity)  # before all else, so that a stopped run knows the folder for its own
        for name in (STAGING, *SPLITS):
            (self.root / name).mkdir(exist_ok=True)
        for path in self.root.rglob("*.part"):  # of a run that was killed while it wrote
            path.unlink()
        self.records = self._finished()

    def _photographs(self) -> list[Path]:
        return [path for folder in (STAGING, *SPLITS) for path in (self.root / folder).glob("*.jpeg")]

    def _remove_own(self) -> None:
        tables = ("report.json", "labels_train.csv", "labels_val.csv", "duplicates.csv", self.log.name)
        for name in (*tables, "class_balance.png", "crops.png"):
            (self.root / name).unlink(missing_ok=True)
        for path in self._photographs():
            path.unlink()

    def _finished(self) -> dict[tuple[str, str], dict]:
        present = {path.name for path in self._photographs()}
        records = {}
        for line in self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut short by a kill
            if file_name(record["source"], record["original"]) in present:
                records[record["source"], record["original"]] = record
        return records

    def complete(self) -> bool:
        """Whether an earlier run with these settings finished and all its photographs are still there."""
        tables = [self.root / f"labels_{name}.csv" for name in SPLITS]
        if not all(path.exists() for path in (*tables, self.root / "report.json")):
            return False
        return all((self.root / path).exists() for table in tables for path in pd.read_csv(table, dtype=str)["path"])

    def add(self, record: dict) -> None:
        """Notes a finished photograph, on disk before anything else happens."""
        self.records[record["source"], record["original"]] = record
        with self.log.open("a") as log:
            log.write("\n" + json.dumps(record))  # the line end first: the line before may have been cut short

    def staged(self, name: str) -> Path:
        """Where a photograph is written before its side of the split is known."""
        return self.root / STAGING / name

    def find(self, name: str) -> Path:
        """Where a finished photograph lies now."""
        return next(path for folder in (STAGING, *SPLITS) if (path := self.root / folder / name).exists())

    def place(self, names: dict[str, list[str]]) -> None:
        """Moves photographs to their side of the split, {"train": [names], "val": [names]}."""
        for folder, members in names.items():
            for name in members:
                self.find(name).replace(self.root / folder / name)

    def remove_others(self, names: dict[str, list[str]]) -> None:
        """Removes the photographs that stand on no side of the split."""
        placed = {self.root / folder / name for folder, members in names.items() for name in members}
        for path in self._photographs():
            if path not in placed:
                path.unlink()


def difference(before: dict, now: dict) -> str:
    """The first setting that changed, in words."""
    for key in now:
        if before.get(key) != now[key]:
            return f"it was prepared with {key} {before.get(key)}, not {now[key]}"
    return "it was prepared by another version"
