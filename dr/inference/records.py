"""Parts of a checkpoint: predictions of a split, the data of the run, calibration and training reference."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo

from dr.datasets.preprocessed import Fold
from dr.grading.calibration import Calibration
from dr.grading.objective import Objective
from dr.imaging import novelty
from dr.inference import fields
from dr.inference.fields import Floats1D, Floats2D, Integers1D, Line, Number, Numbers, Strict
from dr.networks.architecture import Architecture


class Predictions(Strict):
    """Predictions (N, P) and true classes (N,) of the images of a split, in the order of its label table. `grades` (N,)
    where they do not follow from the predictions: TTA views voted."""

    predictions: Floats2D
    truth: Integers1D
    grades: Integers1D | None = None


@dataclass(frozen=True)
class HeldOut:
    """Predictions (N, P) and truth (N,) of the images of a fold, by a network that was not trained on them."""

    fold: Fold
    predictions: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class GradedSplit:
    """Validation or test as the checkpoint's network graded it: truth, grades (N,), predictions (N, P). `fitted`: the
    thresholds were fitted to these images, so that metrics of the grades are optimistic."""

    name: str
    truth: np.ndarray
    grades: np.ndarray
    predictions: np.ndarray
    fitted: bool


class FoldRecord(Strict):
    number: Annotated[int, Field(ge=1, le=10_000)]
    of: Annotated[int, Field(ge=2, le=10_000)]
    fingerprint: Line

    def value(self) -> Fold:
        return Fold(self.number, self.of, self.fingerprint)


class CalibrationRecord(Strict):
    slope: Number
    offsets: Numbers

    def value(self) -> Calibration:
        return Calibration(self.slope, self.offsets)


class TrainingReferenceRecord(Strict):
    mean: Floats1D
    precision: Floats2D
    limit: Annotated[float, Field(gt=0, le=fields.LARGEST_NUMBER)]

    def value(self) -> novelty.Reference:
        if self.mean.shape != (novelty.MEASURES,) or self.precision.shape != 2 * (novelty.MEASURES,):
            raise ValueError(f"expected a mean and precision of {novelty.MEASURES} measures")
        roots = np.linalg.eigvalsh(self.precision)
        if roots[0] < -1e-6 * abs(roots[-1]):
            raise ValueError("its precision is not positive definite")
        return novelty.Reference(self.mean, self.precision, self.limit)


def parsed(kind: type, record: type[Strict]) -> Any:
    """The type of a field that is a `kind`, saved as the primitives of `record`."""

    def parse(value: object) -> object:
        if isinstance(value, kind):
            return value
        try:
            return record.model_validate(value).value()
        except ValidationError as exc:
            raise ValueError(fields.fault(exc)) from exc

    return Annotated[kind, BeforeValidator(parse)]


def read_saved_architecture(value: object, info: ValidationInfo) -> Architecture:
    if isinstance(value, Architecture):
        return value
    return Architecture.from_dict(value, place=(info.context or {}).get("place", "checkpoint"))


class DataRecord(Strict):
    """The preprocessed data of a run: fingerprint of label tables, size and cropping; longest edge of an image; hashes
    of the names of its training and validation images (`name_hash`), those of the weights it started from included,
    and of the latter alone; the fold that is held out as its test."""

    fingerprint: Line
    size_px: Annotated[int, Field(ge=1, le=fields.LARGEST_PX)]
    crop: bool = True
    name_hashes: Integers1D | None = None
    pretrained_name_hashes: Integers1D | None = None
    fold: parsed(Fold, FoldRecord) | None = None


def check_predictions(kept: Predictions, objective: Objective, *, place: str) -> None:
    """Raises ValueError for predictions of another width or length, or classes outside 0..K-1."""
    wanted, highest = (len(kept.truth), objective.num_outputs), objective.num_classes - 1
    if kept.predictions.shape != wanted or not len(kept.truth):
        raise ValueError(f"{place}: expected predictions of shape {wanted} and a sample, got {kept.predictions.shape}")
    for name, labels in (("truth", kept.truth), ("grades", kept.grades)):
        if labels is not None and (labels.shape != kept.truth.shape or not _in_range(labels, objective.num_classes)):
            raise ValueError(f"{place}: expected {name} of {len(kept.truth)} samples from 0 to {highest}")


def _in_range(labels: np.ndarray, num_classes: int) -> bool:
    return bool(((labels >= 0) & (labels < num_classes)).all())
