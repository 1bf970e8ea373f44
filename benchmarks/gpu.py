"""Measure training steps of the published network on a GPU, by batch size, with and without torch.compile, and the rate
of the loader on the cores of the machine. Writes benchmarks/results/<device>.md."""

import math
import re
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from benchmarks.__main__ import RESULTS, machine
from dr.cli.parser import Parser
from dr.cli.run import run_main
from dr.core import device, files
from dr.datasets.loader import loader
from dr.datasets.preprocessed import PreprocessedData
from dr.datasets.torch_datasets import EpochSampler, TrainingImages
from dr.networks.build import build
from dr.recipes.schema import Recipe
from dr.synthetic.drawing import fundus_image

PREPROCESSED_PX = 512
NUM_IMAGES = 64


def step_rate(recipe: Recipe, accelerator, *, compiled: bool, steps: int) -> tuple[float, float, float]:
    """Time steps on a batch in device memory -> images per second (median), peak memory in GiB, utilisation in percent;
    the latter two are NaN on a CPU."""
    on_gpu = accelerator.device.type == "cuda"
    model = build(recipe, num_outputs=1, pretrained=False).to(accelerator.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, amsgrad=True)
    network = torch.compile(model) if compiled else model
    side = recipe.image_size
    images = torch.randint(0, 255, (recipe.batch_size, 3, side, side), dtype=torch.uint8, device=accelerator.device)
    targets = torch.rand(recipe.batch_size, 1, device=accelerator.device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()

    def step() -> float:
        started = time.perf_counter()
        with accelerator.autocast():
            loss = torch.nn.functional.smooth_l1_loss(network(images).float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        return time.perf_counter() - started

    for _ in range(3):  # compile, tune, warm up
        step()
    durations, utilisations = [], []
    for _ in range(steps):
        durations.append(step())
        utilisations.append(_utilisation() if on_gpu else float("nan"))
    memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else float("nan")
    return recipe.batch_size / statistics.median(durations), memory, statistics.mean(utilisations)


def _utilisation() -> float:
    """Recent utilisation of the GPU in percent; NaN if nvidia-ml-py is not installed."""
    try:
        return torch.cuda.utilization()
    except ModuleNotFoundError:
        return float("nan")


def loader_rate(recipe: Recipe, folder: Path, *, workers: int) -> float:
    """Images per second of training batches: synthetic images of 512 pixels with the published augmentation."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(NUM_IMAGES):
        size_px = (PREPROCESSED_PX, PREPROCESSED_PX)
        image = fundus_image(i % 5, rng=np.random.default_rng(i), size_px=size_px, laterality="left")
        cv2.imwrite(str(folder / f"{i}.jpeg"), image)
    paths = [f"{i % NUM_IMAGES}.jpeg" for i in range(max(NUM_IMAGES, 40 * recipe.batch_size))]
    table = pd.DataFrame({"path": paths, "diagnosis": 0})
    training = TrainingImages(PreprocessedData(folder, table, table, PREPROCESSED_PX, ""), recipe)
    order = EpochSampler(training.grades, sampling="shuffle", seed=recipe.seed)
    batches = loader(training, batch_size=recipe.batch_size, workers=workers, pin=False, sampler=order, drop_last=True)
    arrivals = [time.perf_counter() for _ in batches]
    warm = len(arrivals) // 4  # the first batches were prefetched and arrive at once
    return recipe.batch_size * (len(arrivals) - 1 - warm) / (arrivals[-1] - arrivals[warm])


def main() -> int:
    parser = Parser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[18, 32, 64, 128, 256], help="batch sizes")
    parser.add_argument("--backbone", default="efficientnet_v2_m")
    parser.add_argument("--size", type=int, default=380, help="side of an image, pixels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=16, help="processes that load images")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work"))
    args = parser.parse_args()
    accelerator = device.accelerator(args.device)
    hardware = accelerator.device
    name = torch.cuda.get_device_name(hardware) if hardware.type == "cuda" else machine()
    lines = [f"# {name}", "", f"{args.backbone} at {args.size}, {accelerator.mixed_precision}, channels_last; torch "
             f"{torch.__version__}", "",
             "| batch | compiled | images/s | memory, GiB | utilisation, % |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for batch in args.batches:
        recipe = Recipe(backbone=args.backbone, pretrained="none", image_size=args.size, batch_size=batch)
        for compiled in (False, True):
            rate, memory, busy = step_rate(recipe, accelerator, compiled=compiled, steps=args.steps)
            lines.append(f"| {batch} | {'yes' if compiled else 'no'} | {rate:.1f} | {memory:.1f} | {busy:.0f} |")
            print(lines[-1], flush=True)
    loaded = loader_rate(recipe, args.work / "loader", workers=args.workers)
    lines += ["", f"The loader yields {loaded:.0f} images/s with {args.workers} processes."]
    if hardware.type == "cuda" and math.isnan(_utilisation()):
        lines += ["", "Utilisation was not measured: nvidia-ml-py is not installed."]
    path = RESULTS / f"gpu_{re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')}.md"
    RESULTS.mkdir(exist_ok=True)
    files.write_bytes(path, ("\n".join(lines) + "\n").encode())
    print(lines[-1], f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    run_main(main, go_on="start again")
