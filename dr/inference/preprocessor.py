"""An image -> the input of each network, its quality, its flags, and its distance from the training images."""

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import torch

from dr.imaging import dicom, fundus, novelty, quality
from dr.imaging.decode import UnreadableImage
from dr.imaging.resize import resize_and_crop, to_tensor
from dr.imaging.retina import Retina
from dr.inference.checkpoint import Checkpoint

Image = bytes | np.ndarray  # an encoded image, or its pixels (H, W, 3) uint8 RGB
Frame = tuple[np.ndarray, Retina]  # a preprocessed image (S, S, 3) uint8 BGR, and its crop


class InputSpec(NamedTuple):
    """The input of a network, in pixels: preprocessed to one size, with or without the crop to the retina, then resized
    to `image_px` and cropped to its centre of `crop_px`."""

    preprocessed_px: int
    image_px: int
    crop_px: int | None = None
    crop: bool = True

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "InputSpec":
        recipe = checkpoint.recipe
        return cls(checkpoint.data.size_px, recipe.image_size, recipe.crop_size, checkpoint.data.crop)

    @property
    def key(self) -> str:
        """Its key in a batch."""
        return "image_" + "_".join(map(str, self))

    @property
    def input_px(self) -> int:
        """Side of the network's input."""
        return self.crop_px or self.image_px

    @property
    def frame(self) -> tuple[int, bool]:
        """Key of the preprocessed image that this input is made from."""
        return self.preprocessed_px, self.crop

    def tensor(self, preprocessed: np.ndarray) -> torch.Tensor:
        """(S, S, 3) uint8 BGR -> (3, P, P) uint8 RGB, P = input_px."""
        rgb = cv2.cvtColor(preprocessed, cv2.COLOR_BGR2RGB)
        return to_tensor(resize_and_crop(rgb, size_px=self.image_px, crop_px=self.crop_px))


def frame_of(image: Image, *, size_px: int, crop: bool) -> tuple[np.ndarray, Retina, tuple[int, int]]:
    """An image -> the image as data.py preprocesses it (S, S, 3) uint8 BGR, S <= size_px; its crop; and the (height,
    width) of the pixels that the crop refers to, fewer than the image has where a JPEG is decoded at a reduced scale.
    Raises UnreadableImage."""
    if isinstance(image, bytes):
        preprocessed, retina, decoded = fundus.decode_and_preprocess(image, size_px=size_px, crop=crop)
        return preprocessed, retina, decoded.shape[:2]
    if 0 in image.shape:
        raise UnreadableImage(f"the array has no pixels: its shape is {image.shape}")
    preprocessed, retina = fundus.preprocess(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), size_px=size_px, crop=crop)
    return preprocessed, retina, image.shape[:2]


@dataclass(frozen=True)
class Preprocessed:
    """`record`: a row of details.csv without the grade; `inputs`: key of an InputSpec -> (3, P, P) uint8; `largest`:
    the largest frame. Where `record["error"]` is set, there are no inputs and no frame."""

    record: dict
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    largest: Frame | None = None


class Preprocessor:
    """Preprocesses an image for several networks, as data.py does it. Holds no network: DataLoader workers get a copy.

    `references`: of each network, its input and the training images' measures; empty where a checkpoint has none.
    """

    def __init__(self, specs: Iterable[InputSpec], *, references: Sequence[tuple[InputSpec, novelty.Reference]] = ()):
        self.specs = list(dict.fromkeys(specs))
        self.references = references

    @classmethod
    def of(cls, checkpoints: Sequence[Checkpoint]) -> "Preprocessor":
        references = [(InputSpec.of(each), each.training_reference) for each in checkpoints]
        complete = all(reference is not None for _, reference in references)
        return cls(map(InputSpec.of, checkpoints), references=references if complete else ())

    def __call__(self, file: str, read: Callable[[], Image]) -> Preprocessed:
        """The name of an image and a function that reads it -> its record and inputs; never raises for a bad image."""
        record = {"file": file, "error": ""}
        try:
            image = read()
            keys = sorted({spec.frame for spec in self.specs})
            frames = {(px, crop): frame_of(image, size_px=px, crop=crop)[:2] for px, crop in keys}
        except (UnreadableImage, OSError) as exc:
            return Preprocessed(record | {"error": reason_of(exc)})
        record |= _identity(image)
        inputs = {spec.key: spec.tensor(frames[spec.frame][0]) for spec in self.specs}
        return Preprocessed(record | self._measures(frames), inputs, frames[keys[-1]])

    def _measures(self, frames: dict[tuple[int, bool], Frame]) -> dict:
        """The frames of an image -> its quality, its flags, and its mean distance from the training images."""
        preprocessed, retina = frames[max(frames)]
        measured = quality.measure(preprocessed)
        flags = quality.flags(retina, measured)
        measures = {name: round(value, 2) for name, value in measured.items()}
        measures["cut_off"] = None if retina.cut_off is None else round(retina.cut_off, 3)
        if self.references:
            novelties = {spec: novelty.measure(frames[spec.frame][0]) for spec, _ in self.references}
            distances = [reference.distance(novelties[spec]) for spec, reference in self.references]
            measures[novelty.DISTANCE] = round(sum(distances) / len(distances), 3)
            flags += [novelty.FLAG] * (measures[novelty.DISTANCE] > 1)
        return measures | {"flags": " ".join(flags)}


def _identity(image: Image) -> dict:
    """`patient` and `eye` of a DICOM file, where its header states them. Neither for a damaged value in the header of a
    readable image."""
    if not isinstance(image, bytes) or not dicom.is_dicom(image):
        return {}
    try:
        header = dicom.read_header(image)
    except UnreadableImage:
        return {}
    stated = {"patient": header.patient, "eye": header.laterality}
    return {name: value for name, value in stated.items() if value is not None}


def reason_of(error: UnreadableImage | OSError) -> str:
    """Why an image cannot be read, without its path."""
    known = {errno.ENOENT: "file not found", errno.EISDIR: "a folder, not an image"}
    code = getattr(error, "errno", None)
    return known.get(code) or getattr(error, "strerror", None) or str(error)


def collate(items: Sequence[tuple[int, Preprocessed]]) -> dict:
    """(index, preprocessed image) of each -> a batch: "index" (N,) and the inputs (N, 3, P, P) of the N readable
    images, "records" (index, record) of all."""
    readable = [(index, item) for index, item in items if not item.record["error"]]
    batch = {"records": [(index, item.record) for index, item in items]}
    batch["index"] = torch.tensor([index for index, _ in readable], dtype=torch.int64)
    for key in readable[0][1].inputs if readable else ():
        batch[key] = torch.stack([item.inputs[key] for _, item in readable])
    return batch
