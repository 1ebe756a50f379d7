"""The stand-in for Turms as a process, and a server that follows it."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from turms.world import World  # noqa: E402

LOGS = pathlib.Path(os.environ.get("CLIENT_TEST_LOGS", "/tmp/sluice-client-tests"))


@pytest.fixture
def world(request):
    """A Turms and a server, changed by the test's `turms(…)` mark."""
    LOGS.mkdir(parents=True, exist_ok=True)
    mark = request.node.get_closest_marker("turms")
    world = World(LOGS, dict(mark.kwargs) if mark else {})
    yield world
    world.stop()
