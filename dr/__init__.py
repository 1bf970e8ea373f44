"""Grades diabetic retinopathy from fundus photographs: the words that every module shares."""

__version__ = "0.1.0"

# International Clinical Diabetic Retinopathy severity scale (Wilkinson et al., Ophthalmology 2003;110:1677)
GRADES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")
# What may become of duplicates with contradicting grades
POLICIES = ("drop", "majority", "keep")
# The sides of a split, as people call them
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


class UsageError(Exception):
    """Something the user must change: one line that names the thing, the place and the remedy; exit code 2."""

    def __init__(self, text: str):
        # a loading process of torch hands its errors on with their traceback before the text
        super().__init__(text.strip().rpartition("UsageError: ")[2])
