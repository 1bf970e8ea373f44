"""The Python API: checkpoints that grade and explain images, as predict.py does, which is built on this class."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dr import UsageError
from dr.core import distributed
from dr.core.device import accelerator
from dr.imaging.decode import UnreadableImage
from dr.inference import backends, ensemble
from dr.inference.checkpoint import Checkpoint
from dr.inference.decision import Decision, details_table
from dr.inference.explain import Explainer
from dr.inference.forward import TTA_VIEWS, Compute, Scorer, decide, infer
from dr.inference.preprocessor import Image, InputSpec, Preprocessor, collate, reason_of
from dr.recipes.schema import OPTIONS

Source = str | os.PathLike | bytes | np.ndarray  # a path, an encoded image, or its pixels (H, W, 3) uint8 RGB


@dataclass
class NetworkOutputs:
    """The outputs of all networks: `records` of all images by index, `index` (M,) of those with finite outputs, and for
    each network its outputs (V, M, num_outputs), V views."""

    records: dict[int, dict]
    index: np.ndarray
    outputs: list[torch.Tensor]


class Grader:
    """Grades and explains images with one checkpoint, or with several whose predictions are averaged.

    Threads may share it. Its methods never change it, except that the first call prepares the networks.
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        *,
        tta: str | None = None,
        tta_by: str | None = None,
        device: str = "auto",
        engine: str = "auto",
        batch_size: int = 16,
    ):
        recipe = checkpoints[0].recipe
        self.checkpoints = list(checkpoints)
        self.tta = _one_of("tta", recipe.tta if tta is None else tta, OPTIONS["tta"])
        self.tta_by = _one_of("tta_by", recipe.tta_by if tta_by is None else tta_by, OPTIONS["tta_by"])
        self.engine = _one_of("engine", engine, backends.ENGINES)
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise UsageError(f"batch_size: {batch_size!r}; use an integer of at least 1")
        self.batch_size = batch_size
        self.preprocessor = Preprocessor.of(checkpoints)
        precisions = {checkpoint.recipe.precision for checkpoint in checkpoints}
        precision = precisions.pop() if len(precisions) == 1 else "auto"
        self.compute = Compute.of(accelerator(device, precision=precision, on_cpu="fp32"))
        self._scorers: dict[str, tuple[list[Scorer], str]] = {}
        self._explainers: list[Explainer] | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        paths: str | os.PathLike | Sequence[str | os.PathLike],
        *,
        tta: str | None = None,
        tta_by: str | None = None,
        device: str = "auto",
        engine: str = "auto",
        batch_size: int = 16,
    ) -> "Grader":
        """The path of a checkpoint, or of several whose predictions are averaged -> Grader.

        `tta`: test-time augmentation (none, flips, d4, five, ten) and `tta_by` how its views are combined (mean, vote);
        by default those of the first checkpoint's recipe. `device`: auto, cpu, cuda, cuda:1, mps. `engine`: torch,
        openvino, or auto, which uses OpenVINO on a CPU for calls with many images. Raises UsageError.
        """
        names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        if not names:
            raise UsageError("Grader.load: no checkpoint; pass the path of at least one")
        loaded = ensemble.load([os.fspath(name) for name in names])
        return cls(loaded, tta=tta, tta_by=tta_by, device=device, engine=engine, batch_size=batch_size)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: `grade` is an index of it."""
        return self.checkpoints[0].classes

    def grade(self, images: Iterable[Source]) -> pd.DataFrame:
        """Images, each a path, the bytes of an image file or pixels (H, W, 3) uint8 RGB -> a row for each, in their
        order, with the columns of details.csv: file, score, grade, class, probability_0..., doubt, brightness,
        sharpness, cut_off, training_distance, flags, error.

        `file` is the path; for bytes and pixels it is image_0, image_1, ... by position. An image that cannot be read
        has no grade but an `error`. Raises UsageError for anything else than a list of images.
        """
        sources = _named(images)
        records: dict[int, dict] = {}
        outputs = self.run(self._batches(sources, records), records, count=len(sources), gather=False)
        return self.details(outputs, self.decide(outputs))

    def explain(self, image: Source, *, grade: int | None = None) -> np.ndarray:
        """An image as in `grade`, of height H and width W -> heat (H, W) float32 in 0..1: Grad-CAM, averaged over the
        networks. It is higher where the image contributes more to the score (regression) or to `grade`, by default the
        grade of the image, and 0 outside the part of the image that the networks receive.

        Raises UsageError for an image that cannot be graded and for a network without a feature map.
        """
        [(file, read)] = _named([image])
        try:
            content = read()
        except OSError as exc:
            raise UsageError(f"{file}: {reason_of(exc)}; pass another image") from exc
        row = self.grade([content]).iloc[0]
        if row["error"]:
            raise UsageError(f"{file}: {row['error']}; pass another image")
        grade = int(row["grade"]) if grade is None else _one_of("grade", grade, range(len(self.classes)))
        try:
            heats = [explainer.image_heat(content, grade=grade) for explainer in self.explainers()]
        except UnreadableImage as exc:
            raise UsageError(f"{file}: {exc}; pass another image") from exc
        return np.mean(heats, axis=0, dtype=np.float32)

    # --- the steps of `grade`, which predict.py calls one by one ---------------------------------

    def check_engine(self, count: int) -> None:
        """Raises UsageError where the engine cannot run on the device, for `count` images."""
        backends.choose_engine(self.engine, device=self.compute.device, views=count * len(TTA_VIEWS[self.tta]))

    def scorers(self, count: int) -> tuple[list[Scorer], str]:
        """The networks as the engine for `count` images runs them, and the name of that engine."""
        views = count * len(TTA_VIEWS[self.tta])
        name = backends.choose_engine(self.engine, device=self.compute.device, views=views)
        with self._lock:
            if name not in self._scorers:
                self._scorers[name] = self._prepared(views)
            return self._scorers[name]

    def _prepared(self, views: int) -> tuple[list[Scorer], str]:
        scorers, engines = [], []
        for checkpoint in self.checkpoints:
            spec = InputSpec.of(checkpoint)
            network, engine = backends.prepare_network(
                checkpoint.network, name=self.engine, device=self.compute.device, views=views, side_px=spec.input_px
            )
            scorers.append(Scorer(network.eval(), checkpoint.objective, spec.key))
            engines.append(engine)
        return scorers, ", ".join(dict.fromkeys(engines))

    def explainers(self) -> list[Explainer]:
        """One for each network. Raises UsageError for a network without a feature map."""
        with self._lock:
            if self._explainers is None:
                for checkpoint in self.checkpoints:
                    checkpoint.network.to(self.compute.device)
                self._explainers = [Explainer(checkpoint) for checkpoint in self.checkpoints]
            return self._explainers

    def run(
        self, batches: Iterable[dict], records: dict[int, dict], *, count: int, gather: bool = True
    ) -> NetworkOutputs:
        """Batches of `collate`, which fill `records` while they are read, of `count` images in all -> NetworkOutputs.
        With `gather` each process of torchrun brings its own batches, and returns the outputs of all."""
        scorers, _ = self.scorers(count)
        views = TTA_VIEWS[self.tta]
        index, outputs = infer(scorers, batches, accelerator=self.compute, views=views, gather=gather)
        if gather:
            records = {i: record for part in distributed.all_gather(records) for i, record in part.items()}
        finite = torch.stack([each.isfinite().all(dim=2).all(dim=0) for each in outputs]).all(dim=0).numpy()
        for i in index[~finite]:
            records[i]["error"] = "the score is not finite: the network overflows; train with --set precision=fp32"
        return NetworkOutputs(records, index[finite], [each[:, finite] for each in outputs])

    def decide(self, outputs: NetworkOutputs) -> Decision:
        """The decision for the class prevalence of the validation set."""
        thresholds, source = ensemble.thresholds(self.checkpoints)
        predictions, grades = self.predictions_and_grades(outputs, thresholds)
        own = self.checkpoints[0].objective.probabilities(predictions)
        calibrated = ensemble.probabilities(self.checkpoints, predictions)
        probabilities = own if calibrated is None else calibrated
        return Decision(predictions, grades, probabilities, calibrated is not None, thresholds, source, own)

    def predictions_and_grades(
        self, outputs: NetworkOutputs, thresholds: Sequence[np.ndarray | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Thresholds (K-1,) of each network -> mean predictions (M, P), grades (M,)."""
        return decide(self.checkpoints, outputs.outputs, thresholds=thresholds, by=self.tta_by)

    def details(self, outputs: NetworkOutputs, decision: Decision) -> pd.DataFrame:
        """The columns of details.csv, a row for each record, in the order of their index."""
        objective = self.checkpoints[0].objective
        return details_table(outputs.records, outputs.index, decision, objective=objective, classes=self.classes)

    def _batches(self, sources: Sequence[tuple[str, Callable[[], Image]]], records: dict[int, dict]) -> Iterator[dict]:
        """Named images -> batches; their records go into `records`."""
        for start in range(0, len(sources), self.batch_size):
            part = list(enumerate(sources))[start : start + self.batch_size]
            batch = collate([(i, self.preprocessor(file, read)) for i, (file, read) in part])
            records.update(batch["records"])
            if len(batch["index"]):
                yield batch


def _one_of(name: str, value: object, allowed: Iterable) -> object:
    """`value`, where it is allowed. Raises UsageError."""
    allowed = list(allowed)
    if value not in allowed:
        raise UsageError(f"{name}: {value!r}; use {', '.join(map(str, allowed[:-1]))} or {allowed[-1]}")
    return value


def _named(images: Iterable[Source]) -> list[tuple[str, Callable[[], Image]]]:
    """Images -> the name of each and a function that reads it. Raises UsageError."""
    single = isinstance(images, (str, os.PathLike, bytes)) or (isinstance(images, np.ndarray) and images.ndim < 4)
    if single or not isinstance(images, Iterable):
        raise UsageError(f"images: {type(images).__name__}; pass a list of paths, bytes or arrays, as [image]")
    return [_reader(image, place) for place, image in enumerate(images)]


def _reader(image: Source, place: int) -> tuple[str, Callable[[], Image]]:
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image), lambda: _bytes_of(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return f"image_{place}", lambda: bytes(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return f"image_{place}", lambda: np.ascontiguousarray(image)
    found = type(image).__name__
    if isinstance(image, np.ndarray):
        found = f"an array of shape {image.shape} and type {image.dtype}"
    raise UsageError(f"images[{place}]: {found}; pass a path, the bytes of a file, or pixels (H, W, 3) uint8 RGB")


def _bytes_of(path: str | os.PathLike) -> bytes:
    """The bytes of a file. Raises OSError."""
    try:
        return Path(path).read_bytes()
    except ValueError as exc:  # of a path that holds a NUL
        raise OSError(str(exc)) from exc
