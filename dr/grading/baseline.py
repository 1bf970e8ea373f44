"""The majority-class baseline: whether an accuracy exceeds what the most frequent class alone would reach."""

from dr import SPLIT_NAMES

MAJORITY = {"accuracy": "majority", "test_accuracy": "test_majority"}  # columns of runs.csv -> that of their baseline


def below_majority(accuracy: float | None, majority: float | None) -> bool:
    """Whether an accuracy does not exceed the majority-class baseline; False where one of them is unknown."""
    return accuracy is not None and majority is not None and accuracy <= majority


def note(split: str, accuracy: float, majority: float, *, skilled_by: str | None) -> str:
    """A sentence, without its full stop, on an accuracy that does not exceed the baseline. `skilled_by`: the metric
    whose interval is above 0 all the same, so that the network distinguishes classes."""
    skilled = f", but {skilled_by} is significantly above 0" if skilled_by else ""
    return (
        f"{SPLIT_NAMES[split]} accuracy {accuracy:.3f} does not exceed the majority-class baseline "
        f"{majority:.3f}{skilled}"
    )
