"""Which common backbone the weights in a file belong to, by the names and shapes of their tensors."""

import contextlib
import re
import time
from collections.abc import Iterable, Mapping

import timm
import torch
import torchvision

from dr.networks.state_dicts import Shapes, candidates, tensor_names

LONGEST_S = 5.0  # of the search
FEW = 8  # tensors of a last layer, and those that follow from the image size
MOST = 2  # names; some backbones of timm differ in nothing but their padding
HEADS = ("fc.", "classifier", "head", "heads.", "AuxLogits", "aux")  # last layers, which are replaced
_COUNTER = "num_batches_tracked"
_SIZED = ("pos_embed", "relative_position", "rope", "attn_mask")  # tensors that follow from the image size


def _sizes(pattern: str, sizes: str) -> list[str]:
    return [pattern.format(size) for size in sizes.split()]


# A pattern of a tensor's name, and the backbones of torchvision and timm that have such a tensor
_FAMILIES: tuple[tuple[str, list[str]], ...] = (
    (
        r"layer1\.0\.conv1\.weight",
        [
            *_sizes("resnet{}", "18 34 50 101 152"),
            *("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2", "resnet26d"),
            *_sizes("resnet{}d", "50 101"),
            *("seresnet50", "seresnext50_32x4d", "resnest50d", "res2net50_26w_4s", "legacy_seresnext50_32x4d"),
        ],
    ),
    (r"features\.denseblock1\.", _sizes("densenet{}", "121 161 169 201")),
    (r"features\.1\.0\.layer_scale", _sizes("convnext_{}", "tiny small base large")),
    (r"features\.1\.0\.attn\.", [*_sizes("swin_{}", "t s b"), *_sizes("swin_v2_{}", "t s b")]),
    (r"features\.1\.(0\.)?(conv|block)\.", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"]),
    (r"features\.1\.0\.block\.", _sizes("efficientnet_{}", "b0 b1 b2 b3 b4 b5 b6 b7 v2_s v2_m v2_l")),
    (
        r"(?<!\d)blocks\.0\.0\.se\.",
        [name for size in range(8) for name in (f"timm:efficientnet_b{size}", f"tf_efficientnet_b{size}")],
    ),
    (
        r"(?<!\d)blocks\.0\.0\.conv(_exp)?\.weight",
        [
            *_sizes("tf_efficientnetv2_{}", "s m l b0 b1 b2 b3"),
            *("efficientnetv2_rw_t", "efficientnetv2_rw_s", "efficientnetv2_rw_m"),
        ],
    ),
    (
        r"conv_stem\.weight",
        [
            *_sizes("tf_efficientnet_lite{}", "0 1 2 3 4"),
            *("mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100"),
        ],
    ),
    (
        r"stages\.0\.blocks\.0\.conv_dw\.weight",
        [
            *_sizes("timm:convnext_{}", "nano tiny small base large"),
            *_sizes("timm:convnextv2_{}", "nano tiny base large"),
        ],
    ),
    (
        r"(?<!layers\.0\.)blocks\.0\.attn\.qkv\.weight",
        [
            *_sizes("vit_{}_patch16_224", "large base small tiny"),
            *_sizes("vit_{}_patch14_reg4_dinov2", "large base small"),
            *_sizes("vit_{}_patch14_dinov2", "large base small"),
            *("vit_base_patch32_224", "vit_large_patch14_clip_224", "vit_base_patch16_clip_224", "vit_base_patch8_224"),
            *("beit_base_patch16_224", "beit_large_patch16_224", "vit_huge_patch14_224"),
        ],
    ),
    (
        r"layers\.0\.blocks\.0\.attn\.",
        [
            *_sizes("swin_{}_patch4_window7_224", "tiny small base large"),
            *_sizes("swinv2_{}_window8_256", "tiny small base"),
        ],
    ),
    (r"encoder\.layers\.encoder_layer_0\.", _sizes("vit_{}", "b_16 b_32 l_16 l_32")),
    (r"Conv2d_1a_3x3\.conv\.weight", ["inception_v3"]),
    (r"features\.0\.conv\.weight", ["inception_v4"]),
    (r"mixed_5b\.", ["inception_resnet_v2"]),
    (r"block12\.", ["legacy_xception"]),
    (r"features\.0\.weight", [*_sizes("vgg{}", "11 13 16 19"), *_sizes("vgg{}_bn", "11 13 16 19"), "alexnet"]),
)


def _name(listed: str) -> str:
    """The name by which a recipe reaches a listed backbone: of a name that torchvision has, too, timm's has a tag."""
    name = listed.removeprefix("timm:")
    if name == listed or name not in torchvision.models.list_models(torchvision.models):
        return name
    return f"{name}.{timm.get_pretrained_cfg(name).tag}"


def _shapes(name: str) -> Shapes:
    """The shapes of a backbone's tensors by name, without those of its last layer and those that depend on the image
    size; no memory is used."""
    with torch.device("meta"):
        if name in torchvision.models.list_models(torchvision.models):
            options = {"init_weights": False} if name == "inception_v3" else {}  # it warns otherwise
            model = torchvision.models.get_model(name, weights=None, **options)
        else:
            model = timm.create_model(name)
    return {
        key: value.shape
        for key, value in model.state_dict().items()
        if not key.startswith(HEADS) and not key.endswith(_COUNTER) and not any(word in key for word in _SIZED)
    }


def _named_in(content: Mapping) -> list[str]:
    """Backbones that a file names, as the files of timm and of MAE do."""
    args = content.get("args", content.get("hyper_parameters", {}))
    args = args if isinstance(args, Mapping) else vars(args) if hasattr(args, "__dict__") else {}
    values = [content.get("arch"), *map(args.get, ("arch", "model", "model_name", "backbone"))]
    return [value for value in values if isinstance(value, str) and len(value) < 100 and timm.is_model(value)]


def _unused(content: Mapping, name: str) -> int | None:
    """How many tensors of a file a backbone has no place for; None where its own do not all fit."""
    wanted = _shapes(name)
    found = candidates(content, wanted)
    if not found or len(found[0].fitting(wanted)) < len(wanted):
        return None
    return sum(not key.endswith(_COUNTER) for key in found[0].tensors) - len(wanted)


def _fitting(content: Mapping, names: Iterable[str], *, end: float) -> dict[str, int]:
    """-> `_unused` of those of `names` that fit. Ends at `end`, or after the last of neighbours that explain all."""
    unused: dict[str, int] = {}
    for name in names:
        count = None
        if time.monotonic() > end:
            break
        with contextlib.suppress(RuntimeError, ValueError):  # this version of the library lacks the model
            count = _unused(content, name)
        if count is not None:
            unused[name] = count
        elif unused and min(unused.values()) <= FEW:
            break
    return unused


def fitting_backbones(content: Mapping) -> list[str]:
    """The content of a file of weights -> at most MOST backbones that all their tensors fit, for `backbone` of a
    recipe: those that use most of the file. Ends after LONGEST_S."""
    end, names = time.monotonic() + LONGEST_S, tensor_names(content)
    families = [backbones for pattern, backbones in _FAMILIES if any(re.search(pattern, name) for name in names)]
    for family in [_named_in(content), *families]:
        unused = _fitting(content, dict.fromkeys(map(_name, family)), end=end)
        if unused:
            return [name for name, count in unused.items() if count == min(unused.values())][:MOST]
    return []
