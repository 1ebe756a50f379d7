"""A server and a publisher on this side of a narrow path, and a watcher on the other."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.call import Call  # noqa: E402
from harness.hosts import Host  # noqa: E402
from harness.measured import measure, pytest_terminal_summary  # noqa: E402, F401
from harness.server import Server, Setup  # noqa: E402
from shaped.network import HERE, PATH_FAR, Network  # noqa: E402

LOGS = pathlib.Path(os.environ.get("CLIENT_TEST_LOGS", "/tmp/sluice-client-tests"))


@pytest.fixture(scope="session")
def network():
    network = Network()
    yield network
    network.close()


@pytest.fixture(scope="session")
def server(network):
    LOGS.mkdir(parents=True, exist_ok=True)
    server = Server(Setup(workers=2, address=HERE, node_ip=PATH_FAR), LOGS)
    network.carry(server.udp_port)
    yield server
    problem, complaints = server.stop(), server.complaints()
    assert not problem and not complaints, f"{problem} {complaints}"


@pytest.fixture(scope="session")
def hosts(network):
    near, far = Host("browser", LOGS), Host("browser", LOGS, namespace=network.far)
    yield {"near": near, "far": far}
    near.stop()
    far.stop()


@pytest.fixture
def call(server, hosts):
    """A fresh room; `call.join("near" or "far", identity)`."""
    room = Call(server, hosts.__getitem__)
    yield room
    room.leave()
