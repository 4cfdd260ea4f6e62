"""Fixtures that several test files share."""

from __future__ import annotations

import copy
import gettext
import io
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import hub as stand_in

    from fullconv.models.model import Model
    from fullconv.network.fcn import FCN

sys.path.append(str(Path(__file__).parent))  # tests import `probe` from here

# The same examples in every run, so that a change is judged by what it changes; `make explore`
# draws new ones. No deadline: how long an example takes depends on what else the machine does.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache, and reports of models without a run, are in folders of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("fullconv.cli.evaluate.REPORTS", tmp_path_factory.mktemp("reports"))
        yield


@pytest.fixture
def chinese(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Chinese catalog, compiled from its source."""
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    from fullconv.core import i18n

    source = Path(i18n.__file__).with_name("locale") / "zh/LC_MESSAGES/fullconv.po"
    compiled = io.BytesIO()
    with source.open("rb") as file:
        write_mo(compiled, read_po(file))
    compiled.seek(0)
    catalogs = {"zh": gettext.GNUTranslations(compiled), "en": gettext.NullTranslations()}
    monkeypatch.setattr(i18n, "_catalog", catalogs.__getitem__)
    yield
    i18n.set_language("en")


@pytest.fixture
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of a few pixels, whose masks can be read in the test, are no problem."""
    monkeypatch.setattr("fullconv.data.check.rules_balance._SMALL", 1)


@pytest.fixture
def shared() -> Path:
    """The folder with the real datasets (data/camvid and others)."""
    folder = os.environ.get("FULLCONV_SHARED", "")
    if not folder:
        pytest.skip("FULLCONV_SHARED is not set: it names the folder that holds data/camvid, ...")
    return Path(folder)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Model]:
    """Makes a small `Model` with random weights that calls pixels by every class."""
    return _make_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with the classes of the synthetic scenes. Do not change it."""
    from fullconv.data.synthetic.scenes import LABELS
    from fullconv.models.model import save_model

    model = _make_model(LABELS.names, colors=LABELS.colors)
    return save_model(model, tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 synthetic scenes to train, 2 each to validate and to test. Do not change them."""
    from fullconv.data.synthetic.scenes import write

    return write(tmp_path_factory.mktemp("scenes"), train=3, val=2, test=2, size=(48, 64))


def _make_model(
    names: tuple[str, ...] = ("sky", "road", "tree"),
    *,
    seed: int = 0,
    colors: tuple[Any, ...] = (),
    training: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    **options: Any,
) -> Model:
    from fullconv.core.labels import Labels
    from fullconv.models.model import Model

    network = copy.deepcopy(_random_network(len(names), seed, **options))
    labels = Labels(names, colors, ignore_index=255 if len(names) <= 255 else 65535)
    return Model(network, labels, network.backbone.card, training or {}, metrics or {})


@cache  # tracing a network takes half a second
def _random_network(classes: int, seed: int, **options: Any) -> FCN:
    import torch

    from fullconv.network.fcn import FCN

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = FCN("test_resnet", classes, **options).eval()
        features = network.backbone(torch.randn(1, 3, 64, 64))
        for score, feature in zip(network.score.values(), features, strict=True):
            torch.nn.init.normal_(score.weight, std=10 / (len(features) * feature.std()))
            score.bias = torch.nn.Parameter(-score(feature).mean(dim=(0, 2, 3)))
    return network


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lively model as an .onnx file."""
    from lively import lively

    from fullconv.deploy.export import export

    return export(lively("tiny", 8), tmp_path_factory.mktemp("exported")).path


@pytest.fixture(scope="session")
def exported_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as an .onnx file that returns labels only."""
    from lively import lively

    from fullconv.deploy.export import export

    return export(lively("tiny", 8), tmp_path_factory.mktemp("labels"), with_labels=True).path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[stand_in.Hub]:
    """A hub of the tests; this machine has no token and an empty cache."""
    import hub as serving_hub
    import huggingface_hub
    from huggingface_hub import constants

    with serving_hub.serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server
        huggingface_hub.close_session()
