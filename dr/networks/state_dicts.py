"""Finds the weights of a network in what other programs save: inside which entry, and behind which prefix of names."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

# Entries around a state_dict, the preferred ones first: of equal fit an average of weights is taken, as timm does
_ENTRIES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema", "teacher"),
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module", "student"),
)
_AVERAGES = {"ema", "teacher"}  # words of a prefix
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # anywhere in a name
_DEEPEST = 3  # entries within entries
Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, the entries of the file that hold them, as "model_ema", and the prefix taken off their names."""

    tensors: Mapping[str, torch.Tensor]
    entry: str = ""
    prefix: str = ""

    def fitting(self, wanted: Shapes) -> list[str]:
        """The names in `wanted` whose tensor has the shape that is wanted."""
        return [name for name, shape in wanted.items() if name in self.tensors and self.tensors[name].shape == shape]

    def __str__(self) -> str:
        """Where the tensors were: 'model_ema, names without "module."', empty for a plain state_dict."""
        parts = [self.entry] if self.entry else []
        return ", ".join([*parts, f'names without "{self.prefix}"'] if self.prefix else parts)


def _rank(name: str) -> int:
    return _ENTRIES.index(name) if name in _ENTRIES else len(_ENTRIES)


def _entries(content: Mapping, path: tuple[str, ...] = ()) -> Iterator[StateDict]:
    """Every entry that holds tensors by name, the preferred ones first."""
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and _dense(value)}
    if tensors:
        yield StateDict(tensors, ".".join(path))
    nested = [key for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping)]
    for key in sorted(nested, key=_rank) if len(path) < _DEEPEST else ():
        yield from _entries(content[key], (*path, key))


def _dense(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _prefix(found: StateDict, wanted: Shapes) -> str:
    """The prefix behind which most names of `wanted` are: of any words, as `module.model.`, and of equal ones that of
    an average, then the shortest. Names count double where the shape is also that wanted."""
    counts: Counter[str] = Counter()
    for name, tensor in found.tensors.items():
        start = 0
        while True:
            rest = name[start:]
            if rest in wanted:
                counts[name[:start]] += 2 if tensor.shape == wanted[rest] else 1
            dot = name.find(".", start)
            if dot < 0:
                break
            start = dot + 1
    averages = {prefix: bool(_AVERAGES & set(re.split("[._]", prefix))) for prefix in counts}
    return max(counts, key=lambda prefix: (counts[prefix], averages[prefix], -len(prefix)), default="")


def _common_prefix(tensors: Mapping[str, torch.Tensor]) -> str:
    """The word that all names begin with: of names that a conversion has yet to change."""
    first = {name.partition(".")[0] for name in tensors}
    return f"{first.pop()}." if len(first) == 1 and all("." in name for name in tensors) else ""


def _without(found: StateDict, prefix: str) -> StateDict:
    kept = {name.removeprefix(prefix): value for name, value in found.tensors.items() if name.startswith(prefix)}
    return StateDict(kept, found.entry, found.prefix + prefix)


def candidates(content: Mapping, wanted: Shapes) -> list[StateDict]:
    """The content of a file of weights -> what may be the weights of a network whose tensors are `wanted`, the one that
    most of them fit first."""
    found = []
    for entry in _entries(content):
        wrapped = any(wrapper in name for name in entry.tensors for wrapper in _WRAPPERS)
        plain = StateDict({_unwrapped(name): value for name, value in entry.tensors.items()}, entry.entry)
        plain = plain if wrapped else entry
        prefix = _prefix(plain, wanted)
        while not prefix and not plain.fitting(wanted) and (common := _common_prefix(plain.tensors)):
            plain = _without(plain, common)
            prefix = _prefix(plain, wanted)
        found.append(_without(plain, prefix))
    return sorted(found, key=lambda each: -len(each.fitting(wanted)))


def tensor_names(content: Mapping) -> list[str]:
    """The names of all tensors in a file, each within its entry."""
    return [name for entry in _entries(content) for name in entry.tensors]
