"""Batch normalisation folded into the convolution before it: the same function in evaluation, with
one pass over the feature map less.

    norm(conv(x)) = gamma (w x + b - mean) / sqrt(var + eps) + beta
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fullconv.geometry.op_rules import iter_tensors
from fullconv.network.fcn import FCN

_IMAGE = 65  # pixels a side of the image that shows who reads whose output


def fold_batch_norm(network: FCN) -> int:
    """Folds every batch norm that alone reads the output of a convolution; in place.

    Args:
        network: in evaluation mode.

    Returns:
        How many were folded.
    """
    pairs = _foldable(network)
    for conv, norm in pairs:
        _fold(conv, norm)
    replaced = {id(norm): _what_is_left(norm) for _, norm in pairs}
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # one module may have two names
            if id(child) in replaced:
                setattr(parent, name, replaced[id(child)])
    return len(pairs)


class _Reads(TorchFunctionMode):
    """How often each tensor goes into a computation."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self._held: list[Tensor] = []  # so that no id is given twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if iter_tensors(output):  # asking for a shape reads nothing
            read = iter_tensors((args, kwargs))
            self._held += read
            self.counts.update({id(tensor) for tensor in read})
        return output


def _foldable(network: FCN) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    calls: Counter[int] = Counter()
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d, Tensor]] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        calls[id(module)] += 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = (module, output)
        elif id(args[0]) in outputs:
            assert isinstance(module, nn.BatchNorm2d)
            found.append((outputs[id(args[0])][0], module, args[0]))

    kinds = [m for m in network.modules() if _has_weight(m) or _is_plain(m)]
    handles = [module.register_forward_hook(note) for module in kinds]
    device = next(network.parameters()).device
    reads = _Reads()
    try:
        with torch.no_grad(), reads:
            network(torch.zeros(1, network.backbone.in_channels, _IMAGE, _IMAGE, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return [
        (conv, norm)
        for conv, norm, between in found
        if calls[id(conv)] == calls[id(norm)] == reads.counts[id(between)] == 1
    ]


def _has_weight(module: nn.Module) -> bool:
    """A convolution whose weight is its own, not computed from others (weight norm)."""
    return type(module) is nn.Conv2d and "weight" in module._parameters


def _is_plain(module: nn.Module) -> bool:
    """Batch norm of torch, or timm's with an activation behind it, that uses the statistics of
    training."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
        return False
    return type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"


def _what_is_left(norm: nn.BatchNorm2d) -> nn.Module:
    """Of timm's: what comes after the normalisation."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    return nn.Sequential(norm.drop, norm.act)  # type: ignore[arg-type]


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        scale = 1 / (norm.running_var.double() + norm.eps).sqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        bias = (0 if conv.bias is None else conv.bias.double()) - norm.running_mean.double()
        bias = bias * scale + (0 if norm.bias is None else norm.bias.double())
        weight = conv.weight.double() * scale[:, None, None, None]
        # New ones: two convolutions may share theirs.
        conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
        conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
