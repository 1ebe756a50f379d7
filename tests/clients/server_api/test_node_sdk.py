"""`livekit-server-sdk` (npm): its checks run in Node, each counts as a test here."""

import asyncio
import subprocess

import pytest
from conftest import HERE, KEY, SECRET, eventually, joined, lkapi
from livekit import api
from test_python_sdk import publish_tone

CHECKS = [
    "createRoom", "listRooms", "deleteRoom", "updateRoomMetadata", "listParticipants",
    "getParticipant", "mutePublishedTrack", "updateParticipant", "updateSubscriptions", "sendData",
    "forwardParticipant", "moveParticipant", "agent dispatch", "removeParticipant",
    "a wrong secret", "missing services",
]


@pytest.fixture(scope="module")
def checks(server):
    """What Node said, by check."""
    room = "node-sdk"

    async def body():
        async with lkapi(server) as lk, joined(server, room, "alice") as alice:
            publication = await publish_tone(alice)

            async def published():
                who = api.RoomParticipantIdentity(room=room, identity="alice")
                return (await lk.room.get_participant(who)).tracks

            await eventually(published)
            url = server.url.replace("ws", "http", 1)
            words = ["node", "node_sdk.mjs", url, KEY, SECRET, room, "alice", publication.sid]
            return await asyncio.to_thread(
                subprocess.run, words, cwd=HERE, capture_output=True, text=True, timeout=60
            )

    done = asyncio.run(body())
    lines = done.stdout.splitlines()
    said = {}
    for line in lines:
        verdict, rest = line.split(" ", 1)
        name = next((check for check in CHECKS if rest.startswith(check)), rest)
        said[name] = (verdict, rest)
    assert lines, done.stderr
    return said


@pytest.mark.parametrize("name", CHECKS)
def test_node(checks, name):
    verdict, said = checks.get(name, ("FAIL", "the check did not run"))
    assert verdict == "ok", said
