"""From start to end: listen at once, load behind it, serve, and on SIGTERM let what is under way come to its end."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from aiohttp import web

from ternrun.errors import UsageError
from ternrun.server.app.log import Unreadable
from ternrun.server.app.routes import make_app
from ternrun.server.generation.models import ModelServices, Open
from ternrun.server.http.unix_socket import UnixSocket
from ternrun.server.settings import ServerConfig, hosts

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # the first lets requests end, the second does not
HANGUP = getattr(signal, "SIGHUP", None)  # a terminal that closes may send it more than once
TURN = 0.001  # seconds that a thread may run Python while another waits: the event loop must come to its turn
READERS = 2  # threads that read requests, which is Python that keeps the event loop waiting


def serve(config: ServerConfig, openers: Mapping[str, Open], tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM, Ctrl-C or SIGHUP; a second SIGTERM or Ctrl-C ends at once. SIGHUP is ignored where it was
    before (nohup). `tell` gets where it listens and when it is ready.

    Raises UsageError where it cannot listen there, and what opening a model raises.
    """
    sys.setswitchinterval(TURN)
    asyncio.run(_serve(config, openers, tell))


async def _serve(config: ServerConfig, openers: Mapping[str, Open], tell: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopped() -> None:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, stopped)
    if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN:
        loop.add_signal_handler(HANGUP, stopped)
    async with listening(ModelServices(config, openers)) as (services, where):
        tell(f"listening on {where}, loading the model")
        loading, stopping = asyncio.create_task(services.load()), asyncio.create_task(stop.wait())
        await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            await _given_up(loading)
            tell("shutting down")
            return
        await loading
        gc.collect()
        gc.freeze()  # what is loaded stays: looking through all of it again and again would hold up every answer
        if not stop.is_set():
            names = ", ".join(service.name for service in services.all)
            tell(f"ready: {names} at {where}")
        await stopping
        tell("shutting down")


async def _given_up(loading: asyncio.Task[None]) -> None:
    """End loading, which happens in threads; kernels that are being compiled for it would keep it going."""
    from ternrun.runtime.cpu.compile import worker_processes

    while not loading.done():
        worker_processes.stop()
        await asyncio.wait([loading], timeout=0.1)
    loading.exception()  # of a model that nobody wants any more


@asynccontextmanager
async def listening(services: ModelServices) -> AsyncIterator[tuple[ModelServices, str]]:
    """The server and its address; leaving ends it gracefully: first the sockets close, then requests end."""
    config = services.config
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(READERS, "ternrun-read"))
    runner = web.AppRunner(
        make_app(services),
        access_log=None,
        logger=_http_log(),
        handler_cancellation=True,
        auto_decompress=False,  # it happens on the event loop, before anybody looks at who asks
        shutdown_timeout=1,
        lingering_time=min(config.stall, 10),  # for the rest of a body that was refused
        keepalive_timeout=config.stall,  # also of a connection that never sends a request
    )
    await runner.setup()
    unix = None
    try:
        unix = _unix_socket(config)
        sites = _sites(runner, config, unix)
        for site in sites:
            await _start(site, config)
        watch = asyncio.create_task(services.metrics.watch())
        yield services, _address(runner, config)
        watch.cancel()
        if unix:
            unix.remove()
        for site in sites:
            await site.stop()
    finally:
        if unix:
            unix.remove()
        await services.close()
        await runner.cleanup()
        if unix:
            unix.socket.close()


def _http_log() -> logging.Logger:
    log = logging.getLogger("ternrun.http")
    if not log.filters:
        log.addFilter(Unreadable())
    return log


async def _start(site: web.BaseSite, config: ServerConfig) -> None:
    try:
        await site.start()
    except OSError as error:
        raise _cannot_listen(config, error) from error


def _unix_socket(config: ServerConfig) -> UnixSocket | None:
    try:
        return UnixSocket(config.unix_socket) if config.unix_socket else None
    except OSError as error:
        raise _cannot_listen(config, error) from error


def _cannot_listen(config: ServerConfig, error: OSError) -> UsageError:
    where = config.unix_socket or f"{config.host}:{config.port}"
    if error.errno == errno.EADDRINUSE and not config.unix_socket:
        return UsageError(f"{where} is in use by another program: choose another --port (0: any that is free)")
    if isinstance(error, socket.gaierror):
        why = f"no address is known for {config.host!r}"
    else:
        why = os.strerror(error.errno) if error.errno else str(error)  # asyncio's own text says it all twice
    return UsageError(f"{where} cannot be listened on: {why}")


def _sites(runner: web.AppRunner, config: ServerConfig, unix: UnixSocket | None) -> list[web.BaseSite]:
    tls = None
    if config.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            tls.load_cert_chain(config.certificate, config.private_key or None)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{config.certificate} cannot be used as a certificate: {error}") from error
    if unix:
        return [web.SockSite(runner, unix.socket, ssl_context=tls)]
    return [web.TCPSite(runner, host, config.port, ssl_context=tls) for host in hosts(config)]


def _address(runner: web.AppRunner, config: ServerConfig) -> str:
    if config.unix_socket:
        return f"unix:{config.unix_socket}"
    kind = "https" if config.certificate else "http"
    named = [(f"[{host}]" if ":" in host else host, port) for host, port, *_ in runner.addresses]
    return ", ".join(f"{kind}://{name}:{port}" for name, port in named)
