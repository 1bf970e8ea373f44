"""Stage 3: checkpoints + photographs -> result.csv (a valid submission) and details.csv."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dr import UsageError, device, ensemble, files, fundus, novelty, ranks, scoring
from dr.archive import IMAGE_SUFFIXES, Archive, is_image
from dr.checkpoint import Checkpoint
from dr.dataset import loader, to_tensor
from dr.inference import VIEWS, Scorer, decide, infer, mean_predictions
from dr.prevalence import Shift
from dr.prevalence import check as check_prevalence
from dr.sources import read_table
from dr.transforms import eval_transform

DETAILS = ["file", "score", "grade", "class", "brightness", "sharpness", "flags", "error"]
DISTANCE = "training_distance"  # a column where the checkpoint keeps what its training photographs look like


@dataclass(frozen=True)
class Prediction:
    """What was written: `result` (id_code, diagnosis) and `details`, one row for each photograph; the names of the
    classes; the cuts and where they are from, in words, None without cuts; with labels, what metrics.json holds.
    `unlike`: how many are unlike training, in words."""

    result: pd.DataFrame
    details: pd.DataFrame
    classes: tuple[str, ...]
    cuts: str | None
    metrics: dict | None = None
    unlike: str = ""


def find_photographs(images: str | Path) -> tuple[Archive, list[str]]:
    """A folder, a zip or one photograph -> (archive, names of its photographs). Raises UsageError when there are none,
    or when two share a stem: result.csv could not tell them apart."""
    path = Path(images)
    if path.is_file() and is_image(path.name):
        archive, names = Archive(path.parent, names=[path.name]), [path.name]
    else:
        archive = Archive(path)
        names = archive.images()
    if not names:
        raise UsageError(
            f"{path}: it holds no photographs ({' '.join(sorted(IMAGE_SUFFIXES))}); "
            "put some there, or name a folder with --images"
        )
    seen: dict[str, str] = {}
    for name in names:
        stem = PurePosixPath(name).stem
        if stem in seen:
            raise UsageError(f"{path}: {seen[stem]} and {name} have the same name {stem!r}; rename one")
        seen[stem] = name
    return archive, names


def _submission_ids(path: str) -> list[str]:
    """The ids of a sample submission, in its order."""
    if not Path(path).is_file():
        raise UsageError(f"--submission {path}: there is no such file")
    table = read_table(Path(path).read_bytes(), name=path, columns=("id_code",))
    repeated = table[table["id_code"].duplicated()]
    if len(repeated):
        raise UsageError(f"{path}, row {repeated['row'].iloc[0]}: {repeated['id_code'].iloc[0]} is there twice")
    return table["id_code"].tolist()


def _select(names: list[str], ids: list[str], *, images: str, submission: str) -> list[str]:
    """The photographs of the ids, in their order. Raises UsageError naming those that are missing."""
    by_stem = {PurePosixPath(name).stem: name for name in names}
    missing = [i for i in ids if i not in by_stem]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(
            f"{images}: {len(missing)} of the {len(ids)} photographs of {submission} are missing ({shown})"
        )
    return [by_stem[i] for i in ids]


class View(NamedTuple):
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


class Photographs(Dataset):
    """index -> {"index", "record", a (3, P, P) uint8 for each view, or no image where `record["error"]`}.

    Photographs are prepared here, in the loading processes, by the function that data.py uses.
    """

    def __init__(
        self,
        archive: Archive,
        names: list[str],
        *,
        views: Iterable[View],
        training: Sequence[tuple[View, novelty.Reference]] = (),
    ):
        self.archive, self.names = archive, names
        self.training = training
        self.transforms = {view: eval_transform(size_px=view.image_px, crop_px=view.crop_px) for view in views}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        record = {"file": self.names[index], "error": ""}
        try:
            data = self.archive.read(self.names[index])
            ways = sorted({(view.prepared_px, view.crop) for view in self.transforms})
            prepared = {way: fundus.decode_and_prepare(data, size_px=way[0], crop=way[1])[:2] for way in ways}
        except (fundus.UnreadablePhotograph, OSError) as exc:
            return {"index": index, "record": record | {"error": str(exc)}}
        largest, retina = prepared[ways[-1]]
        measured = fundus.quality(largest)
        record |= {name: round(value, 2) for name, value in measured.items()}
        flags = fundus.flags(retina, measured)
        if self.training:
            each = [
                ref.distance(novelty.measure(prepared[view.prepared_px, view.crop][0])) for view, ref in self.training
            ]
            record[DISTANCE] = round(sum(each) / len(each), 3)
            flags += [novelty.FLAG] * (record[DISTANCE] > 1)
        record["flags"] = " ".join(flags)
        item = {"index": index, "record": record}
        for view, transform in self.transforms.items():
            photo = cv2.cvtColor(prepared[view.prepared_px, view.crop][0], cv2.COLOR_BGR2RGB)
            item[view.key] = to_tensor(transform(image=photo)["image"])
        return item


def _collate(items: list[dict]) -> dict:
    """Items -> a batch of those that have an image; the records of all."""
    batch = {"records": [(item["index"], item["record"]) for item in items]}
    readable = [item for item in items if not item["record"]["error"]]
    batch["index"] = torch.tensor([item["index"] for item in readable], dtype=torch.int64)
    for key in readable[0] if readable else ():
        if key.startswith("image_"):
            batch[key] = torch.stack([item[key] for item in readable])
    return batch


def _readable(batches: DataLoader, records: dict[int, dict]) -> Iterator[dict]:
    """Passes on the batches that hold an image and gathers the records of all, with a progress bar."""
    with tqdm(total=sum(map(len, batches.batch_sampler)), desc="grading", unit=" photographs") as progress:
        for batch in batches:
            records.update(batch["records"])
            if len(batch["index"]):
                yield batch
            progress.update(len(batch["records"]))


def _training(checkpoints: Sequence[Checkpoint], views: Sequence[View]) -> list[tuple[View, novelty.Reference]]:
    """What the training photographs of each look like, with the view; none where one does not keep it."""
    known = [(view, one.training) for view, one in zip(views, checkpoints, strict=True)]
    return [] if any(reference is None for _, reference in known) else known


def predict(
    models: Sequence[str],
    images: str,
    *,
    output: str,
    batch_size: int = 16,
    tta: str | None = None,
    tta_by: str | None = None,
    workers: int = 2,
    device_name: str = "auto",
    submission: str | None = None,
    prevalence: Sequence[float] | str | None = None,
    labels: str | None = None,
) -> Prediction:
    """Grades the photographs of `images` -> output/result.csv and output/details.csv.

    Predictions of several checkpoints are averaged, and so are their cuts, unless they are folds of one set; `tta` and
    `tta_by` are the first recipe's where they are not given. `prevalence`: the share of each class, or auto, that
    decisions are moved to. `labels`: a table of true grades, which output/metrics.json is made with. Several processes
    share the photographs, and the main one writes. Raises UsageError.
    """
    ids = _submission_ids(submission) if submission else None
    archive, names = find_photographs(images)
    if ids is not None:
        names = _select(names, ids, images=images, submission=submission)
    checkpoints = ensemble.load(models)
    truth = scoring.read_labels(labels, classes=checkpoints[0].classes) if labels else None
    if truth is not None:
        scoring.check([PurePosixPath(name).stem for name in names], truth, path=labels)
    if prevalence is not None:
        check_prevalence(checkpoints, prevalence, by=tta_by or checkpoints[0].recipe.tta_by)
    cuts, cuts_in_words = ensemble.cuts(checkpoints)
    recipe, objective = checkpoints[0].recipe, checkpoints[0].objective
    precisions = {one.recipe.precision for one in checkpoints}
    accelerator = device.accelerator(device_name, precision=precisions.pop() if len(precisions) == 1 else "auto")
    if ranks.MAIN:
        files.writable_folder(output)
    views = [View(one.prepared_px, one.recipe.image_size, one.recipe.crop_size, one.crop) for one in checkpoints]
    scorers = [
        Scorer(one.grader.to(accelerator.device), one.objective, view.key)
        for one, view in zip(checkpoints, views, strict=True)
    ]
    training = _training(checkpoints, views)
    batches = loader(
        Photographs(archive, names, views=set(views), training=training),
        batch_size=batch_size,
        workers=min(workers, -(-len(names) // batch_size)),
        pin=accelerator.device.type == "cuda",
        collate=_collate,
    )
    records: dict[int, dict] = {}
    index, outputs = infer(
        scorers, _readable(batches, records), accelerator=accelerator, views=VIEWS[tta or recipe.tta]
    )
    records = {i: record for own in ranks.gather(records) for i, record in own.items()}
    finite = torch.stack([each.isfinite().all(dim=2).all(dim=0) for each in outputs]).all(dim=0).numpy()
    for i in index[~finite]:
        records[i]["error"] = "its score is not finite: the network overflows; train with --set precision=fp32"
    outputs = [each[:, finite] for each in outputs]
    by = tta_by or recipe.tta_by
    shift = None
    if prevalence is not None:
        shift = Shift(checkpoints, mean_predictions(scorers, outputs), prevalence)
        cuts, cuts_in_words = shift.cuts or cuts, shift.in_words()
    predictions, grades = decide(scorers, outputs, cuts=cuts, by=by)
    graded = pd.DataFrame({"score": objective.scores(predictions).round(4), "grade": grades}, index=index[finite])
    probabilities = ensemble.probabilities(checkpoints, predictions)
    if shift is not None:
        probabilities, grades = shift.probabilities, grades if shift.grades is None else shift.grades
    if probabilities is None:
        probabilities = objective.probabilities(predictions)
    if probabilities is not None:
        for k in range(objective.num_classes):
            graded[f"probability_{k}"] = probabilities[:, k].round(4)
    graded["class"] = [checkpoints[0].classes[grade] for grade in grades]
    result, details = _tables(records, graded, ordered=ids is not None)
    measured = None
    if truth is not None:
        stems = {i: PurePosixPath(record["file"]).stem for i, record in records.items()}
        unreadable = [stems[i] for i, record in records.items() if record["error"]]
        done = scoring.Graded([stems[i] for i in graded.index], predictions, grades, unreadable)
        measured = scoring.score(done, truth, objective=objective, classes=checkpoints[0].classes)
    if ranks.MAIN:
        if measured is not None:
            scoring.write(measured, output)
        files.write_csv(Path(output) / "details.csv", details)
        files.write_csv(Path(output) / "result.csv", result)
    unlike = _unlike_in_words(details, checkpoints)
    return Prediction(result, details, checkpoints[0].classes, cuts_in_words, measured, unlike)


def _unlike_in_words(details: pd.DataFrame, checkpoints: Sequence[Checkpoint]) -> str:
    without = next((one.path for one in checkpoints if one.training is None), None)
    if without is not None:
        return f"{novelty.FLAG}: not looked for, {without} does not keep what its training photographs look like"
    marked = details["flags"].fillna("").str.split().apply(lambda flags: novelty.FLAG in flags).sum()
    return f"{novelty.FLAG}: {marked} of {len(details)} photographs" if marked else ""


def _tables(records: dict[int, dict], graded: pd.DataFrame, *, ordered: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """records by index, graded (score, grade, probabilities) by index of those that have an image -> result, details,
    sorted by name where they are not `ordered` already."""
    details = pd.DataFrame.from_dict(records, orient="index").sort_index()
    details = details.join(graded.astype({"grade": "Int64"}))
    probabilities = [name for name in graded.columns if name.startswith("probability_")]
    distance = [DISTANCE] if DISTANCE in details else []
    details = details.reindex(columns=[*DETAILS[:4], *probabilities, *DETAILS[4:6], *distance, *DETAILS[6:]])
    result = pd.DataFrame(
        {
            "id_code": [PurePosixPath(name).stem for name in details.loc[graded.index, "file"]],
            "diagnosis": graded["grade"].to_numpy(),
        }
    )
    if not ordered:
        result, details = result.sort_values("id_code"), details.sort_values("file")
    return result.reset_index(drop=True), details.reset_index(drop=True)
