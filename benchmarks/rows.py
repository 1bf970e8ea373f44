"""The rows of the table: each does one thing in two ways and says what was asked of the ratio."""

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

from benchmarks import photographs, published, timing
from benchmarks.photographs import Photographs
from benchmarks.timing import Times, in_turns, ratio, run
from dr.imaging import fundus

PREPARED_PX = 512
BATCH = 18


@dataclass(frozen=True)
class Row:
    """`ours` against `other`, each in words; `figure` is what is held against `asked`, as the bound says."""

    name: str
    ours: str
    other: str
    figure: float
    asked: str
    reached: bool
    spread: str = ""


@dataclass
class Bench:
    """Where it works, on which photographs, how often a measurement is repeated; what was found.
    steps: {what: {step: milliseconds}}."""

    work: Path
    photographs: Photographs
    repeats: int
    many: int  # photographs of the long rows
    rows: list[Row] = field(default_factory=list)
    steps: dict[str, dict[str, float]] = field(default_factory=dict)

    def against(self, name: str, ours: Times, other: Times, *, asked: float, words: str, unit: str = "/s") -> None:
        """A row whose figure is how many times the rate of `other` ours is, at least `asked`."""
        middle, low, high = ratio(ours, other)
        spread = f"{low:.2f} to {high:.2f}" if len(ours.seconds) > 1 else ""
        told = ours.summary_lines(unit), f"{words}: {other.summary_lines(unit)}"
        self.rows.append(Row(name, *told, middle, f"at least {asked:g}", middle >= asked, spread))

    def below(self, name: str, ours: str, other: str, figure: float, *, asked: float) -> None:
        """A row whose figure is at most `asked`."""
        self.rows.append(Row(name, ours, other, figure, f"at most {asked:g}", figure <= asked))


def milliseconds(step: Callable[[object], object], items: list) -> float:
    """Of one item, the median over all."""
    return 1000 * statistics.median(timing.seconds(lambda item=item: step(item)) for item in items)


@contextlib.contextmanager
def one_thread():
    """OpenCV on one core, for a rate per core."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    yield
    cv2.setNumThreads(before)


def prepare_originals(bench: Bench) -> None:
    """data.py on camera originals, whole command."""
    source, count = bench.work / "originals", 200
    originals = bench.photographs.originals
    for side in ("train", "val"):  # a source with a side of its own keeps copies
        for kind in ("none", "any"):
            photographs.multiplied(originals, source / side / kind, count=count // 4)
    some = [originals[i % len(originals)] for i in range(20)]
    data = [path.read_bytes() for path in originals]

    def ours():
        shutil.rmtree(bench.work / "prepared_originals", ignore_errors=True)
        run("data.py", "-m", source, "-d", bench.work / "prepared_originals", "--size", PREPARED_PX)

    def bare():
        with ThreadPoolExecutor(2) as pool, one_thread():
            list(pool.map(_reduced, [data[i % len(data)] for i in range(count)]))

    ways = {"ours": (ours, count), "published": (lambda: [published.load(p) for p in some], len(some))}
    found = in_turns(ways | {"bare": (bare, count)}, repeats=bench.repeats)
    name = f"prepare {count} camera originals, whole `data.py`"
    bench.against(name, found["ours"], found["published"], asked=4, words="published load and crop")
    bench.against(name, found["ours"], found["bare"], asked=0.6, words="bare decoding at the scale used, two threads")
    with one_thread():
        bench.steps["camera original, one core"] = _steps_of_preparing(originals)


def _reduced(data: bytes) -> np.ndarray:
    return fundus.decode(data, min_side_px=round(fundus.DECODED * PREPARED_PX))


def _steps_of_preparing(paths: list[Path]) -> dict[str, float]:
    data = [path.read_bytes() for path in paths]
    full = [fundus.decode(each) for each in data]
    reduced = [_reduced(each) for each in data]
    return {
        "published: decode at full size": milliseconds(fundus.decode, data),
        "published: crop each channel, resize back": milliseconds(published.crop_channels, full),
        "ours: decode at the scale needed": milliseconds(_reduced, data),
        "ours: find the retina, crop, shrink": milliseconds(
            lambda p: fundus.preprocess(p, size_px=PREPARED_PX), reduced
        ),
    }


def prepare_archives(bench: Bench) -> None:
    """data.py on both archives, whole command, and its memory, also with archives TIMES as large."""
    flags = ("--per_class", 300, "--size", 256)

    def prepared(main: Path, extra: Path, *, watch_memory: bool = False) -> timing.Command:
        shutil.rmtree(bench.work / "prepared", ignore_errors=True)
        place = bench.work / "prepared"
        return run("data.py", "-m", main, "-a", extra, "-d", place, *flags, watch_memory=watch_memory)

    main, extra = bench.photographs.main, bench.photographs.extra
    done, unzipped = [], []
    for _ in range(bench.repeats):
        done.append(prepared(main, extra).seconds)
        count = len(list((bench.work / "prepared" / "kaggle_retina").glob("*/*.*")))
        unzipped.append(timing.seconds(partial(_unzip, [main, extra], bench.work / "unzipped", count)))
    ours, other = Times(tuple(done)), Times(tuple(unzipped))
    bench.below(
        f"prepare both archives ({count:,} photographs), whole `data.py`",
        ours.summary_lines("s"),
        f"unzip of as many: {other.summary_lines('s')}",
        statistics.median(ours.seconds) / statistics.median(other.seconds),
        asked=1.5,
    )
    peak = prepared(main, extra, watch_memory=True).peak
    bench.below("its peak memory, MiB", f"{peak / 2**20:.0f} MiB", "1 GiB", peak / 2**20, asked=1024)
    larger = [photographs.enlarged(path, bench.work / path.name) for path in (main, extra)]
    again = prepared(*larger, watch_memory=True).peak
    name = f"its peak memory with archives {photographs.TIMES} times as large"
    bench.below(name, f"{again / 2**20:.0f} MiB", f"{peak / 2**20:.0f} MiB", again / peak, asked=1.1)


def _unzip(archives: list[Path], out: Path, count: int) -> None:
    """The first `count` photographs of both archives as files."""
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

    count = 4 * BATCH  # the published steps are taken by chance: of one batch their time is so, too
    originals = [bench.photographs.originals[i % len(bench.photographs.originals)] for i in range(count)]
    small = photographs.unpacked(bench.photographs.main, bench.work / "test", under="test")[:count]
    for words, paths in (("camera originals", originals), ("photographs of the archive", small)):
        folder = bench.work / f"batch_{len(words)}"
        prepared = _prepared_as_data_py_does(paths, folder)
        training = torch_datasets.TrainingImages(prepared, Recipe())
        ways = {
            "ours": (lambda t=training: [t[0, i, 0] for i in range(len(t))], len(training)),
            "published": (lambda p=paths: list(published.batches(p, batch_size=BATCH, train=True)), len(paths)),
        }
        with one_thread():
            in_turns(ways, repeats=1)
            found = in_turns(ways, repeats=2 * bench.repeats)
        name = f"training batches of 380 x 380, {words}, one core"
        bench.against(name, found["ours"], found["published"], asked=5, words="published, in the main process")


def _prepared_as_data_py_does(paths: list[Path], folder: Path):
    import pandas as pd

    from dr.datasets.preprocessed import PreprocessedData
    from dr.preprocessing.worker_pool import JPEG

    folder.mkdir(exist_ok=True)
    for i, path in enumerate(paths):
        prepared = fundus.decode_and_preprocess(path.read_bytes(), size_px=PREPARED_PX)[0]
        cv2.imwrite(str(folder / f"{i}.jpeg"), prepared, JPEG)
    table = pd.DataFrame({"path": [f"{i}.jpeg" for i in range(len(paths))], "diagnosis": 0})
    return PreprocessedData(folder, table, table, PREPARED_PX, "")


def training_step(bench: Bench) -> None:
    """Steps of efficientnet_v2_m at 380, batch 18: bf16 against fp32, and loading against a batch that is there."""
    from benchmarks.steps import Steps
    from dr.recipes.schema import Recipe

    originals = [bench.photographs.originals[i % len(bench.photographs.originals)] for i in range(4 * BATCH)]
    prepared = _prepared_as_data_py_does(originals, bench.work / "steps")
    recipe = Recipe(pretrained="none", batch_size=BATCH)
    reduced, full = Steps(prepared, recipe), Steps(prepared, replace(recipe, precision="fp32"))
    ways = {"reduced": (reduced.bare, BATCH), "full": (full.bare, BATCH)}
    in_turns(ways, repeats=1)
    found = in_turns(ways, repeats=bench.repeats)
    name = f"a training step of efficientnet_v2_m at 380, batch {BATCH}, {reduced.precision}"
    bench.against(name, found["reduced"], found["full"], asked=2, words="fp32")
    ways = {"loaded": (reduced.epoch, 3 * BATCH), "bare": (reduced.bare_epoch, 3 * BATCH)}
    found = in_turns(ways, repeats=bench.repeats)
    over = 1 / ratio(found["loaded"], found["bare"])[0] - 1
    told = found["loaded"].summary_lines("/s"), f"a batch that is there: {found['bare'].summary_lines('/s')}"
    bench.below("what loading adds to a step, percent", *told, 100 * over, asked=5)


def small_step(bench: Bench) -> None:
    """Steps of lite0_best on this CPU against torch as it comes, each in a process of its own."""
    originals = [bench.photographs.originals[i % len(bench.photographs.originals)] for i in range(32)]
    folder = _prepared_as_data_py_does(originals, bench.work / "small_steps").root
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(bench.repeats):
        for name, flags in (("ours", []), ("plain", ["--plain"])):
            command = [sys.executable, "-m", "benchmarks.steps", str(folder), *flags]
            rates[name].append(float(subprocess.check_output(command, cwd=timing.ROOT, text=True).split()[-1]))
    ours, plain = (Times(tuple(1 / rate for rate in rates[name])) for name in ("ours", "plain"))
    bench.against("a training step of lite0_best, batch 32", ours, plain, asked=2, words="torch as it comes")


def predicting(bench: Bench) -> None:
    """predict.py with efficientnet_v2_m against the published way, both from the shell, and the bare network."""
    from benchmarks.steps import bare_rate, published_weights

    weights = published_weights(bench.work / "published.pt")
    test = photographs.unpacked(bench.photographs.main, bench.work / "test", under="test")
    originals = photographs.multiplied(bench.photographs.originals, bench.work / "ten", count=10)
    result = bench.work / "published.csv"

    def ours(images: Path) -> None:
        run("predict.py", "-m", weights, "-i", images, "-o", bench.work / "results")

    def theirs(images: Path) -> None:
        run("-m", "benchmarks.published", weights, images, result)

    times = {}
    for images, count, asked in ((originals, 10, 3), (bench.work / "test", len(test), 4)):
        ways = {"ours": (lambda i=images: ours(i), count), "published": (lambda i=images: theirs(i), count)}
        found = times[count] = in_turns(ways, repeats=bench.repeats)
        name = f"predict {count} {'camera originals' if count == 10 else 'photographs'}, whole command"
        bench.against(name, found["ours"], found["published"], asked=asked, words="published")
    many = photographs.multiplied(test, bench.work / "many", count=bench.many)
    long = in_turns({"ours": (lambda: ours(many), bench.many)}, repeats=1)["ours"]
    other = times[len(test)]["published"]
    name = f"predict {bench.many:,} photographs, whole command"
    words = f"published, at its rate for {len(test)}"
    bench.against(name, long, replace(other, seconds=other.seconds[:1]), asked=5, words=words)
    bench.against(
        name, long, bare_rate(batch_size=16, batches=8), asked=0.85, words="the bare network on a batch of 16"
    )
    one = photographs.multiplied(test, bench.work / "one", count=1)
    start = in_turns({"ours": (lambda: ours(one), 1)}, repeats=bench.repeats)["ours"]
    middle = statistics.median(start.seconds)
    bench.below("start-up: predict one photograph, seconds", start.summary_lines("s"), "", middle, asked=4)


def thresholds(bench: Bench) -> None:
    """Exact cuts for 35,000 scores."""
    from dr.grading import thresholds

    rng = np.random.default_rng(10)
    truth = rng.choice(5, size=35_000, p=[0.73, 0.07, 0.15, 0.03, 0.02])
    scores = rng.normal(size=len(truth))  # without skill: the grades are mixed as finely as can be
    took = in_turns({"ours": (lambda: thresholds.optimal_thresholds(scores, truth, 5), 1)}, repeats=bench.repeats)[
        "ours"
    ]
    bench.below(
        "cuts for 35,000 scores, seconds", took.summary_lines("s"), "", statistics.median(took.seconds), asked=15
    )


ALL = (prepare_originals, prepare_archives, training_batches, training_step, small_step, predicting, thresholds)
