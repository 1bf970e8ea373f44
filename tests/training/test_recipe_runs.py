"""Every recipe goes the whole way on a small made set: training, the test, prediction."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from made import write_images, write_preprocessed

from dr.datasets.preprocessed import read_preprocessed
from dr.inference import checkpoint
from dr.prediction.pipeline import predict
from dr.recipes import load as recipes
from dr.training.loop import train

SHORT = {"epochs": 1, "batch_size": 4, "pretrained": "none", "seed": 1, "precision": "fp32"}
SMALLER = {  # than their own, which take minutes
    "published": {"backbone": "test_efficientnet", "image_size": 64},
    "five_grade_resnet": {"image_size": 128, "crop_size": 112},
    "binary_resnet": {"image_size": 128, "crop_size": 112},
    "small_pictures": {"image_size": 32, "tta": "five", "keep_epochs": [1]},
    "lite0_best": {"image_size": 96},
}


@pytest.mark.parametrize("name", recipes.available())
def test_every_recipe_trains_tests_and_predicts(name, tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", train=8, val=5, test=5))
    recipe = recipes.load(name, overrides=SHORT | SMALLER.get(name, {}))
    row = train(recipe, data=data, folder=str(tmp_path), name="run", device_name="cpu", workers=0)
    history = pd.read_csv(tmp_path / "run__history.csv")
    assert np.isfinite(history["train_loss"]).all()
    assert row["best_epoch"] == len(history) == 1
    saved = checkpoint.load(tmp_path / "run__best.pt").recipe
    measured = {"mean": saved.mean, "std": saved.std} if recipe.normalisation == "measured" else {}
    assert saved == dataclasses.replace(recipe, **measured)
    write_images(tmp_path / "images", [0, 4])
    found = predict(
        [str(tmp_path / "run__best.pt")], str(tmp_path / "images"), output=str(tmp_path), device_name="cpu", workers=0
    )
    assert len(found.result) == 2
    assert (found.details["error"] == "").all()
    assert found.result["diagnosis"].between(0, len(found.classes) - 1).all()
