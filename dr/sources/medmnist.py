"""A MedMNIST file: arrays {train,val,test}_{images,labels} in one .npz, read as if it were an archive of PNGs."""

import cv2
import numpy as np
import pandas as pd

from dr import UsageError
from dr.sources.archive import Archive, Held
from dr.sources.class_names import numbered
from dr.sources.kaggle import COLUMNS, SPLITS, Source


class ArrayArchive(Archive):
    """The pictures of a .npz as members `train_00017`, whose bytes are a PNG of the same pixels.

    The arrays are held in memory. Raises UsageError for a file that holds none.
    """

    def __init__(self, path: str):
        super().__init__(path)  # a .npz is a zip: damage is told as for any other
        self._arrays: dict[str, np.ndarray] | None = None
        for side in SPLITS:
            if side == "train" or self._has(side):
                self._check(side)
        self.names = [f"{side}_{i:05}" for side in SPLITS if self._has(side) for i in range(len(self.labels(side)))]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_arrays": None}

    def _array(self, name: str) -> np.ndarray | None:
        if self._arrays is None:
            try:
                with np.load(self.path, allow_pickle=False) as file:
                    wanted = {f"{side}_{kind}" for side in SPLITS for kind in ("images", "labels")}
                    self._arrays = {key: file[key] for key in file.files if key in wanted}
            except Exception as exc:  # of numpy, zipfile and zlib: they share no base class
                raise UsageError(f"{self.path}: its arrays cannot be read ({exc}); download it again") from exc
        return self._arrays.get(name)

    def _has(self, side: str) -> bool:
        return self._array(f"{side}_images") is not None or self._array(f"{side}_labels") is not None

    def _check(self, side: str) -> None:
        for kind in ("images", "labels"):
            if self._array(f"{side}_{kind}") is None:
                raise UsageError(f"{self.path}: it has no array {side}_{kind}; is it a MedMNIST file?")
        images, labels = self._array(f"{side}_images"), self._array(f"{side}_labels")
        grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[-1] == 3
        if images.dtype != np.uint8 or not (grey or colour) or 0 in images.shape:
            shown = f"{images.dtype} {images.shape}"
            raise UsageError(f"{self.path}: {side}_images is {shown}, expected uint8 (N, H, W) or (N, H, W, 3)")
        if len(images) != len(labels):
            raise UsageError(f"{self.path}: {side} has {len(images)} images, but {len(labels)} labels")
        whole = labels.dtype.kind in "ui" and labels.size == len(labels)
        if not whole or labels.min() < 0:
            shown = f"{labels.dtype} {labels.shape}"
            raise UsageError(f"{self.path}: {side}_labels is {shown}, expected one whole number from 0 for each image")

    def labels(self, side: str) -> np.ndarray:
        """(N,) int of one side."""
        return self._array(f"{side}_labels").reshape(-1).astype(int)

    def size(self, name: str) -> int:
        """Bytes of the whole file: what one picture has changes with no other."""
        return self.path.stat().st_size

    def member(self, name: str) -> Held:
        """One picture."""
        side, _, number = name.rpartition("_")
        picture = self._array(f"{side}_images")[int(number)]
        bgr = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        return Held(cv2.imencode(".png", bgr)[1].tobytes())


def medmnist(path: str) -> Source:
    """A MedMNIST .npz with its own split."""
    archive = ArrayArchive(path)
    names = pd.Series(archive.names)
    side = names.str.partition("_")[0]
    sides = {name: archive.labels(name) for name in side.unique()}
    table = pd.DataFrame({"original": names, "patient": names, "member": names, "side": side, "source": "main"})
    table["diagnosis"] = np.concatenate(list(sides.values()))
    classes = numbered(sides, place=str(archive.path))
    return Source("MedMNIST file", archive, table[list(COLUMNS)], classes, crop=False)
