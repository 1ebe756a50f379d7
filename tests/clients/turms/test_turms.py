"""Turms users in calls, with LiveKit's own clients: rights follow Turms while the call goes on."""

import asyncio
import time

import numpy as np
import pytest
from livekit import api, rtc

GROUP = 9007199254740993  # beyond what a double holds
ROOM = f"turms:g:{GROUP}"
SECONDS = 30


async def until(what, holds, seconds=SECONDS):
    """Waits until something holds; returns how long it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + seconds, f"not {what}"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


class User:
    """A user's client in a room."""

    def __init__(self):
        self.room = rtc.Room()
        self.gone = None
        self.room.on("disconnected", self._disconnected)

    def _disconnected(self, reason):
        self.gone = reason

    async def join(self, answer):
        await self.room.connect(answer["server_url"], answer["participant_token"])
        return self

    async def publish(self):
        source = rtc.AudioSource(48_000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("voice", source)
        publication = await self.room.local_participant.publish_track(track)
        silence = np.zeros(480, np.int16).tobytes()
        await source.capture_frame(rtc.AudioFrame(silence, 48_000, 1, 480))
        return publication

    def sees_tracks_of(self, identity):
        participant = self.room.remote_participants.get(identity)
        return len(participant.track_publications) if participant else 0

    @property
    def may_publish(self):
        return self.room.local_participant.permissions.can_publish

    async def leave(self):
        await self.room.disconnect()


def members(world, **roles):
    world.script(
        {"op": "group", "id": GROUP},
        *(
            {"op": "member", "group": GROUP, "user": int(name[1:]), "role": role}
            for name, role in roles.items()
        ),
    )


async def call(world, *users):
    clients = []
    for user in users:
        clients.append(await User().join(world.group_token(user, GROUP)))
    return clients


async def mute_and_back(world, told):
    """Returns the seconds from the mute in Turms to the lost right."""
    owner, member = await call(world, 1, 7)
    await member.publish()
    await until("published", lambda: owner.sees_tracks_of("7") == 1)
    end = int(time.time() * 1000) + 4_000
    world.script(
        {"op": "member", "group": GROUP, "user": 7, "role": "MEMBER", "mute_end": end}
    )
    told()
    took = await until("muted", lambda: owner.sees_tracks_of("7") == 0)
    await until("told", lambda: not member.may_publish)
    with pytest.raises(Exception):
        await asyncio.wait_for(member.publish(), 2)
    await until("unmuted", lambda: member.may_publish)
    assert time.time() * 1000 >= end
    await member.publish()
    await until("published again", lambda: owner.sees_tracks_of("7") == 1)
    await owner.leave()
    await member.leave()
    return took


@pytest.mark.turms(sync={"poll_interval": "1h", "stale_after": "3h"})
def test_a_notice_mutes_within_a_second_and_the_mute_ends_on_its_date(world):
    members(world, u1="OWNER", u7="MEMBER")

    def told():
        world.notice(kind="member_updated", group_id=str(GROUP), user_ids=["7"])

    took = asyncio.run(mute_and_back(world, told))
    print(f"muted after {took * 1000:.0f} ms")
    assert took < 1


@pytest.mark.turms(sync={"poll_interval": "1s", "stale_after": "1m"})
def test_without_the_plugin_the_next_look_mutes(world):
    members(world, u1="OWNER", u7="MEMBER")
    took = asyncio.run(mute_and_back(world, lambda: None))
    print(f"muted after {took * 1000:.0f} ms")


@pytest.mark.turms(sync={"poll_interval": "1h", "stale_after": "3h"})
def test_whoever_is_removed_is_out_and_cannot_return_with_the_old_token(world):
    async def run():
        members(world, u1="OWNER", u7="MEMBER")
        old = world.group_token(7, GROUP)
        (owner,) = await call(world, 1)
        member = await User().join(old)
        world.script({"op": "remove_member", "group": GROUP, "user": 7})
        world.notice(kind="members_removed", group_id=str(GROUP), user_ids=["7"])
        await until("out", lambda: member.gone is not None)
        assert member.gone == rtc.DisconnectReason.PARTICIPANT_REMOVED
        await until("gone for others", lambda: "7" not in owner.room.remote_participants)
        with pytest.raises(rtc.ConnectError):
            await User().join(old)
        status, answer = world.ask_token(7, target={"type": "group", "id": str(GROUP)})
        assert (status, answer["reason"]) == (403, "not_member")
        await owner.leave()

    asyncio.run(run())


def test_a_manager_can_kick_through_livekits_api_and_a_member_cannot(world):
    async def kick(answer, identity):
        request = api.RoomParticipantIdentity(room=ROOM, identity=identity)
        async with api.LiveKitAPI(world.http, token=answer["participant_token"]) as livekit:
            await livekit.room.remove_participant(request)

    async def run():
        members(world, u2="MANAGER", u7="MEMBER", u8="MEMBER")
        manager, seven, eight = await call(world, 2, 7, 8)
        with pytest.raises(api.TwirpError):
            await kick(world.group_token(7, GROUP), "8")
        assert eight.gone is None
        await kick(world.group_token(2, GROUP), "8")
        await until("kicked", lambda: eight.gone is not None)
        # Demoted, the manager cannot kick any more, not even with the token from before.
        before = world.group_token(2, GROUP)
        world.script({"op": "member", "group": GROUP, "user": 2, "role": "MEMBER"})
        world.notice(kind="member_updated", group_id=str(GROUP), user_ids=["2"])
        role = lambda: manager.room.local_participant.attributes.get("turms.role")  # noqa: E731
        await until("demoted", lambda: role() == "MEMBER")
        with pytest.raises(api.TwirpError):
            await kick(before, "7")
        assert seven.gone is None
        await manager.leave()
        await seven.leave()

    asyncio.run(run())


@pytest.mark.turms(messages={"roster_digest": "1s"})
def test_a_deleted_group_ends_its_call_and_turms_has_heard_of_it(world):
    async def run():
        members(world, u1="OWNER", u7="MEMBER", u8="MEMBER")
        owner, member = await call(world, 1, 7)
        outside = world.roster(8, GROUP)
        assert sorted(entry["user_id"] for entry in outside["participants"]) == ["1", "7"]
        has = lambda event: [r for r in world.records() if r["event"] == event]  # noqa: E731
        await until("roster message", lambda: any(len(r["participants"]) == 2 for r in has("roster")))
        world.script({"op": "delete_group", "id": GROUP})
        world.notice(kind="group_deleted", group_id=str(GROUP))
        await until("over", lambda: owner.gone is not None and member.gone is not None)
        assert owner.gone == rtc.DisconnectReason.ROOM_DELETED
        await until("finished message", lambda: has("room_finished"))
        assert has("room_finished")[0]["peak_participants"] == 2
        assert len(has("room_started")) == 1
        assert world.state()["refused"] == []

    asyncio.run(run())
