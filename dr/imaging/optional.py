"""Image formats that need an optional package, and the error where it is not installed."""

from collections.abc import Iterable
from importlib.util import find_spec
from posixpath import splitext
from types import ModuleType

from dr import UsageError
from dr.imaging.unreadable import UnreadableImage

DICOM_SUFFIXES, HEIC_SUFFIXES = (".dcm", ".dicom"), (".heic", ".heif")
# suffix -> (format, module, package)
PACKAGE_OF = dict.fromkeys(DICOM_SUFFIXES, ("DICOM", "pydicom", "pydicom"))
PACKAGE_OF |= dict.fromkeys(HEIC_SUFFIXES, ("HEIC", "pillow_heif", "pillow-heif"))


def _fault(form: str, package: str) -> str:
    return f"{form} images need the package {package}; install it with: pip install {package}"


def load(suffix: str) -> ModuleType:
    """The module that reads images of a suffix. Raises UnreadableImage if it is not installed."""
    form, module, package = PACKAGE_OF[suffix]
    if find_spec(module) is None:
        raise UnreadableImage(_fault(form, package))
    return __import__(module)


def refuse_without_package(names: Iterable[str], *, place: str) -> None:
    """Names of images -> UsageError if none of them can be read without a package that is not installed. If some can,
    each of the others is reported by itself."""
    needed = {PACKAGE_OF.get(splitext(name)[1].lower()) for name in names}
    missing = sorted(each for each in needed if each and find_spec(each[1]) is None)
    if missing and len(missing) == len(needed):
        raise UsageError(f"{place}: {'; '.join(_fault(form, package) for form, _, package in missing)}")
