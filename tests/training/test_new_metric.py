"""A new entry of the registry appears in everything that a run writes."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from runs import run

from dr.datasets.preprocessed import read_preprocessed
from dr.grading import registry
from dr.grading.registry import Metric
from dr.inference.checkpoint import Checkpoint
from dr.training import compare, runs_csv


def balanced_accuracy(matrix: np.ndarray) -> float:
    sizes = matrix.sum(axis=1)
    return float((np.diagonal(matrix)[sizes > 0] / sizes[sizes > 0]).mean())


@pytest.fixture
def balanced(monkeypatch) -> Metric:
    metric = Metric(key="balanced_accuracy", label="balanced accuracy", compute=balanced_accuracy)
    monkeypatch.setattr(registry, "METRICS", (*registry.METRICS, metric))
    return metric


def test_a_new_metric_is_in_history_checkpoint_table_page_card_and_messages(balanced, tmp_path, capsys):
    from made import write_preprocessed

    data = read_preprocessed(write_preprocessed(tmp_path / "data", test=15))
    row = run(data, tmp_path / "weights")
    folder, key = tmp_path / "weights" / row["name"], balanced.key
    assert key in pd.read_csv(folder / "history.csv")
    assert f"{balanced.short} 0." in capsys.readouterr().out  # the line of each epoch
    best = Checkpoint.load(tmp_path / "weights" / f"{row['name']}__best.pt")
    for split in ("val", "test"):
        low, high = best.intervals[split][key]
        assert low <= best.metrics[split][key] <= high
        column = balanced.column(split)
        written = pd.read_csv(tmp_path / "weights" / "runs.csv")
        assert {column, f"{column}_low", f"{column}_high"} <= set(written)
        assert written[column].item() == pytest.approx(best.metrics[split][key])
    text = f"{best.metrics['test'][key]:.3f} ({best.intervals['test'][key][0]:.3f} to "
    for name in ("report.html", "card.md"):
        shown = re.sub("<span[^>]*>", "", (folder / name).read_text())
        assert re.search(rf"{balanced.label}.*?{re.escape(text)}", shown, re.DOTALL), name
    assert any(f"{balanced.short} {text}" in line for line in runs_csv.summary_lines(row))
    assert f"test {balanced.short}" in compare.compare(str(tmp_path / "weights"))
    json.dumps(best.metrics)
