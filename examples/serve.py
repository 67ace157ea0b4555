"""Serves an exported model over HTTP: photo in, labels out.

    pip install ".[serve,jax]"
    keras_mixer export mixer_nano.cifar10 nano.onnx --fuse
    KERAS_BACKEND=jax python examples/serve.py nano.onnx
    curl -F photo=@cat.jpg http://127.0.0.1:8000/classify

The model is a file or folder that `keras_mixer export` has written: ONNX, or a
SavedModel, which needs TensorFlow. `/` is a page with a form, `/health` says
how the service is. Photos are loaded by `keras_mixer.load_image`, as by the
command `predict`. docs/serving.md describes the service.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import io
import os
import pathlib
import signal
import socket
import warnings

import numpy as np
import uvicorn
from exported import load_model
from exported import photo_as_batch
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.responses import JSONResponse
from starlette.routing import Route

# Pillow has readers of other formats, which are less tested, or which start
# other programs. A service for the public needs only these.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
# Decoding a photo needs up to 16 bytes per pixel, in each of these threads.
DECODERS = min(4, os.cpu_count() or 1)
# A client that sends its photo more slowly is dropped.
SECONDS_TO_SEND = 30
# The rest of a request that is too large is read, but not kept, for so long.
SECONDS_TO_DROP = 5
# No script, style or picture from elsewhere, even if the page asked for it.
POLICY = (
    "default-src 'none'; connect-src 'self'; form-action 'self'; "
    "img-src blob:; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
)


def main():
    parser = argument_parser()
    args = parser.parse_args()
    try:
        model = load_model(args.model)
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listener = socket.create_server((args.host, args.port), family=family)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    # Pillow raises an error for twice the limit, and only warns before.
    Image.MAX_IMAGE_PIXELS = args.max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    server = uvicorn.Server(
        uvicorn.Config(
            Service(model, args).app(),
            log_level="warning",
            timeout_graceful_shutdown=SECONDS_TO_SEND + 5,
        )
    )
    # uvicorn answers the requests in flight, and then raises the signal again.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"{args.model} is served on {url}", flush=True)
    server.run([listener])


def argument_parser():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("model", help="an ONNX file, or the folder of a SavedModel")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000, help="0 for any free port")
    add("--max-bytes", type=positive, default=10_000_000, help="of a request")
    add("--max-pixels", type=positive, default=25_000_000, help="of a photo")
    add("--max-batch", type=positive, default=32, help="photos run at once")
    add("--max-wait-ms", type=float, default=5, help="for a batch to fill")
    add("--queue", type=positive, default=100, help="requests at a time")
    return parser


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def read_photo(data, model):
    """Decodes a photo. Too many pixels are an error before the decoding."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as photo:
            return photo_as_batch(photo, model)
    except Image.UnidentifiedImageError as error:
        text = f"Expected an image, one of {', '.join(FORMATS)}."
        raise HTTPException(415, text) from error
    except (
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        limit = Image.MAX_IMAGE_PIXELS
        text = f"The photo has more than {limit} pixels, the limit."
        raise HTTPException(413, text) from error
    # On damaged files, Pillow can raise nearly any exception.
    except Exception as error:
        text = f"The photo cannot be read: {error.__cause__ or error}"
        raise HTTPException(400, text) from error


def limited(receive, max_bytes):
    """Returns `receive` of a request, which fails after so many bytes."""
    received = 0

    async def limited_receive():
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            await drop_rest(receive)
            raise too_large(max_bytes)
        return message

    return limited_receive


async def drop_rest(receive):
    """Reads the rest of a request for some seconds, and keeps none of it.

    If a connection is closed while the client sends, the operating system of
    the client may drop the answer.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SECONDS_TO_DROP):
            while (await receive()).get("more_body"):
                pass


def too_large(max_bytes):
    text = f"The request has more than {max_bytes} bytes, the limit."
    # What the client still sends is not read.
    return HTTPException(413, text, {"Connection": "close"})


class Batches:
    """Collects the images of concurrent requests, and runs them at once."""

    def __init__(self, run, max_batch, max_wait):
        self.run, self.max_batch, self.max_wait = run, max_batch, max_wait
        self.queue = asyncio.Queue()
        self.counts = {"photos": 0, "batches": 0}

    async def scores(self, image):
        future = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((image, future))
        return await future

    async def work(self):
        while True:
            images, futures = zip(*await self.collect(), strict=True)
            self.counts["photos"] += len(images)
            self.counts["batches"] += 1
            try:
                batch = np.concatenate(images)
                results = await asyncio.to_thread(self.run, batch)
            # The service goes on, whatever happened to this batch.
            except Exception as error:
                results = [error] * len(images)
            for future, result in zip(futures, results, strict=True):
                if future.done():  # its client has left
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def collect(self):
        """Returns the next images: as many as come in time, at least one."""
        collected = [await self.queue.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.max_wait):
                while len(collected) < self.max_batch:
                    collected.append(await self.queue.get())
        return collected


class Service:
    def __init__(self, model, args):
        self.model, self.args = model, args
        self.batches = Batches(
            model.run, args.max_batch, args.max_wait_ms / 1000
        )
        # Requests that are being read, decoded or run: what needs memory.
        self.places = asyncio.Semaphore(args.queue)
        self.decoders = concurrent.futures.ThreadPoolExecutor(DECODERS)

    def app(self):
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/health", self.health),
                Route("/classify", self.classify, methods=["POST"]),
            ],
            exception_handlers={
                HTTPException: answer_error,
                ClientDisconnect: answer_error,
                Exception: answer_error,
            },
            lifespan=self.lifespan,
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app):
        worker = asyncio.create_task(self.batches.work())
        yield
        worker.cancel()
        self.decoders.shutdown()

    async def page(self, request):
        file = pathlib.Path(__file__).with_suffix(".html")
        text = file.read_text("utf-8")
        text = text.replace("MAX_BYTES", str(self.args.max_bytes))
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    async def health(self, request):
        return JSONResponse({"status": "ok", **self.batches.counts})

    async def classify(self, request):
        top = request.query_params.get("top", "5")
        if not top.isdecimal() or int(top) < 1:
            raise HTTPException(400, "`top` must be a positive integer.")
        if self.places.locked():
            text = "Too many requests at a time. Try again later."
            raise HTTPException(503, text, {"Retry-After": "1"})
        async with self.places:
            data = await self.read(request)
            loop = asyncio.get_running_loop()
            image = await loop.run_in_executor(
                self.decoders, read_photo, data, self.model
            )
            scores = await self.batches.scores(image)
        names = self.model.metadata["class_names"] or range(len(scores))
        order = np.argsort(-scores, kind="stable")[: int(top)]
        classes = [
            {"name": str(names[i]), "probability": float(scores[i])}
            for i in order
        ]
        return JSONResponse({"classes": classes})

    async def read(self, request):
        """Returns the bytes of the photo: a field of a form, or the body."""
        limit, receive = self.args.max_bytes, request.receive
        if int(request.headers.get("content-length", 0)) > limit:
            if "expect" not in request.headers:  # the client sends already
                await drop_rest(receive)
            raise too_large(limit)
        request = Request(request.scope, limited(receive, limit))
        kind = request.headers.get("content-type", "")
        try:
            async with asyncio.timeout(SECONDS_TO_SEND):
                if not kind.startswith("multipart/form-data"):
                    return await request.body()
                async with request.form(max_files=1) as form:
                    for field in form.values():
                        if not isinstance(field, str):
                            return await field.read()
        except TimeoutError as error:
            text = f"The photo did not arrive within {SECONDS_TO_SEND} seconds."
            raise HTTPException(408, text, {"Connection": "close"}) from error
        raise HTTPException(400, "The form has no file.")


async def answer_error(request, error):
    text = "The service failed. Its log says why."
    return JSONResponse(
        {"error": getattr(error, "detail", text)},
        getattr(error, "status_code", 500),
        headers=getattr(error, "headers", None),
    )


if __name__ == "__main__":
    main()
