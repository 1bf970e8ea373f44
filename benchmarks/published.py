"""The published pipeline, written from its description: the reference of the benchmarks.

At every load an image is decoded at its full size, each channel is cropped by itself and resized back; then
albumentations augments it, in the main process. Prediction takes one image at a time, in fp32.

python -m benchmarks.published WEIGHTS IMAGES RESULT_CSV       grade a folder
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

TOLERANCE = 7  # grey levels; rows and columns of a channel without a brighter pixel are cropped
SIZE_PX = 380
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def crop_channels(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W, 3) uint8: crop dark rows and columns of each channel, then resize the channel back. An
    entirely dark channel is unchanged."""
    height, width = image.shape[:2]
    channels = []
    for channel in cv2.split(image):
        mask = channel > TOLERANCE
        cropped = channel[np.ix_(mask.any(axis=1), mask.any(axis=0))]
        channels.append(cv2.resize(cropped, (width, height)) if cropped.size else channel)
    return cv2.merge(channels)


def load(path: Path) -> np.ndarray:
    """-> (H, W, 3) uint8 RGB, cropped."""
    return crop_channels(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))


def transform(*, train: bool):
    """Resize, then for training the published augmentation, each step with probability 0.5."""
    import albumentations as A

    augmentation = [
        A.RandomSizedCrop(min_max_height=(266, SIZE_PX), size=(SIZE_PX, SIZE_PX), p=0.5),
        A.ElasticTransform(alpha=120, sigma=6, p=0.5),  # our values: the defaults move no pixel
        A.Rotate(limit=45, p=0.5),
        A.HueSaturationValue(p=0.5),
        A.CLAHE(p=0.5),
        A.HorizontalFlip(p=0.5),
        A.RandomBrightnessContrast(p=0.5),
        A.Blur(p=0.5),
    ]
    return A.Compose([A.Resize(SIZE_PX, SIZE_PX), *(augmentation if train else []), A.Normalize(MEAN, STD)])


def batches(paths: list[Path], *, batch_size: int, train: bool) -> Iterator:
    """-> float32 tensors (N, 3, 380, 380)."""
    import torch

    apply = transform(train=train)
    for start in range(0, len(paths), batch_size):
        images = [apply(image=load(path))["image"].transpose(2, 0, 1) for path in paths[start : start + batch_size]]
        yield torch.from_numpy(np.stack(images))


def network():
    """efficientnet_v2_m with one output, random weights."""
    from torch import nn
    from torchvision.models import efficientnet_v2_m

    model = efficientnet_v2_m()
    model.classifier[1] = nn.Linear(model.classifier[1].in_features, 1)
    return model


def predict(weights: Path, images: Path, result: Path) -> None:
    """Grade a folder by rounding scores; writes `result` with the columns id_code,diagnosis."""
    import pandas as pd
    import torch

    model = network()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    paths = sorted(images.iterdir())
    with torch.no_grad():
        scores = [model(batch).item() for batch in batches(paths, batch_size=1, train=False)]
    grades = np.clip(np.round(scores), 0, 4).astype(int)
    pd.DataFrame({"id_code": [path.stem for path in paths], "diagnosis": grades}).to_csv(result, index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Grade a folder by the published method.")
    for name in ("weights", "images", "result"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    predict(args.weights, args.images, args.result)
