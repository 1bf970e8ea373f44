"""A checkpoint -> one ONNX file: preprocessed images in, scores, probabilities and grades out."""

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from dr import UsageError
from dr.core import distributed, files
from dr.grading import calibration
from dr.inference.checkpoint import Checkpoint
from dr.inference.versions import versions


class Graph(nn.Module):
    """(N, 3, P, P) uint8 RGB -> scores (N,) float32, probabilities (N, K) where the checkpoint has a calibration or its
    objective has probabilities, grades (N,) int64: the outputs of predict.py for one TTA view, in float32."""

    def __init__(self, checkpoint: Checkpoint):
        super().__init__()
        self.network, self.objective = checkpoint.network, checkpoint.objective
        thresholds, fitted = checkpoint.thresholds, checkpoint.calibration
        self.register_buffer("thresholds", None if thresholds is None else torch.tensor(thresholds))
        self.register_buffer("slope", None if fitted is None else torch.tensor(fitted.slope))
        self.register_buffer("offsets", None if fitted is None else torch.tensor(fitted.offsets))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        objective = self.objective
        predictions = objective.predictions(self.network(images))
        scores, grades = objective.scores(predictions), objective.grades(predictions, self.thresholds)
        probabilities = objective.probabilities(predictions)
        if self.slope is not None:
            inputs = objective.calibration_input(predictions)
            probabilities = calibration.log_probabilities(inputs, self.slope, self.offsets).exp()
        return (scores, grades) if probabilities is None else (scores, probabilities, grades)


def metadata(checkpoint: Checkpoint) -> dict:
    """What a program needs beside the graph, as primitives: how an image becomes the input, what the outputs mean. mean
    and std, of the channels RGB in 0..1, are in the graph already."""
    recipe = checkpoint.recipe
    return {
        "preprocessed_size": checkpoint.data.size_px,
        "cropped": checkpoint.data.crop,
        "image_size": recipe.image_size,
        "crop_size": recipe.crop_size,
        "mean": [round(value / 255, 6) for value in checkpoint.network.mean.flatten().tolist()],
        "std": [round(value / 255, 6) for value in checkpoint.network.std.flatten().tolist()],
        "objective": recipe.objective,
        "thresholds": checkpoint.thresholds,
        "classes": list(checkpoint.classes),
        "backbone": recipe.backbone,
        "recipe": recipe.to_dict(),
        "checkpoint": checkpoint.path.name,
        "versions": versions(),
    }


def _converted(checkpoint: Checkpoint):
    """-> onnx.ModelProto. Raises UsageError for a network that cannot be exported."""
    side = checkpoint.recipe.crop_size or checkpoint.recipe.image_size
    graph = Graph(checkpoint).eval()
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    names = ["scores", "grades"] if graph(images)[1:-1] == () else ["scores", "probabilities", "grades"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and onnxscript
        try:
            program = torch.onnx.export(
                graph,
                (images,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=names,
                dynamic_shapes={"images": {0: torch.export.Dim("images", min=1)}},
            )
        except torch.onnx.errors.OnnxExporterError as exc:
            reason = str(exc).strip().splitlines()[0]
            raise UsageError(
                f"{checkpoint.path}: {checkpoint.recipe.backbone} cannot be exported ({reason}); use another backbone"
            ) from exc
    return program.model_proto


def export(models: list[str], path: str | Path) -> dict:
    """Writes one checkpoint as ONNX to `path`, whole or not at all -> its metadata, in the file as JSON by name. Raises
    UsageError."""
    path = Path(path)
    if len(models) > 1:
        raise UsageError(f"--export writes one network, but -m has {len(models)} checkpoints; pass one")
    if path.suffix != ".onnx":
        raise UsageError(f"--export {path}: not an ONNX file name; use one that ends in .onnx")
    import onnx  # heavy, and needed nowhere else

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    checkpoint = Checkpoint.load(models[0])
    files.writable_folder(path.parent)
    model = _converted(checkpoint)
    content = metadata(checkpoint)
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in content.items()}
    onnx.helper.set_model_props(model, texts)
    model.producer_name = "retinopathy-grading"
    onnx.checker.check_model(model, full_check=True)
    if distributed.is_main:
        files.write_bytes(path, model.SerializeToString())
    return content


def summary_lines(metadata: dict, path: str | Path) -> list[str]:
    """The metadata of an export -> lines to print."""
    side, size = metadata["crop_size"] or metadata["image_size"], metadata["preprocessed_size"]
    lines = [f"wrote {path}: images (N, 3, {side}, {side}) uint8 RGB, preprocessed at {size} pixels"]
    tta = metadata["recipe"]["tta"]
    if tta != "none":
        lines.append(f"note: the graph has no test-time augmentation; predict.py uses tta={tta}")
    return lines
