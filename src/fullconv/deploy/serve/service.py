"""One request: read the upload, decode it, predict, encode the result.

Decoding and encoding run in a few threads, the network in one thread of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import cpu_count
from fullconv.core.i18n import msg
from fullconv.deploy.serve.batching import BatchRunner, Queue
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.responses import PredictRequest, encode_response
from fullconv.deploy.serve.uploads import Limits, RequestError, Upload, UploadMemory, decode_image
from fullconv.inference.segmenter import Segmenter

_THREADS = 4  # that decode and encode, at most


class Service:
    """A model and the resources that its requests share. Raises FullconvError if it needs extra
    inputs."""

    def __init__(self, model: Segmenter, limits: Limits) -> None:
        self.model, self.limits, self.metrics = model, limits, Metrics()
        self.memory = UploadMemory(limits)
        self.queue = Queue(BatchRunner(model), limits.waiting, limits.pixels, self.metrics)
        self._threads = ThreadPoolExecutor(min(_THREADS, cpu_count()), "images")

    def close(self) -> None:
        """Finish the accepted requests."""
        self.queue.close()
        self._threads.shutdown()

    @property
    def heads(self) -> dict[str, int]:
        """The index of each head by the names that a request may use; "" is the first head."""
        indices = {"": 0}
        if self.model.heads:
            for index, name in enumerate([self.model.info.head, *self.model.heads]):
                indices.setdefault(name, index)
        return indices

    def head_index(self, name: str) -> int:
        """Return the index of a head; raise 422 if the model has none of this name."""
        if name in self.heads:
            return self.heads[name]
        values = {"name": name[:80], "names": ", ".join(head for head in self.heads if head)}
        if values["names"]:
            message = msg("the model has no head {name!r}; it has {names}.", **values)
        else:
            message = msg("the model has no head {name!r}; it has one without a name.", **values)
        raise RequestError(422, message, msg("/predict   # without head"))

    async def predict(
        self,
        headers: Mapping[str, str],
        stream: AsyncIterator[bytes],
        disconnected: Callable[[], Awaitable[None]],
        request: PredictRequest,
    ) -> Response:
        """Handle one upload. `disconnected` returns once the client has closed the connection.

        Raises:
            RequestError: 408, 413, 415, 422 or 503.
            ClientDisconnect: the client has closed the connection.
        """
        if request.needs_confidence and self.model.labels_only:
            message = msg("the model returns labels without scores, so it has no confidence.")
            hint = msg(
                "/predict?output=json&include=ids,mask   # or a file exported without --with-labels"
            )
            raise RequestError(422, message, hint)
        upload, uploaded, seconds = Upload(self.memory), False, self.limits.seconds
        try:
            async with asyncio.timeout(seconds):
                content = await upload.read(headers, stream)
                uploaded = True
                self.queue.require_room()  # or it would be decoded for nothing
                work = self._segment(content, upload, request)
                del content
                return await _until_disconnected(work, disconnected)
        except TimeoutError as error:
            raise _timeout(seconds, uploaded=uploaded) from error
        except RequestError:
            raise
        except FullconvError as error:  # the model's message about the image
            raise RequestError(422, error.message, error.hint) from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            message = msg("there is not enough memory for this image now.")
            raise RequestError(503, message, msg("send a smaller image")) from error
        finally:
            upload.release()

    async def _segment(self, content: bytes, upload: Upload, request: PredictRequest) -> Response:
        started, loop = time.monotonic(), asyncio.get_running_loop()
        image = await loop.run_in_executor(self._threads, decode_image, content, self.limits)
        del content
        upload.release()
        head = request.head if request.needs_confidence else None
        result, confidence = await self.queue.predict(image, head)
        self.metrics.pixels.inc(result.mask.size)
        seconds = time.monotonic() - started
        arguments = (result, confidence, request, seconds)
        return await loop.run_in_executor(self._threads, encode_response, *arguments)


def _timeout(seconds: float, *, uploaded: bool) -> RequestError:
    if uploaded:
        message = msg("the prediction took more than {seconds:g} seconds.", seconds=seconds)
        hint = msg("send the request again, or start the server with a larger --max-seconds")
        return RequestError(503, message, hint)
    message = msg("the upload took more than {seconds:g} seconds.", seconds=seconds)
    hint = msg("use a faster connection, or start the server with a larger --max-seconds")
    return RequestError(408, message, hint)


async def _until_disconnected(
    work: Awaitable[Response], disconnected: Callable[[], Awaitable[None]]
) -> Response:
    """Return the result of `work`, or cancel it once the client has disconnected."""
    tasks = (asyncio.ensure_future(work), asyncio.ensure_future(disconnected()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise ClientDisconnect
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
