"""The rows of the table: each measures one task in two ways and compares the ratio with a goal."""

import contextlib
import shutil
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks import inputs, published, timing
from benchmarks.inputs import Inputs
from benchmarks.timing import Times, alternate, ratio, run
from dr.imaging import fundus
from dr.imaging.decode import decode

PREPROCESSED_PX = 512
BATCH = 18


@dataclass(frozen=True)
class Row:
    """Two measurements as text, `ours` and `other`; `value`, mostly their ratio, and the `goal` for it as text."""

    name: str
    ours: str
    other: str
    value: float
    goal: str
    reached: bool
    spread: str = ""


@dataclass
class Bench:
    """The settings of the benchmarks and their results so far. steps: {subject: {step: milliseconds}}."""

    work: Path
    inputs: Inputs
    repeats: int
    many: int  # images of the long prediction
    rows: list[Row] = field(default_factory=list)
    steps: dict[str, dict[str, float]] = field(default_factory=dict)

    def compare(self, name: str, ours: Times, other: Times, *, goal: float, label: str) -> None:
        """Add a row for the ratio of the rate of `ours` to that of `other`, called `label`: at least `goal`."""
        middle, low, high = ratio(ours, other)
        spread = f"{low:.2f} to {high:.2f}" if len(ours.seconds) > 1 else ""
        texts = ours.text("/s"), f"{label}: {other.text('/s')}"
        self.rows.append(Row(name, *texts, middle, f"at least {goal:g}", middle >= goal, spread))

    def limit(self, name: str, ours: str, other: str, value: float, *, goal: float) -> None:
        """Add a row for a `value` of at most `goal`."""
        self.rows.append(Row(name, ours, other, value, f"at most {goal:g}", value <= goal))


def milliseconds(step: Callable[[object], object], items: list) -> float:
    """Milliseconds of `step` for one item: the median over all items."""
    return 1000 * statistics.median(timing.seconds(lambda item=item: step(item)) for item in items)


@contextlib.contextmanager
def one_thread():
    """Run OpenCV on one core, to measure the rate of one core."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    yield
    cv2.setNumThreads(before)


def preprocess_originals(bench: Bench) -> None:
    """data.py on camera originals, whole command."""
    source, count = bench.work / "originals", 200
    originals = bench.inputs.originals
    for split in ("train", "val"):  # a source with splits of its own keeps duplicates
        for kind in ("none", "any"):
            inputs.repeat(originals, source / split / kind, count=count // 4)
    sample = [originals[i % len(originals)] for i in range(20)]
    data = [path.read_bytes() for path in originals]

    def ours():
        shutil.rmtree(bench.work / "preprocessed_originals", ignore_errors=True)
        run("data.py", "-m", source, "-d", bench.work / "preprocessed_originals", "--size", PREPROCESSED_PX)

    def bare():
        with ThreadPoolExecutor(2) as pool, one_thread():
            list(pool.map(_reduced, [data[i % len(data)] for i in range(count)]))

    ways = {"ours": (ours, count), "published": (lambda: [published.load(p) for p in sample], len(sample))}
    times = alternate(ways | {"bare": (bare, count)}, repeats=bench.repeats)
    name = f"preprocess {count} camera originals, whole `data.py`"
    bench.compare(name, times["ours"], times["published"], goal=4, label="published load and crop")
    bench.compare(name, times["ours"], times["bare"], goal=0.6, label="bare decoding at the scale used, two threads")
    with one_thread():
        bench.steps["camera original, one core"] = _preprocessing_steps(originals)


def _reduced(data: bytes) -> np.ndarray:
    return decode(data, min_side_px=round(fundus.DECODED * PREPROCESSED_PX))


def _preprocessing_steps(paths: list[Path]) -> dict[str, float]:
    data = [path.read_bytes() for path in paths]
    full = [decode(each) for each in data]
    reduced = [_reduced(each) for each in data]
    return {
        "published: decode at full size": milliseconds(decode, data),
        "published: crop each channel, resize back": milliseconds(published.crop_channels, full),
        "ours: decode at the scale needed": milliseconds(_reduced, data),
        "ours: find the retina, crop, shrink": milliseconds(
            lambda p: fundus.preprocess(p, size_px=PREPROCESSED_PX), reduced
        ),
    }


def preprocess_archives(bench: Bench) -> None:
    """data.py on both archives, whole command, and its memory, also with archives TIMES times as large."""
    flags = ("--per_class", 300, "--size", 256)

    def preprocess(main: Path, extra: Path, *, watch_memory: bool = False) -> timing.Command:
        shutil.rmtree(bench.work / "preprocessed", ignore_errors=True)
        out = bench.work / "preprocessed"
        return run("data.py", "-m", main, "-a", extra, "-d", out, *flags, watch_memory=watch_memory)

    main, extra = bench.inputs.main, bench.inputs.extra
    durations, unzipped = [], []
    for _ in range(bench.repeats):
        durations.append(preprocess(main, extra).seconds)
        count = len(list((bench.work / "preprocessed" / "kaggle_retina").glob("*/*.*")))
        unzipped.append(timing.seconds(partial(_unzip, [main, extra], bench.work / "unzipped", count)))
    ours, other = Times(tuple(durations)), Times(tuple(unzipped))
    bench.limit(
        f"preprocess both archives ({count:,} images), whole `data.py`",
        ours.text("s"),
        f"unzip of as many: {other.text('s')}",
        statistics.median(ours.seconds) / statistics.median(other.seconds),
        goal=1.5,
    )
    peak = preprocess(main, extra, watch_memory=True).peak
    bench.limit("its peak memory, MiB", f"{peak / 2**20:.0f} MiB", "1 GiB", peak / 2**20, goal=1024)
    larger = [inputs.enlarge(path, bench.work / path.name) for path in (main, extra)]
    larger_peak = preprocess(*larger, watch_memory=True).peak
    name = f"its peak memory with archives {inputs.TIMES} times as large"
    bench.limit(name, f"{larger_peak / 2**20:.0f} MiB", f"{peak / 2**20:.0f} MiB", larger_peak / peak, goal=1.1)


def _unzip(archives: list[Path], out: Path, count: int) -> None:
    """Extract the first `count` images of both archives."""
    shutil.rmtree(out, ignore_errors=True)
    for path in archives:
        with zipfile.ZipFile(path) as packed:
            names = [name for name in packed.namelist() if name.endswith((".png", ".jpeg"))][:count]
            packed.extractall(out, names)
        count -= len(names)


def training_batches(bench: Bench) -> None:
    """Batches of 18 at 380 x 380 with the published augmentation, on one core."""
    from dr.datasets import torch_datasets
    from dr.recipes.schema import Recipe

    count = 4 * BATCH  # published steps are random: the time of one batch varies too much
    originals = [bench.inputs.originals[i % len(bench.inputs.originals)] for i in range(count)]
    small = inputs.unpack(bench.inputs.main, bench.work / "test", under="test")[:count]
    for label, paths in (("camera originals", originals), ("images of the archive", small)):
        folder = bench.work / f"batch_{label.replace(' ', '_')}"
        data = _preprocessed(paths, folder)
        training = torch_datasets.TrainingImages(data, Recipe())
        ways = {
            "ours": (lambda t=training: [t[0, i, 0] for i in range(len(t))], len(training)),
            "published": (lambda p=paths: list(published.batches(p, batch_size=BATCH, train=True)), len(paths)),
        }
        with one_thread():
            alternate(ways, repeats=1)
            times = alternate(ways, repeats=2 * bench.repeats)
        name = f"training batches of 380 x 380, {label}, one core"
        bench.compare(name, times["ours"], times["published"], goal=5, label="published, in the main process")


def _preprocessed(paths: list[Path], folder: Path):
    import pandas as pd

    from dr.datasets.preprocessed import PreprocessedData
    from dr.preprocessing.worker_pool import JPEG

    folder.mkdir(exist_ok=True)
    for i, path in enumerate(paths):
        image = fundus.decode_and_preprocess(path.read_bytes(), size_px=PREPROCESSED_PX)[0]
        cv2.imwrite(str(folder / f"{i}.jpeg"), image, JPEG)
    table = pd.DataFrame({"path": [f"{i}.jpeg" for i in range(len(paths))], "diagnosis": 0})
    return PreprocessedData(folder, table, table, PREPROCESSED_PX, "")


def training_step(bench: Bench) -> None:
    """Steps of efficientnet_v2_m at 380, batch 18: bf16 against fp32, and loading against a batch in memory."""
    from benchmarks.steps import Steps
    from dr.recipes.schema import Recipe

    originals = [bench.inputs.originals[i % len(bench.inputs.originals)] for i in range(4 * BATCH)]
    data = _preprocessed(originals, bench.work / "steps")
    recipe = Recipe(pretrained="none", batch_size=BATCH)
    reduced, full = Steps(data, recipe), Steps(data, replace(recipe, precision="fp32"))
    ways = {"reduced": (reduced.bare, BATCH), "full": (full.bare, BATCH)}
    alternate(ways, repeats=1)
    times = alternate(ways, repeats=bench.repeats)
    name = f"a training step of efficientnet_v2_m at 380, batch {BATCH}, {reduced.precision}"
    bench.compare(name, times["reduced"], times["full"], goal=2, label="fp32")
    ways = {"loaded": (reduced.epoch, 3 * BATCH), "bare": (reduced.bare_epoch, 3 * BATCH)}
    times = alternate(ways, repeats=bench.repeats)
    cost = 1 / ratio(times["loaded"], times["bare"])[0] - 1
    texts = times["loaded"].text("/s"), f"a batch in memory: {times['bare'].text('/s')}"
    bench.limit("cost of loading in a step, percent", *texts, 100 * cost, goal=5)


def small_step(bench: Bench) -> None:
    """Steps of lite0_best on this CPU against torch with its defaults, each in its own process."""
    originals = [bench.inputs.originals[i % len(bench.inputs.originals)] for i in range(32)]
    folder = _preprocessed(originals, bench.work / "small_steps").root
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(bench.repeats):
        for name, flags in (("ours", []), ("plain", ["--plain"])):
            command = [sys.executable, "-m", "benchmarks.steps", str(folder), *flags]
            rates[name].append(float(subprocess.check_output(command, cwd=timing.ROOT, text=True).split()[-1]))
    ours, plain = (Times(tuple(1 / rate for rate in rates[name])) for name in ("ours", "plain"))
    bench.compare("a training step of lite0_best, batch 32", ours, plain, goal=2, label="torch with its defaults")


def prediction(bench: Bench) -> None:
    """predict.py with efficientnet_v2_m against the published method, both as commands, and the bare network."""
    from benchmarks.steps import bare_rate, published_weights

    weights = published_weights(bench.work / "published.pt")
    test = inputs.unpack(bench.inputs.main, bench.work / "test", under="test")
    originals = inputs.repeat(bench.inputs.originals, bench.work / "ten", count=10)
    result = bench.work / "published.csv"

    def ours(images: Path) -> None:
        run("predict.py", "-m", weights, "-i", images, "-o", bench.work / "results")

    def theirs(images: Path) -> None:
        run("-m", "benchmarks.published", weights, images, result)

    measured = {}
    for images, count, goal in ((originals, 10, 3), (bench.work / "test", len(test), 4)):
        ways = {"ours": (lambda i=images: ours(i), count), "published": (lambda i=images: theirs(i), count)}
        times = measured[count] = alternate(ways, repeats=bench.repeats)
        name = f"predict {count} {'camera originals' if count == 10 else 'images'}, whole command"
        bench.compare(name, times["ours"], times["published"], goal=goal, label="published")
    many = inputs.repeat(test, bench.work / "many", count=bench.many)
    long = alternate({"ours": (lambda: ours(many), bench.many)}, repeats=1)["ours"]
    other = measured[len(test)]["published"]
    name = f"predict {bench.many:,} images, whole command"
    label = f"published, at its rate for {len(test)}"
    bench.compare(name, long, replace(other, seconds=other.seconds[:1]), goal=5, label=label)
    bench.compare(name, long, bare_rate(batch_size=16, batches=8), goal=0.85, label="the bare network on a batch of 16")
    single = inputs.repeat(test, bench.work / "one", count=1)
    times = alternate({"ours": (lambda: ours(single), 1)}, repeats=bench.repeats)["ours"]
    middle = statistics.median(times.seconds)
    bench.limit("start-up: predict one image, seconds", times.text("s"), "", middle, goal=4)


def thresholds(bench: Bench) -> None:
    """Optimal thresholds for 35,000 scores."""
    from dr.grading.thresholds import optimal_thresholds

    rng = np.random.default_rng(10)
    truth = rng.choice(5, size=35_000, p=[0.73, 0.07, 0.15, 0.03, 0.02])
    scores = rng.normal(size=len(truth))  # without skill: grades alternate as often as possible, the slowest case
    took = alternate({"ours": (lambda: optimal_thresholds(scores, truth, 5), 1)}, repeats=bench.repeats)["ours"]
    bench.limit("thresholds for 35,000 scores, seconds", took.text("s"), "", statistics.median(took.seconds), goal=15)


ALL = (preprocess_originals, preprocess_archives, training_batches, training_step, small_step, prediction, thresholds)
