"""Runtime: a model's network prepared for prediction, which computes the same function faster.

Batch norm is folded into the convolutions and tensors are channels-last. The backbone runs in
bfloat16 if the device has instructions for it and the model is known to give the same labels: the
share of pixels that get another label was measured on validation images during training and is
stored in config.json.

Shapes: N batch · C channels · H, W image.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.text import first_line
from fullconv.models.model import Model
from fullconv.network.fold_batch_norm import fold_batch_norm
from fullconv.network.scores import Scores

MAX_DISAGREEMENT = 0.01  # share of pixels that may get another label in bfloat16
MAX_ASPECT = 4  # a resized image's longer side, in shorter sides
PRECISIONS = ("auto", "float32", "bfloat16")


class Runtime:
    """A model's network, ready for images; the model is not changed.

    Args:
        precision: "auto" (see the top of this file), "float32" or "bfloat16".
        compile: compile the backbone with torch.compile: seconds to a minute for the first image,
            then faster. On a CPU it needs a C++ compiler.
    """

    def __init__(
        self, model: Model, *, device: torch.device, precision: str = "auto", compile: bool = False
    ) -> None:
        self.model, self.device, self.compiled = model, device, compile
        self.precision, self.reason = choose_precision(model, device, precision)
        network = copy.deepcopy(model.network).eval().requires_grad_(False)
        self.folded = fold_batch_norm(network)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        if self.dtype != torch.float32:
            network.backbone.to(self.dtype)
            for name, score in network.score.items():
                network.score[name] = Float32Head(score)
        if compile:
            options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
            network.backbone.pyramid = torch.compile(network.backbone.pyramid, options=options)  # type: ignore[assignment]
        self.network = network

    def labels(self, images: Tensor) -> list[Tensor]:
        """Return the class ids (N, H, W) of each head; see `scores`."""
        return [head.labels() for head in self.model.split(self.scores(images))]

    def scores(self, images: Tensor) -> Scores:
        """Return the scores of all heads for (N, 3, H, W) uint8 RGB on any device, followed by the
        extra channels."""
        size = (int(images.shape[2]), int(images.shape[3]))
        images, side = images.to(self.device), self.model.short_side
        if side is not None and min(size) != side:
            from torchvision.transforms.functional import resize  # as torchvision's presets do

            # The bound keeps a very long image from becoming huge.
            images = resize(images, [side], max_size=MAX_ASPECT * side, antialias=True)
        batch = self.model.normalize(images)
        del images  # frees memory before the network runs
        batch_size = (int(batch.shape[2]), int(batch.shape[3]))
        batch = batch.to(self.dtype, memory_format=torch.channels_last)
        batch = self.network.backbone.pad(batch)  # frees the image before the network runs
        try:
            # torch.compile freezes weights under no_grad only.
            with torch.no_grad() if self.compiled else torch.inference_mode():
                scores = self.network.forward_padded(batch, batch_size)
        except Exception as error:
            if self.compiled and type(error).__module__.startswith(("torch._dynamo", "torch._ind")):
                message = msg(
                    "torch.compile could not compile this network (on a CPU it needs a C++ "
                    "compiler): {reason}.",
                    reason=first_line(error),
                )
                hint = msg("fullconv predict MODEL IMAGES   # without --compile")
                raise FullconvError(message, hint) from error
            raise
        return scores if scores.size == size else scores.resized(size)

    def describe(self) -> str:
        """Return one line: what was chosen and why."""
        parts: list[str] = [
            msg("{precision} ({reason})", precision=self.precision, reason=self.reason),
            nmsg("{count} batch norm folded", "{count} batch norms folded", self.folded),
            msg("channels-last"),
        ]
        return join([*parts, "torch.compile"] if self.compiled else parts, ", ")


class Float32Head(nn.Module):
    """Compute scores in float32: rounded to the 8 bits of bfloat16, many would tie."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, feature: Tensor) -> Any:
        return self.score(feature.float())


def label_disagreement(first: Runtime, second: Runtime, images: Iterable[Tensor]) -> float:
    """Return the share of pixels (fraction) to which two runtimes give different labels, over
    images (3, H, W) uint8 RGB each, followed by the extra channels."""
    differing = total = 0
    for image in images:
        pairs = zip(first.labels(image[None]), second.labels(image[None]), strict=True)
        for ids, other_ids in pairs:
            differing += int((other_ids != ids).sum())
            total += ids.numel()
    return differing / max(total, 1)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 instructions; without, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, test, bool)() for test in tests)


def choose_precision(
    model: Model, device: torch.device, precision: str = "auto"
) -> tuple[str, str]:
    """Return the precision of the backbone on a device, and the reason; see the top of this file.

    Raises:
        FullconvError: an unknown precision.
    """
    if precision not in PRECISIONS:
        values = {"precision": precision, "known": ", ".join(PRECISIONS)}
        message = msg("unknown precision {precision!r}; there are {known}.", **values)
        raise FullconvError(message, "--precision auto")
    if precision != "auto":
        return precision, msg("as requested")
    share = model.bfloat16_disagreement
    if share is None:
        return "float32", msg("bfloat16 was not compared when this model was trained")
    if share > MAX_DISAGREEMENT:
        return "float32", msg(
            "{share:.2%} of the pixels compared in training get another label in bfloat16, more "
            "than {limit:.0%}",
            share=share,
            limit=MAX_DISAGREEMENT,
        )
    if not computes_in_bfloat16(device):
        return "float32", msg("this {device} has no bfloat16 instructions", device=device.type)
    return "bfloat16", msg(
        "{share:.2%} of the pixels compared in training get another label in bfloat16", share=share
    )
