"""The labels that look wrong, as the page of a run shows them: image, given and suggested class, quality."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dr.datasets.torch_datasets import read_image
from dr.grading import label_issues
from dr.training.run_files import RunFiles
from dr.training.worst_errors import scaled

MAX_SHOWN = 12


def shown(paths: RunFiles, *, split: str, root: Path, unskilled: bool) -> dict[str, Any]:
    """The tables of a finished run, the split its page reports and the folder of its images -> {suspects: up to
    MAX_SHOWN of {file, given, suggested, quality, image (H, W, 3) uint8 RGB}, suspects_found: their number,
    suspects_of: the predictions they come from, no_suspects: why none are listed, or None}.

    The predictions are those of all folds so far, otherwise of the split: never of images the network was trained on.
    `unskilled`: the network does not distinguish the classes, so its suggestions are meaningless.
    """
    table = paths.oof if paths.oof.is_file() else paths.predictions(split)
    nothing = {"suspects": [], "suspects_found": 0, "suspects_of": "out of fold" if table == paths.oof else split}
    if unskilled:
        return nothing | {"no_suspects": "Not listed: this network hardly distinguishes the classes."}
    if not label_issues.installed():
        return nothing | {"no_suspects": f"Not listed: {label_issues.LIBRARY} is missing; {label_issues.REMEDY}."}
    if not table.is_file():
        return nothing | {"no_suspects": f"Not listed: {table.name} is missing."}
    issues = label_issues.label_issues(table)
    suspects = [_suspect(row, root) for row in issues[:MAX_SHOWN].itertuples()]
    return nothing | {"suspects": suspects, "suspects_found": len(issues), "no_suspects": None}


def _suspect(row: Any, root: Path) -> dict[str, Any]:
    image: np.ndarray = scaled(read_image(root / row.path))
    known = row.id if pd.notna(row.id) else row.path
    return {"file": known, "image": image, "given": row.given, "suggested": row.suggested, "quality": row.quality}
