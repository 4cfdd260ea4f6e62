"""Service: one request from its upload to its answer, whoever carries it.

An upload is read, decoded in one of a few threads, labelled in the one thread that runs the network
(see `fullconv.deploy.serve.batching`), and encoded in those threads again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.deploy.serve.batching import Labelling, Queue
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.responses import Answer, PredictRequest, answer
from fullconv.deploy.serve.uploads import (
    Limits,
    RequestError,
    Uploads,
    image_in,
    image_of,
    require_kind,
)
from fullconv.inference.segmenter import Segmenter

_THREADS = 4  # at most, that decode and encode
# Seconds until a thread of Python lets another one go on. The network asks for that at each of its
# operations, and would wait for 5 ms each time that an image is being encoded.
_SWITCH = 0.0002
Gone = Callable[[], Awaitable[None]]  # returns when nobody listens any more


class ClientDisconnectedError(Exception):
    """Whoever sent the request has gone."""


class Service:
    """A model and what stands around it.

    Args:
        model: as loaded.
        limits: of a request.

    Raises:
        FullconvError: a model that takes more than images.
    """

    def __init__(self, model: Segmenter, limits: Limits) -> None:
        sys.setswitchinterval(_SWITCH)
        self.model, self.limits, self.metrics = model, limits, Metrics()
        self.uploads = Uploads(limits)
        labelling = Labelling(model)
        self.queue = Queue(labelling, limits.waiting, limits.pixels, self.metrics)
        self._threads = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "images")

    def close(self) -> None:
        """Finishes what was taken."""
        self.queue.close()
        self._threads.shutdown()

    @property
    def heads(self) -> list[str]:
        """What a request may ask for; without a name, the first one."""
        names = ["", self.model.info.head, *self.model.heads] if self.model.heads else [""]
        return list(dict.fromkeys(names))

    def number_of(self, head: str) -> int:
        """Which head is called that.

        Raises:
            RequestError: 422, there is none.
        """
        if head not in self.heads:
            known = ", ".join(name for name in self.heads if name)
            raise RequestError(
                422,
                f"the model has no head {head[:80]!r}; it has {known or 'one without a name'}.",
                "/predict   # without head",
            )
        return [self.model.info.head, *self.model.heads].index(head) if head else 0

    async def answer(
        self,
        headers: Mapping[str, str],
        stream: AsyncIterator[bytes],
        gone: Gone,
        asked: PredictRequest,
    ) -> Answer:
        """Of one upload.

        Raises:
            RequestError: 408, 413, 415, 422 or 503; 422 also where confidence is asked of a model
                that gives labels alone.
            ClientDisconnectedError: nobody waits for it any more.
        """
        held, content = [0], None
        try:
            async with asyncio.timeout(self.limits.seconds):
                self._require_scores(asked)
                form = require_kind(headers.get("content-type", ""))
                said = headers.get("content-length", "")
                content = await self.uploads.read(stream, said, held)
                self.queue.require_room()  # else it would be decoded for nothing
                of_form = headers["content-type"] if form else ""
                work = self._labelled(content, of_form, held, asked)
                return await _while_wanted(work, gone)
        except TimeoutError as error:
            raise self._late(uploaded=content is not None) from error
        except RequestError:
            raise
        except FullconvError as error:  # what the model says of the image
            raise RequestError(422, error.message, error.hint) from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise RequestError(
                503, "there is too little memory for this image now.", "send a smaller image"
            ) from error
        finally:
            self.uploads.release(held)

    def _require_scores(self, asked: PredictRequest) -> None:
        if asked.sure and self.model.labels_only:
            raise RequestError(
                422,
                "the model gives labels and no scores: there is no confidence.",
                "/predict?output=json&include=ids,mask   # or a file exported without "
                "--with-labels",
            )

    async def _labelled(
        self, content: bytes, of_form: str, held: list[int], asked: PredictRequest
    ) -> Answer:
        """Of an upload; `of_form` is its type where it is a form."""
        began, loop = time.monotonic(), asyncio.get_running_loop()
        read = partial(_read, content, of_form, self.limits)
        image = await loop.run_in_executor(self._threads, read)
        del content, read
        self.uploads.release(held)
        found, sure = await self.queue.result(image, asked.number if asked.sure else None)
        self.metrics.pixels += found.mask.size
        seconds = time.monotonic() - began
        made = partial(answer, found, sure, asked, seconds)
        return await loop.run_in_executor(self._threads, made)

    def _late(self, *, uploaded: bool) -> RequestError:
        seconds = f"{self.limits.seconds:g} seconds"
        if not uploaded:
            return RequestError(
                408,
                f"the upload took more than {seconds}.",
                "send it again over a faster line, or start the server with a larger --max-seconds",
            )
        return RequestError(
            503,
            f"the image was not done within {seconds}.",
            "send it again, or start the server with a larger --max-seconds",
        )


def _read(content: bytes, of_form: str, limits: Limits) -> np.ndarray:
    """The image, (H, W, 3) uint8 RGB, of an upload, which may be a form of that type."""
    return image_of(image_in(content, of_form) if of_form else content, limits)


async def _while_wanted(work: Awaitable[Answer], gone: Gone) -> Answer:
    """What `work` gives; it is stopped when nobody listens any more."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnectedError
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
