"""The network of a recipe with the weights of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights

from dr import UsageError
from dr.inference import fields
from dr.networks.architecture import Architecture
from dr.networks.build import GradingNetwork, build
from dr.networks.weights import same_shape
from dr.recipes.schema import Recipe


def load_network(
    weights: Mapping[str, torch.Tensor],
    recipe: Recipe,
    *,
    num_outputs: int,
    architecture: Architecture | None,
    path: Path,
) -> GradingNetwork:
    """The state_dict of a backbone -> the network in evaluation mode. Raises UsageError, which names `path`, for the
    weights of another backbone or values that are not finite."""
    network = _empty_network(recipe, num_outputs=num_outputs, architecture=architecture, path=path)
    own = network.backbone.state_dict()
    wrong = [key for key in own if not _fits(weights.get(key), own[key])]
    wrong += [key for key in weights if key not in own]
    if wrong:
        many = f"{num_outputs} output{'s'[: num_outputs > 1]}"
        key = fields.one_line(wrong[0], longest=100)
        raise fields.damaged(path, f"its tensors are not those of {recipe.backbone} with {many} (first: {key})")
    tensors = {key: weights[key].to(own[key].dtype) for key in own}
    if infinite := next((key for key, tensor in tensors.items() if not fields.finite(tensor)), None):
        raise fields.damaged(path, f"field 'model.{infinite}': a value is not finite")
    network.backbone.load_state_dict(tensors, assign=True)
    return network.to(memory_format=torch.channels_last).eval()


def _empty_network(
    recipe: Recipe, *, num_outputs: int, architecture: Architecture | None, path: Path
) -> GradingNetwork:
    try:
        with init_empty_weights(include_buffers=False):  # random weights, which the file replaces, take seconds to draw
            return build(recipe, num_outputs=num_outputs, pretrained=False, architecture=architecture)
    except UsageError as exc:
        raise fields.damaged(path, fields.one_line(str(exc))) from exc
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError, ArithmeticError) as exc:
        reason = fields.one_line((str(exc) or type(exc).__name__).splitlines()[0])
        raise fields.damaged(path, f"its recipe builds no network ({reason})") from exc


def _fits(found: torch.Tensor | None, wanted: torch.Tensor) -> bool:
    """Whether a dense tensor, all of whose values a file held, can take the place of another one."""
    return (
        same_shape(found, wanted)
        and not found.is_complex()
        and found.is_floating_point() == wanted.is_floating_point()
        and found.untyped_storage().nbytes() >= found.numel() * found.element_size()
    )
