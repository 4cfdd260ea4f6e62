"""The packages: the tables are those of pyproject.toml, and bounds mean what pip means by them."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from fullconv.core.packages import EXTRAS, NEEDS, installed_version, required_version, satisfies

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]


def table(lines: list[str]) -> dict[str, str]:
    return dict(line.split(">=") for line in lines)


def test_the_tables_are_those_of_the_project() -> None:
    assert table(PROJECT["dependencies"]) == NEEDS
    extras = PROJECT["optional-dependencies"]
    assert {name: table(lines) for name, lines in extras.items()} == EXTRAS


def test_versions_come_from_what_pip_wrote() -> None:
    import torch

    assert installed_version("torch") == torch.__version__.partition("+")[0]
    assert installed_version("no-such-package") is None
    assert required_version("no-such-package", "torch") == ""


def test_what_a_package_asks_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy", "torch (>=2.14.0)", "torch==9 ; extra == 'x'", "pillow (!=8.3.*,>=5.3.0)"]
    monkeypatch.setattr(metadata, "requires", lambda _: asked)
    assert required_version("torchvision", "torch") == ">=2.14.0"
    assert required_version("torchvision", "pillow") == "!=8.3.*,>=5.3.0"
    assert required_version("torchvision", "numpy") == ""
    assert required_version("torchvision", "scipy") == ""


numbers = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda n: ".".join(map(str, n)))
bounds = st.builds(
    lambda sign, bound, star: f"{sign}{bound}.*" if star and sign in "==!=" else f"{sign}{bound}",
    st.sampled_from(["==", "!=", ">=", "<=", "<", ">"]),
    numbers,
    st.booleans(),
)


@given(numbers, st.sampled_from(["", "+cpu"]), st.lists(bounds, max_size=3))
def test_bounds_are_those_of_the_packaging_library(
    version: str, build: str, several: list[str]
) -> None:
    text = ",".join(several)
    # A build of a version lies above it for < and > there, which no package asks of another.
    plain = version if re.search("[<>](?!=)", text) else version + build
    if build and "<=" in text:
        plain = version
    assert satisfies(plain, text) == SpecifierSet(text).contains(plain, prereleases=True)
