"""Files of weights: tensors, primitives, and the few harmless types that other programs leave beside them."""

import argparse
import pathlib
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from dr import UsageError

_STARTS = (b"PK", b"\x80\x02")  # of files of torch.save: a zip, or before torch 1.6 a pickle
_REMEDY = "if you trust it, open it with torch.load(..., weights_only=False) and save its state_dict alone"
# numbers and texts: no dtype of objects, which would hold any
_DTYPES = ("Bool", "Bytes", "Str", *(f"{kind}{bits}" for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)))
_DTYPES += ("Float16", "Float32", "Float64", "Complex64", "Complex128")


def _harmless() -> list:
    """What torch.load builds beside tensors: parsed arguments, NumPy's scalars and arrays, paths without their file
    system. Both names of NumPy's modules are known: version 2 renamed `core`."""
    scalar, array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    numpy = [
        (function, f"numpy.{module}.multiarray.{name}")
        for module in ("core", "_core")
        for name, function in (("scalar", scalar), ("_reconstruct", array))
    ]
    paths = [(pathlib.PurePosixPath, "pathlib.PosixPath"), (pathlib.PureWindowsPath, "pathlib.WindowsPath")]
    local = [(cls, name.replace("pathlib.", "pathlib._local.")) for cls, name in paths]  # of Python 3.13
    dtypes = [getattr(np.dtypes, f"{name}DType") for name in _DTYPES]
    return [argparse.Namespace, np.dtype, np.ndarray, *dtypes, *numpy, *paths, *local]


def load_tensors(path: str | Path) -> Mapping:
    """The content of a file of torch.save or of safetensors: tensors, primitives and harmless types only. Code in a
    pickle is not run.

    Raises UsageError for a file that is missing, truncated or holds anything else.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; pass a file of weights, such as NAME__best.pt")
    if not path.is_file():
        raise UsageError(f"{path}: file of weights not found; check the path")
    with path.open("rb") as file:
        start = file.read(10)
    try:
        if path.suffix == ".safetensors" or start[8:] == b'{"':  # the length of the header, then the header
            from safetensors.torch import load_file  # only for users of such files

            return load_file(path)
        if start and start[:2] not in _STARTS:
            raise UsageError(f"{path}: not a file of weights; pass a NAME__best.pt of train.py, or a state_dict")
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is refused below
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UsageError:
        raise
    except pickle.UnpicklingError as exc:
        raise UsageError(_refusal(path, str(exc))) from exc
    except Exception as exc:  # RuntimeError, EOFError, KeyError, ValueError: torch and safetensors on damaged files
        if "TorchScript" in str(exc):
            raise UsageError(
                f"{path}: a TorchScript program, whose code is not run; save its state_dict() with torch.save"
            ) from exc
        raise UsageError(f"{path}: truncated, or not a file of weights; copy it again") from exc
    if not isinstance(loaded, Mapping):
        raise UsageError(f"{path}: holds a {type(loaded).__name__}, expected a state_dict; save model.state_dict()")
    return loaded


def _refusal(path: Path, reason: str) -> str:
    """Fault and remedy of a file that holds a type which torch.load refuses, by torch's `reason`."""
    refused = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module)", reason)
    name = refused[1][:100] if refused else ""
    kind = f"an object of type {name}" if name.isprintable() and name else "more than tensors"
    return f"{path}: holds {kind}; only tensors and plain values are loaded, as others may run code; {_REMEDY}"
