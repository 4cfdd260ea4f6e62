"""One request, from its upload to its response."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from lively import lively
from photos import photo
from served import Held, pixels, png
from starlette.requests import ClientDisconnect

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.deploy.serve.responses import PredictRequest
from fullconv.deploy.serve.service import Service
from fullconv.deploy.serve.uploads import Limits, RequestError

IMAGE = photo(40, 56)


@pytest.fixture(scope="module")
def model() -> Held:
    heads = {"material": Labels(("hard", "soft"))}
    return Held(lively(heads=heads, head="things"), device="cpu", precision="float32")


@pytest.fixture
def service(model: Held) -> Iterator[Service]:
    model.may.set()
    service = Service(model, Limits(seconds=20))
    yield service
    model.may.set()
    service.close()


async def upload(*parts: bytes, pause: float = 0.0) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(pause)
        yield part


async def never() -> None:
    await asyncio.sleep(60)


def respond(
    service: Service,
    *parts: bytes,
    head: int = 0,
    pause: float = 0.0,
    disconnected: Callable[[], Awaitable[None]] = never,
) -> Any:
    stream, request = upload(*parts, pause=pause), PredictRequest(head=head)
    headers = {"content-type": "image/png"}
    return asyncio.run(service.predict(headers, stream, disconnected, request))


def test_a_response_is_of_the_requested_head(service: Service, model: Held) -> None:
    result, content = model.segment(IMAGE), png(IMAGE)
    masks = {"things": result.mask, "material": result.heads["material"].mask}
    for number, (name, mask) in enumerate(masks.items()):
        assert service.head_index(name) == number
        response = respond(service, content[:99], content[99:], head=number)
        assert np.array_equal(pixels(response.body), mask)
    assert service.head_index("") == 0
    with pytest.raises(RequestError, match="no head 'cars'; it has things, material") as caught:
        service.head_index("cars")
    assert (caught.value.status, caught.value.hint) == (422, "/predict   # without head")
    assert service.metrics.pixels._value.get() == 2 * 40 * 56
    assert service.memory.held == 0


def test_a_model_without_names_for_heads() -> None:
    service = Service(Held(lively(), device="cpu"), Limits())
    with pytest.raises(RequestError, match="no head 'cars'; it has one without a name"):
        service.head_index("cars")
    service.close()


def refusal(service: Service, *parts: bytes, pause: float = 0.0) -> RequestError:
    with pytest.raises(RequestError) as caught:
        respond(service, *parts, pause=pause)
    assert service.memory.held == 0
    return caught.value


def test_a_slow_upload_and_a_slow_network(service: Service, model: Held) -> None:
    service.limits = Limits(seconds=0.2)
    late = refusal(service, b"a", b"b", pause=5)
    assert (late.status, late.message) == (408, "the upload took more than 0.2 seconds.")
    model.may.clear()
    late = refusal(service, png(IMAGE))
    assert (late.status, late.message) == (503, "the prediction took more than 0.2 seconds.")
    assert late.hint == "send the request again, or start the server with a larger --max-seconds"


def test_nothing_is_computed_for_clients_that_left(service: Service, model: Held) -> None:
    async def soon() -> None:
        await asyncio.sleep(0.05)

    model.may.clear()
    with pytest.raises(ClientDisconnect):
        respond(service, png(IMAGE), disconnected=soon)
    assert service.memory.held == 0


NO_MEMORY = (503, "there is not enough memory for this image now.", "send a smaller image")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FullconvError("it is too dark.", "a lamp"), (422, "it is too dark.", "a lamp")),
        (MemoryError(), NO_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to"), NO_MEMORY),
        (RuntimeError("a bug"), None),
    ],
    ids=repr,
)
def test_errors_of_the_model(
    error: Exception, expected: Any, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def segment(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(service.model, "segment", segment)
    if expected is None:
        with pytest.raises(RuntimeError, match="a bug"):
            respond(service, png(IMAGE))
    else:
        caught = refusal(service, png(IMAGE))
        assert (caught.status, caught.message, caught.hint) == expected


def test_images_are_released(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    images = []
    predict = service.queue.predict

    async def note(image: np.ndarray, *more: Any) -> Any:
        images.append(weakref.ref(image))
        return await predict(image, *more)

    monkeypatch.setattr(service.queue, "predict", note)
    respond(service, png(IMAGE))
    for _ in range(100):
        gc.collect()
        if images[0]() is None:
            break
        time.sleep(0.02)
    assert images[0]() is None
