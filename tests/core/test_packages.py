"""Installed packages and their requirements, as pip recorded them."""

from __future__ import annotations

from importlib import metadata

import pytest
import torch

from fullconv.core.packages import extras, installed_version, requirements, satisfies


def test_versions_of_installed_packages() -> None:
    assert installed_version("torch") == torch.__version__.partition("+")[0]
    assert installed_version("no-such-package") is None
    assert (requirements("no-such-package"), extras("no-such-package")) == ({}, [])


def test_requirements_of_a_package_and_its_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "numpy",
        "torch (>=2.14.0)",
        "torch==9 ; extra == 'x'",
        "pillow (!=8.3.*,>=5.3.0)",
        "colorama ; sys_platform == 'no-such-system'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    plain = {"numpy": "", "torch": ">=2.14.0", "pillow": "!=8.3.*,>=5.3.0"}
    assert requirements("torchvision") == plain
    assert requirements("torchvision", "x") == {"torch": "==9"}
    assert requirements("torchvision", "y") == {}


def test_requirements_of_fullconv() -> None:
    assert requirements("fullconv")["torch"].startswith(">=")
    assert "onnx" in extras("fullconv")
    assert satisfies("3.0", requirements("fullconv", "onnx")["onnx"])
