"""Every recipe trains, is tested and predicts on a small synthetic set."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from made import write_images, write_preprocessed
from runs import run

from dr.datasets.preprocessed import read_preprocessed
from dr.inference.checkpoint import Checkpoint
from dr.prediction.options import PredictOptions
from dr.prediction.pipeline import predict
from dr.recipes.load import available, load_recipe

SHORT = {"epochs": 1, "batch_size": 4, "pretrained": "none", "seed": 1, "precision": "fp32"}
SMALLER = {  # than the recipes' own, which take minutes
    "published": {"backbone": "test_efficientnet", "image_size": 64},
    "five_grade_resnet": {"image_size": 128, "crop_size": 112},
    "binary_resnet": {"image_size": 128, "crop_size": 112},
    "small_images": {"image_size": 32, "tta": "five", "keep_epochs": [1]},
    "lite0_best": {"image_size": 96},
}


QUICK = ("lite0_best", "published")  # run by `make test`; the others by `make test-all`


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in available()]
)
def test_every_recipe_trains_and_predicts(name, tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", train=8, val=5, test=5))
    recipe = load_recipe(name, overrides=SHORT | SMALLER.get(name, {}))
    row = run(data, tmp_path, recipe=recipe)
    history = pd.read_csv(tmp_path / "run/history.csv")
    assert np.isfinite(history["train_loss"]).all()
    assert row["best_epoch"] == len(history) == 1
    saved = Checkpoint.load(tmp_path / "run__best.pt").recipe
    measured = {"mean": saved.mean, "std": saved.std} if recipe.normalisation == "dataset" else {}
    assert saved == dataclasses.replace(recipe, **measured)
    write_images(tmp_path / "images", [0, 4])
    paths = {"models": [str(tmp_path / "run__best.pt")], "images": str(tmp_path / "images"), "output": str(tmp_path)}
    prediction = predict(PredictOptions(**paths, device="cpu", workers=0))
    assert len(prediction.result) == 2
    assert (prediction.details["error"] == "").all()
    assert prediction.result["diagnosis"].between(0, len(prediction.classes) - 1).all()
