"""Fold batch normalization into the convolution before it: the same function in evaluation mode,
with one pass less over the feature map.

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

_IMAGE = 65  # pixels a side of the image that shows which layer reads which output


def fold_batch_norm(network: FCN) -> int:
    """Fold, in place, every batch norm that is the only reader of a convolution's output, and
    return their number. The network must be in evaluation mode."""
    pairs = _foldable(network)
    remains: dict[int, nn.Module] = {}
    for conv, norm in pairs:
        _fold(conv, norm)
        remains[id(norm)] = nn.Identity()
        if type(norm) is not nn.BatchNorm2d:  # timm's BatchNormAct2d: keep what follows the norm
            remains[id(norm)] = nn.Sequential(norm.drop, norm.act)  # type: ignore[arg-type]
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # one module may have two names
            if id(child) in remains:
                setattr(parent, name, remains[id(child)])
    return len(pairs)


class _ReadCounter(TorchFunctionMode):
    """Count how often each tensor is read by a computation."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self._alive: list[Tensor] = []  # so that no id is given twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if iter_tensors(output):  # a query of the shape reads nothing
            inputs = iter_tensors((args, kwargs))
            self._alive += inputs
            self.counts.update({id(tensor) for tensor in inputs})
        return output


def _foldable(network: FCN) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    calls: Counter[int] = Counter()
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    candidates: list[tuple[nn.Conv2d, nn.BatchNorm2d, Tensor]] = []

    def record(module: nn.Module, args: Any, output: Any) -> None:
        calls[id(module)] += 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = (module, output)
        elif id(args[0]) in outputs:
            assert isinstance(module, nn.BatchNorm2d)
            candidates.append((outputs[id(args[0])][0], module, args[0]))

    def supported(module: nn.Module) -> bool:
        if type(module) is nn.Conv2d:  # its weight is not computed from others (weight norm)
            return "weight" in module._parameters
        # torch's batch norm, or timm's with an activation, that uses the training statistics
        if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
            return False
        return type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"

    handles = [m.register_forward_hook(record) for m in network.modules() if supported(m)]
    device = next(network.parameters()).device
    reads = _ReadCounter()
    try:
        with torch.no_grad(), reads:
            network(torch.zeros(1, network.backbone.in_channels, _IMAGE, _IMAGE, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return [
        (conv, norm)
        for conv, norm, between in candidates
        if calls[id(conv)] == calls[id(norm)] == reads.counts[id(between)] == 1
    ]


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
        # New parameters, because two convolutions may share theirs.
        conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
        conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
