"""Photographs to grade: which they are, how networks see them, what is measured on the way."""

import posixpath
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from dr import UsageError
from dr.datasets.loader import loader
from dr.imaging import fundus, novelty
from dr.imaging.resize import resize_and_crop, to_tensor
from dr.prediction import report as prediction_page
from dr.sources.archive import IMAGE_SUFFIXES, Archive, composed, is_image, stem
from dr.sources.kaggle import path_ends, read_member, read_table, shallowest, without_ending

SAMPLE = "sample_submission.csv"


def find_images(images: str | Path, *, but: Collection[Path] = ()) -> tuple[Archive, list[str]]:
    """A folder, a zip or one photograph -> (archive, names of its photographs, `but` not these files). Raises
    UsageError when there are none."""
    path = Path(images)
    endings = " ".join(sorted(IMAGE_SUFFIXES))
    if path.is_file() and is_image(path.name):
        return Archive(path.parent, names=[path.name]), [path.name]
    if path.is_file() and path.suffix.lower() != ".zip" and not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: it is neither a photograph ({endings}) nor a zip; convert it, or name another")
    archive = Archive(path)
    own = {file.name: file.resolve() for file in but}

    def wanted(name: str) -> bool:
        alike = own.get(posixpath.basename(name))  # first: to follow the links of a million photographs takes a minute
        return alike is None or (path / name).resolve() != alike

    names = [name for name in archive.images() if wanted(name)]
    if not names:
        raise UsageError(f"{path}: it holds no photographs ({endings}); put some there, or name a folder with --images")
    return archive, names


def ids(names: Sequence[str]) -> list[str]:
    """Names of photographs -> their ids in tables, all different: without folder and ending, or where that is not
    enough to tell them apart (P1/left.png, P2/left.png) with their folders, or whole."""
    for shortened in (stem, without_ending):
        found = [shortened(name) for name in names]
        if len(set(found)) == len(names):
            return found
    return list(names)


def submission_ids(path: str) -> list[str]:
    """The ids of a sample submission, in its order: of a CSV, or of the one in a zip or folder."""
    data = Path(path).read_bytes() if Path(path).suffix.lower() == ".csv" else _sample_within(Archive(path))
    table = read_table(data, name=path, columns=("id_code",))
    repeated = table[table["id_code"].duplicated()]
    if len(repeated):
        raise UsageError(
            f"{path}, row {repeated['row'].iloc[0]}: {repeated['id_code'].iloc[0]} is there twice; delete one"
        )
    return table["id_code"].tolist()


def _sample_within(archive: Archive) -> bytes:
    """The bytes of the sample submission of an archive. Raises UsageError where there is none."""
    member = shallowest(archive, (SAMPLE,))
    if member is None:
        raise UsageError(f"--submission {archive.path}: it holds no {SAMPLE}; give the path of a table with id_code")
    return read_member(archive, member)


def select(names: list[str], ids: list[str], *, images: str, submission: str) -> list[str]:
    """The photographs of the ids, in their order. Raises UsageError naming those that are missing, or there twice."""
    wanted, found = set(ids), {}
    for name in names:
        for own in {stem(name), *path_ends(without_ending(name)), *path_ends(composed(name))} & wanted:
            if own in found:
                both = f"{found[own]} and {name} are both {own} of {submission}"
                raise UsageError(f"{images}: {both}; write their folders there, or take one out")
            found[own] = name
    missing = [i for i in ids if i not in found]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(
            f"{images}: {len(missing)} of the {len(ids)} photographs of {submission} are missing ({shown}); "
            "add them, or give the submission of these photographs"
        )
    if len(set(found.values())) < len(found):
        raise UsageError(f"{submission}: two of its ids mean one photograph of {images}; delete one of them")
    return [found[i] for i in ids]


class InputSpec(NamedTuple):
    """How a network sees a photograph: prepared at one size with its background cropped away or not, then resized to
    another, of which the centre may be cut out; in pixels."""

    prepared_px: int
    image_px: int
    crop_px: int | None = None
    crop: bool = True

    @property
    def key(self) -> str:
        """Its name in a batch."""
        return "image_" + "_".join(map(str, self))


class InferenceImages(Dataset):
    """index -> {"index", "record", a (3, P, P) uint8 for each view, or no image where `record["error"]`}, and with
    `looks` the "look" that the page keeps. `training`: what each network's training photographs look like.

    Photographs are prepared here, in the loading processes, by the function that data.py uses.
    """

    def __init__(
        self,
        archive: Archive,
        names: list[str],
        *,
        views: Iterable[InputSpec],
        training: Sequence[tuple[InputSpec, novelty.Reference]] = (),
        thumbnails: bool = False,
    ):
        self.archive, self.names, self.training, self.thumbnails = archive, names, training, thumbnails
        self.views = list(dict.fromkeys(views))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        record = {"file": self.names[index], "error": ""}
        try:
            data = self.archive.read(self.names[index])
            ways = sorted({(view.prepared_px, view.crop) for view in self.views})
            prepared = {way: fundus.decode_and_preprocess(data, size_px=way[0], crop=way[1])[:2] for way in ways}
        except (fundus.UnreadableImage, OSError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)  # of a file, without its number and path
            return {"index": index, "record": record | {"error": reason}}
        item = {"index": index, "record": record | self._measured(prepared)}
        if self.thumbnails:
            item["look"] = prediction_page.make_thumbnail(*prepared[ways[-1]])
        for view in self.views:
            photo = cv2.cvtColor(prepared[view.prepared_px, view.crop][0], cv2.COLOR_BGR2RGB)
            item[view.key] = to_tensor(resize_and_crop(photo, size_px=view.image_px, crop_px=view.crop_px))
        return item

    def _measured(self, prepared: dict[tuple[int, bool], tuple[np.ndarray, fundus.Retina]]) -> dict:
        """The photograph as each way prepares it -> its quality, flags, and how unlike training it is."""
        largest, retina = prepared[max(prepared)]
        measured = fundus.quality(largest)
        flags = fundus.flags(retina, measured)
        found = {name: round(value, 2) for name, value in measured.items()}
        found["cut_off"] = None if retina.cut_off is None else round(retina.cut_off, 3)
        if self.training:
            seen = {view: novelty.measure(prepared[view.prepared_px, view.crop][0]) for view, _ in self.training}
            distances = [reference.distance(seen[view]) for view, reference in self.training]
            found[novelty.DISTANCE] = round(sum(distances) / len(distances), 3)
            flags += [novelty.FLAG] * (found[novelty.DISTANCE] > 1)
        return found | {"flags": " ".join(flags)}


def collate(items: list[dict]) -> dict:
    """Items -> a batch of those that have an image; the records of all, the looks of those that have one."""
    batch = {"records": [(item["index"], item["record"]) for item in items]}
    batch["thumbnails"] = [(item["record"]["file"], item["look"]) for item in items if "look" in item]
    readable = [item for item in items if not item["record"]["error"]]
    batch["index"] = torch.tensor([item["index"] for item in readable], dtype=torch.int64)
    for key in readable[0] if readable else ():
        if key.startswith("image_"):
            batch[key] = torch.stack([item[key] for item in readable])
    return batch


class Batches(NamedTuple):
    """The batches of photographs, which are being loaded, and how many photographs this process is given."""

    loading: Iterator[dict]
    photographs: int


def begin(photographs: InferenceImages, *, batch_size: int, workers: int, pin: bool) -> Batches:
    """Starts the processes that load; of several processes each is given its share."""
    workers = min(workers, -(-len(photographs) // batch_size))
    batches = loader(photographs, batch_size=batch_size, workers=workers, pin=pin, collate=collate)
    return Batches(iter(batches), sum(map(len, batches.batch_sampler)))


def readable(
    batches: Batches, records: dict[int, dict], thumbnails: dict[str, prediction_page.Thumbnail]
) -> Iterator[dict]:
    """Passes on the batches that hold an image and gathers the records and looks of all, with a progress bar."""
    with tqdm(total=batches.photographs, desc="grading", unit=" photographs") as progress:
        for batch in batches.loading:
            records.update(batch["records"])
            thumbnails.update(batch["thumbnails"])
            if len(batch["index"]):
                yield batch
            progress.update(len(batch["records"]))
