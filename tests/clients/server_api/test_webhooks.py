"""Webhooks of a real call, believed by the verifiers of both server SDKs."""

import asyncio
import json
import subprocess

from conftest import HERE, KEY, SECRET, joined, lkapi, run
from livekit import api
from test_python_sdk import publish_tone


@run
async def test_events_of_a_call_come_in_order_and_both_sdks_believe_them(server, receiver, room):
    async with lkapi(server) as lk:
        async with joined(server, room, "alice") as alice:
            await asyncio.to_thread(receiver.wait_for, room, "participant_joined")
            publication = await publish_tone(alice)
            await asyncio.to_thread(receiver.wait_for, room, "track_published")
            await alice.local_participant.unpublish_track(publication.sid)
            await asyncio.to_thread(receiver.wait_for, room, "track_unpublished")
        await asyncio.to_thread(receiver.wait_for, room, "participant_left")
        await lk.room.delete_room(api.DeleteRoomRequest(room=room))
    requests = await asyncio.to_thread(receiver.wait_for, room, "room_finished")

    verifier = api.WebhookReceiver(api.TokenVerifier(KEY, SECRET))
    events = [verifier.receive(body, headers["Authorization"]) for headers, body in requests]
    assert [event.event for event in events] == [
        "room_started",
        "participant_joined",
        "track_published",
        "track_unpublished",
        "participant_left",
        "room_finished",
    ]
    joined_, published, left = events[1], events[2], events[4]
    assert (joined_.participant.identity, joined_.room.num_participants) == ("alice", 1)
    assert published.track.sid == publication.sid and published.room.name == room
    assert published.participant.identity == "alice" and not published.room.creation_time
    assert left.participant.disconnect_reason and left.room.num_participants == 0
    assert len({event.id for event in events}) == len(events)
    assert all(headers["Content-Type"] == "application/webhook+json" for headers, _ in requests)

    given = json.dumps([[headers["Authorization"], body] for headers, body in requests])
    done = await asyncio.to_thread(
        subprocess.run, ["node", "node_sdk.mjs", "verify", KEY, SECRET],
        input=given, cwd=HERE, capture_output=True, text=True, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    believed = json.loads(done.stdout)
    assert [event["event"] for event in believed] == [event.event for event in events]


def test_bodies_are_camel_case_without_defaults(server, receiver):
    room = "camel-case"

    async def body():
        async with joined(server, room, "alice"):
            await asyncio.to_thread(receiver.wait_for, room, "participant_joined")

    asyncio.run(body())
    [_, request] = receiver.of_room(room)[:2]
    event = json.loads(request[1])
    assert set(event) == {"event", "room", "participant", "id", "createdAt"}
    assert event["createdAt"].isdigit() and event["id"].startswith("EV_")
    assert event["participant"]["joinedAtMs"].isdigit()
    assert event["participant"]["state"] == "ACTIVE"
    assert "metadata" not in event["participant"]
