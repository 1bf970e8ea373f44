"""Stage 3, the photographs through the networks: loaded while networks are made ready, shared by all processes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from dr.core import distributed
from dr.imaging import novelty
from dr.inference import backends
from dr.inference.checkpoint import Checkpoint
from dr.inference.forward import TTA_VIEWS, Scorer, infer
from dr.prediction import report as prediction_page
from dr.prediction.inputs import Batches, InferenceImages, InputSpec, begin, readable
from dr.sources.archive import Archive


@dataclass
class NetworkOutputs:
    """What networks made of photographs: records of all by index; `index` (M,) of those with finite outputs, and for
    each network the outputs (V, M, num_outputs); looks for the page, of this process."""

    records: dict[int, dict]
    index: np.ndarray
    outputs: list[torch.Tensor]
    thumbnails: dict[str, prediction_page.Thumbnail]


def _networks(
    checkpoints: Sequence[Checkpoint],
    views: Sequence[InputSpec],
    *,
    engine_name: str,
    count: int,
    accelerator: Accelerator,
) -> tuple[list[Scorer], str]:
    """Networks that will see `count` pictures -> as the engine runs them, and the engine in words."""
    scorers, used = [], []
    for one, view in zip(checkpoints, views, strict=True):
        side = view.crop_px or view.image_px
        network, words = backends.prepare_network(
            one.network, name=engine_name, device=accelerator.device, views=count, side_px=side
        )
        scorers.append(Scorer(network, one.objective, view.key))
        used.append(words)
    return scorers, ", ".join(dict.fromkeys(used))


def _training(
    checkpoints: Sequence[Checkpoint], views: Sequence[InputSpec]
) -> list[tuple[InputSpec, novelty.Reference]]:
    """What the training photographs of each look like, with the view; none where one does not keep it."""
    known = [(view, one.training) for view, one in zip(views, checkpoints, strict=True)]
    return [] if any(reference is None for _, reference in known) else known


def forward(
    archive: Archive,
    names: list[str],
    checkpoints: Sequence[Checkpoint],
    *,
    tta: str,
    thumbnails: bool,
    batch_size: int,
    workers: int,
    engine_name: str,
    accelerator: Accelerator,
) -> tuple[NetworkOutputs, list[Scorer], str]:
    """All photographs through all networks, with `looks` for the page -> what was seen, the networks as the engine ran
    them, and the engine in words. Of several processes each looks at its share and is given all."""
    views = [InputSpec(one.prepared_px, one.recipe.image_size, one.recipe.crop_size, one.crop) for one in checkpoints]
    count = len(names) * len(TTA_VIEWS[tta])
    backends.choose_engine(engine_name, device=accelerator.device, views=count)  # told before the first photograph
    photographs = InferenceImages(
        archive, names, views=set(views), training=_training(checkpoints, views), thumbnails=thumbnails
    )
    on_gpu = accelerator.device.type == "cuda"
    batches = begin(photographs, batch_size=batch_size, workers=workers, pin=on_gpu)  # while networks are made ready
    scorers, used = _networks(checkpoints, views, engine_name=engine_name, count=count, accelerator=accelerator)
    return _seen(batches, scorers, accelerator=accelerator, tta=tta), scorers, used


def _seen(batches: Batches, scorers: Sequence[Scorer], *, accelerator: Accelerator, tta: str) -> NetworkOutputs:
    own: dict[int, dict] = {}
    thumbnails: dict[str, prediction_page.Thumbnail] = {}
    index, outputs = infer(scorers, readable(batches, own, thumbnails), accelerator=accelerator, views=TTA_VIEWS[tta])
    records = {i: record for each in distributed.all_gather(own) for i, record in each.items()}
    finite = torch.stack([each.isfinite().all(dim=2).all(dim=0) for each in outputs]).all(dim=0).numpy()
    for i in index[~finite]:
        records[i]["error"] = "its score is not finite: the network overflows; train with --set precision=fp32"
    return NetworkOutputs(records, index[finite], [each[:, finite] for each in outputs], thumbnails)
