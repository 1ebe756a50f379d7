"""Our plugin for turms-service, run in a JavaScript engine with Turms' plugin surface around it."""

import asyncio
import json
import pathlib
import subprocess

import pytest

from turms.test_turms import GROUP, User, members, until
from turms.world import EVENT_SECRET

HERE = pathlib.Path(__file__).resolve().parent
PLUGIN = HERE.parents[2] / "deploy" / "turms" / "sluice-turms-plugin.js"
MEETING = "123456789"
SLOW = {"sync": {"poll_interval": "1h", "stale_after": "3h"}}


def run_plugin(world, *calls, secret=EVENT_SECRET.decode()):
    """Runs calls as turms-service would make them; returns what came out."""
    done = subprocess.run(
        ["node", str(HERE / "plugin_host.mjs"), str(PLUGIN), world.http, secret],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def create_meeting(requester, meeting, group=GROUP):
    return {
        "call": "createMeeting",
        "requester": requester,
        "meeting": {"id": meeting, "group": str(group)},
        "options": {"max": 100, "idle": 3_600_000},
    }


def accept_invitation(requester, meeting):
    return {"call": "acceptMeetingInvitation", "requester": requester, "meeting": meeting}


def member_updated(user):
    fields = {"groupId": str(GROUP), "memberId": str(user)}
    return {"call": "beforeNotify", "kind": "UPDATE_GROUP_MEMBER_REQUEST", "fields": fields}


@pytest.mark.turms(**SLOW)
def test_a_mute_in_turms_reaches_the_call_through_the_plugin(world):
    async def run():
        members(world, u1="OWNER", u7="MEMBER")
        member = await User().join(world.group_token(7, GROUP))
        await until("joined", lambda: member.may_publish)
        far = 4_102_444_800_000
        world.script({"op": "member", "group": GROUP, "user": 7, "role": "MEMBER", "mute_end": far})
        out = await asyncio.to_thread(run_plugin, world, member_updated(7) | {"copies": 3})
        assert out["results"] == [{"same": True}]
        assert out["logged"] == []
        await until("muted", lambda: not member.may_publish)
        accepted = world.server.metric("sluice_turms_events_accepted_total")
        assert accepted == 1, "one notice for three copies of the notification"
        await member.leave()

    asyncio.run(run())


@pytest.mark.turms(**SLOW)
def test_every_kind_of_change_is_told(world):
    group = {"groupId": str(GROUP)}
    calls = [
        {"kind": "CREATE_GROUP_MEMBERS_REQUEST", "fields": group | {"userIds": ["7", "8"]}},
        {"kind": "DELETE_GROUP_MEMBERS_REQUEST", "fields": group | {"memberIds": ["7"]}},
        {"kind": "UPDATE_GROUP_REQUEST", "fields": group},
        {"kind": "DELETE_GROUP_REQUEST", "fields": group},
        {"kind": "CREATE_GROUP_BLOCKED_USER_REQUEST", "fields": group | {"userId": "7"}},
        {"kind": "DELETE_GROUP_BLOCKED_USER_REQUEST", "fields": group | {"userId": "7"}},
        {"kind": "CREATE_RELATIONSHIP_REQUEST", "fields": {"userId": "7"}},
        {"kind": "UPDATE_RELATIONSHIP_REQUEST", "fields": {"userId": "7"}},
        {"kind": "CREATE_MESSAGE_REQUEST", "fields": {}},
    ]
    calls = [{"call": "beforeNotify"} | call for call in calls]
    calls += [{"call": "handleAdminAction", "action": name} for name in ("updateGroupMembers", "queryGroups")]
    out = run_plugin(world, *calls)
    assert all(result.get("same", True) for result in out["results"]), out
    assert out["logged"] == []
    assert world.server.metric("sluice_turms_events_accepted_total") == 9
    assert world.server.metric("sluice_turms_events_refused_total") == 0


def test_a_wrong_secret_is_refused_and_turms_goes_on(world):
    out = run_plugin(world, member_updated(7), secret="another secret, long enough to be one")
    assert out["results"] == [{"same": True}]
    assert "401" in out["logged"][0]
    assert world.server.metric("sluice_turms_events_refused_total") == 1


def test_conference_requests_bind_the_requester_and_cancelling_ends_the_meeting(world):
    async def run():
        members(world, u7="MEMBER", u8="MEMBER")
        made = await asyncio.to_thread(
            run_plugin,
            world,
            {"call": "addMeetingEndedEventListener"},
            create_meeting("7", MEETING),
            accept_invitation("8", MEETING),
            accept_invitation("9", MEETING),
        )
        _, created, accepted, stranger = made["results"]
        assert "403" in stranger["error"], "no member of the group"
        seven, eight = User(), User()
        for user, result in ((seven, created), (eight, accepted)):
            answer = {"server_url": world.server.url, "participant_token": result["token"]}
            await user.join(answer)
        await until("met", lambda: set(seven.room.remote_participants) == {"8"})
        assert seven.room.local_participant.identity == "7"
        cancel = {"call": "cancelMeeting", "requester": "7", "meeting": MEETING}
        again = accept_invitation("8", MEETING)
        out = await asyncio.to_thread(run_plugin, world, cancel, again)
        assert out["results"][0] == {"token": None}
        assert "410" in out["results"][1]["error"]
        await until("over", lambda: seven.gone is not None and eight.gone is not None)

    asyncio.run(run())
