"""The model that a `hf-hub:` or `local-dir:` name of timm refers to: its architecture, settings and normalisation.

A checkpoint keeps it, so that loading a checkpoint never reads a repository.
"""

import dataclasses
from typing import Annotated, Any

import timm
from pydantic import ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

from dr import UsageError

_REMOTE = {"hf-hub:": load_model_config_from_hf, "local-dir:": load_model_config_from_path}
# Arguments of timm.create_model that read files or the network
_FORBIDDEN = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
Channels = Annotated[tuple[float, float, float], Field(strict=False)]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Architecture:
    """A model of timm: its registered name, its arguments, mean and std of its input in 0..1, RGB."""

    name: Annotated[str, Field(max_length=256)]
    args: Annotated[dict[Annotated[str, Field(max_length=64)], JsonValue], Field(max_length=64)]
    mean: Channels
    std: Channels

    @model_validator(mode="after")
    def _is_registered(self) -> "Architecture":
        if not self.name.isprintable() or ":" in self.name or "/" in self.name or not timm.is_model(self.name):
            raise ValueError(f"timm has no model {self.name[:60]!r}")
        if wrong := sorted(_FORBIDDEN & self.args.keys()):
            raise ValueError(f"the argument {wrong[0]} is not allowed")
        if min(self.std) <= 0:
            raise ValueError("std must be greater than 0")
        return self

    def to_dict(self) -> dict[str, Any]:
        """As primitives, for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: object, *, place: str) -> "Architecture":
        """Primitives -> Architecture; errors begin with `place`. Raises UsageError."""
        try:
            return cls(**content)
        except (ValidationError, TypeError, RecursionError) as exc:
            reason = exc.errors()[0]["msg"] if isinstance(exc, ValidationError) else type(exc).__name__
            raise UsageError(f"{place}: architecture: {reason}; pass the checkpoint that train.py wrote") from exc


def is_remote(backbone: str) -> bool:
    """Whether the name of a backbone points to a repository or a folder that describes it."""
    return backbone.startswith(tuple(_REMOTE))


def resolve(backbone: str) -> Architecture | None:
    """Reads the description that the name of a backbone points to; None for a name of torchvision or timm. Raises
    UsageError if it cannot be read or describes no model of timm."""
    prefix = next((prefix for prefix in _REMOTE if backbone.startswith(prefix)), None)
    if prefix is None:
        return None
    try:
        settings, name, args = _REMOTE[prefix](backbone.removeprefix(prefix))
        return Architecture(
            name=name,
            args={key: value for key, value in (args or {}).items() if key not in ("num_classes", *_FORBIDDEN)},
            mean=settings.get("mean", timm.data.IMAGENET_DEFAULT_MEAN),
            std=settings.get("std", timm.data.IMAGENET_DEFAULT_STD),
        )
    except Exception as exc:  # huggingface_hub, requests, json and the file system each raise their own
        reason = exc.errors()[0]["msg"] if isinstance(exc, ValidationError) else str(exc) or type(exc).__name__
        raise UsageError(
            f"recipe: backbone {backbone}: cannot be read ({reason.splitlines()[0]}); check the name and the "
            "connection, or use a name of timm with --pretrained PATH"
        ) from exc
