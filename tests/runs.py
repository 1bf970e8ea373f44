"""Short training runs for the tests of training."""

from made import TINY

from dr.recipes.load import from_dict
from dr.recipes.schema import Recipe
from dr.training import loop
from dr.training.options import RunOptions


def tiny(**options) -> Recipe:
    """TINY with other options, and the loss of its objective."""
    return from_dict(TINY.to_dict() | {"loss": None} | options)


def run(data, folder, *, name="run", recipe=TINY, **options) -> dict:
    """Train on the CPU -> the row of runs.csv. `options`: those of RunOptions."""
    options = {"device": "cpu", "workers": 0, "keep_last": True} | options
    return loop.train(recipe, data=data, options=RunOptions(folder=str(folder), name=name, **options))
