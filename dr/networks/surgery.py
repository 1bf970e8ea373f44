"""Changes to a finished backbone: activation, stem, pooling, ShakeDrop, gradient checkpointing, and float32 for
convolutions that are slow in bfloat16.

No change renames a tensor, and only stem=cifar changes a shape, so pretrained weights still fit.
"""

from collections.abc import Callable
from functools import partial

import torch
import torchvision
from timm.layers import SelectAdaptivePool2d
from torch import nn
from torch.utils.checkpoint import checkpoint

from dr import UsageError
from dr.recipes.schema import Recipe

RESIDUAL_ENDS = {  # torchvision's residual blocks and the last module of their residual branch
    torchvision.models.resnet.BasicBlock: "bn2",
    torchvision.models.resnet.Bottleneck: "bn3",
    torchvision.models.efficientnet.MBConv: "stochastic_depth",
    torchvision.models.efficientnet.FusedMBConv: "stochastic_depth",
}
CHECKPOINTED = (  # torchvision's blocks whose activations are recomputed
    *RESIDUAL_ENDS,
    torchvision.models.convnext.CNBlock,
    torchvision.models.mobilenetv2.InvertedResidual,
    torchvision.models.mobilenetv3.InvertedResidual,
    torchvision.models.regnet.ResBottleneckBlock,
    torchvision.models.swin_transformer.SwinTransformerBlock,
    torchvision.models.swin_transformer.SwinTransformerBlockV2,
    torchvision.models.vision_transformer.EncoderBlock,
)


def operate(model: nn.Module, recipe: Recipe) -> None:
    """Applies the recipe's activation, stem and shakedrop, in place. Raises UsageError if the backbone lacks the layers
    to change."""
    if recipe.activation == "silu":
        _silu(model, recipe.backbone)
    if recipe.stem != "default":
        _stem(model, recipe)
    if recipe.shakedrop is not None:
        _shakedrop(model, recipe)


def _silu(model: nn.Module, backbone: str) -> None:
    """Replaces every ReLU by SiLU."""
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ReLU)
    ]
    if not places:
        raise UsageError(f"recipe: activation silu replaces ReLU, which {backbone} lacks; leave it out")
    for parent, name in places:
        setattr(parent, name, nn.SiLU(inplace=True))


def _stem(model: nn.Module, recipe: Recipe) -> None:
    """no_pool: removes the max-pool of a ResNet; feature maps are twice as large. small: also sets the stride of its
    first convolution to 1, or that of the first two strided convolutions of another network; four times. cifar: small,
    with a first convolution of 3 x 3 (He et al., CVPR 2016, section 4.2), as in the ResNets that MedMNIST reports."""
    pools = hasattr(model, "maxpool")
    plain = pools and isinstance(getattr(model, "conv1", None), nn.Conv2d)
    if (recipe.stem == "no_pool" and not pools) or (recipe.stem == "cifar" and not plain):
        raise UsageError(f"recipe: stem {recipe.stem} is for ResNets, not for {recipe.backbone}; use stem=small")
    if pools:
        model.maxpool = nn.Identity()
    if recipe.stem == "no_pool":
        return
    if recipe.stem == "cifar":
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's ResNets
        return
    wanted = 1 if pools else 2
    strided = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    if len(strided) < wanted:
        raise UsageError(
            f"recipe: stem small needs {wanted} strided convolutions, but {recipe.backbone} has {len(strided)}; "
            "leave it out"
        )
    for layer in strided[:wanted]:
        layer.stride = (1, 1)


# --- pooling --------------------------------------------------------------------------------------


class GeM(nn.Module):
    """Generalised mean (Radenovic et al., IEEE TPAMI 2019;41:1655): (N, C, H, W) -> (N, C, 1, 1), or (N, C) where the
    pooling it replaces flattens. p = 1 is the mean, large p the maximum; it starts at 3 and is learned."""

    def __init__(self, *, flatten: bool):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))
        self.flatten = flatten

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # in float32, also under autocast: powers and roots leave the range of float16
        with torch.autocast(features.device.type, enabled=False):
            pooled = features.float().clamp(min=1e-6).pow(self.p).mean(dim=(2, 3), keepdim=True).pow(1 / self.p)
        return pooled.flatten(1) if self.flatten else pooled


def pool_by_gem(model: nn.Module, backbone: str) -> None:
    """Replaces the global average pooling by GeM. Load pretrained weights before: they lack its one tensor. Raises
    UsageError if the backbone has no such pooling."""
    if isinstance(getattr(model, "avgpool", None), nn.AdaptiveAvgPool2d):
        model.avgpool = GeM(flatten=False)
        return
    for name, module in model.named_modules():
        if isinstance(module, SelectAdaptivePool2d):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, GeM(flatten=not isinstance(module.flatten, nn.Identity)))
            return
    raise UsageError(f"recipe: pooling gem replaces global average pooling, which {backbone} lacks; leave it out")


# --- ShakeDrop ------------------------------------------------------------------------------------


class _Shake(torch.autograd.Function):
    """x (N, ...) -> forward_factor x; the gradient of the output is multiplied by backward_factor instead."""

    @staticmethod
    def forward(ctx, x, forward_factor, backward_factor):
        ctx.save_for_backward(backward_factor)
        return forward_factor * x

    @staticmethod
    def backward(ctx, gradient):
        (backward_factor,) = ctx.saved_tensors
        return backward_factor * gradient, None, None


def shake(x: torch.Tensor, *, keep: float, training: bool) -> torch.Tensor:
    """A residual branch x (N, C, H, W) under ShakeDrop (Yamada et al., IEEE Access 2019;7:186126).

    For each image, b is 1 with probability `keep` and else 0, alpha is uniform in [-1, 1], beta in [0, 1]. In training,
    x is multiplied by b + alpha - b alpha and its gradient by b + beta - b beta. In evaluation x is multiplied by
    `keep`, the expectation of the former.
    """
    if not training:
        return keep * x
    shape = (len(x),) + (1,) * (x.ndim - 1)
    b = (torch.rand(shape, device=x.device) < keep).to(x.dtype)
    alpha = 2 * torch.rand(shape, device=x.device, dtype=x.dtype) - 1
    beta = torch.rand(shape, device=x.device, dtype=x.dtype)
    return _Shake.apply(x, b + alpha - b * alpha, b + beta - b * beta)


def _hook(module: nn.Module, _: tuple, output: torch.Tensor, *, keep: float) -> torch.Tensor:
    return shake(output, keep=keep, training=module.training)


def _residual_ends(model: nn.Module) -> list[nn.Module]:
    """The last module of each residual branch, in the order of the network. Removes stochastic depth, which ShakeDrop
    replaces."""
    ends = []
    for block in model.modules():
        name = RESIDUAL_ENDS.get(type(block))
        if name is None and hasattr(block, "drop_path") and getattr(block, "has_skip", True):
            name = "drop_path"  # of timm's blocks
        if name is None or not getattr(block, "use_res_connect", True):
            continue
        if name in ("stochastic_depth", "drop_path"):
            setattr(block, name, nn.Identity())
        ends.append(getattr(block, name))
    return ends


def _shakedrop(model: nn.Module, recipe: Recipe) -> None:
    """Block l of L keeps its branch with probability 1 - l / L * shakedrop: linear decay by depth."""
    ends = _residual_ends(model)
    if not ends:
        raise UsageError(
            "recipe: shakedrop is for torchvision's ResNets and EfficientNets and for timm's blocks with drop_path, "
            f"not for {recipe.backbone}; leave it out"
        )
    for number, end in enumerate(ends, start=1):
        # a hook, not a module around it: the tensors keep their names
        end.register_forward_hook(partial(_hook, keep=1 - number / len(ends) * recipe.shakedrop))


# --- training in bfloat16 on a CPU ----------------------------------------------------------------


def _in_float32(forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float()).to(x.dtype)


def widen_slow_convolutions(model: nn.Module) -> None:
    """Makes depthwise convolutions with a stride, or larger than 3 x 3, compute in float32 under autocast.

    On CPUs their bfloat16 gradients take 2 to 20 times as long as float32 ones (oneDNN 3, measured with AVX512-BF16).
    Other convolutions are faster in bfloat16.
    """
    for layer in model.modules():
        depthwise = isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
        if depthwise and (max(layer.stride) > 1 or max(layer.kernel_size) > 3):
            layer.forward = partial(_in_float32, layer.forward)


# --- gradient checkpointing -----------------------------------------------------------------------


def checkpoint_gradients(model: nn.Module, backbone: str) -> None:
    """Keeps only the input of each block and recomputes its activations in the backward pass (Chen et al.,
    arXiv:1604.06174): with timm's own method, or around torchvision's blocks. Raises UsageError for other networks.

    Call it after all other changes: their hooks and forwards must be recomputed, too.
    """
    blocks = [module for module in model.modules() if isinstance(module, CHECKPOINTED)]
    try:
        if hasattr(model, "set_grad_checkpointing"):
            model.set_grad_checkpointing(True)
        elif not blocks:
            raise AssertionError("no residual blocks")
    except AssertionError as exc:  # raised by timm's networks without checkpointing
        raise UsageError(
            f"recipe: grad_checkpointing is not supported by {backbone}; leave it out, or use a smaller batch_size "
            "with accumulate"
        ) from exc
    if not hasattr(model, "set_grad_checkpointing"):
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(partial(_count_once, momentum=module.momentum))


def _count_once(norm: nn.Module, _: tuple, *, momentum: float | None) -> None:
    """Keeps the running statistics unchanged while a batch is recomputed within the backward pass. Only torch's count
    of batches, which nothing reads, still rises."""
    norm.momentum = momentum if torch._C._current_graph_task_id() == -1 else 0.0
