"""A checkpoint -> one ONNX file: bytes of prepared photographs in, scores, probabilities and grades out."""

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from dr import UsageError
from dr.core import distributed, files
from dr.grading import calibration, objectives
from dr.inference import checkpoint
from dr.inference.checkpoint import Checkpoint


class Graph(nn.Module):
    """(N, 3, P, P) uint8 RGB -> scores (N,) float32, probabilities (N, K) where the checkpoint has a calibration or its
    objective has them, grades (N,) int64: what predict.py makes of one view, in float32."""

    def __init__(self, chosen: Checkpoint):
        super().__init__()
        self.network, self.objective = chosen.network, chosen.objective
        fitted = chosen.calibration
        self.register_buffer("thresholds", None if chosen.thresholds is None else torch.tensor(chosen.thresholds))
        self.register_buffer("slope", None if fitted is None else torch.tensor(fitted.slope))
        self.register_buffer("offsets", None if fitted is None else torch.tensor(fitted.offsets))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        predictions = _predictions(self.objective, self.network(images))
        own = _probabilities(self.objective, predictions)
        scores = _scores(self.objective, predictions)
        grades = own.argmax(dim=1) if self.thresholds is None else (scores[:, None] >= self.thresholds).sum(dim=1)
        probabilities = own
        if self.slope is not None:
            seen = scores if own is None else own
            probabilities = calibration.log_probabilities(seen, self.slope, self.offsets).exp()
        return (scores, grades) if probabilities is None else (scores, probabilities, grades)


def _predictions(objective: objectives.Objective, outputs: torch.Tensor) -> torch.Tensor:
    """As the objective's own; a running minimum is unrolled, for ONNX has none."""
    if not isinstance(objective, objectives.Ordinal):
        return objective.predictions(outputs)
    above = [outputs.sigmoid()[:, 0]]
    for k in range(1, objective.num_outputs):
        above.append(torch.minimum(above[-1], outputs.sigmoid()[:, k]))
    return torch.stack(above, dim=1)


def _scores(objective: objectives.Objective, predictions: torch.Tensor) -> torch.Tensor:
    """predictions (N, P) -> (N,), as `Objective.scores` of arrays."""
    if isinstance(objective, objectives.Ordinal):
        return predictions.sum(dim=1)
    if isinstance(objective, objectives.Classification):
        return predictions @ torch.arange(objective.num_classes, dtype=predictions.dtype)
    return predictions[:, 0]


def _probabilities(objective: objectives.Objective, predictions: torch.Tensor) -> torch.Tensor | None:
    """predictions (N, P) -> (N, K) or None, as `Objective.probabilities` of arrays."""
    if isinstance(objective, objectives.Regression):
        return None
    if isinstance(objective, objectives.Classification):
        return predictions
    above = torch.cat([torch.ones_like(predictions[:, :1]), predictions, torch.zeros_like(predictions[:, :1])], dim=1)
    return above[:, :-1] - above[:, 1:]


def facts(chosen: Checkpoint) -> dict:
    """What a program needs beside the graph, as primitives: how a photograph becomes its input, what its outputs mean.
    mean and std, of channels RGB in 0..1, are in the graph already."""
    recipe = chosen.recipe
    return {
        "prepared_size": chosen.prepared_px,
        "cropped": chosen.crop,
        "image_size": recipe.image_size,
        "crop_size": recipe.crop_size,
        "mean": [round(value / 255, 6) for value in chosen.network.mean.flatten().tolist()],
        "std": [round(value / 255, 6) for value in chosen.network.std.flatten().tolist()],
        "objective": recipe.objective,
        "thresholds": chosen.thresholds,
        "classes": list(chosen.classes),
        "backbone": recipe.backbone,
        "recipe": recipe.to_dict(),
        "checkpoint": chosen.path.name,
        "versions": checkpoint.versions(),
    }


def _converted(chosen: Checkpoint):
    """-> onnx.ModelProto. Raises UsageError for a network that cannot be put into a graph."""
    side = chosen.recipe.crop_size or chosen.recipe.image_size
    graph = Graph(chosen).eval()
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    names = ["scores", "grades"] if graph(images)[1:-1] == () else ["scores", "probabilities", "grades"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making: deprecations inside torch and onnxscript
        try:
            program = torch.onnx.export(
                graph,
                (images,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=names,
                dynamic_shapes={"images": {0: torch.export.Dim("photographs", min=1)}},
            )
        except torch.onnx.errors.OnnxExporterError as exc:
            reason = str(exc).strip().splitlines()[0]
            raise UsageError(
                f"{chosen.path}: {chosen.recipe.backbone} cannot be exported ({reason}); train another backbone"
            ) from exc
    return program.model_proto


def export(models: list[str], path: str | Path) -> dict:
    """Writes one checkpoint as ONNX to `path`, whole or not at all -> the facts it carries, which are its metadata as
    JSON by name. Raises UsageError."""
    path = Path(path)
    if len(models) > 1:
        raise UsageError(f"--export writes one network, but -m names {len(models)} checkpoints; give one")
    if path.suffix != ".onnx":
        raise UsageError(f"--export {path}: its name must end in .onnx")
    import onnx  # heavy, and needed nowhere else

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    chosen = checkpoint.load(models[0])
    files.writable_folder(path.parent)
    model = _converted(chosen)
    known = facts(chosen)
    onnx.helper.set_model_props(model, {name: json.dumps(value, ensure_ascii=False) for name, value in known.items()})
    model.producer_name = "retinopathy-grading"
    onnx.checker.check_model(model, full_check=True)
    if distributed.is_main:
        files.write_bytes(path, model.SerializeToString())
    return known


def summary_lines(known: dict, path: str | Path) -> list[str]:
    """The facts of an export -> lines for a person."""
    side = known["crop_size"] or known["image_size"]
    lines = [f"wrote {path}: images (N, 3, {side}, {side}) uint8 RGB, prepared at {known['prepared_size']} pixels"]
    if known["recipe"]["tta"] != "none":
        lines.append(f"note: it sees one view of a photograph; predict.py takes those of tta={known['recipe']['tta']}")
    return lines
