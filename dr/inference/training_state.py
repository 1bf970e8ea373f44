"""What NAME__last.pt holds beside a checkpoint: all that --resume needs to continue as an unbroken run would."""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field

from dr.inference.fields import Count, Key, Line, Metric, Strict, Tensor, Weights, dense, finite


def _bytes(value: object) -> torch.Tensor:
    tensor = dense(value)
    if tensor.dtype != torch.uint8 or tensor.ndim != 1 or not tensor.is_contiguous():
        raise ValueError("expected the bytes of a random generator")
    return tensor


class RandomState(Strict):
    """Random generators of one process: dropout and mixing differ between processes."""

    torch: Annotated[Tensor, BeforeValidator(_bytes)]
    cuda: Annotated[Tensor, BeforeValidator(_bytes)] | None = None


class TrainingState(Strict):
    """State of optimizer, scheduler and gradient scaler, random generators by rank, epochs and updates done, a row of
    metrics for each epoch. `raw_model`: the weights that learn, where the checkpoint holds their moving average.
    `recorded`: the columns of runs.csv on the command that started the run."""

    raw_model: Weights | None
    optimizer: dict[Key, Any]
    scheduler: dict[Key, Any] | None
    scaler: dict[Key, Any] | None
    random: Annotated[list[RandomState], Field(min_length=1, max_length=100_000)]
    epoch: Count
    updates: Count
    history: Annotated[list[dict[Key, Metric]], Field(max_length=1_000_000)]
    recorded: dict[Key, Line] = Field(default_factory=dict)


def check_like(value: object, template: object, *, place: str) -> None:
    """Raises ValueError unless a state from a file has the keys, types, lengths and shapes of `template`, the state of
    a run that is about to start. A number may take the place of another one or of None."""
    if isinstance(template, torch.Tensor):
        tensor = dense(value)
        if tensor.shape != template.shape or tensor.dtype != template.dtype or not finite(tensor):
            raise ValueError(f"{place}: expected finite {template.dtype} of shape {tuple(template.shape)}")
    elif isinstance(template, Mapping):
        if not isinstance(value, Mapping) or value.keys() != template.keys():
            raise ValueError(f"{place}: other entries than this run's")
        for key, entry in template.items():
            check_like(value[key], entry, place=f"{place}.{key}")
    elif isinstance(template, (list, tuple)):
        if type(value) is not type(template) or len(value) != len(template):
            raise ValueError(f"{place}: expected a {type(template).__name__} of {len(template)}")
        for number, (entry, own) in enumerate(zip(value, template, strict=True)):
            check_like(entry, own, place=f"{place}.{number}")
    elif template is None or (isinstance(template, (int, float)) and not isinstance(template, bool)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and -(2**63) < value < 2**63
        if not (number or (value is None and template is None) or value in (float("inf"), -float("inf"))):
            raise ValueError(f"{place}: expected a number")
    elif type(value) is not type(template):
        raise ValueError(f"{place}: expected a {type(template).__name__}")


def check_optimizer(value: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError unless the state from a file is one of this optimizer: the same groups, and for each parameter
    with a state the same entries, dense tensors of the parameter's shape, or numbers."""
    template = optimizer.state_dict()
    check_like(value, template | {"state": value.get("state")}, place="optimizer")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = _entries(getattr(optimizer, "optimizer", optimizer))  # without accelerate's wrapper
    if not isinstance(value["state"], Mapping):
        raise ValueError("optimizer.state: expected an entry for each parameter")
    for number, entry in value["state"].items():
        place = f"optimizer.state.{number}"
        if number not in range(len(parameters)) or not isinstance(entry, Mapping):
            raise ValueError(f"{place}: other entries than this run's")
        template = {
            name: parameters[number] if isinstance(own, torch.Tensor) and own.ndim else own
            for name, own in entries.items()
        }
        check_like(entry, template, place=place)
        for name, own in entries.items():
            if isinstance(own, torch.Tensor) and not own.ndim and not 0 <= float(entry[name]) < 2**63:
                raise ValueError(f"{place}.{name}: expected a count of steps")


def _entries(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimizer keeps for a parameter of one value, by a step of another optimizer of its kind."""
    options = inspect.signature(type(optimizer).__init__).parameters.keys() & optimizer.param_groups[0].keys()
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    twin = type(optimizer)([parameter], **{name: optimizer.param_groups[0][name] for name in options - {"params"}})
    twin.step()
    return dict(twin.state[parameter])
