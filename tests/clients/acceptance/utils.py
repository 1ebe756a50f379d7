"""The helper module that the tests of LiveKit's Python package import and that its source archive
leaves out. Written for this project from how those tests call it."""

import asyncio
import datetime
import os
import uuid

import numpy as np
import pytest
from livekit import api, rtc

DEFAULT_SECONDS = 15.0


def skip_if_no_credentials():
    names = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
    missing = [name for name in names if not os.environ.get(name)]
    return pytest.mark.skipif(bool(missing), reason=f"not set: {', '.join(missing)}")


def unique_room_name(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def create_token(identity, room_name):
    grants = api.VideoGrants(room_join=True, room=room_name, can_update_own_metadata=True)
    return (
        api.AccessToken(os.environ["LIVEKIT_API_KEY"], os.environ["LIVEKIT_API_SECRET"])
        .with_identity(identity)
        .with_name(identity)
        .with_grants(grants)
        .with_ttl(datetime.timedelta(hours=1))
        .to_jwt()
    )


async def connect_room(identity, room_name, room=None, options=None):
    room = room or rtc.Room()
    arguments = [options] if options else []
    await room.connect(os.environ["LIVEKIT_URL"], create_token(identity, room_name), *arguments)
    return room


async def wait_until(condition, timeout=DEFAULT_SECONDS, interval=0.05, message="condition not met"):
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert loop.time() < deadline, f"{message} (waited {timeout} s)"
        await asyncio.sleep(interval)


async def assert_eventually(condition, timeout=DEFAULT_SECONDS, interval=0.05, message="not reached"):
    return await wait_until(condition, timeout, interval, message)


def expect_room_event(room, event, predicate=None):
    """A future of the arguments of the first `event` that satisfies `predicate`."""
    future = asyncio.get_running_loop().create_future()

    def on_event(*arguments):
        if not future.done() and (predicate is None or predicate(*arguments)):
            future.set_result(arguments)
            room.off(event, on_event)

    room.on(event, on_event)
    return future


async def await_event(future, timeout=DEFAULT_SECONDS):
    return await asyncio.wait_for(future, timeout)


async def ensure_rooms_all_connected(rooms, timeout=DEFAULT_SECONDS):
    """Every room is connected and sees every other one's participant."""
    for room in rooms:
        others = [r.local_participant.identity for r in rooms if r is not room]
        await wait_until(
            lambda: room.connection_state == rtc.ConnectionState.CONN_CONNECTED,
            timeout,
            message="room not connected",
        )
        await ensure_participants_visible(room, others, timeout)


async def ensure_participants_visible(room, identities, timeout=DEFAULT_SECONDS):
    await wait_until(
        lambda: set(identities) <= set(room.remote_participants),
        timeout,
        message=f"{room.local_participant.identity} does not see {identities}",
    )


async def ensure_track_subscribed(room, sid, timeout=DEFAULT_SECONDS):
    """The remote publication `sid`, once its track is subscribed."""

    def publication():
        for participant in room.remote_participants.values():
            found = participant.track_publications.get(sid)
            if found is not None and found.track is not None:
                return found
        return None

    return await wait_until(publication, timeout, message=f"track {sid} not subscribed")


async def publish_dummy_video(source, stop, fps=15, width=320, height=180):
    """Feeds a moving grey bar until `stop` is set."""
    number = 0
    while not stop.is_set():
        luma = np.full((height, width), 64, np.uint8)
        left = number * 8 % width
        luma[:, left : left + 64] = 200
        chroma = np.full(width * height // 2, 128, np.uint8)
        data = luma.tobytes() + chroma.tobytes()
        source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, data))
        number += 1
        try:
            await asyncio.wait_for(stop.wait(), 1 / fps)
        except asyncio.TimeoutError:
            pass
