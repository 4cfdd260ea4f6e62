"""One request, from its upload to its answer."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
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
TYPE = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def model() -> Held:
    heads = {"material": Labels(("hard", "soft"))}
    return Held(lively(heads=heads, head="things"), device="cpu", precision="float32")


@pytest.fixture
def service(model: Held) -> Iterator[Service]:
    model.may.set()
    made = Service(model, Limits(seconds=20))
    yield made
    model.may.set()
    made.close()


async def upload(*parts: bytes, pause: float = 0.0) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(pause)
        yield part


async def never() -> None:
    await asyncio.sleep(60)


def answered(
    service: Service, *parts: bytes, asked: PredictRequest | None = None, **how: Any
) -> Any:
    gone = how.pop("gone", never)
    stream = upload(*parts, **how)
    return asyncio.run(service.predict(TYPE, stream, gone, asked or PredictRequest()))


def test_an_answer_is_of_the_head_that_is_asked_for(service: Service, model: Held) -> None:
    alone, content = model.segment(IMAGE), png(IMAGE)
    for number, name in enumerate(["things", "material"]):
        assert service.head_index(name) == number
        found = answered(service, content[:99], content[99:], asked=PredictRequest(head=number))
        wanted = [alone, alone.heads["material"]][number]
        assert np.array_equal(pixels(found.body), wanted.mask)
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


def refusal(service: Service, *parts: bytes, **how: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        answered(service, *parts, **how)
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


def test_nothing_is_worked_out_for_those_who_left(service: Service, model: Held) -> None:
    async def soon() -> None:
        await asyncio.sleep(0.05)

    model.may.clear()
    with pytest.raises(ClientDisconnect):
        answered(service, png(IMAGE), gone=soon)
    assert service.memory.held == 0


def test_what_the_model_says_of_a_image(
    service: Service, model: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> Any:
        def segment(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(model, "segment", segment)
        return service

    said = refusal(failing(FullconvError("it is too dark.", "a lamp")), png(IMAGE))
    assert (said.status, said.message, said.hint) == (422, "it is too dark.", "a lamp")
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried to")):
        said = refusal(failing(error), png(IMAGE))
        assert said.status == 503
        assert said.message == "there is not enough memory for this image now."
    with pytest.raises(RuntimeError, match="a bug"):
        answered(failing(RuntimeError("a bug")), png(IMAGE))


def test_images_are_let_go(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    result = service.queue.predict

    async def noting(image: np.ndarray, *more: Any) -> Any:
        kept.append(weakref.ref(image))
        return await result(image, *more)

    monkeypatch.setattr(service.queue, "predict", noting)
    answered(service, png(IMAGE))
    for _ in range(100):
        gc.collect()
        if kept[0]() is None:
            break
        asyncio.run(asyncio.sleep(0.02))
    assert kept[0]() is None


def test_the_type_is_looked_at_before_the_upload(service: Service) -> None:
    with pytest.raises(RequestError, match="the upload has the type 'text/plain'"):
        asyncio.run(
            service.predict({"content-type": "text/plain"}, upload(b"a"), never, PredictRequest())
        )
