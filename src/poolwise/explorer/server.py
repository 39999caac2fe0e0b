"""The explorer's page on this machine: one address, this machine only, reading only."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from poolwise import Fault, InvalidValue
from poolwise.explorer.answers import Answers
from poolwise.explorer.page import SERVED_POLICY, html, saved
from poolwise.explorer.source import Source

LOOPBACK = "127.0.0.1"
PORT = 8765  # tried first when no port is asked for
LARGEST_PORT = 65535


def application(source: Source, port: int) -> Any:
    """An ASGI application that shows one source, to who calls it by this machine's own name alone."""
    answers, data = Answers(source), source.data()

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = SERVED_POLICY.format(nonce) + "; frame-ancestors 'none'"
        return HTMLResponse(html(data, nonce=nonce, served=True), headers={"Content-Security-Policy": policy})

    async def ask(request: Request) -> Response:
        try:
            answer = await run_in_threadpool(answers.answer, request.path_params["kind"], request.url.query)
        except Fault as fault:
            return JSONResponse({"error": fault.fact}, status_code=422)
        return JSONResponse(answer)

    async def file(request: Request) -> Response:
        try:
            text = await run_in_threadpool(saved, source, request.url.query)
        except Fault as fault:
            return Response(fault.fact, status_code=422, media_type="text/plain")
        return HTMLResponse(text, headers={"Content-Disposition": 'attachment; filename="view.html"'})

    routes = [
        Route("/", page, methods=["GET"]),
        Route("/ask/{kind}", ask, methods=["GET"]),
        Route("/view.html", file, methods=["GET"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, port=port)])


class Guard:
    """Answers only to this machine's own names (a page elsewhere could point its own name here), and says no more."""

    HEADERS = (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    )

    def __init__(self, app: Any, port: int) -> None:
        self.app = app
        names = (LOOPBACK, "localhost", "[::1]")
        self.hosts = {f"{name}:{port}".encode() for name in names}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            headers = [(b"content-type", b"text/plain"), *self.HEADERS]
            await send({"type": "http.response.start", "status": 421, "headers": headers})
            await send({"type": "http.response.body", "body": b"this page answers to 127.0.0.1 and localhost only"})
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self.HEADERS]}
            await send(message)

        await self.app(scope, receive, guarded)


def listening(port: int | None) -> socket.socket:
    """A socket on the loopback: at the port asked for, else at the usual one, else at any that is free."""
    if port is not None:
        if not 0 <= port <= LARGEST_PORT:
            raise InvalidValue(f"port must be between 0 and {LARGEST_PORT}, got {port}")
        return _bound(port)
    try:
        return _bound(PORT)
    except InvalidValue:
        return _bound(0)


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
        bound.listen()
    except OSError as cause:
        bound.close()
        raise InvalidValue(f"port must be free, got {port} ({cause.strerror})") from None
    return bound


def serve(source: Source, *, port: int | None, browser: bool, said: Callable[[str], None]) -> None:
    """Serve until interrupted. said: is told the address."""
    with listening(port) as bound:
        number = bound.getsockname()[1]
        address = f"http://{LOOPBACK}:{number}/"
        settings = uvicorn.Config(application(source, number), log_level="warning", lifespan="off", ws="none")
        server = uvicorn.Server(settings)
        said(address)
        if browser:
            webbrowser.open(address)
        server.run(sockets=[bound])
