"""Training steps and forward passes, without the rest of the scripts around them.

python -m benchmarks.steps FOLDER [--plain]       photographs per second of lite0_best's training steps
"""

import statistics
from itertools import islice
from pathlib import Path

import pandas as pd
import torch

from benchmarks import published
from benchmarks.timing import Times, seconds
from dr.cli import run as cli
from dr.core import device
from dr.datasets.preprocessed import PreprocessedData
from dr.datasets.torch_datasets import EpochSampler
from dr.inference import backends
from dr.networks import build as models
from dr.networks import surgery
from dr.recipes import load as recipes
from dr.recipes.schema import Recipe
from dr.training.loop import loaders, train_epoch
from dr.training.state import start


class Ready(list):
    """Batches that are there already, in place of a DataLoader."""

    def __init__(self, batches: list[dict], dataset):
        super().__init__(batches)
        self.dataset = dataset


class Steps:
    """Training by a recipe as train.py does it."""

    def __init__(self, data: PreprocessedData, recipe: Recipe, *, workers: int = 2):
        accelerator = device.accelerator("auto", precision=recipe.precision)
        self.precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
        order = EpochSampler(data.train["diagnosis"].to_numpy(copy=True), sampling="shuffle", seed=recipe.seed)
        pin = accelerator.device.type == "cuda"
        self.loader, _ = loaders(recipe, data, order=order, workers=workers, pin=pin)
        self.run = start(recipe, data=data, accelerator=accelerator, updates_per_epoch=100, pretrained=False)
        self.ready = list(islice(iter(self.loader), 1))

    def _train(self, batches) -> None:
        train_epoch(self.run, batches)

    def bare(self, count: int = 1) -> None:
        """Steps on a batch that is in memory."""
        self._train(Ready(count * self.ready, self.loader.dataset))

    def epoch(self) -> None:
        """All steps of the data, loading included."""
        self._train(self.loader)

    def bare_epoch(self) -> None:
        """As many steps as an epoch has, on a batch that is in memory."""
        self.bare(len(self.loader))


def published_weights(path: Path) -> Path:
    """A state_dict in the format that people have published; its weights are random."""
    torch.manual_seed(10)
    torch.save(published.network().state_dict(), path)
    return path


@torch.inference_mode()
def bare_rate(*, batch_size: int, batches: int) -> Times:
    """The network alone, as predict.py runs it for many photographs, on photographs that are in memory."""
    recipe = Recipe(pretrained="none")
    accelerator = device.accelerator("auto", precision=recipe.precision, on_cpu="fp32")
    side = recipe.image_size
    network = models.build(recipe, num_outputs=1, pretrained=False).eval()
    network, _ = backends.prepare_network(network, name="auto", device=accelerator.device, views=1000, side_px=side)
    images = torch.randint(0, 255, (batch_size, 3, side, side), dtype=torch.uint8)

    def forward() -> None:
        with accelerator.autocast():
            network(images.to(accelerator.device)).float().cpu()

    forward()
    return Times(tuple(seconds(forward) for _ in range(batches)), batch_size)


def as_torch_comes() -> None:
    """Takes from this process what train.py does for CPUs."""
    device._retain_freed_memory = lambda: None
    surgery.widen_slow_convolutions = lambda _: None


def main() -> int:
    parser = cli.Parser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("folder", type=Path, help="of prepared photographs, a batch of them at least")
    parser.add_argument("--plain", action="store_true", help="without what train.py does for CPUs")
    args = parser.parse_args()
    if args.plain:
        as_torch_comes()
    table = pd.DataFrame({"path": [path.name for path in sorted(args.folder.glob("*.jpeg"))], "diagnosis": 0})
    recipe = recipes.load("lite0_best", overrides={"pretrained": "none"})
    steps = Steps(PreprocessedData(args.folder, table, table, 512, ""), recipe)
    steps.bare()
    print(recipe.batch_size / statistics.median(seconds(steps.bare) for _ in range(5)))
    return 0


if __name__ == "__main__":
    cli.run(main, go_on="start again")
