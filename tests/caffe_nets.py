"""The paper's networks as in the released Caffe definitions (net.py, train.prototxt,
deploy.prototxt), written layer by layer with plain torch functions: the reference for `fullconv`.
Images are BGR, 0-255, minus their mean. The type of the input is kept: float64 for exact results.

`width` scales the channels of every layer, so that a network of 134 million parameters can be
tested.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN_BGR = (104.00699, 116.66877, 122.67892)
Blobs = dict[str, list[Tensor]]  # layer -> weight, bias

# block -> layers, channels in, out
VGG16 = {1: (2, 3, 64), 2: (2, 64, 128), 3: (3, 128, 256), 4: (3, 256, 512), 5: (3, 512, 512)}
# name -> channels in (of one group), out, kernel
CAFFENET = {
    "conv1": (3, 96, 11),
    "conv2": (48, 256, 5),
    "conv3": (256, 384, 3),
    "conv4": (192, 384, 3),
    "conv5": (192, 256, 3),
    "fc6": (256, 4096, 6),
    "fc7": (4096, 4096, 1),
}
INCEPTION = {  # 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def drawn_blobs(network: str, classes: int, *, width: float = 1 / 16, seed: int = 0) -> Blobs:
    """Return random weights for all layers of "vgg16" (with all skips), "alexnet", "googlenet"."""
    generator = torch.Generator().manual_seed(seed)

    def scaled(channels: int) -> int:
        return channels if channels == 3 else max(1, round(channels * width))

    def blobs(inputs: int, outputs: int, kernel: int) -> list[Tensor]:
        spread = (2 / (inputs * kernel**2)) ** 0.5
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * spread
        return [weight, torch.randn(outputs, generator=generator) * 0.1]

    shapes: dict[str, tuple[int, int, int]] = {}
    if network == "vgg16":
        for block, (count, inputs, outputs) in VGG16.items():
            for layer in range(1, count + 1):
                shapes[f"conv{block}_{layer}"] = (inputs if layer == 1 else outputs, outputs, 3)
        shapes |= {"fc6": (512, 4096, 7), "fc7": (4096, 4096, 1)}
        scores = {"score_fr": 4096, "score_pool4": 512, "score_pool3": 256}
    elif network == "alexnet":
        shapes, scores = dict(CAFFENET), {"score_fr": 4096}
    else:
        shapes = {"conv1/7x7_s2": (3, 64, 7), "conv2/3x3_reduce": (64, 64, 1)}
        shapes["conv2/3x3"], channels = (64, 192, 3), 192
        for name, (one, reduce3, three, reduce5, five, pooled) in INCEPTION.items():
            at = f"inception_{name}/"
            shapes |= {at + "1x1": (channels, one, 1), at + "pool_proj": (channels, pooled, 1)}
            shapes |= {at + "3x3_reduce": (channels, reduce3, 1), at + "3x3": (reduce3, three, 3)}
            shapes |= {at + "5x5_reduce": (channels, reduce5, 1), at + "5x5": (reduce5, five, 5)}
            channels = one + three + five + pooled
        scores = {"score_fr": 1024}
    layers = {name: blobs(scaled(i), scaled(o), k) for name, (i, o, k) in shapes.items()}
    return layers | {name: blobs(scaled(i), classes, 1) for name, i in scores.items()}


def upsampled(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Apply a Deconvolution layer with surgery.py's filter on the diagonal, without padding."""
    factor = (kernel + 1) // 2
    center = factor - 1 if kernel % 2 == 1 else factor - 0.5
    line = 1 - (torch.arange(kernel, dtype=x.dtype) - center).abs() / factor
    weight = (line[:, None] * line).expand(x.shape[1], 1, kernel, kernel)
    return F.conv_transpose2d(x, weight, stride=stride, groups=x.shape[1])


def cropped(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """Apply a Crop layer along both axes. It fails if the input is too small, like Caffe."""
    height, width = like.shape[2:]
    assert x.shape[2] >= offset + height, "too small"
    assert x.shape[3] >= offset + width, "too small"
    return x[:, :, offset : offset + height, offset : offset + width]


def _conv(x: Tensor, blobs: Blobs, name: str, **options: int) -> Tensor:
    weight, bias = (blob.to(x) for blob in blobs[name])
    return F.conv2d(x, weight, bias, **options)  # type: ignore[arg-type]


def vgg16(data: Tensor, blobs: Blobs, net: str) -> Tensor:
    """voc-fcn32s, voc-fcn16s, voc-fcn8s, voc-fcn8s-atonce: class scores of every pixel."""
    x, pools = data, {}
    for block, (count, _, _) in VGG16.items():
        for layer in range(1, count + 1):
            name = f"conv{block}_{layer}"
            x = F.relu(_conv(x, blobs, name, padding=100 if name == "conv1_1" else 1))
        x = pools[block] = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = F.relu(_conv(x, blobs, "fc6"))
    x = F.relu(_conv(x, blobs, "fc7"))
    x = _conv(x, blobs, "score_fr")
    if net == "32s":
        return cropped(upsampled(x, 64, 32), 19, data)
    scales = (0.01, 0.0001) if net == "8s-atonce" else (1, 1)
    x = upsampled(x, 4, 2)
    x = x + cropped(_conv(pools[4] * scales[0], blobs, "score_pool4"), 5, x)
    if net == "16s":
        return cropped(upsampled(x, 32, 16), 27, data)
    x = upsampled(x, 4, 2)
    x = x + cropped(_conv(pools[3] * scales[1], blobs, "score_pool3"), 9, x)
    return cropped(upsampled(x, 16, 8), 31, data)


def norm(x: Tensor) -> Tensor:
    """Apply an LRN layer across channels: local_size 5, alpha 1e-4, beta 0.75, k 1."""
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(5))
    return x / (1 + 1e-4 / 5 * total) ** 0.75


def _pool3(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


def alexnet(data: Tensor, blobs: Blobs) -> Tensor:
    """voc-fcn-alexnet."""
    x = F.relu(_conv(data, blobs, "conv1", stride=4, padding=100))
    x = norm(_pool3(x))
    x = norm(_pool3(F.relu(_conv(x, blobs, "conv2", padding=2, groups=2))))
    x = F.relu(_conv(x, blobs, "conv3", padding=1))
    x = F.relu(_conv(x, blobs, "conv4", padding=1, groups=2))
    x = _pool3(F.relu(_conv(x, blobs, "conv5", padding=1, groups=2)))
    x = F.relu(_conv(x, blobs, "fc6"))
    x = F.relu(_conv(x, blobs, "fc7"))
    return cropped(upsampled(_conv(x, blobs, "score_fr"), 63, 32), 18, data)


def googlenet(data: Tensor, blobs: Blobs) -> Tensor:
    """Not released: bvlc_googlenet without its average pooling, the first convolution padded by
    100. A cell's centre: -97 after conv1, then + 2, 4, 8, 16 of the four poolings, so -67; the crop
    of a filter of 63, whose centre is 31, is 31 + 67."""

    def conv(x: Tensor, name: str, padding: int = 0) -> Tensor:
        return F.relu(_conv(x, blobs, name, padding=padding))

    x = F.relu(_conv(data, blobs, "conv1/7x7_s2", stride=2, padding=100))
    x = conv(norm(_pool3(x)), "conv2/3x3_reduce")
    x = _pool3(norm(conv(x, "conv2/3x3", 1)))
    for name in INCEPTION:
        at = f"inception_{name}/"
        if name in ("4a", "5a"):
            x = _pool3(x)
        x = torch.cat(
            [
                conv(x, at + "1x1"),
                conv(conv(x, at + "3x3_reduce"), at + "3x3", 1),
                conv(conv(x, at + "5x5_reduce"), at + "5x5", 2),
                conv(F.max_pool2d(x, 3, 1, 1), at + "pool_proj"),
            ],
            dim=1,
        )
    return cropped(upsampled(_conv(x, blobs, "score_fr"), 63, 32), 98, data)


def scores_of(data: Tensor, blobs: Blobs, net: str) -> Tensor:
    """Return the scores of "32s", "16s", "8s", "8s-atonce", "alexnet" or "googlenet"."""
    if net in ("alexnet", "googlenet"):
        return {"alexnet": alexnet, "googlenet": googlenet}[net](data, blobs)
    return vgg16(data, blobs, net)


# net -> the score layers of its file, and its transposed convolutions with kernels
FILES = {
    "32s": (("score_fr",), {"upscore": 64}),
    "16s": (("score_fr", "score_pool4"), {"upscore2": 4, "upscore16": 32}),
    "8s": (
        ("score_fr", "score_pool4", "score_pool3"),
        {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16},
    ),
    "alexnet": (("score_fr",), {"upscore": 63}),
}


def bilinear(classes: int, kernel: int) -> Tensor:
    """Return the weight of a Deconvolution layer after surgery.interp."""
    eye = torch.eye(classes).view(classes, classes, 1, 1)
    return upsampled(eye, kernel, kernel)[:, :, :kernel, :kernel]


def blobs_of_file(net: str, classes: int = 21, **changed: Any) -> Blobs:
    """Return all layers of a released network's file."""
    kind = "8s" if net == "8s-atonce" else net
    scores, deconvolutions = FILES[kind]
    blobs = drawn_blobs("alexnet" if net == "alexnet" else "vgg16", classes, width=1 / 16)
    blobs = {n: b for n, b in blobs.items() if not n.startswith("score") or n in scores}
    blobs |= {name: [bilinear(classes, k)] for name, k in deconvolutions.items()}
    if net == "8s-atonce":
        blobs["scale_pool4"] = [torch.full((32,), 0.01)]
        blobs["scale_pool3"] = [torch.full((16,), 0.0001)]
    return {name: b for name, b in {**blobs, **changed}.items() if b is not None}
