"""How much memory a network takes for each pixel of an image, counted before it is run.

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
    """What the tensors that live at the same time take, at most, for every pixel of an image:
    counted in float32, without arithmetic where the network lets itself be run so. The image is
    in it as it is handed over, and normalised (and padded, in its place)."""
    counted, side, channels = _Counted(backbone), 2049, backbone.in_channels
    try:
        run_on_meta(counted, torch.empty(1, channels, side, side, device="meta"))
    except (RuntimeError, NotImplementedError):
        side = 513
        run_on_device(counted, torch.empty(1, channels, side, side, device="meta"))
    return counted.live.most / side**2 + 5 * channels


class _Counted(nn.Module):
    """A backbone whose tensors are counted while it runs on images that are padded."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.live = backbone, _Live()

    def forward(self, images: Tensor) -> list[Tensor]:
        images = self.backbone.pad(images)
        with self.live:
            return self.backbone.features(images)


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that live, each memory once.

    Attributes:
        most: the highest count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._seen = WeakIdKeyDictionary()
        self._owners: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor) and tensor not in self._seen:
                self._seen[tensor] = True
                storage = tensor.untyped_storage()
                place, size = storage._cdata, storage.nbytes()
                self._now += 0 if self._owners[place] else size
                self._owners[place] += 1
                weakref.finalize(tensor, self._freed, place, size)
        self.most = max(self.most, self._now)
        return out

    def _freed(self, place: int, size: int) -> None:
        self._owners[place] -= 1
        self._now -= 0 if self._owners[place] else size
