import dataclasses
import subprocess
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from made import TINY, draw_fundus

from benchmarks import __main__ as command
from benchmarks import inputs, published, rows, timing
from benchmarks.timing import Times
from dr import UsageError
from dr.core import device
from dr.synthetic import demo


def test_the_published_crop_crops_each_channel_by_itself_and_resizes_it_back():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:30, 20:50, 0] = 100  # the box of channel 0
    image[:, :, 1] = 7  # as dark as the tolerance: unchanged
    image[0:40, 0:60, 2] = 200
    image[10, 20, 0] = 255
    cropped = published.crop_channels(image)
    assert cropped.shape == image.shape
    np.testing.assert_array_equal(cropped[..., 0], cv2.resize(image[10:30, 20:50, 0], (60, 40)))
    np.testing.assert_array_equal(cropped[..., 1:], image[..., 1:])


def test_the_published_method_grades_a_folder(tmp_path):
    from benchmarks.steps import published_weights

    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), draw_fundus(2, seed=1))
    weights = published_weights(tmp_path / "weights.pt")
    published.predict(weights, tmp_path / "images", tmp_path / "result.csv")
    assert (tmp_path / "result.csv").read_text().splitlines()[0] == "id_code,diagnosis"
    assert set(torch.load(weights, weights_only=True)) >= {"classifier.1.weight"}


def test_a_ratio_compares_rates_not_times():
    ours, other = Times((2.0, 1.0, 1.0), count=10), Times((4.0, 4.0, 8.0), count=5)
    assert timing.ratio(ours, other) == (8.0, 4.0, 16.0)
    assert ours.text("/s") == "10 /s (5 to 10)"
    assert ours.text("s") == "1 s (1 to 2)"


def test_functions_are_timed_alternately():
    calls = []
    times = timing.alternate({"a": (lambda: calls.append("a"), 1), "b": (lambda: calls.append("b"), 2)}, repeats=2)
    assert calls == ["a", "b", "a", "b"]
    assert times["b"].count == 2
    assert len(times["a"].seconds) == 2


def test_memory_is_that_of_all_processes_and_an_error_is_raised(tmp_path):
    script = tmp_path / "allocate.py"
    script.write_text("import subprocess, sys, time\n"
                      "child = subprocess.Popen([sys.executable, '-c', 'import time; x = bytearray(80 << 20); "
                      "time.sleep(1.5)'])\nx = bytearray(80 << 20)\nchild.wait()\n")  # fmt: skip
    assert timing.run(script, watch_memory=True).peak > 160 << 20
    with pytest.raises(subprocess.CalledProcessError):
        timing.run("data.py", "-m", tmp_path / "missing.zip", "-d", tmp_path / "out")


def test_an_enlarged_archive_has_every_image_ten_times_and_a_row_for_each(tmp_path):
    demo.make_archives(tmp_path, main=20, extra=20, test=10, size_px=(64, 64))
    larger = inputs.enlarge(tmp_path / demo.MAIN_ZIP, tmp_path / "larger.zip")
    with zipfile.ZipFile(larger) as packed, zipfile.ZipFile(tmp_path / demo.MAIN_ZIP) as before:
        labelled = [name for name in packed.namelist() if "/train/" in name]
        table = packed.read("kaggle_retina/train.csv").decode().split()
        assert len(labelled) == 10 * sum("/train/" in name for name in before.namelist())
        assert len({packed.read(name) for name in labelled[:10]}) == 10
    assert {name.rpartition("/")[2].removesuffix(".png") for name in labelled} == {r.split(",")[0] for r in table[1:]}


def test_missing_input_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UsageError, match=f"{tmp_path}/{demo.MAIN_ZIP}: not found; pass a folder that contains it"):
        inputs.find(tmp_path, work=tmp_path)
    demo.make_archives(tmp_path, main=10, extra=10, test=10, size_px=(64, 64))
    with pytest.raises(UsageError, match="originals: no images; add some camera originals"):
        inputs.find(tmp_path, work=tmp_path)


def test_a_row_shows_whether_its_goal_was_reached():
    bench = rows.Bench(None, None, repeats=1, many=1)
    bench.compare("a", Times((1.0,), 8), Times((1.0,), 2), goal=4, label="other")
    bench.compare("b", Times((1.0,), 7), Times((1.0,), 2), goal=4, label="other")
    bench.limit("c", "2 s", "", 2.0, goal=1)
    lines = command.table(bench).splitlines()
    assert [line.rpartition("| ")[2] for line in lines[2:]] == ["yes |", "no |", "no |"]
    assert "| 4.00 |" in lines[2]


def test_the_result_file_ends_with_the_table(monkeypatch):
    monkeypatch.setattr(command, "table", lambda _: "| the table |")
    bench = SimpleNamespace(inputs=SimpleNamespace(synthetic=True), repeats=2)
    assert command.report(bench).endswith("one after the other.\n\n| the table |\n")


def test_the_command_prints_the_selected_rows(tmp_path, monkeypatch, capsys):
    demo.make_archives(tmp_path, main=10, extra=10, test=10, size_px=(64, 64))
    (tmp_path / "originals").mkdir()
    cv2.imwrite(str(tmp_path / "originals" / "a.jpeg"), draw_fundus(1, seed=1, side_px=300))
    monkeypatch.setattr(rows, "BATCH", 2)
    flags = [
        "--data",
        tmp_path,
        "--work",
        tmp_path / "work",
        "--repeats",
        1,
        "--rows",
        "thresholds",
        "training_batches",
    ]
    monkeypatch.setattr("sys.argv", ["benchmarks", *map(str, flags)])
    assert command.main() == 0
    out = capsys.readouterr().out
    assert "| thresholds for 35,000 scores, seconds |" in out
    assert out.count("| training batches of 380 x 380") == 2


def test_the_steps_and_the_loader_of_the_gpu_benchmark_are_timed(tmp_path):
    from benchmarks import gpu

    recipe = dataclasses.replace(TINY, batch_size=4)
    accelerator = device.accelerator("cpu", precision="fp32")
    rate, memory, busy = gpu.step_rate(recipe, accelerator, compiled=False, steps=2)
    assert rate > 0
    assert np.isnan([memory, busy]).all()
    assert gpu.loader_rate(recipe, tmp_path, workers=0) > 0
