"""Which packages are installed, of those that Fullconv needs and of those that extras bring.

Read from what pip wrote down beside them: nothing is imported.
"""

from __future__ import annotations

import re
from importlib import metadata

__version__ = "0.1.0"  # of Fullconv, as in pyproject.toml

# As in pyproject.toml: the oldest version that will do. An installation's own record of this is as
# old as the installation.
NEEDS = {
    "torch": "2.8",
    "torchvision": "0.23",
    "timm": "1.0.20",
    "lightning": "2.5",
    "torchmetrics": "1.6",
    "safetensors": "0.5",
    "huggingface_hub": "1.0",
    "numpy": "2.0",
    "scipy": "1.14",
    "pillow": "11.0",
    "cyclopts": "4.0",
    "rich": "13.9",
    "matplotlib": "3.9",
    "pyyaml": "6.0",
    "jinja2": "3.1",
}
EXTRAS = {
    "geo": {"rasterio": "1.4"},
    "onnx": {"onnx": "1.18", "onnxscript": "0.5", "onnxruntime": "1.22"},
    "openvino": {"onnx": "1.18", "onnxscript": "0.5", "openvino": "2025.2"},
    "serve": {"fastapi": "0.115", "uvicorn": "0.34", "python-multipart": "0.0.20"},
    "tensorboard": {"tensorboard": "2.19"},
    "video": {"av": "18.0"},
    "wandb": {"wandb": "0.21"},
}
_BOUND = re.compile(r"(==|>=|<=|!=|<|>)\s*([\w.*+]+)")


def installed_version(package: str) -> str | None:
    """Of a package as pip calls it; None: it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def required_version(package: str, other: str) -> str:
    """What versions of another package it asks for, such as ">=2.14,<3"; "" where it says nothing.

    Extras of its own do not count.
    """
    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return ""
    for line in lines:
        wish, _, condition = line.partition(";")
        found = re.match(r"([\w.-]+)\s*\(?([^)]*)\)?$", wish.strip())
        if found and found[1].lower() == other and "extra" not in condition:
            return found[2].replace(" ", "")
    return ""


def satisfies(version: str, bounds: str) -> bool:
    """Whether a version lies within bounds such as ">=2.14.0,!=2.15.1" or "==2.8.*".

    >>> meets("2.15.0+cpu", "==2.15.0"), meets("2.9", "<2.9"), meets("2.10.1", ">=2.9,==2.10.*")
    (True, False, True)
    """
    return all(_within(version, sign, bound) for sign, bound in _BOUND.findall(bounds))


def _within(version: str, sign: str, bound: str) -> bool:
    if bound.endswith(".*"):
        some = _numbers(bound.removesuffix(".*"))
        return (_numbers(version, len(some))[: len(some)] == some) == (sign == "==")
    length = max(len(_numbers(version)), len(_numbers(bound)))
    here, there = _numbers(version, length), _numbers(bound, length)
    return {
        "==": here == there,
        "!=": here != there,
        ">=": here >= there,
        "<=": here <= there,
        "<": here < there,
        ">": here > there,
    }[sign]


def _numbers(version: str, length: int = 0) -> tuple[int, ...]:
    """(2, 15, 0) of "2.15.0+cpu", with zeros up to a length."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = tuple(int(word) for word in found[0].split(".")) if found else ()
    return numbers + (0,) * (length - len(numbers))
