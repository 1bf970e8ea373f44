"""Grades diabetic retinopathy from fundus images: the public API, and the names that every module shares.

`from dr import Grader` loads torch; `import dr` alone loads nothing.
"""

import importlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dr.grading.label_issues import label_issues
    from dr.inference.grader import Grader
    from dr.training.out_of_fold import out_of_fold

__all__ = [
    "GRADES",
    "POLICIES",
    "SPLIT_NAMES",
    "Grader",
    "UsageError",
    "__version__",
    "label_issues",
    "out_of_fold",
]
# The public API that is loaded when it is first used: name -> module
_LAZY = {
    "Grader": "dr.inference.grader",
    "label_issues": "dr.grading.label_issues",
    "out_of_fold": "dr.training.out_of_fold",
}
__version__ = "0.2.0"
IMPORTED_AT = time.monotonic()  # the commands import this package first: the start of their process

# International Clinical Diabetic Retinopathy severity scale (Wilkinson et al., Ophthalmology 2003;110:1677)
GRADES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")
# --conflicts: policies for duplicates with conflicting grades
POLICIES = ("drop", "majority", "keep")
# Short names of the splits, as in paths and columns -> full names, as in texts
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


class UsageError(Exception):
    """Something the user must change: one line that names the thing, the place and the remedy; exit code 2."""

    def __init__(self, text: str):
        # a DataLoader worker puts its traceback in front of the text of an error
        super().__init__(text.strip().rpartition("UsageError: ")[2])


def __getattr__(name: str):
    """Loads a name of the public API when it is first used."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
