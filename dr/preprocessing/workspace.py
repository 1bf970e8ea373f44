"""DIR/kaggle_retina: which images are finished, and with which settings. One run at a time may use it."""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from dr import UsageError
from dr.core.files import write_json
from dr.datasets.preprocessed import FOLDER
from dr.imaging.decode import decode
from dr.sources.source import SPLITS, Source

STAGING = "preprocessed"
MAX_PREFIX = 24  # characters of a source name at the start of file names
# the fields of a record in preprocessed.jsonl that are kept in memory
RECORD_FIELDS = ("file", "bytes", "cropped", "comparison_box", "hash", "frame", "box", "flags")
SUFFIXES = (".jpeg", ".png")


class Workspace:
    """The folder that data.py fills, with a folder for each of `splits`. A stopped run continues from
    preprocessed.jsonl, which has a line for each finished image.

    Raises UsageError if the folder holds files of others, or images of other settings and `force` is False.
    """

    def __init__(self, root: Path, *, identity: dict, force: bool, splits: tuple[str, ...]):
        self.root = root
        self.splits = splits
        self.log = self.root / "preprocessed.jsonl"
        self.staging = self.root / STAGING  # for images whose split is not decided yet
        marker = self.root / "settings.json"
        if not marker.exists() and any(path.suffix != ".part" for path in self.root.iterdir()):
            raise UsageError(f"{self.root}: holds files that are not from data.py; choose another -d")
        before = json.loads(marker.read_text(encoding="utf-8")) if marker.exists() else identity
        if before != identity:
            if not force:
                changed = difference(before, identity)
                raise UsageError(f"{self.root}: {changed}; choose another -d, or replace it with --force")
            self._remove_own()
        write_json(marker, identity)  # first, so that a stopped run recognises the folder
        for name in (STAGING, *splits):
            (self.root / name).mkdir(exist_ok=True)
        for path in self.root.rglob("*.part"):  # of a run that was killed while writing
            path.unlink()
        self.records: dict[tuple[str, str], dict] = {}
        self._read_finished()

    def _images(self) -> list[Path]:
        return [
            path for folder in (STAGING, *SPLITS) for path in (self.root / folder).glob("*") if path.suffix in SUFFIXES
        ]

    def _remove_own(self) -> None:
        tables = (
            "report.json",
            *(f"labels_{split}.csv" for split in SPLITS),
            "duplicates.csv",
            self.log.name,
            "ungradable.csv",
        )
        for name in (*tables, "class_balance.png", "crops.png", "report.html"):
            (self.root / name).unlink(missing_ok=True)
        for path in self._images():
            path.unlink()
        for split in set(SPLITS) - set(self.splits):
            if (self.root / split).is_dir() and not any((self.root / split).iterdir()):
                (self.root / split).rmdir()

    def _read_finished(self) -> None:
        present = {path.name for path in self._images()}
        for line in self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut short by a kill
            if record["file"] in present and record.keys() >= {*RECORD_FIELDS}:
                self.add(record)

    def complete(self) -> bool:
        """Whether an earlier run with these settings finished and all its images still exist."""
        tables = [self.root / f"labels_{name}.csv" for name in self.splits]
        if not all(path.exists() for path in (*tables, self.root / "report.json")):
            return False
        return all((self.root / path).exists() for table in tables for path in pd.read_csv(table, dtype=str)["path"])

    def add(self, record: dict) -> None:
        """Registers an image that is finished and logged."""
        self.records[record["source"], record["original"]] = {name: record[name] for name in RECORD_FIELDS}

    def forget(self, source: str, original: str) -> None:
        """Removes a finished image, so that it is preprocessed again."""
        self.find(self.file(source, original)).unlink()
        del self.records[source, original]

    def file(self, source: str, original: str) -> str:
        """The file name of a finished image."""
        return self.records[source, original]["file"]

    def find(self, name: str) -> Path:
        """The current path of a finished image."""
        return next(path for folder in (STAGING, *SPLITS) if (path := self.root / folder / name).exists())

    def read(self, name: str) -> np.ndarray:
        """A finished image, (S, S, 3) uint8 BGR."""
        return decode(self.find(name).read_bytes())

    def move_to_splits(self, names: dict[str, list[str]]) -> None:
        """Moves images to the folder of their split, {"train": [names], "val": [names]}."""
        for split, members in names.items():
            for name in members:
                self.find(name).replace(self.root / split / name)

    def remove_others(self, names: dict[str, list[str]]) -> None:
        """Removes the images that are in no split."""
        kept = {self.root / split / name for split, members in names.items() for name in members}
        for path in self._images():
            if path not in kept:
                path.unlink()
        with contextlib.suppress(OSError):  # the operating system may keep its own files in the folder
            self.staging.rmdir()


def file_prefixes(sources: Mapping[str, Source]) -> dict[str, str]:
    """{source: what its file names start with}: nothing for the main source; for the others a short form of their
    names, so that no two images have one file name."""
    taken: set[str] = set()
    prefixes = {}
    for name, source in sources.items():
        originals = source.table["original"]
        safe = re.sub(r"[^A-Za-z0-9]+", "-", name)[:MAX_PREFIX].strip("-") or "source"
        numbers = (f"{safe}_", *(f"{safe}-{number}_" for number in range(2, 1000)))
        candidates = numbers if prefixes else ("",)
        prefixes[name] = next(each for each in candidates if taken.isdisjoint(each + originals))
        taken |= {*(prefixes[name] + originals)}
    return prefixes


def folder_in(directory: Path) -> Path:
    """DIR/kaggle_retina, created if missing. Raises UsageError if it cannot be."""
    root = directory / FOLDER
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise UsageError(f"{root}: a file blocks this folder; choose another -d") from exc
    return root


def difference(before: dict, now: dict) -> str:
    """The first setting that changed, as part of a message."""
    if before.keys() != now.keys():
        return "preprocessed by another version"
    key = next(key for key in now if before[key] != now[key])
    return f"preprocessed with {key} {_shown(before[key])}, not {_shown(now[key])}"


def _shown(value: object) -> str:
    """At most one line, whatever the number of classes."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
