from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torchvision


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Any]]:
    """Let torchvision's downloads return (raise) something; the options of each are recorded."""

    def replace(answer: Any) -> list[Any]:
        requests: list[Any] = []

        def get_state_dict(**options: Any) -> Any:
            requests.append(options)
            if isinstance(answer, Exception):
                raise answer
            return answer

        weights = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=get_state_dict))
        monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: weights)
        return requests

    return replace
