import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from made import TINY, checkpoint_content, damaged_values, replaced, write_checkpoint

from dr import UsageError
from dr.datasets.preprocessed import PreprocessedData
from dr.imaging import novelty
from dr.inference import ensemble
from dr.inference.checkpoint import Checkpoint
from dr.inference.versions import versions
from dr.recipes.load import load_recipe
from dr.training import model_card, summary

DATA = PreprocessedData(
    None,
    pd.DataFrame({"path": ["a", "b"], "diagnosis": [0, 1]}),
    pd.DataFrame({"path": ["c"], "diagnosis": [2]}),
    96,
    "",
)


def whole_content() -> dict:
    """The content of a checkpoint with every field."""
    scores = torch.linspace(0, 4, 10, dtype=torch.float64)[:, None]
    kept = {"predictions": scores, "truth": scores[:, 0].round().long()}
    metrics = {"accuracy": 0.5, "kappa": 0.6, "auc": float("nan"), "majority": 0.6, "val_loss": 1.0}
    reference = novelty.Reference(np.zeros(novelty.MEASURES), np.eye(novelty.MEASURES), 1.0)
    content = checkpoint_content() | {
        "epoch": 2,
        "metrics": {"val": metrics, "test": metrics},
        "intervals": {"val": {"kappa_cross_fitted": [0.5, 0.7]}, "test": {"accuracy": [0.1, 0.9]}},
        "predictions": {"val": kept, "test": kept | {"grades": kept["truth"].clone()}},
        "calibration": {"slope": 1.0, "offsets": [0.0, 1.0, 2.0, 3.0]},
        "training_reference": reference.to_dict(),
        "notes": ["a line"],
    }
    content["data"] |= {
        "crop": True,
        "name_hashes": torch.arange(3),
        "pretrained_name_hashes": torch.arange(2),
        "fold": {"number": 1, "of": 3, "fingerprint": "of all"},
    }
    content["model"] = dict(content["model"])
    return content


def test_a_saved_checkpoint_gives_the_same_scores(tmp_path):
    content = checkpoint_content(thresholds=(0.4, 1.2, 2.9, 3.1))
    write_checkpoint(tmp_path / "a.pt", content)
    first, second = Checkpoint.load(tmp_path / "a.pt"), Checkpoint.load(tmp_path / "a.pt")
    assert first.recipe == TINY
    assert first.thresholds == (0.4, 1.2, 2.9, 3.1)
    assert first.data.size_px == 96
    images = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(first.network(images), second.network(images))
    for key, value in first.network.backbone.state_dict().items():
        assert torch.equal(value, content["model"][key])


def same(first, second) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second or first is second or first != first


def test_every_field_survives_loading_and_saving(tmp_path):
    content = whole_content()
    Checkpoint.from_content(content, path="a.pt").save(tmp_path / "a.pt")
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    assert saved.keys() == content.keys()
    for key, value in content.items():
        assert same(value, saved[key]), key


def test_tensors_of_half_precision_become_those_of_the_network(tmp_path):
    content = checkpoint_content()
    content["model"] = {k: v.half() if v.is_floating_point() else v for k, v in content["model"].items()}
    write_checkpoint(tmp_path / "half.pt", content)
    network = Checkpoint.load(tmp_path / "half.pt").network
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))


def test_the_published_state_dict_is_read(tmp_path):
    published = torchvision.models.efficientnet_v2_m()
    published.classifier[1] = torch.nn.Linear(1280, 1)
    torch.save(published.state_dict(), tmp_path / "published.pt")
    loaded = Checkpoint.load(tmp_path / "published.pt")
    assert loaded.recipe == load_recipe("published")
    assert loaded.recipe.image_size == 380
    assert loaded.thresholds == (0.5, 1.5, 2.5, 3.5)
    images = torch.randint(0, 255, (1, 3, 128, 128), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = published.eval()((images / 255 - mean) / std)
        assert torch.allclose(loaded.network(images), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["model"].pop("conv_stem.weight"),
            r"not those of test_efficientnet with 1 output \(first: conv",
        ),
        (lambda c: c["model"].update(extra=torch.zeros(1)), r"first: extra"),
        (lambda c: c["model"].update({"classifier.bias": torch.zeros(5)}), r"first: classifier\.bias"),
        (
            lambda c: c["model"].update({"classifier.bias": torch.tensor([torch.nan])}),
            r"field 'model\.classifier\.bias': a value is not finite; pass the checkpoint",
        ),
        (lambda c: c["model"].update({"classifier.bias": 1}), r"'model\.classifier\.bias': expected a tensor, got int"),
        (
            lambda c: c.pop("thresholds"),
            r"a\.pt: field 'thresholds': missing; pass the checkpoint that train\.py wrote",
        ),
        (lambda c: c.update(thresholds=[3.0, 2.0, 1.0, 0.0]), r"field 'thresholds': expected 4 ascending numbers"),
        (lambda c: c.update(thresholds=None), r"field 'thresholds': expected 4 ascending numbers"),
        (lambda c: c.update(classes=["one"]), r"a\.pt: field 'classes': .*at least 2 items"),
        (lambda c: c.update(data={"size_px": 64}), r"a\.pt: field 'data\.fingerprint': missing"),
        (lambda c: c["data"].update(size_px=2**40), r"field 'data\.size_px': expected less than or equal to 16384"),
        (lambda c: c["data"].update(name_hashes=[1]), r"field 'data\.name_hashes': expected a tensor, got list"),
        (lambda c: c.update(recipe="lite0"), r"a\.pt: field 'recipe': expected a recipe, got str"),
        (lambda c: c["recipe"].update(colour=1), r"a\.pt: unknown option 'colour'"),
        (lambda c: c.update(seconds=1), r"a\.pt: field 'seconds': unknown; pass the checkpoint"),
        (lambda c: c["calibration"].pop("offsets"), r"field 'calibration': field 'offsets': missing"),
        (lambda c: c["calibration"].update(offsets=[1.0]), r"field 'calibration': expected 4 offsets"),
        (
            lambda c: c["predictions"]["val"].update(truth=torch.full((10,), 9)),
            r"field 'predictions\.val': expected truth of 10 samples from 0 to 4",
        ),
    ],
)
def test_an_error_names_the_file_the_field_the_fault_and_the_remedy(change, message, tmp_path):
    content = whole_content()
    change(content)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=message):
        Checkpoint.load(tmp_path / "a.pt")


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"a\.pt: neither a checkpoint of train\.py nor a state_dict"):
        Checkpoint.load(tmp_path / "a.pt")


def test_a_save_that_fails_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"the old one")
    saved = Checkpoint.from_content(checkpoint_content(), path=path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        saved.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
    monkeypatch.undo()
    assert path.read_bytes() == b"the old one"


def test_the_calibration_is_the_saved_one_or_fitted_to_the_validation_predictions(tmp_path):
    content = checkpoint_content()
    assert Checkpoint.from_content(content, path="none.pt").calibration is None
    scores = torch.linspace(0, 4, 50)[:, None]
    content |= {"predictions": {"val": {"predictions": scores, "truth": scores[:, 0].round().long()}}}
    fitted = Checkpoint.from_content(content, path="val.pt").calibration
    assert fitted.probabilities(np.array([0.0, 4.0])).argmax(axis=1).tolist() == [0, 4]
    kept = {"slope": 1.0, "offsets": [0.0, 1.0, 2.0, 3.0]}
    saved = Checkpoint.from_content(content | {"calibration": kept}, path="kept.pt")
    assert saved.calibration.to_dict() == kept


def test_loading_uses_no_network_whatever_the_recipe_says(tmp_path, monkeypatch):
    def closed(*_, **__):
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, closed)
    for changes in ({}, {"backbone": "hf-hub:timm/resnet18.a1_in1k"}, {"pretrained": "imagenet"}):
        content = checkpoint_content()
        content["recipe"] = content["recipe"] | changes
        write_checkpoint(tmp_path / "a.pt", content)
        if "backbone" in changes:
            with pytest.raises(UsageError, match=r"a\.pt: "):
                Checkpoint.load(tmp_path / "a.pt")
        else:
            Checkpoint.load(tmp_path / "a.pt")


# --- one damaged field ---------------------------------------------------------------------------


def places(value, path=()):
    """The keys that lead to each branch and leaf of the content; of many tensors and options the first and last."""
    if path:
        yield path
    if isinstance(value, dict):
        keys = list(value)
        for key in [*keys[:2], *keys[-2:]] if path == ("model",) else keys:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 2)):
            yield from places(value[index], (*path, index))


def use(content: dict, *, with_network: bool = True) -> None:
    """Use a checkpoint as predict.py, --compare and the end of a run do."""
    loaded = Checkpoint.from_content(content, path="a.pt")
    outputs = torch.zeros(1, loaded.objective.num_outputs)
    if with_network:
        with torch.inference_mode():
            outputs = loaded.network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    predictions = loaded.objective.predictions(outputs.double()).numpy()
    if np.isfinite(predictions).all():
        thresholds, _ = ensemble.thresholds([loaded])
        loaded.objective.grades(predictions, thresholds[0])
        ensemble.probabilities([loaded], predictions)
    if loaded.training_reference is not None:
        loaded.training_reference.distance(np.ones(novelty.MEASURES))
    assert isinstance(loaded.unskilled_splits, list)
    summary.metric_texts(loaded)
    if loaded.graded_splits():
        model_card.render(loaded, name="a", data=DATA).encode()


def check(content: dict, path: tuple, what: object) -> bool:
    """Whether a checkpoint that differs at `path` is refused in one line; any other error fails the test."""
    try:
        # the network depends on no other field
        use(content, with_network=path[0] in ("model", "recipe", "classes", "thresholds"))
    except UsageError as exc:
        text = str(exc)
        assert text.startswith("a.pt: "), (path, what, text[:200])
        assert text.isprintable(), (path, what, text[:200])
        assert len(text) < 1000, (path, what, text[:200])
        return True
    except Exception as exc:
        raise AssertionError(path, what) from exc
    return False


@pytest.fixture
def few_draws(monkeypatch):
    """Intervals take seconds and depend on no field."""
    draws = {"repeats": 3, "level": 0.95, "seed": 0}
    monkeypatch.setattr("dr.grading.metrics.per_class_intervals.__kwdefaults__", draws | {"patients": None})


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_field_is_one_line_or_is_graded(few_draws):
    content = whole_content()
    use(content)
    refused = []
    for path in places(content):
        *above, key = path
        branch = content
        for step in above:
            branch = branch[step]
        damaged = dict(enumerate(damaged_values()))
        refused += [check(replaced(content, path, value), path, number) for number, value in damaged.items()]
        if isinstance(branch, dict):
            without = {name: value for name, value in branch.items() if name != key}
            others = {
                "left out": without,
                "renamed": without | {f"{key}_": branch[key]},
                "a number as key": branch | {3: branch[key]},
            }
            refused += [check(replaced(content, above, other), path, name) for name, other in others.items()]
    assert len(refused) > 3000
    assert sum(refused) > 0.8 * len(refused)


def test_versions_name_every_package_that_computes_a_result():
    assert versions()["torch"] == torch.__version__
    assert {"dr", "python", "torchvision", "timm", "opencv", "albumentations"} <= versions().keys()
