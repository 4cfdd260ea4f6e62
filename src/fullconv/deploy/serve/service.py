"""One request: read the upload, decode it, predict, encode the result.

Decoding and encoding run in a few threads, the network in one thread of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import cpu_count
from fullconv.core.i18n import msg
from fullconv.deploy.serve.batching import BatchRunner, Queue
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.responses import EncodedResponse, PredictRequest, encode_response
from fullconv.deploy.serve.uploads import Limits, RequestError, Upload, UploadMemory, decode_image
from fullconv.inference.segmenter import Segmenter

_THREADS = 4  # that decode and encode, at most


class ClientDisconnectedError(Exception):
    """The client closed the connection."""


class Service:
    """A model and the resources that its requests share.

    Raises:
        FullconvError: the model needs extra inputs.
    """

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
    def heads(self) -> list[str]:
        """The names that a request may use; "" is the first head."""
        names = ["", self.model.info.head, *self.model.heads] if self.model.heads else [""]
        return list(dict.fromkeys(names))

    def head_index(self, name: str) -> int:
        """Return the index of a head; raise 422 if the model has none of this name."""
        if name in self.heads:
            return [self.model.info.head, *self.model.heads].index(name) if name else 0
        names = ", ".join(head for head in self.heads if head)
        if names:
            message = msg(
                "the model has no head {name!r}; it has {names}.", name=name[:80], names=names
            )
        else:
            message = msg(
                "the model has no head {name!r}; it has one without a name.", name=name[:80]
            )
        raise RequestError(422, message, msg("/predict   # without head"))

    async def predict(
        self,
        headers: Mapping[str, str],
        stream: AsyncIterator[bytes],
        disconnected: Callable[[], Awaitable[None]],
        request: PredictRequest,
    ) -> EncodedResponse:
        """Handle one upload.

        Args:
            disconnected: returns once the client has closed the connection.

        Raises:
            RequestError: 408, 413, 415, 422 or 503.
            ClientDisconnectedError: the client has closed the connection.
        """
        upload, uploaded = Upload(self.memory), False
        try:
            async with asyncio.timeout(self.limits.seconds):
                self._require_scores(request)
                content = await upload.read(headers, stream)
                uploaded = True
                self.queue.require_room()  # or it would be decoded for nothing
                work = self._segment(content, upload, request)
                del content
                return await _until_disconnected(work, disconnected)
        except TimeoutError as error:
            raise self._timeout(uploaded=uploaded) from error
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

    async def _segment(
        self, content: bytes, upload: Upload, request: PredictRequest
    ) -> EncodedResponse:
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

    def _require_scores(self, request: PredictRequest) -> None:
        if request.needs_confidence and self.model.labels_only:
            raise RequestError(
                422,
                msg("the model returns labels without scores, so it has no confidence."),
                msg(
                    "/predict?output=json&include=ids,mask   # or a file exported without "
                    "--with-labels"
                ),
            )

    def _timeout(self, *, uploaded: bool) -> RequestError:
        seconds = self.limits.seconds
        if uploaded:
            return RequestError(
                503,
                msg("the prediction took more than {seconds:g} seconds.", seconds=seconds),
                msg("send the request again, or start the server with a larger --max-seconds"),
            )
        return RequestError(
            408,
            msg("the upload took more than {seconds:g} seconds.", seconds=seconds),
            msg("use a faster connection, or start the server with a larger --max-seconds"),
        )


async def _until_disconnected(
    work: Awaitable[EncodedResponse], disconnected: Callable[[], Awaitable[None]]
) -> EncodedResponse:
    """Return the result of `work`, or cancel it once the client has disconnected."""
    tasks = (asyncio.ensure_future(work), asyncio.ensure_future(disconnected()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise ClientDisconnectedError
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
