"""A MedMNIST file: arrays {train,val,test}_{images,labels} in one .npz, read as an archive of PNGs."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from dr import UsageError
from dr.sources.archive import Archive, MemoryMember
from dr.sources.candidate import Candidate
from dr.sources.class_names import numbered
from dr.sources.source import COLUMNS, SPLITS, LabelledImages


class ArrayArchive:
    """The images of a .npz as members `train_00017`, each a lossless PNG (`ImageArchive`).

    The arrays stay in memory. Raises UsageError for a damaged file and for wrong arrays.
    """

    def __init__(self, path: str | Path):
        self.path = Archive(path).path  # a .npz is a zip: damage is reported as for any zip
        self._arrays = self._read_arrays()
        for split in SPLITS:
            if split == "train" or self._has(split):
                self._check(split)
        self.names = [f"{split}_{i:05}" for split in SPLITS if self._has(split) for i in range(len(self.labels(split)))]

    def _read_arrays(self) -> dict[str, np.ndarray]:
        wanted = {f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")}
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files if key in wanted}
        except Exception as exc:  # of numpy, zipfile and zlib: they share no base class
            raise UsageError(f"{self.path}: the arrays cannot be read ({exc}); download it again") from exc

    def _has(self, split: str) -> bool:
        return f"{split}_images" in self._arrays or f"{split}_labels" in self._arrays

    def _check(self, split: str) -> None:
        for kind in ("images", "labels"):
            if f"{split}_{kind}" not in self._arrays:
                raise UsageError(f"{self.path}: no array {split}_{kind}; check that this is a MedMNIST file")
        images, labels = self._arrays[f"{split}_images"], self._arrays[f"{split}_labels"]
        grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[-1] == 3
        if images.dtype != np.uint8 or not (grey or colour) or 0 in images.shape:
            shown = f"{images.dtype} {images.shape}"
            raise UsageError(f"{self.path}: {split}_images is {shown}, expected uint8 (N, H, W) or (N, H, W, 3)")
        if len(images) != len(labels):
            raise UsageError(f"{self.path}: {split} has {len(images)} images, but {len(labels)} labels")
        whole = labels.dtype.kind in "ui" and labels.size == len(labels)
        if not whole or labels.min() < 0:
            shown = f"{labels.dtype} {labels.shape}"
            raise UsageError(f"{self.path}: {split}_labels is {shown}, expected one whole number from 0 for each image")

    def labels(self, split: str) -> np.ndarray:
        """(N,) int of one split."""
        return self._arrays[f"{split}_labels"].reshape(-1).astype(int)

    def size(self, name: str) -> int:
        """Bytes of the whole file: one image has no size of its own."""
        return self.path.stat().st_size

    def member(self, name: str) -> MemoryMember:
        """One image as a PNG."""
        split, _, number = name.rpartition("_")
        image = self._arrays[f"{split}_images"][int(number)]
        bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        return MemoryMember(cv2.imencode(".png", bgr)[1].tobytes())

    def read(self, name: str) -> bytes:
        """The bytes of that PNG."""
        return self.member(name).read()


class MedMNISTFormat:
    """A MedMNIST .npz with its own split."""

    name = "MedMNIST file"
    layout = "a MedMNIST .npz"
    reads_columns = False

    def open(self, candidate: Candidate) -> LabelledImages | None:
        path = Path(candidate.path)
        if path.suffix.lower() != ".npz" or path.is_dir():
            return None
        archive = ArrayArchive(path)
        names = pd.Series(archive.names)
        split = names.str.partition("_")[0]
        labels = {name: archive.labels(name) for name in split.unique()}
        table = pd.DataFrame({"original": names, "patient": None, "member": names, "source_split": split})
        table["diagnosis"] = np.concatenate(list(labels.values()))
        classes = numbered(labels, place=str(archive.path))
        return LabelledImages(self.name, archive, table[list(COLUMNS)], classes, crop=False)
