"""The options of predict.py."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What to grade, with what, and what to write.

    `models`: paths of checkpoints, whose predictions are averaged. `images`: a folder, a zip or one image. `tta`,
    `tta_by`: None for the first recipe's. `submission`: a sample submission, whose ids are graded in its order, or
    "auto" for the one in or near the images. `prevalence`: the share of each class to decide for, or "auto" to estimate
    it. `labels`: a table of true grades. `id_column`, `label_column`, `patient_column`: its columns, without `labels`
    those of `submission`; None to recognise them. `stereo`: grade both halves of frames with two retinas. `report`:
    write report.html, with Grad-CAM maps of `explain` images, a number or "all".
    """

    models: Sequence[str]
    images: str
    output: str = "results"
    batch_size: int = 16
    tta: str | None = None
    tta_by: str | None = None
    workers: int = 2
    device: str = "auto"
    engine: str = "auto"
    submission: str | None = None
    prevalence: Sequence[float] | str | None = None
    labels: str | None = None
    id_column: str | None = None
    label_column: str | None = None
    patient_column: str | None = None
    stereo: bool = False
    report: bool = False
    explain: int | str = 0
