"""Datasets -> batches, loaded ahead by worker processes."""

from multiprocessing.util import get_temp_dir

import cv2
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from dr.core import distributed
from dr.core.processes import end_with_parent


def start_worker(_: int) -> None:
    """One thread in each worker: more would compete for the cores. The worker ends with its parent."""
    end_with_parent()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def loader(
    dataset: Dataset, *, batch_size: int, workers: int, pin: bool, sampler=None, drop_last=False, collate=None
) -> DataLoader:
    """A DataLoader whose workers stay alive between epochs. Without `sampler` it iterates in order.

    Each of N ranks loads every N-th batch: together they see in each step what one rank with batches N times as large
    would see. With `drop_last` all ranks load equally many.
    """
    if workers:
        get_temp_dir()  # workers inherit this folder: a folder of their own would remain when they are killed
    batches = BatchSampler(SequentialSampler(dataset) if sampler is None else sampler, batch_size, drop_last)
    return DataLoader(
        dataset,
        batch_sampler=BatchSamplerShard(batches, distributed.world_size, distributed.rank, even_batches=False),
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=start_worker,
        collate_fn=collate,
        generator=torch.Generator(),  # its own: seeding the workers must not advance dropout's generator
    )
