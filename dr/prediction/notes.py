"""Notes that predict.py prints beside the grades."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from dr import SPLIT_NAMES
from dr.imaging import novelty, quality
from dr.inference.checkpoint import Checkpoint
from dr.inference.decision import Decision
from dr.prediction.labels import Labels
from dr.prediction.submission import HEADER, Sample
from dr.sources.archive import Archive, stem, unsupported_images, unsupported_line


def unskilled(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """-> a line for each checkpoint that did not beat the majority-class baseline in training."""
    splits = {c.path: SPLIT_NAMES[c.unskilled_splits[-1]] for c in checkpoints if c.unskilled_splits}
    return [
        f"{path}: do not rely on its grades; on its {split} images it did not beat the majority-class baseline"
        for path, split in splits.items()
    ]


def on_grades(
    details: pd.DataFrame, decision: Decision, checkpoints: Sequence[Checkpoint], *, unscored: bool
) -> list[str]:
    """details.csv, the decision, whether labels were given but none could be used -> lines."""
    notes = unskilled(checkpoints)
    if unscored:
        notes.append("not scored: no labelled image could be read; see the column error of details.csv")
    if decision.probabilities is not None and not decision.calibrated:
        without = next(each.path for each in checkpoints if each.calibration is None)
        notes.append(f"probabilities are not calibrated: {without} has no validation scores")
    without = next((each.path for each in checkpoints if each.training_reference is None), None)
    if without is not None:
        notes.append(f"{novelty.FLAG}: not checked, {without} has no reference of its training images")
    graded = details[details["grade"].notna()]
    if raised := Counter(" ".join(graded["flags"].dropna()).split()):
        counts = "  ".join(f"{name}: {count}" for name, count in sorted(raised.items()))
        notes.append(f"flags of the {len(graded)} graded images: {counts}")
    if count := raised[quality.TWO_RETINAS]:
        images = "1 image shows" if count == 1 else f"{count} images show"
        notes.append(f"{images} two retinas; one of them, or the whole frame, was graded; use --stereo to grade both")
    return notes


def on_names(archive: Archive, id_of: Mapping[str, str], *, graded: int, submitted: bool) -> list[str]:
    """The input, {image: id}, the number of graded images, whether a sample submission was given -> lines."""
    notes = []
    if not submitted and any(own != stem(name) for name, own in id_of.items()):
        notes.append("several images share a name: id_code is their path")
    if others := unsupported_images(archive.names):
        notes.append(unsupported_line(others[0], len(others)))
    if submitted and (left := len(id_of) - graded):
        notes.append(f"result.csv is not a valid submission: {left} of the {len(id_of)} ids have no grade")
    return notes


def on_tables(labels: Labels | None, sample: Sample | None) -> list[str]:
    """The tables that were read -> lines about columns and a header other than the standard ones."""
    notes = [] if labels is None or labels.note is None else [labels.note]
    if sample is not None and sample.header != HEADER:
        notes.append(f"result.csv has the header of {sample.path}: {','.join(sample.header)}")
    return notes
