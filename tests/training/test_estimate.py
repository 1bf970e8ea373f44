import dataclasses
import sys
from types import SimpleNamespace

import pytest
from made import TINY
from runs import run as train
from runs import tiny

from dr.core import distributed
from dr.training import estimate


def started(recipe=TINY, *, device="cpu", epoch=0, val=600, test=None):
    data = SimpleNamespace(val=range(val), test=test)
    return SimpleNamespace(
        recipe=recipe, data=data, epoch=epoch, accelerator=SimpleNamespace(device=SimpleNamespace(type=device))
    )


def test_the_time_left_counts_training_validation_and_the_tta_of_the_end():
    plain = estimate.run_seconds(started(tiny(epochs=30)), batches=100, batch_s=3)  # 10 images a batch
    assert plain == pytest.approx(30 * (300 + 600 * 0.1))
    assert estimate.run_seconds(started(tiny(epochs=30), epoch=29), batches=100, batch_s=3) == pytest.approx(360)
    flips = estimate.run_seconds(started(tiny(epochs=1, tta="flips"), test=range(100)), batches=100, batch_s=3)
    assert flips == pytest.approx(360 + 4 * (600 + 100) * 0.1)


@pytest.mark.parametrize(
    ("recipe", "device", "hours", "expected"),
    [
        (TINY, "cuda", 3, ["estimated time: 3.0 h for 2 epochs on cuda (1,234 batches an epoch)"]),
        (TINY, "cpu", 0.01, []),
        (TINY, "cuda", 42, ["estimated time: 42 h for 2 epochs on cuda (1,234 batches an epoch)"]),
        (
            tiny(epochs=1),
            "cpu",
            42,
            [
                "estimated time: 42 h for 1 epoch on cpu (1,234 batches an epoch)",
                "note: more than 6 hours on a CPU; -r lite0 is the recipe for CPUs, or use a GPU",
            ],
        ),
    ],
)
def test_long_runs_are_announced_and_very_long_ones_on_a_cpu_name_the_small_recipe(recipe, device, hours, expected):
    assert estimate.lines(started(recipe, device=device), batches=1234, seconds=3600 * hours) == expected


def test_the_small_recipe_is_not_recommended_to_itself():
    small = dataclasses.replace(TINY, backbone="tf_efficientnet_lite0")
    note = estimate.lines(started(small), batches=1, seconds=1e6)[1]
    assert note == "note: more than 6 hours on a CPU; reduce --epochs or --set image_size, or use a GPU"


@pytest.mark.parametrize("is_main", [True, False])
def test_a_run_prints_its_estimate_once_after_three_batches_on_the_main_rank(
    data, tmp_path, capsys, monkeypatch, epochs_only, is_main
):
    monkeypatch.setattr(estimate, "SHORTEST_S", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)  # with a progress bar
    with monkeypatch.context() as ranks:
        ranks.setattr("dr.training.estimate.distributed", SimpleNamespace(is_main=is_main, world_size=1))
        train(data, tmp_path, recipe=tiny(epochs=2))
    assert distributed.is_main
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("estimated")] == [
        "estimated time: 0 min for 2 epochs on cpu (3 batches an epoch)"
    ][:is_main]
