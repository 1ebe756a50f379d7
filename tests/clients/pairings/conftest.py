"""Servers by configuration and hosts by kind, each started once and shared by the tests."""

import os
import pathlib
import sys
import uuid

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.hosts import Host, Peer  # noqa: E402
from harness.server import Server, Setup  # noqa: E402
from harness.tokens import join_token  # noqa: E402

LOGS = pathlib.Path(os.environ.get("CLIENT_TEST_LOGS", "/tmp/sluice-client-tests"))


MEASURED = []


@pytest.fixture
def measure(request):
    """`measure(text)` keeps a figure for the end of the run."""
    return lambda text: MEASURED.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(terminalreporter):
    if MEASURED:
        terminalreporter.section("measured")
        for line in MEASURED:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def logs():
    LOGS.mkdir(parents=True, exist_ok=True)
    return LOGS


@pytest.fixture(scope="session")
def servers(logs):
    """`servers(tcp_only=…, workers=…)` is a running server. One that died is started anew, after
    the test that killed it failed."""
    running = {}

    def get(**choices):
        setup = Setup(**choices)
        server = running.get(setup)
        if server is None or server.process.poll() is not None:
            server = running[setup] = Server(setup, logs)
        return server

    yield get
    problems = []
    for server in running.values():
        problems += [server.stop()]
        problems += server.complaints()
    problems = [problem for problem in problems if problem]
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="session")
def hosts(logs):
    running = {}

    def get(kind):
        if kind not in running or not running[kind].alive:
            running[kind] = Host(kind, logs)
        return running[kind]

    yield get
    for host in running.values():
        host.stop()


class Call:
    """One room on one server, and the peers that a test put into it."""

    def __init__(self, server, hosts):
        self.server, self.hosts = server, hosts
        self.room = f"room-{uuid.uuid4().hex[:8]}"
        self.peers = []

    def join(self, kind, identity, v1=True, attributes=None, **options):
        """A real client of this kind in the room; `peer.joined` tells how it went."""
        peer = Peer(self.hosts(kind), f"{self.room}/{identity}")
        self.peers.append(peer)
        pairs = (attributes or {}).items()
        more = [word for key, value in pairs for word in ("--attribute", f"{key}={value}")]
        token = join_token(self.room, identity, *more)
        peer.joined = peer.call("join", url=self.server.url, token=token, v1=v1, **options)
        return peer

    def leave(self):
        for peer in self.peers:
            if peer.host.alive:
                try:
                    peer.call("leave")
                except Exception as error:  # a peer that never joined
                    print(f"leaving: {error}")


@pytest.fixture
def call(servers, hosts):
    """`call(tcp_only=…, workers=…)` is a fresh room."""
    made = []

    def make(**choices):
        server = servers(**choices)
        made.append(Call(server, hosts))
        return made[-1]

    yield make
    for room in made:
        room.leave()
        assert room.server.process.poll() is None, f"the server died:\n{room.server.log_text()[-4000:]}"
