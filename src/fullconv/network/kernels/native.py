"""Loss, labels and confidence in compiled C++: float32 on the CPU, with threads.

The library is built when the package is installed (compiled/*.cpp, see setup.py) and called through
ctypes: it takes plain pointers and links nothing of torch. When it is loaded, it chooses AVX-512,
AVX2 or the baseline instructions. Without a compiler there is no library, and `reference` is used.

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import torch
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, translate
from fullconv.core.text import truncated_list
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import reference
from fullconv.network.kernels.library import (
    NOT_FINITE,
    STRAY_ID,
    call_library,
    int64_array,
    load_library,
    scores_arguments,
)
from fullconv.network.kernels.reference import LossOptions

INSTRUCTIONS = ("baseline", "AVX2", "AVX-512")
_ID_TYPES = {torch.uint8: 0, torch.int32: 1, torch.int64: 2}


def available() -> bool:
    """Return whether the compiled library is installed. If not, print once what that costs."""
    library, reason = load_library()
    if library is None:
        _print_missing_note(reason)
    return library is not None


def instructions(choice: str | None = None) -> str:
    """Return the instruction set in use, one of `INSTRUCTIONS`; `choice` sets it, for tests and
    timing.

    Raises:
        FullconvError: this processor does not have it, or there is no compiled library.
    """
    level = -1 if choice is None else INSTRUCTIONS.index(choice)
    current = _require_library().fullconv_instructions(level)
    if current < 0:
        raise FullconvError(
            msg("this processor does not support {instructions}.", instructions=choice),
            msg("choose from {choices}", choices=truncated_list(INSTRUCTIONS)),
        )
    return INSTRUCTIONS[current]


def labels(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Return what `reference.labels` returns."""
    values = _require_float32_on_cpu(values)
    out = torch.empty(values.shape[0], *size, dtype=reference.id_type(values.shape[1]))
    _run("fullconv_labels", values, grid, out, ctypes.c_int(out.dtype == torch.uint16))
    return out


def confidence(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Return what `reference.confidence` returns."""
    values = _require_float32_on_cpu(values)
    out = torch.empty(values.shape[0], *size)
    _run("fullconv_confidence", values, grid, out)
    return out


def _run(name: str, values: Tensor, grid: Grid, out: Tensor, *more: Any) -> None:
    if out.numel():
        scores = _scores(values, grid, (out.shape[1], out.shape[2]))
        call_library(_require_library(), name, *scores, _threads(), _pointer(out), *more)


def loss_and_gradient(
    values: Tensor, grid: Grid, target: Tensor, options: LossOptions, gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what `reference.loss_and_gradient` returns, in one pass over the gaps of cells."""
    values = _require_float32_on_cpu(values)
    if target.dtype not in _ID_TYPES:
        target = target.to(torch.int32)
    target = target.contiguous()
    ignore_index, class_weights, label_smoothing = options
    if class_weights is not None:
        class_weights = class_weights.detach().to("cpu", torch.float32).contiguous()
    slope = torch.zeros_like(values) if gradient else None
    sums = torch.zeros(2, dtype=torch.float64)
    if target.numel() == 0:
        return sums[0], sums[1], slope
    size = (target.shape[1], target.shape[2])
    status = call_library(
        _require_library(),
        "fullconv_loss",
        *_scores(values, grid, size),
        _pointer(target),
        ctypes.c_int(_ID_TYPES[target.dtype]),
        ctypes.c_int64(ignore_index),
        _pointer(class_weights),
        ctypes.c_float(label_smoothing),
        _pointer(slope),
        int64_array(slope.stride() if slope is not None else ()),
        _threads(),
        _pointer(sums),
        finite_only=False,
    )
    if status == STRAY_ID:
        reference.require_ids(target.to(torch.int64), values.shape[1], ignore_index)
    if status == NOT_FINITE:
        sums[0] = torch.nan
        slope = None if slope is None else slope.fill_(torch.nan)
    return sums[0], sums[1], slope


def _require_float32_on_cpu(values: Tensor) -> Tensor:
    if values.device.type != "cpu" or values.dtype != torch.float32:
        message = msg(
            "scores of type {dtype} on {device}; the compiled kernels need float32 on the CPU.",
            dtype=values.dtype,
            device=values.device,
        )
        raise FullconvError(message, "export FULLCONV_KERNELS=reference")
    return values.detach()


def _scores(values: Tensor, grid: Grid, size: tuple[int, int]) -> tuple[Any, ...]:
    return scores_arguments(values.data_ptr(), values.shape, values.stride(), grid, size)


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _threads() -> ctypes.c_int:
    """Return the number that torch uses: the library does not change torch's own setting."""
    return ctypes.c_int(torch.get_num_threads())


def _require_library() -> Any:
    library, _ = load_library()
    if library is None:
        raise FullconvError(
            msg("the compiled kernels were requested but are not installed."),
            msg(
                "export FULLCONV_KERNELS=reference   # or reinstall with a C++ compiler: "
                "pip install --force-reinstall --no-deps --editable CLONE"
            ),
        )
    return library


@functools.cache
def _print_missing_note(reason: str) -> None:
    note = msg(
        "fullconv: no compiled kernels ({reason}), so torch computes losses and label maps. The "
        "results are the same, but it is several times slower. To change that, install a compiler "
        "and run: pip install --force-reinstall --no-deps --editable CLONE",
        reason=reason,
    )
    print(translate(note), file=sys.stderr)
