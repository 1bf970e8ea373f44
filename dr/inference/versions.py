"""The versions of the packages that compute a result."""

import platform
from importlib.metadata import version

import cv2
import timm
import torch
import torchvision

from dr import __version__


def versions() -> dict[str, str]:
    """-> {package: version}."""
    return {
        "dr": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str, which does not load with weights_only
        "torchvision": str(torchvision.__version__),
        "timm": timm.__version__,
        "opencv": cv2.__version__,
        "albumentations": version("albumentations"),
    }
