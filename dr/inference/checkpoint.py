"""Checkpoint: what a training run leaves in a .pt file. This module alone reads and writes such files.

A file holds tensors and primitives only and loads with `torch.load(weights_only=True)`.
"""

import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from dr import GRADES, UsageError
from dr.core import files
from dr.datasets.preprocessed import Fold
from dr.grading import baseline, calibration, evaluation, objectives, registry
from dr.grading.calibration import Calibration
from dr.grading.objective import Objective
from dr.imaging import novelty
from dr.inference import fields
from dr.inference.fields import (
    CheckedRecipe,
    ClassNames,
    Count,
    Interval,
    Key,
    Line,
    Lines,
    Metric,
    Numbers,
    Strict,
    Weights,
)
from dr.inference.load_network import load_network
from dr.inference.records import (
    CalibrationRecord,
    DataRecord,
    GradedSplit,
    HeldOut,
    Predictions,
    TrainingReferenceRecord,
    check_predictions,
    parsed,
    read_saved_architecture,
)
from dr.inference.training_state import TrainingState
from dr.networks.architecture import Architecture
from dr.networks.build import GradingNetwork
from dr.networks.weight_files import load_tensors
from dr.recipes.load import load_recipe
from dr.recipes.schema import Recipe

PUBLISHED_THRESHOLDS = (0.5, 1.5, 2.5, 3.5)
PUBLISHED_SIZE_PX = 512


class Checkpoint(Strict):
    """A trained grader and what is known of it.

    `model` is the state_dict of the backbone; `thresholds` (K-1,) where the objective has them. `metrics` and
    `intervals` (95 %) are by split and key, those of "val" with the losses and seconds of the epoch. `calibration`,
    `training_reference` (what training images look like), `predictions` by split, and `notes`, lines that a reader of
    the metrics must know, are added by the end of a run. `training_state` is that of NAME__last.pt.
    """

    path: Path
    model: Weights
    recipe: CheckedRecipe
    thresholds: Numbers | None
    classes: ClassNames
    data: DataRecord
    epoch: Count = 0
    metrics: dict[Key, dict[Key, Metric]] = Field(default_factory=dict)
    intervals: dict[Key, dict[Key, Interval]] = Field(default_factory=dict)
    predictions: dict[Key, Predictions] = Field(default_factory=dict)
    architecture: Annotated[Architecture, BeforeValidator(read_saved_architecture)] | None = None
    calibration: parsed(Calibration, CalibrationRecord) | None = None
    training_reference: parsed(novelty.Reference, TrainingReferenceRecord) | None = None
    versions: dict[Key, Line] = Field(default_factory=dict)
    notes: Lines = ()
    training_state: TrainingState | None = None

    @classmethod
    def load(cls, path: str | Path, *, network: bool = True) -> "Checkpoint":
        """A checkpoint of train.py, or a bare published state_dict -> Checkpoint. Without `network` the weights are not
        compared with the backbone until `network` is used. Raises UsageError."""
        content = load_tensors(path)
        if "recipe" not in content or "model" not in content:
            content = _bare_state_dict(content, Path(path))
        loaded = cls.from_content(content, path=path)
        if network:
            _ = loaded.network
        return loaded

    @classmethod
    def from_content(cls, content: Mapping, *, path: str | Path) -> "Checkpoint":
        """What a file of weights holds -> Checkpoint; `path` names the file in errors. A calibration that is missing is
        fitted to the validation predictions, where there are any. Raises UsageError."""
        try:
            made = cls.model_validate({**content, "path": Path(path)}, context={"place": str(path)})
        except ValidationError as exc:
            raise fields.damaged(path, fields.fault(exc)) from exc
        val = made.predictions.get("val")
        if made.calibration is None and val is not None:
            inputs, classes = made.objective.calibration_input(val.predictions), made.objective.num_classes
            made = made.replace(calibration=calibration.fit(inputs, val.truth, num_classes=classes))
        return made

    def replace(self, **changes: Any) -> "Checkpoint":
        """A checkpoint with other values in some fields; with the same network, where that has been built."""
        made = Checkpoint(**{name: getattr(self, name) for name in Checkpoint.model_fields} | changes)
        if not {"model", "recipe", "architecture", "classes"} & changes.keys() and "network" in vars(self):
            vars(made)["network"] = self.network  # a cached property
        return made

    def content(self) -> dict[str, Any]:
        """Tensors and primitives, as they are saved."""
        return {name: value for name, value in _primitives(self).items() if name != "path"}

    def save(self, path: str | Path) -> None:
        """Writes the file whole or not at all. Raises OSError."""
        buffer = io.BytesIO()  # on a full disk torch's own writer raises a RuntimeError that does not say so
        torch.save(self.content(), buffer)
        files.write_bytes(path, buffer.getbuffer())

    @model_validator(mode="after")
    def _consistent(self) -> "Checkpoint":
        objective, count = self.objective, len(self.classes)
        if objective.has_thresholds:
            rising = self.thresholds is not None and list(self.thresholds) == sorted(self.thresholds)
            if not rising or len(self.thresholds) != count - 1:
                raise ValueError(f"field 'thresholds': expected {count - 1} ascending numbers")
        elif self.thresholds is not None:
            raise ValueError("field 'thresholds': expected none for this objective")
        if self.calibration and len(self.calibration.offsets) != objective.num_offsets:
            raise ValueError(f"field 'calibration': expected {objective.num_offsets} offsets")
        for name in (*self.metrics, *self.intervals, *self.predictions):
            if name not in registry.EVALUATED_SPLITS:
                raise ValueError(f"metrics or predictions of unknown split {fields.one_line(name, longest=60)!r}")
        for name, kept in self.predictions.items():
            check_predictions(kept, objective, place=f"field 'predictions.{name}'")
        return self

    @cached_property
    def objective(self) -> Objective:
        """The objective of the recipe for these classes."""
        try:
            return objectives.build(self.recipe, num_classes=len(self.classes))
        except UsageError as exc:
            raise fields.damaged(self.path, str(exc)) from exc

    @cached_property
    def network(self) -> GradingNetwork:
        """The network with its weights, in evaluation mode. Raises UsageError for weights of another backbone."""
        return load_network(
            self.model,
            self.recipe,
            num_outputs=self.objective.num_outputs,
            architecture=self.architecture,
            path=self.path,
        )

    @property
    def validation(self) -> Predictions | None:
        """The predictions for validation."""
        return self.predictions.get("val")

    @property
    def held_out(self) -> HeldOut | None:
        """The predictions for the fold that was held out, None without a fold or before the test."""
        if self.data.fold is None or "test" not in self.predictions:
            return None
        test = self.predictions["test"]
        return HeldOut(self.data.fold, test.predictions, test.truth)

    @property
    def selected_by(self) -> str | None:
        """The validation metric that the epoch was selected by, which makes the metrics of validation optimistic. None
        where no epoch was selected."""
        return None if self.recipe.monitor == "last" or self.recipe.epochs == 1 else self.recipe.monitor

    @property
    def fits_thresholds(self) -> bool:
        """Whether the thresholds were fitted to validation."""
        return evaluation.fits_thresholds(self.objective, self.recipe.thresholds)

    def graded_splits(self) -> list[GradedSplit]:
        """Validation and test, where their predictions are kept, in this order."""
        thresholds = None if self.thresholds is None else np.array(self.thresholds)
        graded = []
        for name in registry.EVALUATED_SPLITS:
            if kept := self.predictions.get(name):
                grades = kept.grades
                if grades is None:
                    grades = self.objective.grades(kept.predictions, thresholds)
                fitted = name == "val" and self.fits_thresholds
                graded.append(GradedSplit(name, kept.truth, grades, kept.predictions, fitted))
        return graded

    def below_majority(self) -> dict[str, bool]:
        """-> the splits whose accuracy does not exceed the majority-class baseline; True where the interval of kappa is
        nevertheless above 0. Thresholds for macro-F1 trade accuracy for rare grades."""
        return {
            split: self.intervals.get(split, {}).get(registry.unbiased("kappa", split).key, (0.0, 0.0))[0] > 0
            for split, values in self.metrics.items()
            if baseline.below_majority(values.get("accuracy"), values.get("majority"))
        }

    @property
    def unskilled_splits(self) -> list[str]:
        """The splits on which neither accuracy nor kappa shows that the network distinguishes classes."""
        return [split for split, skilled in self.below_majority().items() if not skilled]


def _primitives(value: Any) -> Any:
    if isinstance(value, TrainingState):  # torch's own states stay as they are
        return dict(value) | {"random": [_primitives(state) for state in value.random]}
    if isinstance(value, Strict):
        named = {name: (getattr(value, name), field.is_required()) for name, field in type(value).model_fields.items()}
        return {name: _primitives(entry) for name, (entry, needed) in named.items() if needed or entry is not None}
    if isinstance(value, (Recipe, Architecture, Calibration, novelty.Reference)):
        return value.to_dict()
    if isinstance(value, Fold):
        return value._asdict()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Mapping):
        return {key: _primitives(entry) for key, entry in value.items()}
    return [_primitives(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _bare_state_dict(tensors: Mapping, path: Path) -> dict[str, Any]:
    """A published state_dict of efficientnet_v2_m with one output -> the content of a checkpoint."""
    if not tensors or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in tensors.items()):
        raise fields.damaged(path, "neither a checkpoint of train.py nor a state_dict of efficientnet_v2_m")
    return {
        "model": {key.removeprefix("module."): value for key, value in tensors.items()},  # saved from DataParallel
        "recipe": load_recipe(None),
        "thresholds": PUBLISHED_THRESHOLDS,
        "classes": GRADES,
        "data": {"fingerprint": "", "size_px": PUBLISHED_SIZE_PX},
    }
