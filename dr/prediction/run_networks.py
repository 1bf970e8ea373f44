"""Runs the networks on all images: DataLoader workers preprocess while the networks are converted or moved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch.utils.data import Dataset

from dr.core.progress import track
from dr.datasets.loader import loader
from dr.inference.grader import Grader, NetworkOutputs
from dr.inference.preprocessor import Preprocessed, Preprocessor, collate
from dr.prediction.thumbnails import Thumbnail, make_thumbnail
from dr.sources.archive import Archive


class InferenceImages(Dataset):
    """index -> (index, preprocessed image, its Thumbnail or None). DataLoader workers preprocess."""

    def __init__(self, archive: Archive, names: Sequence[str], *, preprocessor: Preprocessor, thumbnails: bool = False):
        self.archive, self.names = archive, names
        self.preprocessor, self.thumbnails = preprocessor, thumbnails

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[int, Preprocessed, Thumbnail | None]:
        name = self.names[index]
        item = self.preprocessor(name, lambda: self.archive.read(name))
        thumbnail = make_thumbnail(*item.largest) if self.thumbnails and item.largest is not None else None
        return index, Preprocessed(item.record, item.inputs), thumbnail  # the frame stays in the worker


def collate_with_thumbnails(items: Sequence[tuple[int, Preprocessed, Thumbnail | None]]) -> dict:
    """Items -> a batch of `collate`, and "thumbnails": (file, Thumbnail) of those that have one."""
    batch = collate([(index, item) for index, item, _ in items])
    batch["thumbnails"] = [(item.record["file"], thumbnail) for _, item, thumbnail in items if thumbnail is not None]
    return batch


@dataclass
class Loading:
    """Batches that workers are loading, `count` images in this process; reading them fills `records` by index and
    `thumbnails` by file."""

    batches: Iterator[dict]
    count: int
    records: dict[int, dict] = field(default_factory=dict)
    thumbnails: dict[str, Thumbnail] = field(default_factory=dict)

    def readable(self) -> Iterator[dict]:
        """The batches with at least one readable image, with a progress bar."""
        with track(total=self.count, desc="grading", unit="images") as progress:
            for batch in self.batches:
                self.records.update(batch["records"])
                self.thumbnails.update(batch["thumbnails"])
                if len(batch["index"]):
                    yield batch
                progress.update(len(batch["records"]))


def start_loading(images: InferenceImages, *, batch_size: int, workers: int, pin: bool) -> Loading:
    """Starts the workers. Each process of torchrun loads its share of the images."""
    workers = min(workers, -(-len(images) // batch_size))
    batches = loader(images, batch_size=batch_size, workers=workers, pin=pin, collate=collate_with_thumbnails)
    return Loading(iter(batches), sum(map(len, batches.batch_sampler)))


def run_networks(
    grader: Grader, archive: Archive, names: Sequence[str], *, thumbnails: bool, workers: int
) -> tuple[NetworkOutputs, dict[str, Thumbnail]]:
    """All images through all networks -> the outputs of all processes, and the thumbnails of this process by file."""
    grader.check_engine(len(names))
    images = InferenceImages(archive, names, preprocessor=grader.preprocessor, thumbnails=thumbnails)
    on_gpu = grader.compute.device.type == "cuda"
    loading = start_loading(images, batch_size=grader.batch_size, workers=workers, pin=on_gpu)
    grader.scorers(len(names))  # prepared while the workers load
    outputs = grader.run(loading.readable(), loading.records, count=len(names))
    return outputs, loading.thumbnails
