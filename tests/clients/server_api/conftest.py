"""One server for all tests of the server API, a receiver of its webhooks, and participants."""

import asyncio
import contextlib
import json
import os
import pathlib
import sys
import threading
import uuid

import pytest
from aiohttp import web
from livekit import api, rtc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.server import KEY, SECRET, Server, Setup  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
LOGS = pathlib.Path(os.environ.get("CLIENT_TEST_LOGS", "/tmp/sluice-client-tests"))

# A test that waits longer has failed.
PATIENCE = 20


class Receiver:
    """An HTTP server on a thread of its own that keeps every webhook it gets."""

    def __init__(self):
        self.requests = []
        self.arrived = threading.Condition()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.port = asyncio.run_coroutine_threadsafe(self._serve(), self.loop).result()
        self.url = f"http://127.0.0.1:{self.port}/hook"

    async def _serve(self):
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return site._server.sockets[0].getsockname()[1]

    async def _receive(self, request):
        body = await request.text()
        with self.arrived:
            self.requests.append((dict(request.headers), body))
            self.arrived.notify_all()
        return web.Response()

    def of_room(self, room):
        """Requests about one room so far, in order."""
        with self.arrived:
            return [r for r in self.requests if json.loads(r[1])["room"]["name"] == room]

    def wait_for(self, room, event):
        """All requests about a room up to the one that tells of `event`."""

        def found():
            return any(json.loads(body)["event"] == event for _, body in self.of_room(room))

        with self.arrived:
            if not self.arrived.wait_for(found, PATIENCE):
                names = [json.loads(body)["event"] for _, body in self.of_room(room)]
                raise AssertionError(f"no {event} of {room}, only {names}")
        return self.of_room(room)


@pytest.fixture(scope="session")
def receiver():
    return Receiver()


@pytest.fixture(scope="session")
def server(receiver):
    LOGS.mkdir(parents=True, exist_ok=True)
    extra = {
        "webhook": {"api_key": KEY, "urls": [receiver.url]},
        "room": {"room_configurations": {"short": {"empty_timeout": 7, "metadata": "preset"}}},
    }
    server = Server(Setup(extra=json.dumps(extra)), LOGS)
    yield server
    problems = [server.stop(), *server.complaints()]
    problems = [problem for problem in problems if problem]
    assert not problems, "\n".join(problems)


@pytest.fixture
def room():
    """The name of a room that nobody else uses."""
    return f"room-{uuid.uuid4().hex[:12]}"


def token(room, identity, **grants):
    grant = api.VideoGrants(room_join=True, room=room, **grants)
    return api.AccessToken(KEY, SECRET).with_identity(identity).with_grants(grant).to_jwt()


@contextlib.asynccontextmanager
async def joined(server, room, identity, token_=None):
    """A participant in a room, as the Python client."""
    client = rtc.Room()
    await asyncio.wait_for(client.connect(server.url, token_ or token(room, identity)), PATIENCE)
    try:
        yield client
    finally:
        await client.disconnect()


@contextlib.asynccontextmanager
async def lkapi(server, secret=SECRET):
    client = api.LiveKitAPI(server.url.replace("ws", "http", 1), KEY, secret)
    try:
        yield client
    finally:
        await client.aclose()


async def eventually(check):
    """Waits for `check()` to return something true, and returns that."""
    async with asyncio.timeout(PATIENCE):
        while True:
            result = check()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return result
            await asyncio.sleep(0.02)


def run(test):
    """Makes an async test a plain one."""

    def wrapper(**fixtures):
        asyncio.run(test(**fixtures))

    wrapper.__name__ = test.__name__
    wrapper.__doc__ = test.__doc__
    import inspect

    wrapper.__signature__ = inspect.signature(test)
    return wrapper
