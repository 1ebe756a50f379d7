"""`livekit-api` (PyPI) against every method of RoomService and AgentDispatchService."""

import asyncio
import time
from array import array

import pytest
from livekit import api, rtc
from livekit.protocol.models import DataPacket, ParticipantInfo, ParticipantTracks

from conftest import KEY, SECRET, eventually, joined, lkapi, run, token


# A task that nobody refers to may vanish.
TASKS = set()


async def refused(call, code, message=None):
    """Awaits a call that must fail with a Twirp code."""
    with pytest.raises(api.TwirpError) as error:
        await call
    assert error.value.code == code, error.value
    if message is not None:
        assert error.value.message == message
    return error.value


async def publish_tone(client):
    source = rtc.AudioSource(48_000, 1)
    track = rtc.LocalAudioTrack.create_audio_track("tone", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    publication = await client.local_participant.publish_track(track, options)

    async def play():
        # A square wave of 500 Hz, in frames of 10 ms.
        frame = array("h", ([8000] * 48 + [-8000] * 48) * 5).tobytes()
        while client.isconnected():
            await source.capture_frame(rtc.AudioFrame(frame, 48_000, 1, 480))

    TASKS.add(asyncio.create_task(play()))
    return publication


@run
async def test_create_room(server, room):
    async with lkapi(server) as lk:
        request = api.CreateRoomRequest(
            name=room, empty_timeout=60, departure_timeout=5, max_participants=3, metadata="m"
        )
        made = await lk.room.create_room(request)
        assert made.sid.startswith("RM_")
        assert (made.empty_timeout, made.departure_timeout, made.max_participants) == (60, 5, 3)
        again = await lk.room.create_room(api.CreateRoomRequest(name=room))
        assert (again.sid, again.metadata) == (made.sid, "m")
        preset = api.CreateRoomRequest(name=room + "-p", room_preset="short")
        made = await lk.room.create_room(preset)
        assert (made.empty_timeout, made.metadata) == (7, "preset")
        preset.room_preset = "none"
        await refused(lk.room.create_room(preset), "invalid_argument")
        long = api.CreateRoomRequest(name="x" * 257)
        await refused(lk.room.create_room(long), "invalid_argument", "room name length exceeds limits")
        large = api.CreateRoomRequest(name=room, metadata="x" * (512 * 1024 + 1))
        error = await refused(lk.room.create_room(large), "invalid_argument")
        assert error.metadata == {"argument": "metadata size exceeds limits"}


@run
async def test_list_rooms(server, room):
    async with lkapi(server) as lk:
        for name in [room + "-a", room + "-b"]:
            await lk.room.create_room(api.CreateRoomRequest(name=name))
        listed = await lk.room.list_rooms(api.ListRoomsRequest(names=[room + "-a", "nothing"]))
        assert [r.name for r in listed.rooms] == [room + "-a"]
        everything = await lk.room.list_rooms(api.ListRoomsRequest())
        assert {room + "-a", room + "-b"} <= {r.name for r in everything.rooms}


@run
async def test_delete_room(server, room):
    async with lkapi(server) as lk:
        async with joined(server, room, "alice") as alice:
            gone = asyncio.Event()
            alice.on("disconnected", lambda reason: gone.set())
            await lk.room.delete_room(api.DeleteRoomRequest(room=room))
            await asyncio.wait_for(gone.wait(), 10)
        text = "requested room does not exist"
        await refused(lk.room.delete_room(api.DeleteRoomRequest(room=room)), "not_found", text)


@run
async def test_update_room_metadata(server, room):
    async with lkapi(server) as lk:
        async with joined(server, room, "alice") as alice:
            request = api.UpdateRoomMetadataRequest(room=room, metadata="new")
            assert (await lk.room.update_room_metadata(request)).metadata == "new"
            await eventually(lambda: alice.metadata == "new")
        request = api.UpdateRoomMetadataRequest(room=room + "-none", metadata="new")
        await refused(lk.room.update_room_metadata(request), "not_found")


@run
async def test_list_and_get_participants(server, room):
    async with lkapi(server) as lk:
        empty = await lk.room.list_participants(api.ListParticipantsRequest(room=room))
        assert not empty.participants
        async with joined(server, room, "alice"), joined(
            server, room, "ghost", token(room, "ghost", hidden=True)
        ):
            listed = await lk.room.list_participants(api.ListParticipantsRequest(room=room))
            assert {p.identity for p in listed.participants} == {"alice", "ghost"}
            who = api.RoomParticipantIdentity(room=room, identity="alice")
            assert (await lk.room.get_participant(who)).sid.startswith("PA_")
            who.identity = "nobody"
            text = "participant does not exist"
            await refused(lk.room.get_participant(who), "not_found", text)


@run
async def test_remove_participant(server, room):
    async with lkapi(server) as lk:
        who = api.RoomParticipantIdentity(room=room, identity="alice")
        await refused(lk.room.remove_participant(who), "not_found", "participant does not exist")
        old = token(room, "alice")
        async with joined(server, room, "alice", old) as alice:
            gone = asyncio.Event()
            alice.on("disconnected", lambda reason: gone.set())
            await lk.room.remove_participant(who)
            await asyncio.wait_for(gone.wait(), 10)
        # Without a revocation the token is still good.
        async with joined(server, room, "alice", old):
            pass


@run
async def test_revoked_tokens_do_not_join_again(server, room):
    async with lkapi(server) as lk:
        old = token(room, "alice")
        async with joined(server, room, "alice", old):
            who = api.RoomParticipantIdentity(
                room=room, identity="alice", revoke_token_ts=int(time.time()) + 1
            )
            await lk.room.remove_participant(who)
            await eventually(lambda: not_there(lk, room, "alice"))
        with pytest.raises(rtc.ConnectError):
            async with joined(server, room, "alice", old):
                pass
        async with joined(server, room, "bob"):
            pass
        await asyncio.sleep(1.1)  # tokens carry whole seconds
        async with joined(server, room, "alice"):
            pass


async def not_there(lk, room, identity):
    listed = await lk.room.list_participants(api.ListParticipantsRequest(room=room))
    return identity not in {p.identity for p in listed.participants}


@run
async def test_mute_published_track(server, room):
    async with lkapi(server) as lk:
        async with joined(server, room, "alice") as alice:
            publication = await publish_tone(alice)
            request = api.MuteRoomTrackRequest(
                room=room, identity="alice", track_sid=publication.sid, muted=True
            )
            muted = await eventually(lambda: mute(lk, request))
            assert (muted.track.sid, muted.track.muted) == (publication.sid, True)
            request.muted = False
            text = "remote unmute not enabled"
            call = lk.room.mute_published_track(request)
            await refused(call, "failed_precondition", text)
            request.identity = "nobody"
            await refused(lk.room.mute_published_track(request), "not_found")


async def mute(lk, request):
    """The answer, once the track is there: media comes a moment after its announcement."""
    muted = await lk.room.mute_published_track(request)
    return muted if muted.HasField("track") else None


@run
async def test_update_participant(server, room):
    async with lkapi(server) as lk:
        async with joined(server, room, "alice") as alice:
            request = api.UpdateParticipantRequest(
                room=room, identity="alice", name="Alice", metadata="m", attributes={"a": "1", "b": "2"}
            )
            info = await lk.room.update_participant(request)
            assert (info.name, info.metadata, dict(info.attributes)) == ("Alice", "m", {"a": "1", "b": "2"})
            await eventually(lambda: alice.local_participant.attributes.get("b") == "2")
            request = api.UpdateParticipantRequest(room=room, identity="alice", attributes={"a": ""})
            info = await lk.room.update_participant(request)
            assert (info.name, dict(info.attributes)) == ("Alice", {"b": "2"})
            request = api.UpdateParticipantRequest(room=room, identity="alice")
            request.permission.can_subscribe = True
            info = await lk.room.update_participant(request)
            assert (info.permission.can_publish, info.permission.can_subscribe) == (False, True)
            request = api.UpdateParticipantRequest(room=room, identity="alice", name="x" * 257)
            text = "name length exceeds limits 256"
            await refused(lk.room.update_participant(request), "invalid_argument", text)
            request = api.UpdateParticipantRequest(room=room, identity="nobody", name="x")
            await refused(lk.room.update_participant(request), "not_found")


@run
async def test_update_subscriptions(server, room):
    async with lkapi(server) as lk:
        async with joined(server, room, "alice") as alice, joined(server, room, "bob"):
            # What the server sends: this client says nothing when the server takes a track away.
            def subscriptions():
                return server.metric("livekit_track_subscribed_total")

            publication = await publish_tone(alice)
            await eventually(lambda: subscriptions() == 1)
            request = api.UpdateSubscriptionsRequest(
                room=room, identity="bob", track_sids=[publication.sid], subscribe=False
            )
            await lk.room.update_subscriptions(request)
            await eventually(lambda: subscriptions() == 0)
            tracks = ParticipantTracks(
                participant_sid=alice.local_participant.sid, track_sids=[publication.sid]
            )
            request = api.UpdateSubscriptionsRequest(
                room=room, identity="bob", participant_tracks=[tracks], subscribe=True
            )
            await lk.room.update_subscriptions(request)
            await eventually(lambda: subscriptions() == 1)
            request.identity = "nobody"
            await refused(lk.room.update_subscriptions(request), "not_found")


@run
async def test_send_data(server, room):
    async with lkapi(server) as lk:
        async with joined(server, room, "alice") as alice, joined(server, room, "bob") as bob:
            heard = {"alice": [], "bob": []}
            alice.on("data_received", lambda packet: heard["alice"].append(packet))
            bob.on("data_received", lambda packet: heard["bob"].append(packet))
            send = api.SendDataRequest(
                room=room, data=b"for bob", kind=DataPacket.RELIABLE, topic="t",
                destination_identities=["bob"],
            )
            await lk.room.send_data(send)
            send = api.SendDataRequest(room=room, data=b"for all", kind=DataPacket.RELIABLE)
            await lk.room.send_data(send)
            await eventually(lambda: heard["alice"] and len(heard["bob"]) == 2)
            assert [(p.data, p.topic) for p in heard["bob"]] == [(b"for bob", "t"), (b"for all", "")]
            assert [p.data for p in heard["alice"]] == [b"for all"]
            # The SDK would set a nonce of its own.
            send.nonce = b"short"
            grants = api.VideoGrants(room_admin=True, room=room)
            call = lk.room._client.request(
                "RoomService", "SendData", send, lk.room._auth_header(grants), api.SendDataResponse
            )
            text = "nonce should be 16-bytes or not present, got: 5 bytes"
            await refused(call, "invalid_argument", text)
        send = api.SendDataRequest(room=room + "-none", data=b"x")
        await refused(lk.room.send_data(send), "not_found", "requested room does not exist")


@run
async def test_perform_rpc(server, room):
    async with lkapi(server) as lk:
        grants = api.VideoGrants(room_admin=True, room=room)

        async def perform(**fields):
            from livekit.protocol import room as proto

            request = proto.PerformRpcRequest(room=room, **fields)
            return await lk.room._client.request(
                "RoomService", "PerformRpc", request,
                lk.room._auth_header(grants), proto.PerformRpcResponse,
            )

        async with joined(server, room, "alice") as alice:
            @alice.local_participant.register_rpc_method("greet")
            async def greet(data: rtc.RpcInvocationData):
                return f"hello {data.payload}"

            @alice.local_participant.register_rpc_method("fail")
            async def fail(data: rtc.RpcInvocationData):
                raise rtc.RpcError(1234, "no luck", "today")

            answer = await perform(destination_identity="alice", method="greet", payload="you")
            assert answer.payload == "hello you"
            call = perform(destination_identity="alice", method="fail")
            await refused(call, "internal", "RpcError 1234: no luck: today")
            call = perform(destination_identity="alice", method="unknown")
            await refused(call, "invalid_argument")
            await refused(perform(destination_identity="nobody", method="greet"), "not_found")
            await refused(perform(method="greet"), "invalid_argument")


@run
async def test_move_participant(server, room):
    async with lkapi(server) as lk:
        other = room + "-other"
        async with joined(server, room, "alice") as alice, joined(server, room, "bob") as bob:
            left = asyncio.Event()
            bob.on("participant_disconnected", lambda participant: left.set())
            told = asyncio.Event()
            alice.on("moved", lambda *_: told.set())
            await publish_tone(alice)
            request = api.MoveParticipantRequest(room=room, identity="alice", destination_room=other)
            await lk.room.move_participant(request)
            await asyncio.wait_for(left.wait(), 10)
            await asyncio.wait_for(told.wait(), 10)
            who = api.RoomParticipantIdentity(room=other, identity="alice")

            async def arrived():
                try:
                    info = await lk.room.get_participant(who)
                except api.TwirpError:
                    return None
                return info if info.state == ParticipantInfo.ACTIVE and info.tracks else None

            moved = await eventually(arrived)
            assert moved.sid != ""
            await eventually(lambda: alice.name == other)
            request.destination_room = room
            await refused(lk.room.move_participant(request), "invalid_argument")
            request = api.MoveParticipantRequest(room=room, identity="nobody", destination_room=other)
            await refused(lk.room.move_participant(request), "not_found")


@run
async def test_forward_participant(server, room):
    async with lkapi(server) as lk:
        other = room + "-other"
        async with joined(server, room, "alice") as alice, joined(server, other, "bob") as bob:
            await publish_tone(alice)
            request = api.ForwardParticipantRequest(
                room=room, identity="alice", destination_room=other
            )
            await lk.room.forward_participant(request)
            await asyncio.wait_for(heard(bob), 20)
            who = api.RoomParticipantIdentity(room=other, identity="alice")
            there = await lk.room.get_participant(who)
            assert list(there.kind_details) == [ParticipantInfo.KindDetail.FORWARDED]
            update = api.UpdateParticipantRequest(room=room, identity="alice", name="Alice")
            await lk.room.update_participant(update)
            await eventually(lambda: bob.remote_participants["alice"].name == "Alice")
            # Removing it there ends that, and leaves it where it is.
            await lk.room.remove_participant(who)
            await eventually(lambda: "alice" not in bob.remote_participants)
            who.room = room
            assert (await lk.room.get_participant(who)).name == "Alice"
            request.identity = "nobody"
            await refused(lk.room.forward_participant(request), "not_found")


async def heard(client):
    """Waits until some track of the room is heard: sound, not only packets."""
    while True:
        for participant in client.remote_participants.values():
            for publication in participant.track_publications.values():
                if publication.track is not None:
                    async for event in rtc.AudioStream(publication.track):
                        if max(abs(sample) for sample in event.frame.data) > 1000:
                            return
        await asyncio.sleep(0.02)


@run
async def test_agent_dispatches(server, room):
    async with lkapi(server) as lk:
        request = api.CreateAgentDispatchRequest(agent_name="nobody", room=room, metadata="m")
        made = await lk.agent_dispatch.create_dispatch(request)
        assert made.id.startswith("AD_")
        assert (made.agent_name, made.room, made.metadata) == ("nobody", room, "m")
        listed = await lk.agent_dispatch.list_dispatch(room)
        # Rooms without agents call every worker that has no name.
        assert {d.agent_name for d in listed} == {"", "nobody"}
        got = await lk.agent_dispatch.get_dispatch(made.id, room)
        assert got.id == made.id and not got.state.jobs
        deleted = await lk.agent_dispatch.delete_dispatch(made.id, room)
        assert deleted.id == made.id
        call = lk.agent_dispatch.delete_dispatch(made.id, room)
        await refused(call, "not_found", "dispatch ID not found")
        await refused(lk.agent_dispatch.list_dispatch(room + "-none"), "not_found")
        request = api.CreateAgentDispatchRequest(agent_name="a", room=room, deployment="a_b")
        await refused(lk.agent_dispatch.create_dispatch(request), "invalid_argument")


@run
async def test_agents_of_the_room_configuration_in_a_token(server, room):
    async with lkapi(server) as lk:
        config = api.RoomConfiguration(
            empty_timeout=9, metadata="from token", agents=[api.RoomAgentDispatch(agent_name="helper")]
        )
        grant = api.VideoGrants(room_join=True, room=room)
        access = api.AccessToken(KEY, SECRET).with_identity("alice").with_grants(grant)
        access = access.with_room_config(config).to_jwt()
        async with joined(server, room, "alice", access):
            [listed] = (await lk.room.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
            assert (listed.empty_timeout, listed.metadata) == (9, "from token")
            dispatches = await eventually(lambda: lk.agent_dispatch.list_dispatch(room))
            assert [d.agent_name for d in dispatches] == ["helper"]


@run
async def test_every_method_refuses_whoever_does_not_know_the_secret(server, room):
    who = api.RoomParticipantIdentity(room=room, identity="alice")
    async with lkapi(server, "x" * 32) as lk:
        for call in [
            lk.room.create_room(api.CreateRoomRequest(name=room)),
            lk.room.list_rooms(api.ListRoomsRequest()),
            lk.room.delete_room(api.DeleteRoomRequest(room=room)),
            lk.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=room)),
            lk.room.list_participants(api.ListParticipantsRequest(room=room)),
            lk.room.get_participant(who),
            lk.room.remove_participant(who),
            lk.room.mute_published_track(api.MuteRoomTrackRequest(room=room)),
            lk.room.update_participant(api.UpdateParticipantRequest(room=room)),
            lk.room.update_subscriptions(api.UpdateSubscriptionsRequest(room=room)),
            lk.room.send_data(api.SendDataRequest(room=room)),
            lk.room.forward_participant(api.ForwardParticipantRequest(room=room)),
            lk.room.move_participant(api.MoveParticipantRequest(room=room)),
            lk.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(room=room)),
            lk.agent_dispatch.delete_dispatch("AD_none", room),
            lk.agent_dispatch.get_dispatch("AD_none", room),
            lk.agent_dispatch.list_dispatch(room),
        ]:
            with pytest.raises(api.TwirpError) as error:
                await call
            assert error.value.status == 401, error.value


@run
async def test_services_that_are_missing_say_so(server):
    async with lkapi(server) as lk:
        stop = api.StopEgressRequest(egress_id="EG_none")
        error = await refused(lk.egress.stop_egress(stop), "unimplemented")
        assert "egress is not available" in error.message
        assert not (await lk.egress.list_egress(api.ListEgressRequest())).items
        assert not (await lk.ingress.list_ingress(api.ListIngressRequest())).items
        trunks = await lk.sip.list_inbound_trunk(api.ListSIPInboundTrunkRequest())
        assert not trunks.items

