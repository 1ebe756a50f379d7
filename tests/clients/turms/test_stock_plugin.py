"""Turms' stock LiveKit plugin, byte for byte as it talks: length-delimited protobuf, tokens without
an identity, a webhook listener that answers 500 to `room_finished`."""

import asyncio
import time

import pytest
from livekit import rtc
from livekit.protocol import models

from harness.server import KEY, SECRET
from turms.test_turms import User, until
from turms.world import exchange, jwt

MEETING = "123456789"
# CreateRoom{"123456789", empty_timeout 3600, max_participants 100} and DeleteRoom{"123456789"}.
CREATE = bytes.fromhex("100a09313233343536373839" + "10901c" + "1864")
DELETE = bytes.fromhex("0b0a09313233343536373839")


def api_token():
    """No `sub`, `nbf`, `iat` or `jti`; six hours."""
    payload = {"iss": KEY, "exp": int(time.time()) + 6 * 3600, "video": {"roomCreate": True}}
    return jwt(payload, SECRET.encode())


def participant_token():
    """The same for everybody: a bearer token for the room."""
    grant = {"room": MEETING, "roomJoin": True, "canPublish": True, "canSubscribe": True}
    payload = {"iss": KEY, "exp": int(time.time()) + 600, "video": grant}
    return jwt(payload, SECRET.encode())


def plugin_call(world, method, body):
    headers = {"Content-Type": "application/protobuf", "Authorization": f"Bearer {api_token()}"}
    return exchange(f"{world.http}/twirp/livekit.RoomService/{method}", body, headers)


def undelimited(data):
    """What `mergeDelimitedFrom` reads: a varint with the length, then the message."""
    length = shift = at = 0
    while True:
        byte = data[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    assert len(data) == at + length
    return data[at:]


def join(world):
    return User().join({"server_url": world.server.url, "participant_token": participant_token()})


def test_a_meeting_is_made_met_in_and_stays_cancelled(world):
    async def run():
        status, body = plugin_call(world, "CreateRoom", CREATE)
        assert status == 200, body
        room = models.Room.FromString(undelimited(body))
        assert (room.name, room.empty_timeout, room.max_participants) == (MEETING, 3600, 100)

        first, second = await join(world), await join(world)
        await until("met", lambda: len(first.room.remote_participants) == 1)
        identity = second.room.local_participant.identity
        assert identity.startswith("turms-")
        assert first.room.remote_participants[identity].attributes["turms.unbound"] == "1"
        await second.publish()
        await until("heard", lambda: first.sees_tracks_of(identity) == 1)

        status, body = plugin_call(world, "DeleteRoom", DELETE)
        assert status == 200, body
        assert undelimited(body) == b""
        await until("over", lambda: first.gone is not None and second.gone is not None)
        with pytest.raises(rtc.ConnectError):
            await join(world)
        metrics = world.server.metrics()
        counted = {key.split("{")[0]: value for key, value in metrics.items()}
        assert counted["sluice_turms_compat_delimited_total"] == 2
        assert counted["sluice_turms_joins_to_closed_meetings_total"] >= 1

    asyncio.run(run())


@pytest.mark.turms(compat={"missing_identity": "reject", "delimited_twirp": False})
def test_each_concession_can_be_switched_off(world):
    async def run():
        assert plugin_call(world, "CreateRoom", CREATE)[0] == 400
        assert plugin_call(world, "CreateRoom", CREATE[1:])[0] == 200
        with pytest.raises(rtc.ConnectError):
            await join(world)

    asyncio.run(run())


def test_a_cancelled_meeting_that_never_began_succeeds_and_stays_closed(world):
    async def run():
        status, body = plugin_call(world, "DeleteRoom", DELETE)
        assert (status, body) == (200, b"\0")
        with pytest.raises(rtc.ConnectError):
            await join(world)

    asyncio.run(run())


@pytest.mark.turms(plugin_listener=True)
def test_the_plugins_failing_listener_is_retried_a_bounded_number_of_times(world):
    async def run():
        events = world.listener.events
        assert plugin_call(world, "CreateRoom", CREATE)[0] == 200
        await until("started", lambda: (MEETING, "room_started") in events)
        assert plugin_call(world, "DeleteRoom", DELETE)[0] == 200
        finished = (MEETING, "room_finished")
        await until("finished", lambda: events.count(finished) >= 2)
        # Other meetings do not wait for the one that fails.
        other = CREATE.replace(b"123456789", b"987654321")
        assert plugin_call(world, "CreateRoom", other)[0] == 200
        await until("another started", lambda: ("987654321", "room_started") in events, 2)
        # Attempts follow each other after 1, 2, 4 and 8 seconds; then the event is given up.
        await until("given up", lambda: world.server.metric("sluice_webhook_queued") == 0, 40)
        assert events.count(finished) == 5

    asyncio.run(run())
