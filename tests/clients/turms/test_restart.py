"""What a crash of the server must not undo: whoever was removed stays out, a cancelled meeting stays
closed, and a meeting is still its group's."""

import asyncio

import pytest
from livekit import rtc

from turms.test_js_plugin import accept_invitation, create_meeting, run_plugin
from turms.test_stock_plugin import CREATE, DELETE, join, plugin_call
from turms.test_turms import GROUP, User, call, members, until

MADE = "987654321"


async def refused(joining):
    with pytest.raises(rtc.ConnectError):
        await joining


def test_whoever_was_removed_cannot_return_with_the_old_token_after_a_crash(world):
    async def run():
        members(world, u1="OWNER", u7="MEMBER")
        old, stays = world.group_token(7, GROUP), world.group_token(1, GROUP)
        member = await User().join(old)
        world.script({"op": "remove_member", "group": GROUP, "user": 7})
        world.notice(kind="members_removed", group_id=str(GROUP), user_ids=["7"])
        await until("out", lambda: member.gone is not None)
        world.restart()
        await refused(User().join(old | {"server_url": world.server.url}))
        # Turms was not asked yet: it is what was remembered that counts.
        assert world.server.metric("sluice_turms_joins_denied_total") >= 1
        owner = await User().join(stays | {"server_url": world.server.url})
        await owner.leave()
        status, answer = world.ask_token(7, target={"type": "group", "id": str(GROUP)})
        assert (status, answer["reason"]) == (403, "not_member")
        # A member again, with a token of then.
        members(world, u7="MEMBER")
        world.notice(kind="members_added", group_id=str(GROUP), user_ids=["7"])
        (member,) = await call(world, 7)
        await member.leave()

    asyncio.run(run())


def test_a_cancelled_meeting_of_the_stock_plugin_stays_closed_after_a_crash(world):
    async def run():
        assert plugin_call(world, "CreateRoom", CREATE)[0] == 200
        first = await join(world)
        assert plugin_call(world, "DeleteRoom", DELETE)[0] == 200
        await until("over", lambda: first.gone is not None)
        world.restart()
        await refused(join(world))
        assert world.server.metric("sluice_turms_joins_to_closed_meetings_total") >= 1

    asyncio.run(run())


@pytest.mark.turms(sync={"poll_interval": "1s"})
def test_a_meeting_is_still_its_groups_after_a_crash(world):
    async def run():
        members(world, u7="MEMBER", u8="MEMBER")
        await asyncio.to_thread(run_plugin, world, create_meeting("7", MADE))
        world.restart()
        out = await asyncio.to_thread(
            run_plugin, world, accept_invitation("8", MADE), accept_invitation("9", MADE)
        )
        accepted, stranger = out["results"]
        assert "403" in stranger["error"], "no member of the group"
        answer = {"server_url": world.server.url, "participant_token": accepted["token"]}
        eight = await User().join(answer)
        world.script({"op": "remove_member", "group": GROUP, "user": 8})
        await until("out", lambda: eight.gone is not None)
        assert eight.gone == rtc.DisconnectReason.PARTICIPANT_REMOVED

    asyncio.run(run())
