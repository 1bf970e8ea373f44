"""Types of the fields of a checkpoint: each checks a value from a file and names the fault in one line."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo
from pydantic.types import AllowInfNan

from dr import UsageError
from dr.recipes.load import from_dict
from dr.recipes.schema import Recipe

LONGEST_TEXT = 5000  # characters
LONGEST_NAME = 1000  # of a class
LARGEST_NUMBER = 1e30  # of predictions and parameters: their squares are finite in float64
LARGEST_PX = 16384  # of an image's edge
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Strict(BaseModel):
    """A record that takes neither unknown fields nor values of another type, and does not change."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )


def _plain(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("holds control characters or is not valid Unicode")
    return text


def dense(value: object) -> torch.Tensor:
    """A tensor from a file -> the same on the CPU, without gradient. Raises ValueError for anything else."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"expected a tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_nested:
        raise ValueError("expected a dense tensor on the CPU")
    return value.detach().resolve_neg()


def finite(tensor: torch.Tensor) -> bool:
    """Whether no value of a dense tensor is NaN or infinite."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _array(value: object, *, dtypes: tuple, ndim: int) -> np.ndarray:
    """A tensor of a file, or an array -> an array of one of `dtypes` with `ndim` axes, every value finite."""
    if isinstance(value, torch.Tensor):
        tensor = dense(value)
        if tensor.dtype not in {torch.from_numpy(np.empty(0, dtype)).dtype for dtype in dtypes}:
            raise ValueError(f"expected {' or '.join(np.dtype(t).name for t in dtypes)}, got {tensor.dtype}")
        if not tensor.is_contiguous():
            raise ValueError("expected a contiguous tensor")
        value = tensor.numpy()
    if not isinstance(value, np.ndarray) or value.dtype not in dtypes:
        raise ValueError(f"expected a tensor, got {type(value).__name__}")
    if value.ndim != ndim:
        raise ValueError(f"expected {ndim} axes, got shape {value.shape}")
    if value.dtype.kind == "f" and not (np.abs(value) <= LARGEST_NUMBER).all():
        raise ValueError("a value is not finite")
    return value


def _floats(ndim: int) -> BeforeValidator:
    return BeforeValidator(lambda value: _array(value, dtypes=(np.float64, np.float32), ndim=ndim))


def _recipe(value: object, info: ValidationInfo) -> Recipe:
    """A recipe, or its primitives -> Recipe. Raises UsageError, ValueError."""
    if isinstance(value, Recipe):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a recipe, got {type(value).__name__}")
    for key, entry in value.items():
        if not isinstance(key, str) or len(key) > 100:
            raise ValueError("an option has no name")
        _plain(key)
        items = entry if isinstance(entry, (list, tuple)) else (entry,)
        if len(items) > 10_000:
            raise ValueError(f"{key} has {len(items)} values")
        for item in items:
            if isinstance(item, str):
                if len(item) > LONGEST_TEXT:
                    raise ValueError(f"{key} has {len(item)} characters")
                _plain(item)
            elif not (item is None or isinstance(item, (bool, float)) or (type(item) is int and abs(item) < 2**63)):
                raise ValueError(f"{key} is not a number, text or list of these")
    recipe = from_dict(dict(value), place=(info.context or {}).get("place", "recipe"))
    if max(recipe.image_size, recipe.crop_size or 0) > LARGEST_PX:
        raise ValueError(f"images of more than {LARGEST_PX} pixels")
    for numbers in (recipe.mean, recipe.std):
        if numbers is not None and not all(abs(number) <= LARGEST_NUMBER for number in numbers):
            raise ValueError("mean or std is not finite")
    return recipe


def _tuple(item: Any, **limits: int) -> Any:
    """A tuple, saved as a list."""
    return Annotated[tuple[item, ...], Field(strict=False, **limits), BeforeValidator(_listed)]


def _listed(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list, got {type(value).__name__}")
    return value


Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]
Line = Annotated[Text, BeforeValidator(lambda value: _plain(value) if isinstance(value, str) else value)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Number = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
Metric = Annotated[float, AllowInfNan(True)]  # NaN where it is not defined
Count = Annotated[int, Field(ge=0, lt=2**53)]
ClassNames = _tuple(Annotated[str, StringConstraints(max_length=LONGEST_NAME)], min_length=2, max_length=10_000)
Numbers = _tuple(Number, max_length=10_000)
Lines = _tuple(Line, max_length=1000)
Interval = _tuple(Metric, min_length=2, max_length=2)
Floats1D = Annotated[np.ndarray, _floats(1)]
Floats2D = Annotated[np.ndarray, _floats(2)]
Integers1D = Annotated[np.ndarray, BeforeValidator(lambda value: _array(value, dtypes=(np.int64,), ndim=1))]
Tensor = Annotated[torch.Tensor, BeforeValidator(dense)]
Weights = dict[Key, Tensor]
CheckedRecipe = Annotated[Recipe, BeforeValidator(_recipe)]


def fault(error: ValidationError) -> str:
    """The first fault that pydantic found -> "field 'data.size': ..." on one line."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(_named(part) for part in first["loc"])
    text = (
        first["msg"]
        .removeprefix("Value error, ")
        .replace("Input should be", "expected")
        .replace("Field required", "missing")
    )
    text = "unknown" if first["type"] == "extra_forbidden" else text[:1].lower() + text[1:]
    return one_line(f"field {place!r}: {text}" if place else text)


def _named(part: object) -> str:
    return str(part)[:60] if isinstance(part, str) or (isinstance(part, int) and abs(part) < 2**63) else "?"


def one_line(text: str, *, longest: int = 500) -> str:
    """Text that may quote a file -> printable, on one line, not longer than `longest` characters."""
    escaped = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    return escaped if len(escaped) <= longest else f"{escaped[:longest]}..."


def damaged(path: object, reason: str) -> UsageError:
    """The error of a checkpoint that cannot be used."""
    return UsageError(f"{path}: {reason}; pass the checkpoint that train.py wrote")
