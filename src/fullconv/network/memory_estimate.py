"""Estimate how much memory a network needs per pixel of an image, before it runs.

Shapes: N batch · C channels · H, W image.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

from fullconv.geometry.trace_network import run_on_device, run_on_meta
from fullconv.network.backbone import Backbone


def bytes_per_pixel(backbone: Backbone) -> float:
    """Return the peak memory of all tensors that exist at the same time, in bytes per image pixel,
    for float32. Includes the image itself, as uint8 and normalized (and padded, in place)."""
    measured, side, channels = _MeasuredBackbone(backbone), 2049, backbone.in_channels
    try:
        run_on_meta(measured, torch.empty(1, channels, side, side, device="meta"))
    except (RuntimeError, NotImplementedError):
        side = 513
        run_on_device(measured, torch.empty(1, channels, side, side, device="meta"))
    return measured.memory.peak / side**2 + 5 * channels


class _MeasuredBackbone(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.memory = backbone, _MemoryMode()

    def forward(self, images: Tensor) -> list[Tensor]:
        images = self.backbone.pad(images)
        with self.memory:
            return self.backbone.features(images)


class _MemoryMode(TorchDispatchMode):
    """Count the bytes of the tensors that exist, each storage once; `peak` is the maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._current = 0
        self._counted = WeakIdKeyDictionary()
        self._owners: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_iter(output):
            if isinstance(tensor, Tensor) and tensor not in self._counted:
                self._counted[tensor] = True
                storage = tensor.untyped_storage()
                address, size = storage._cdata, storage.nbytes()
                self._current += 0 if self._owners[address] else size
                self._owners[address] += 1
                weakref.finalize(tensor, self._release, address, size)
        self.peak = max(self.peak, self._current)
        return output

    def _release(self, address: int, size: int) -> None:
        self._owners[address] -= 1
        self._current -= 0 if self._owners[address] else size
