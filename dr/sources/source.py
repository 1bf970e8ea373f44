"""What a format hands to stage 1: a `Source` of labelled images, and the protocols that its parts follow."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dr import GRADES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd  # 40 MiB, which the worker processes do not need

COLUMNS = ("original", "patient", "diagnosis", "member", "source_split")
UNGRADABLE_COLUMNS = ("original", "label", "member")
# The names of the three splits, each with the spellings that folders and tables use
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
SPLIT_OF = {spelling: split for split, spellings in SPLITS.items() for spelling in spellings}


@runtime_checkable
class ReadableMember(Protocol):
    """One image that can be pickled, sent to a worker process and read there."""

    def read(self) -> bytes:
        """The encoded image. Raises OSError when it cannot be read."""
        ...


@runtime_checkable
class ImageArchive(Protocol):
    """Named images. Stage 1 uses exactly these attributes of an archive, so a class with them needs no base class."""

    path: Path  # named in messages and in settings.json
    names: list[str]  # of all members, images or not

    def size(self, name: str) -> int:
        """Bytes of one member, 0 if it is missing. A different size marks a changed image."""
        ...

    def member(self, name: str) -> ReadableMember:
        """One member, to be read here or in another process. Raises OSError if it is missing."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one member. Raises OSError when they cannot be read."""
        ...


class Source(Protocol):
    """Labelled images of one format.

    `table` has COLUMNS: `original` is unique; `patient` is equal for the eyes of one patient, missing if unknown;
    `diagnosis` is an index into `classes`; `member` is the name that `archive` reads the image by, missing if the
    archive lacks it; `source_split` is "train", "val" or "test", or None if the source has no split. If `crop` is False
    the images are used as they are: neither cropped nor compressed with losses. `unlabelled`: number of images without
    a label. `ungradable`: images left out for an ungradable label, with UNGRADABLE_COLUMNS; `label` is as written.
    `notes`: lines to print about how the source was read.
    """

    kind: str
    archive: ImageArchive
    table: "pd.DataFrame"
    classes: tuple[str, ...]
    crop: bool
    unlabelled: int
    ungradable: "pd.DataFrame | None"
    notes: tuple[str, ...]


def main_of(sources: "Mapping[str, Source]") -> "Source":
    """The main source of those by name: the first. It alone makes validation."""
    return next(iter(sources.values()))


@dataclass(frozen=True)
class LabelledImages:
    """The `Source` that every format of this package returns."""

    kind: str
    archive: ImageArchive
    table: "pd.DataFrame"
    classes: tuple[str, ...] = GRADES
    crop: bool = True
    unlabelled: int = 0
    ungradable: "pd.DataFrame | None" = None
    notes: tuple[str, ...] = ()
