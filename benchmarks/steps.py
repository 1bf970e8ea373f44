"""Training steps and forward passes, without the rest of the scripts around them.

python -m benchmarks.steps FOLDER [--plain]       images per second of lite0_best's training steps
"""

import statistics
from itertools import islice
from pathlib import Path

import pandas as pd
import torch

from benchmarks import published
from benchmarks.timing import Times, seconds
from dr.cli.parser import Parser
from dr.cli.run import run_main
from dr.core import device
from dr.datasets.preprocessed import PreprocessedData
from dr.datasets.torch_datasets import EpochSampler
from dr.inference import backends
from dr.networks import surgery
from dr.networks.build import build
from dr.recipes.load import load_recipe
from dr.recipes.schema import Recipe
from dr.training.epoch import build_loaders, train_epoch
from dr.training.state import start


class InMemory(list):
    """Batches in memory, in place of a DataLoader."""

    def __init__(self, batches: list[dict], dataset):
        super().__init__(batches)
        self.dataset = dataset


class Steps:
    """Training with a recipe, as train.py does it."""

    def __init__(self, data: PreprocessedData, recipe: Recipe, *, workers: int = 2):
        accelerator = device.accelerator("auto", precision=recipe.precision)
        self.precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
        order = EpochSampler(data.train["diagnosis"].to_numpy(copy=True), sampling="shuffle", seed=recipe.seed)
        pin = accelerator.device.type == "cuda"
        self.loader, _ = build_loaders(recipe, data, sampler=order, workers=workers, pin=pin)
        self.run = start(recipe, data=data, accelerator=accelerator, updates_per_epoch=100, pretrained=False)
        self.batch = list(islice(iter(self.loader), 1))

    def _train(self, batches) -> None:
        train_epoch(self.run, batches)

    def bare(self, count: int = 1) -> None:
        """Steps on a batch in memory."""
        self._train(InMemory(count * self.batch, self.loader.dataset))

    def epoch(self) -> None:
        """All steps of the data, loading included."""
        self._train(self.loader)

    def bare_epoch(self) -> None:
        """As many steps as an epoch has, on a batch in memory."""
        self.bare(len(self.loader))


def published_weights(path: Path) -> Path:
    """Write a state_dict in the published format with random weights -> its path."""
    torch.manual_seed(10)
    torch.save(published.network().state_dict(), path)
    return path


@torch.inference_mode()
def bare_rate(*, batch_size: int, batches: int) -> Times:
    """The network alone, as predict.py runs it for many images, on images in memory."""
    recipe = Recipe(pretrained="none")
    accelerator = device.accelerator("auto", precision=recipe.precision, on_cpu="fp32")
    side = recipe.image_size
    network = build(recipe, num_outputs=1, pretrained=False).eval()
    network, _ = backends.prepare_network(network, name="auto", device=accelerator.device, views=1000, side_px=side)
    images = torch.randint(0, 255, (batch_size, 3, side, side), dtype=torch.uint8)

    def forward() -> None:
        with accelerator.autocast():
            network(images.to(accelerator.device)).float().cpu()

    forward()
    return Times(tuple(seconds(forward) for _ in range(batches)), batch_size)


def restore_torch_defaults() -> None:
    """Switch off train.py's optimisations for CPUs in this process."""
    device._retain_freed_memory = lambda: None
    surgery.widen_slow_convolutions = lambda _: None


def main() -> int:
    parser = Parser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of preprocessed images, at least one batch")
    parser.add_argument("--plain", action="store_true", help="without train.py's optimisations for CPUs")
    args = parser.parse_args()
    if args.plain:
        restore_torch_defaults()
    table = pd.DataFrame({"path": [path.name for path in sorted(args.folder.glob("*.jpeg"))], "diagnosis": 0})
    recipe = load_recipe("lite0_best", overrides={"pretrained": "none"})
    steps = Steps(PreprocessedData(args.folder, table, table, 512, ""), recipe)
    steps.bare()
    print(recipe.batch_size / statistics.median(seconds(steps.bare) for _ in range(5)))
    return 0


if __name__ == "__main__":
    run_main(main, go_on="start again")
