"""A real `livekit-agents` worker: it registers, gets a job, joins, is heard, and hears a text stream.
When it is killed, another worker gets its job."""

import asyncio
import contextlib
import http.client
import os
import signal
import subprocess
import threading

import pytest
from conftest import HERE, KEY, SECRET, LOGS, eventually, joined, lkapi, run, token
from harness.server import end_with_parent
from livekit import api, rtc
from livekit.protocol.agent import JobStatus

PYTHON = HERE.parent / ".venv-agents" / "bin" / "python"


class Worker:
    """One worker process, its own group; `lines` is what it printed."""

    def __init__(self, server, name):
        LOGS.mkdir(parents=True, exist_ok=True)
        self.lines = []
        self.log = open(LOGS / f"agent-{name}.log", "ab")

        def start():
            os.setsid()
            end_with_parent()

        self.process = subprocess.Popen(
            [PYTHON, HERE / "agent_worker.py", server.url, KEY, SECRET, name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True,
            preexec_fn=start,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.strip())

    async def registered(self):
        # Importing the framework takes a while on a busy machine.
        async with asyncio.timeout(60):
            while "registered" not in self.lines:
                assert self.process.poll() is None, "the worker ended: see its log"
                await asyncio.sleep(0.05)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


@pytest.fixture
def workers(server):
    """`workers(name)` starts one; all are killed at the end."""
    started = []

    def start(name):
        started.append(Worker(server, name))
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


async def hears(client):
    """Waits until an agent is heard: sound, not only packets."""
    frames = asyncio.Queue()

    async def listen(track):
        async for event in rtc.AudioStream(track):
            if max(abs(sample) for sample in event.frame.data) > 1000:
                await frames.put(True)
                return

    tasks = [
        asyncio.create_task(listen(publication.track))
        for participant in client.remote_participants.values()
        for publication in participant.track_publications.values()
        if publication.track is not None
    ]

    def subscribed(track, *_):
        tasks.append(asyncio.create_task(listen(track)))

    client.on("track_subscribed", subscribed)
    try:
        await asyncio.wait_for(frames.get(), 30)
    finally:
        client.off("track_subscribed", subscribed)
        for task in tasks:
            task.cancel()


async def asks(client, question):
    """Sends a text as a transcription would come, and waits for the agent's answer."""
    answers = asyncio.Queue()

    def on_text(reader, identity):
        async def read():
            await answers.put(await reader.read_all())

        asyncio.create_task(read())

    client.register_text_stream_handler("lk.chat", on_text)
    try:
        await client.local_participant.send_text(question, topic="lk.transcription")
        return await asyncio.wait_for(answers.get(), 20)
    finally:
        client.unregister_text_stream_handler("lk.chat")


async def agents_of(lk, room):
    listed = await lk.room.list_participants(api.ListParticipantsRequest(room=room))
    return [p for p in listed.participants if p.kind == 4 and p.tracks]


@run
async def test_an_agent_by_the_rooms_configuration(server, workers, room):
    name = "by-room"
    await workers(name).registered()
    async with lkapi(server) as lk:
        dispatch = api.RoomAgentDispatch(agent_name=name, metadata="m")
        await lk.room.create_room(api.CreateRoomRequest(name=room, agents=[dispatch]))
        async with joined(server, room, "alice") as alice:
            await hears(alice)
            [agent] = await agents_of(lk, room)
            assert agent.identity.startswith("agent-AJ_")
            assert agent.attributes["lk.agent_name"] == name
            assert agent.permission.agent
            assert await asks(alice, "good morning") == "heard: good morning"
            [listed] = await lk.agent_dispatch.list_dispatch(room)
            [job] = listed.state.jobs
            assert job.state.status == JobStatus.JS_RUNNING
            assert job.state.participant_identity == agent.identity
            # Agents neither count nor keep the room open.
            [found] = (await lk.room.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
            assert found.num_participants == 1


@run
async def test_an_agent_by_the_api_that_is_sent_away_again(server, workers, room):
    name = "by-api"
    await workers(name).registered()
    async with lkapi(server) as lk, joined(server, room, "alice") as alice:
        request = api.CreateAgentDispatchRequest(agent_name=name, room=room)
        dispatch = await lk.agent_dispatch.create_dispatch(request)
        await hears(alice)
        await lk.agent_dispatch.delete_dispatch(dispatch.id, room)

        async def gone():
            return not await agents_of(lk, room)

        await eventually(gone)


@run
async def test_an_agent_by_the_token(server, workers, room):
    name = "by-token"
    await workers(name).registered()
    config = api.RoomConfiguration(agents=[api.RoomAgentDispatch(agent_name=name)])
    access = api.AccessToken(KEY, SECRET).with_identity("alice").with_room_config(config)
    access = access.with_grants(api.VideoGrants(room_join=True, room=room)).to_jwt()
    async with joined(server, room, "alice", access) as alice:
        await hears(alice)


@run
async def test_a_killed_worker_is_replaced_by_another(server, workers, room):
    name = "killed"
    first = workers(name)
    await first.registered()
    async with lkapi(server) as lk, joined(server, room, "alice") as alice:
        request = api.CreateAgentDispatchRequest(agent_name=name, room=room)
        await lk.agent_dispatch.create_dispatch(request)
        await hears(alice)
        second = workers(name)
        await second.registered()
        assert any(line.startswith("job") for line in first.lines)
        first.kill()
        async with asyncio.timeout(60):
            while not any(line.startswith("job") for line in second.lines):
                await asyncio.sleep(0.05)
        await hears(alice)
        assert await asks(alice, "still there?") == "heard: still there?"


def test_only_an_agents_token_registers(server):
    """The socket refuses a participant's token before the upgrade."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/agent", headers={
        "Authorization": f"Bearer {token('r', 'alice')}", "Connection": "Upgrade",
        "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    })
    assert connection.getresponse().status == 401
