"""The options of a training run that its recipe and data leave open."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run writes, what computes it, and how it starts.

    `folder` and `name` locate its files (dr.training.run_files); `workers` processes load images; `resume` continues
    from NAME__last.pt; `log` names an experiment tracker (dr.training.trackers); `recorded` are further columns of the
    run's row of runs.csv. `keep_last`: keep NAME__last.pt of a finished run.
    """

    name: str
    folder: str = "weights"
    device: str = "auto"
    workers: int = 2
    resume: bool = False
    log: str | None = None
    keep_last: bool = False
    recorded: Mapping[str, str] = field(default_factory=dict)
