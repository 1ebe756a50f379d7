"""WHIP and WHEP with aiortc (PyPI): a WebRTC stack of its own, neither libwebrtc nor pion."""

import asyncio
import time

import aiohttp
from aiortc import AudioStreamTrack, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError
from livekit import api

from conftest import PATIENCE, lkapi, run, token


async def open_resource(http, connection, url, bearer):
    """Posts the offer, takes the answer; the resource's address."""
    await connection.setLocalDescription(await connection.createOffer())
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {bearer}"}
    async with http.post(url, data=connection.localDescription.sdp, headers=headers) as response:
        answer = await response.text()
        assert response.status == 201, answer
        assert response.headers["ETag"]
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        return response.headers["Location"]


@run
async def test_aiortc_publishes_and_plays(server, room):
    frames = {"audio": 0, "video": 0}

    async def play(track):
        try:
            while True:
                await track.recv()
                frames[track.kind] += 1
        except MediaStreamError:
            pass

    publisher, player = RTCPeerConnection(), RTCPeerConnection()
    players = []
    player.on("track", lambda track: players.append(asyncio.create_task(play(track))))
    for track in (AudioStreamTrack(), VideoStreamTrack()):
        publisher.addTransceiver(track, direction="sendonly")
        player.addTransceiver(track.kind, direction="recvonly")
    who = {"publisher": token(room, "publisher"), "player": token(room, "player")}
    async with aiohttp.ClientSession(server.url) as http, lkapi(server) as lk:
        resources = [
            (await open_resource(http, publisher, "/whip/v1", who["publisher"]), "publisher"),
            (await open_resource(http, player, "/whep/v1", who["player"]), "player"),
        ]
        deadline = time.monotonic() + PATIENCE
        while min(frames.values()) < 20:
            assert time.monotonic() < deadline, frames
            await asyncio.sleep(0.1)
        for resource, name in resources:
            headers = {"Authorization": f"Bearer {who[name]}"}
            async with http.delete(resource, headers=headers) as response:
                assert response.status == 200
        await publisher.close()
        await player.close()
        while (await lk.room.list_participants(api.ListParticipantsRequest(room=room))).participants:
            assert time.monotonic() < deadline + PATIENCE
            await asyncio.sleep(0.1)
