"""Which photographs of a prediction are explained, and their maps, by all networks that graded them."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn

from dr.core import distributed
from dr.imaging import fundus
from dr.imaging.resize import resize_and_crop, to_tensor
from dr.inference import gradcam
from dr.inference.checkpoint import Checkpoint
from dr.pages import html as page

SHOWN_PX = 768  # side that an explained photograph has at most on the page; about 100 kB, and its map as much again
MOST_LARGE = 60  # photographs that are shown so large; more are shown as large as the network is given them


def choose(details: pd.DataFrame, *, count: int | str) -> list[tuple[int, str]]:
    """-> (row of details, why it is shown) of those to be explained: half of them those with the highest scores, half
    those most in doubt; with count 'all' every one that has a grade, the highest score first."""
    doubt = details["doubt"]
    severe = details["score"].dropna().sort_values(ascending=False, kind="stable").index.tolist()
    why = {row: f"doubt {doubt[row]:.2f}" for row in severe}
    if count == "all" or count >= len(severe):
        return list(why.items())
    doubtful = doubt.dropna().sort_values(ascending=False, kind="stable").index.tolist()
    chosen = dict.fromkeys(severe[: count - count // 2], "among the highest scores")
    others = [row for row in doubtful if row not in chosen][: count // 2]
    return list((chosen | {row: f"among the most doubtful ({doubt[row]:.2f})" for row in others}).items())


def one_map(
    data: bytes, checkpoints: Sequence[Checkpoint], *, grade: int, layers: Sequence[nn.Module], shown_px: int = SHOWN_PX
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of a photograph, networks and their `layers` -> the photograph (S, S, 3) uint8 RGB as it was prepared for
    them, but S as large as the photograph allows up to `shown_px`, and the mean heat (S, S) of the networks. One that
    sees another frame (the background cropped away or not) has no part."""
    widest = max(checkpoints, key=lambda one: (one.prepared_px, one.crop))
    shown, _, _ = fundus.decode_and_preprocess(data, size_px=max(shown_px, widest.prepared_px), crop=widest.crop)
    photo = cv2.cvtColor(shown, cv2.COLOR_BGR2RGB)
    heats = []
    for one, layer in zip(checkpoints, layers, strict=True):
        if one.crop != widest.crop:
            continue
        prepared, _, _ = fundus.decode_and_preprocess(data, size_px=one.prepared_px, crop=one.crop)
        seen = cv2.cvtColor(prepared, cv2.COLOR_BGR2RGB)
        whole_px, crop_px = one.recipe.image_size, one.recipe.crop_size
        image = to_tensor(resize_and_crop(seen, size_px=whole_px, crop_px=crop_px))
        heat = gradcam.heat(one.network, one.objective, image[None], grades=np.array([grade]), layer=layer)[0]
        before = (whole_px - len(heat)) // 2  # what was not seen stays cold
        heat = np.pad(heat, (before, whole_px - len(heat) - before))
        heats.append(cv2.resize(heat, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR))
    return photo, np.mean(heats, axis=0)


def maps(
    details: pd.DataFrame,
    chosen: Sequence[tuple[int, str]],
    *,
    checkpoints: Sequence[Checkpoint],
    layers: Sequence[nn.Module],
    read: Callable[[str], bytes],
) -> list[dict]:
    """The photographs chosen, each with the map of what its grade comes from, from `find_layers`. Several processes
    share them."""
    shown_px = SHOWN_PX if len(chosen) <= MOST_LARGE else 0
    own = []
    for row, why in chosen[distributed.rank :: distributed.world_size]:
        name, grade = details.loc[row, "file"], int(details.loc[row, "grade"])
        photo, heat = one_map(read(name), checkpoints, grade=grade, layers=layers, shown_px=shown_px)
        pictures = {"photo": photo, "heat": gradcam.overlay(photo, heat)}
        told = {"file": name, "grade": grade, "score": float(details.loc[row, "score"]), "why": why}
        own.append(told | {key: page.data_uri(page.jpeg(picture)) for key, picture in pictures.items()})
    place = {details.loc[row, "file"]: number for number, (row, _) in enumerate(chosen)}
    return sorted((one for share in distributed.all_gather(own) for one in share), key=lambda one: place[one["file"]])


def find_layers(checkpoints: Sequence[Checkpoint]) -> list[nn.Module]:
    """The layer of each network that its maps are made of. Raises UsageError for a network that has none, which a user
    should know before photographs are graded."""
    found = []
    for one in checkpoints:
        side = one.recipe.crop_size or one.recipe.image_size
        noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, side, side), np.uint8))
        found.append(gradcam.last_map(one.network, noise))
    return found
