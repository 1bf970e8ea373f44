"""Which images the page explains, and their Grad-CAM maps, averaged over the networks."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pandas as pd

from dr.core import distributed
from dr.inference import gradcam
from dr.inference.explain import Explainer
from dr.inference.preprocessor import frame_of
from dr.pages.html import data_uri, jpeg

SHOWN_PX = 768  # longest side of an explained image on the page; about 100 kB, and its map as much again
MAX_LARGE = 60  # explained images at SHOWN_PX; with more, each is shown at the size that the network receives


def choose(details: pd.DataFrame, *, count: int | str) -> list[tuple[int, str]]:
    """details.csv -> (row, reason) of `count` images to explain: half of them those with the highest scores, half those
    with the highest doubt; with count 'all' every graded image, the highest score first."""
    doubt = details["doubt"]
    severe = details["score"].dropna().sort_values(ascending=False, kind="stable").index.tolist()
    reasons = {row: f"doubt {doubt[row]:.2f}" for row in severe}
    if count == "all" or count >= len(severe):
        return list(reasons.items())
    doubtful = doubt.dropna().sort_values(ascending=False, kind="stable").index.tolist()
    chosen = dict.fromkeys(severe[: count - count // 2], "among the highest scores")
    others = [row for row in doubtful if row not in chosen][: count // 2]
    return list((chosen | {row: f"among the most doubtful ({doubt[row]:.2f})" for row in others}).items())


def heat_map(
    data: bytes, explainers: Sequence[Explainer], *, grade: int, shown_px: int = SHOWN_PX
) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of an image -> the image (S, S, 3) uint8 RGB as preprocessed for the networks, but S up to `shown_px`,
    and the mean heat (S, S) of the networks in 0..1. Networks with another frame (with or without the crop to the
    retina) than the largest one are left out."""
    largest = max((explainer.spec for explainer in explainers), key=lambda spec: (spec.preprocessed_px, spec.crop))
    shown, *_ = frame_of(data, size_px=max(shown_px, largest.preprocessed_px), crop=largest.crop)
    heats = []
    for explainer in explainers:
        spec = explainer.spec
        if spec.crop != largest.crop:
            continue
        preprocessed, *_ = frame_of(data, size_px=spec.preprocessed_px, crop=spec.crop)
        heat = explainer.frame_heat(preprocessed, grade=grade)
        heats.append(cv2.resize(heat, shown.shape[1::-1], interpolation=cv2.INTER_LINEAR))
    return cv2.cvtColor(shown, cv2.COLOR_BGR2RGB), np.mean(heats, axis=0)


def maps(
    details: pd.DataFrame,
    chosen: Sequence[tuple[int, str]],
    *,
    explainers: Sequence[Explainer],
    read: Callable[[str], bytes],
) -> list[dict]:
    """details.csv, (row, reason) of the chosen images, a function that reads the bytes of a file -> for each: file,
    grade, score, reason, and the data URIs `image` and `heat`. The processes of torchrun share the work."""
    shown_px = SHOWN_PX if len(chosen) <= MAX_LARGE else 0
    own = []
    for row, reason in chosen[distributed.rank :: distributed.world_size]:
        file, grade, score = details.loc[row, ["file", "grade", "score"]]
        image, heat = heat_map(read(file), explainers, grade=int(grade), shown_px=shown_px)
        uris = {"image": data_uri(jpeg(image)), "heat": data_uri(jpeg(gradcam.overlay(image, heat)))}
        own.append({"file": file, "grade": int(grade), "score": float(score), "reason": reason} | uris)
    place = {details.loc[row, "file"]: number for number, (row, _) in enumerate(chosen)}
    return sorted((each for part in distributed.all_gather(own) for each in part), key=lambda each: place[each["file"]])
