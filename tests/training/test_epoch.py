import platform
from pathlib import Path

import pandas as pd
import pytest
import torch
from made import TINY, checkpoint_content, write_preprocessed
from runs import run, tiny
from torch.nn.functional import one_hot

from dr import UsageError
from dr.core import device, distributed
from dr.datasets.preprocessed import read_preprocessed
from dr.grading import objectives
from dr.networks.build import build
from dr.training import epoch, state

pytestmark = pytest.mark.usefixtures("epochs_only")


def test_one_batch_is_overfitted_in_a_few_steps():
    torch.manual_seed(0)
    model, objective = build(TINY, num_outputs=1), objectives.build(TINY)
    images = torch.randint(0, 255, (10, 3, 64, 64), dtype=torch.uint8)
    grades = torch.tensor([0, 1, 2, 3, 4] * 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = objective.loss(model(images), one_hot(grades, 5).float()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_mixed_images_have_targets_mixed_in_the_same_proportion_and_smoothed():
    torch.manual_seed(1)
    images = torch.stack([torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 100)])
    grades = torch.tensor([0, 4])
    for options in ({"mixup": 0.4}, {"cutmix": 1.0}):
        mixed, targets = epoch.build_mix(tiny(**options), 5)(images, grades)
        share = mixed.mean(dim=(1, 2, 3)) / 100  # of the second image in each
        assert torch.allclose(targets[:, 4], share, atol=1e-5)
        assert torch.allclose(targets.sum(dim=1), torch.ones(2))
        assert 0 < share[0] < 1
    same, smoothed = epoch.build_mix(tiny(label_smoothing=0.1), 5)(images, grades)
    assert torch.equal(same, images)
    assert torch.allclose(smoothed[0], torch.tensor([0.92, 0.02, 0.02, 0.02, 0.02]))
    _, near = epoch.build_mix(tiny(neighbour_smoothing=0.05), 5)(images, grades)
    assert torch.allclose(near[0], torch.tensor([0.95, 0.05, 0, 0, 0]))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(data, tmp_path):
    broken = checkpoint_content()
    broken["model"] = {
        key: torch.full_like(value, torch.nan) if value.is_floating_point() else value
        for key, value in broken["model"].items()
    }
    torch.save(broken, tmp_path / "nan.pt")
    with pytest.raises(
        UsageError, match=r"the loss of the batch (image_\d+\.jpeg, ){3}\.\.\. is not finite; reduce lr"
    ):
        run(data, tmp_path, recipe=tiny(pretrained=str(tmp_path / "nan.pt")))


def test_fewer_images_than_a_batch_for_each_process_are_refused(data, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", 4)
    with pytest.raises(UsageError, match="30 training images, but 4 processes with batches of 10 need 40; reduce"):
        epoch.build_loaders(TINY, data, sampler=None, workers=0, pin=False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_freed_memory_is_released_before_loading_processes_are_forked(data, tmp_path, monkeypatch):
    def resident():
        return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

    device.accelerator("cpu", precision="fp32")
    large = [torch.ones(2**24) for _ in range(6)]  # 384 MiB
    large.clear()
    kept = resident()
    device.release_freed_memory()
    assert kept - resident() > 300 * 2**20
    order, train_epoch, validate = [], epoch.train_epoch, epoch.validate
    monkeypatch.setattr(epoch, "train_epoch", lambda *given: (order.append("train"), train_epoch(*given))[1])
    monkeypatch.setattr(device, "release_freed_memory", lambda: order.append("release"))
    monkeypatch.setattr(epoch, "validate", lambda *given: (order.append("validate"), validate(*given))[1])
    run(data, tmp_path, recipe=tiny(epochs=1))
    assert order == ["train", "release", "validate"]


def test_an_undefined_metric_cannot_select_the_best_epoch(tmp_path):
    folder = write_preprocessed(tmp_path / "data")
    table = pd.read_csv(folder / "kaggle_retina" / "labels_val.csv").assign(diagnosis=1)
    table.to_csv(folder / "kaggle_retina" / "labels_val.csv", index=False)
    with pytest.raises(UsageError, match=r"monitor auc is not defined for these .* use --set monitor=val_loss"):
        run(read_preprocessed(folder), tmp_path / "w", recipe=tiny(objective="classification", monitor="auc"))


@pytest.mark.parametrize(("precision", "widened"), [("bf16", True), ("fp32", False)])
def test_training_on_a_cpu_widens_layers_that_bfloat16_slows_down(data, precision, widened):
    chosen = tiny(backbone="tf_efficientnet_lite0", ema_decay=0.9)
    accelerator = device.accelerator("cpu", precision=precision)
    started = state.start(chosen, data=data, accelerator=accelerator, updates_per_epoch=3, pretrained=False)
    for network in (started.bare_model, started.evaluated):
        assert any("forward" in vars(m) for m in network.backbone.modules()) == widened


def test_a_batch_of_one_is_refused_where_batch_normalisation_has_one_value_per_channel(tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", train=5))
    with pytest.raises(UsageError, match="a batch of 1 image at 32 pixels is too small for batch normalisation"):
        run(data, tmp_path, recipe=tiny(batch_size=1, image_size=32, epochs=1, backbone="resnet18"))
