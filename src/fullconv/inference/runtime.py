"""How a model runs when it is used: prepared once, the same function, faster.

Batch norm is folded into the convolutions, everything lies channels last, and the backbone runs in
bfloat16 where the device computes in it and the model is known to give the same labels: the share
of pixels that get another one was measured on validation images when it was trained, and stands
in its config.json.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.models.model import Model
from fullconv.network.fold_batch_norm import fold_batch_norm
from fullconv.network.scores import Scores

TOLERANCE = 0.01  # of the pixels may get another label in bfloat16 than in float32
LONGEST = 4  # sides: an image that is resized has no more on its longer side
PRECISIONS = ("auto", "float32", "bfloat16")


class Runtime:
    """A model's network, ready for images.

    Args:
        model: stays as it is.
        device: of torch.
        precision: "auto" (see above), "float32" or "bfloat16".
        compile: let torch.compile make the backbone into code of its own: seconds to a minute for
            the first image, then faster. On a CPU it needs a C++ compiler.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: torch.device,
        precision: str = "auto",
        compile: bool = False,
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
            freeze: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
            network.backbone.pyramid = torch.compile(network.backbone.pyramid, options=freeze)  # type: ignore[assignment]
        self.network = network

    def labels(self, images: Tensor) -> list[Tensor]:
        """As `scores`; the ids (N, H, W) of each head."""
        return [scores.labels() for scores in self.model.split(self.scores(images))]

    def scores(self, images: Tensor) -> Scores:
        """(N, 3, H, W) uint8 RGB on any device, channels of further inputs behind -> `Scores`, of
        all heads."""
        size = (int(images.shape[2]), int(images.shape[3]))
        inputs = self.model.normalize(self._resized(images.to(self.device)))
        shown = (int(inputs.shape[2]), int(inputs.shape[3]))
        inputs = inputs.to(self.dtype, memory_format=torch.channels_last)
        inputs = self.network.backbone.pad(inputs)  # the only ones that are kept
        # The compiler freezes weights under no_grad only.
        try:
            with torch.no_grad() if self.compiled else torch.inference_mode():
                scores = self.network.forward_padded(inputs, shown)
        except Exception as error:
            if self.compiled and type(error).__module__.startswith(("torch._dynamo", "torch._ind")):
                raise FullconvError(
                    "torch.compile could not compile this network (on a CPU it needs a C++ "
                    f"compiler): {(str(error) or type(error).__name__).splitlines()[0]}",
                    "fullconv predict MODEL IMAGES   # without --compile",
                ) from error
            raise
        return scores if scores.size == size else scores.resized(size)

    def _resized(self, images: Tensor) -> Tensor:
        side = self.model.short_side
        if side is None or min(images.shape[2:]) == side:
            return images
        from torchvision.transforms.functional import resize  # as torchvision's presets do

        # A very long image would become huge.
        resized: Tensor = resize(images, [side], max_size=LONGEST * side, antialias=True)
        return resized

    def describe(self) -> str:
        """One line: what was chosen and why."""
        parts = [f"{self.precision} ({self.reason})", f"{self.folded} batch norms folded"]
        parts.append("channels last")
        if self.compiled:
            parts.append("torch.compile")
        return ", ".join(parts)


class Float32Head(nn.Module):
    """Scores are computed in float32: rounded to the 8 bits of bfloat16 they would tie."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, feature: Tensor) -> Any:
        return self.score(feature.float())


def label_disagreement(one: Runtime, other: Runtime, images: Iterable[Tensor]) -> float:
    """The share of pixels (fraction) that get another label from one engine than from the other.

    Args:
        images: (3, H, W) uint8 RGB each, channels of further inputs behind.
    """
    unlike = total = 0
    for image in images:
        pairs = zip(one.labels(image[None]), other.labels(image[None]), strict=True)
        for labels, others in pairs:
            unlike += int((others != labels).sum())
            total += labels.numel()
    return unlike / max(total, 1)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it: without them it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, test, bool)() for test in tests)


def choose_precision(
    model: Model, device: torch.device, precision: str = "auto"
) -> tuple[str, str]:
    """Of the backbone on a device, and why; see the top of this file."""
    if precision not in PRECISIONS:
        raise FullconvError(
            f"precision {precision!r} is not known; there are {', '.join(PRECISIONS)}.",
            "--precision auto",
        )
    if precision != "auto":
        return precision, "as asked for"
    share = model.bfloat16_disagreement
    if share is None:
        return "float32", "labels in bfloat16 were not compared when this model was trained"
    said = f"{share:.2%} of the pixels compared in training get another label in bfloat16"
    if share > TOLERANCE:
        return "float32", f"{said}, more than {TOLERANCE:.0%}"
    if not computes_in_bfloat16(device):
        return "float32", f"this {device.type} has no bfloat16 instructions"
    return "bfloat16", said
