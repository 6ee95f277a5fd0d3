"""Serve a model from several processes, or machines, with Ray Serve: python ray_serve.py model.gguf [REPLICAS] [PORT]

Each replica runs the server of `ternrun serve` on a socket of its own, and gets the requests that Ray Serve hands it,
on any route. Needs pip install 'ternrun[ray]'.
"""

import asyncio
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future

import aiohttp
from ray import serve
from starlette.requests import Request
from starlette.responses import StreamingResponse

import ternrun
from ternrun.server.app.run import listening
from ternrun.server.generation.models import ModelServices
from ternrun.server.settings import ServerConfig

HOPS = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}  # of one connection, not passed on


@serve.deployment(max_ongoing_requests=64)
class Replica:
    """One model, loaded before the first request comes."""

    def __init__(self, path: str, threads: int) -> None:
        self._name = serve.get_replica_context().replica_id.unique_id
        self._socket = os.path.join(tempfile.mkdtemp(), "socket")  # noqa: PTH118
        self._session: aiohttp.ClientSession | None = None
        loaded: Future[None] = Future()
        threading.Thread(target=lambda: asyncio.run(self._serve(path, threads, loaded)), daemon=True).start()
        loaded.result()  # raises where the model cannot be loaded

    async def _serve(self, path: str, threads: int, loaded: Future[None]) -> None:
        config = ServerConfig(unix_socket=self._socket)
        async with listening(ModelServices(config, lambda: ternrun.load(path, threads=threads))) as (services, _):
            try:
                await services.load()
            except Exception as error:
                loaded.set_exception(error)
                return
            loaded.set_result(None)
            await asyncio.Event().wait()

    async def __call__(self, request: Request) -> StreamingResponse:
        """Pass it on, and the answer back, piece by piece; who goes away is gone for the model, too."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._socket, limit=0), auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )  # fmt: skip
        url = f"http://localhost{request.url.path}?{request.url.query}"
        headers = [(name, value) for name, value in request.headers.items() if name not in HOPS]
        answer = await self._session.request(request.method, url, headers=headers, data=await request.body())

        async def body() -> AsyncIterator[bytes]:
            async with answer:
                async for piece in answer.content.iter_any():
                    yield piece

        passed = {name: value for name, value in answer.headers.items() if name.lower() not in HOPS}
        return StreamingResponse(body(), answer.status, passed | {"X-Replica": self._name})


def main() -> None:
    path, replicas, port = (*sys.argv[1:], *("2", "8000")[len(sys.argv) - 2 :])
    threads = max(1, (os.cpu_count() or 1) // int(replicas))
    app = Replica.options(num_replicas=int(replicas), ray_actor_options={"num_cpus": threads}).bind(path, threads)
    serve.start(http_options={"port": int(port)})
    serve.run(app, blocking=True)


if __name__ == "__main__":
    main()
