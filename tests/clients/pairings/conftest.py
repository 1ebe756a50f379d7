"""Servers by configuration and hosts by kind, each started once and shared by the tests."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.call import Call  # noqa: E402
from harness.hosts import Host  # noqa: E402
from harness.measured import measure, pytest_terminal_summary  # noqa: E402, F401
from harness.server import Server, Setup  # noqa: E402

LOGS = pathlib.Path(os.environ.get("CLIENT_TEST_LOGS", "/tmp/sluice-client-tests"))


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
