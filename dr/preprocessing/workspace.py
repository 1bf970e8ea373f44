"""DIR/kaggle_retina: which photographs are finished, and under which settings. One run at a time may use it."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from dr import UsageError
from dr.core.files import write_json
from dr.datasets.preprocessed import FOLDER
from dr.imaging import fundus
from dr.sources.kaggle import SPLITS

STAGING = "prepared"
# of what prepared.jsonl says of each photograph, in memory
KEPT = ("file", "bytes", "cropped", "inside", "hash", "frame", "box", "flags")
ENDINGS = (".jpeg", ".png")


class Workspace:
    """The folder that data.py fills, with a folder for each of `sides`. Each finished photograph has a line in
    prepared.jsonl, so that a stopped run goes on.

    Raises UsageError where the folder holds other people's files, or photographs prepared with other settings and not
    `force`.
    """

    def __init__(self, root: Path, *, identity: dict, force: bool, sides: tuple[str, ...]):
        self.root = root
        self.sides = sides
        self.log = self.root / "prepared.jsonl"
        self.staging = self.root / STAGING  # where photographs lie before their side of the split is known
        marker = self.root / "settings.json"
        if not marker.exists() and any(path.suffix != ".part" for path in self.root.iterdir()):
            raise UsageError(f"{self.root}: it holds files that are not from data.py; choose another -d")
        before = json.loads(marker.read_text(encoding="utf-8")) if marker.exists() else identity
        if before != identity:
            if not force:
                changed = difference(before, identity)
                raise UsageError(f"{self.root}: {changed}; choose another -d, or --force to replace it")
            self._remove_own()
        write_json(marker, identity)  # before all else, so that a stopped run knows the folder for its own
        for name in (STAGING, *sides):
            (self.root / name).mkdir(exist_ok=True)
        for path in self.root.rglob("*.part"):  # of a run that was killed while it wrote
            path.unlink()
        self.records: dict[tuple[str, str], dict] = {}
        self._read_finished()

    def _photographs(self) -> list[Path]:
        return [
            path for folder in (STAGING, *SPLITS) for path in (self.root / folder).glob("*") if path.suffix in ENDINGS
        ]

    def _remove_own(self) -> None:
        tables = ("report.json", *(f"labels_{side}.csv" for side in SPLITS), "duplicates.csv", self.log.name)
        for name in (*tables, "class_balance.png", "crops.png", "report.html"):
            (self.root / name).unlink(missing_ok=True)
        for path in self._photographs():
            path.unlink()
        for side in set(SPLITS) - set(self.sides):
            if (self.root / side).is_dir() and not any((self.root / side).iterdir()):
                (self.root / side).rmdir()

    def _read_finished(self) -> None:
        present = {path.name for path in self._photographs()}
        for line in self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut short by a kill
            if record["file"] in present and record.keys() >= {*KEPT}:
                self.add(record)

    def complete(self) -> bool:
        """Whether an earlier run with these settings finished and all its photographs are still there."""
        tables = [self.root / f"labels_{name}.csv" for name in self.sides]
        if not all(path.exists() for path in (*tables, self.root / "report.json")):
            return False
        return all((self.root / path).exists() for table in tables for path in pd.read_csv(table, dtype=str)["path"])

    def add(self, record: dict) -> None:
        """Counts a photograph, finished and noted, among those there are."""
        self.records[record["source"], record["original"]] = {name: record[name] for name in KEPT}

    def forget(self, source: str, original: str) -> None:
        """Removes a finished photograph, which is to be prepared again."""
        self.find(self.file(source, original)).unlink()
        del self.records[source, original]

    def file(self, source: str, original: str) -> str:
        """The name of a finished photograph's file."""
        return self.records[source, original]["file"]

    def find(self, name: str) -> Path:
        """Where a finished photograph lies now."""
        return next(path for folder in (STAGING, *SPLITS) if (path := self.root / folder / name).exists())

    def read(self, name: str) -> np.ndarray:
        """A finished photograph, (S, S, 3) uint8 BGR."""
        return fundus.decode(self.find(name).read_bytes())

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
        with contextlib.suppress(OSError):  # what the system keeps in folders may lie in it
            self.staging.rmdir()


def folder_in(directory: Path) -> Path:
    """DIR/kaggle_retina, which is made where it is not there. Raises UsageError where it cannot be."""
    root = directory / FOLDER
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise UsageError(f"{root}: a file stands in the way of this folder; choose another -d") from exc
    return root


def difference(before: dict, now: dict) -> str:
    """The first setting that changed, in words."""
    if before.keys() != now.keys():
        return "it was prepared by another version"
    key = next(key for key in now if before[key] != now[key])
    return f"it was prepared with {key} {_shown(before[key])}, not {_shown(now[key])}"


def _shown(value: object) -> str:
    """A list of two hundred classes takes more than a line."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
