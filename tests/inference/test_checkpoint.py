from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from made import TINY, checkpoint_content

from dr import UsageError
from dr.inference import checkpoint
from dr.recipes.load import load


def test_saved_and_loaded_the_scores_are_the_same(tmp_path):
    content = checkpoint_content(thresholds=(0.4, 1.2, 2.9, 3.1))
    checkpoint.save(tmp_path / "a.pt", content)
    first, second = checkpoint.load(tmp_path / "a.pt"), checkpoint.load(tmp_path / "a.pt")
    assert first.recipe == TINY
    assert first.thresholds == [0.4, 1.2, 2.9, 3.1]
    assert first.prepared_px == 96
    images = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8)
    scores = first.network(images)
    assert torch.equal(scores, second.network(images))
    for key, value in first.network.backbone.state_dict().items():
        assert torch.equal(value, content["model"][key])


def test_tensors_of_half_precision_become_those_of_the_network_and_none_is_left_empty(tmp_path):
    content = checkpoint_content()
    content["model"] = {k: v.half() if v.is_floating_point() else v for k, v in content["model"].items()}
    checkpoint.save(tmp_path / "half.pt", content)
    network = checkpoint.load(tmp_path / "half.pt").network
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))


def test_the_published_state_dict_is_read_as_it_is(tmp_path):
    published = torchvision.models.efficientnet_v2_m()
    published.classifier[1] = torch.nn.Linear(1280, 1)
    torch.save(published.state_dict(), tmp_path / "published.pt")
    loaded = checkpoint.load(tmp_path / "published.pt")
    assert loaded.recipe == load("published")
    assert loaded.recipe.image_size == 380
    assert loaded.thresholds == [0.5, 1.5, 2.5, 3.5]
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
            r"not those of test_efficientnet with 1 output \(first: conv_stem",
        ),
        (lambda c: c["model"].update(extra=torch.zeros(1)), r"first: extra"),
        (lambda c: c["model"].update({"classifier.bias": torch.zeros(5)}), r"first: classifier\.bias"),
        (lambda c: c.pop("thresholds"), r"a\.pt: field 'thresholds' is missing or damaged"),
        (lambda c: c.update(thresholds=[3.0, 2.0, 1.0, 0.0]), r"a\.pt: field 'thresholds' is missing or damaged"),
        (lambda c: c.update(thresholds=None), r"a\.pt: field 'thresholds' is missing or damaged"),
        (lambda c: c.update(classes=["one"]), r"a\.pt: field 'classes' is missing or damaged"),
        (lambda c: c.update(data={}), r"a\.pt: field 'data' is missing or damaged"),
        (lambda c: c["data"].update(names=[1]), r"a\.pt: field 'data' is missing or damaged"),
        (lambda c: c.update(recipe="lite0"), r"a\.pt: field 'recipe' is missing or damaged"),
        (lambda c: c["model"].update({"classifier.bias": 1}), r"first: classifier\.bias"),
        (lambda c: c["recipe"].update(colour=1), r"a\.pt: there is no choice 'colour'"),
    ],
)
def test_a_checkpoint_of_other_shape_names_the_first_difference(tmp_path, change, message):
    content = checkpoint_content()
    content["model"] = dict(content["model"])
    change(content)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=message):
        checkpoint.load(tmp_path / "a.pt")


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"neither a checkpoint of train\.py nor a state_dict"):
        checkpoint.load(tmp_path / "a.pt")


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"the old one")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
    monkeypatch.undo()
    assert path.read_bytes() == b"the old one"


def test_a_calibration_is_the_one_that_is_kept_or_fitted_to_the_validation_that_is(tmp_path):
    content = checkpoint_content()
    checkpoint.save(tmp_path / "none.pt", content)
    assert checkpoint.load(tmp_path / "none.pt").calibration is None
    scores = torch.linspace(0, 4, 50)[:, None]
    content |= {"validation": {"predictions": scores, "truth": scores[:, 0].round().long()}}
    checkpoint.save(tmp_path / "old.pt", content)
    fitted = checkpoint.load(tmp_path / "old.pt").calibration
    assert fitted.probabilities(np.array([0.0, 4.0])).argmax(axis=1).tolist() == [0, 4]
    kept = {"slope": 1.0, "offsets": [0.0, 1.0, 2.0, 3.0]}
    checkpoint.save(tmp_path / "kept.pt", content | {"calibration": kept})
    assert checkpoint.load(tmp_path / "kept.pt").calibration.to_dict() == kept
    checkpoint.save(tmp_path / "damaged.pt", content | {"calibration": {"slope": 1.0}})
    with pytest.raises(UsageError, match=r"damaged\.pt: its calibration is damaged .*4 offsets.*give the checkpoint"):
        checkpoint.load(tmp_path / "damaged.pt")
