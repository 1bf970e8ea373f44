"""Grades diabetic retinopathy from fundus images: the public API, and the names that every module shares.

`from dr import Grader` loads torch; `import dr` alone loads nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dr.inference.grader import Grader

__all__ = ["GRADES", "POLICIES", "SPLIT_NAMES", "Grader", "UsageError", "__version__"]
__version__ = "0.2.0"

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
    """Loads Grader when it is first used."""
    if name == "Grader":
        from dr.inference.grader import Grader

        return Grader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
