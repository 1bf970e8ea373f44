"""Training steps and forward passes of the published network, without the rest of the scripts around them."""

from itertools import islice
from pathlib import Path

import torch

from benchmarks import published
from benchmarks.timing import Times, seconds
from dr import device, engine, models
from dr.dataset import EpochSampler, Prepared
from dr.recipes import Recipe
from dr.run import start
from dr.training import loaders, train_epoch


class Ready(list):
    """Batches that are there already, in place of a DataLoader."""

    def __init__(self, batches: list[dict], dataset):
        super().__init__(batches)
        self.dataset = dataset


class Steps:
    """Training of efficientnet_v2_m at 380 as train.py does it."""

    def __init__(self, data: Prepared, *, precision: str, batch_size: int, workers: int = 2):
        recipe = Recipe(pretrained="none", precision=precision, batch_size=batch_size)
        accelerator = device.accelerator("auto", precision=precision)
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
    grader = models.build(recipe, num_outputs=1, pretrained=False).eval()
    network, _ = engine.ready(grader, name="auto", device=accelerator.device, views=1000, side_px=side)
    images = torch.randint(0, 255, (batch_size, 3, side, side), dtype=torch.uint8)

    def forward() -> None:
        with accelerator.autocast():
            network(images.to(accelerator.device)).float().cpu()

    forward()
    return Times(tuple(seconds(forward) for _ in range(batches)), batch_size)
