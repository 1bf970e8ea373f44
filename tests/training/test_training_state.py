import pytest
import torch
from made import TINY, damaged_values, replaced

from dr import UsageError
from dr.core import device
from dr.training import state
from dr.training.resume import resume


def started(data, **options):
    """A run on the CPU before its first epoch."""
    recipe = state.Recipe(**{**TINY.to_dict(), **options})
    accelerator = device.accelerator("cpu", precision="fp32")
    return state.start(recipe, data=data, accelerator=accelerator, updates_per_epoch=3, pretrained=False)


def learn(run) -> None:
    """Update the weights once."""
    run.model.train()
    images = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8)
    run.accelerator.backward(run.model(images).square().mean())
    run.update()
    run.after_epoch(1.0)


def content_of(run, path) -> dict:
    """The content of the NAME__last.pt of a run after its first epoch."""
    learn(run)
    run.epoch = 1
    run.history = [{"epoch": 1, "val_loss": 1.0, "seconds": 0.1}]
    saved = state.checkpoint(run, path, thresholds=torch.tensor([0.5, 1.5, 2.5, 3.5]).numpy())
    return saved.replace(training_state=state.training_state(run, state.random_states(run))).content()


def places(value, path=()):
    """The keys to each branch and leaf; of many parameters the first two."""
    if len(path) > 1:
        yield path
    keys = list(value)[:12] if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys if "state" not in path[-1:] and "raw_model" not in path[-1:] else list(keys)[:2]:
        yield from places(value[key], (*path, key))


def refusal(path, run, what) -> str | None:
    """The message of the UsageError if the run cannot resume from the file; any other error fails the test."""
    try:
        resume(path, run)
        learn(run)
    except UsageError as exc:
        return str(exc)
    except Exception as exc:
        raise AssertionError(what) from exc
    return None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options", [{"ema_decay": 0.9, "scheduler": "cosine"}, {"optimizer": "sgd", "scheduler": "plateau"}]
)
def test_a_damaged_training_state_is_one_line_or_training_continues(data, tmp_path, monkeypatch, options):
    path = tmp_path / "run__last.pt"
    path.touch()
    content = content_of(started(data, **options), path)
    refused = 0
    run = started(data, **options)
    for place in places({"training_state": content["training_state"]}):
        for value in damaged_values():
            damaged = replaced(content, place, value)
            monkeypatch.setattr("dr.inference.checkpoint.load_tensors", lambda _, damaged=damaged: damaged)
            if message := refusal(path, run, (place, type(value))):
                refused += 1
                assert message.startswith(f"{path}: "), (place, message[:300])
                assert message.isprintable(), (place, message[:300])
    assert refused > 500
