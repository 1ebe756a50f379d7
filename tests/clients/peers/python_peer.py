"""Host of LiveKit Python SDK peers; see PROTOCOL.md."""

import asyncio
import json
import math
import sys
import time

import numpy as np
from livekit import rtc
from livekit.rtc._proto.track_publication_pb2 import VideoQuality

# Y, U, V of red, green, blue, yellow (BT.601, limited range).
COLOURS = [(76, 95, 212), (128, 58, 50), (51, 214, 117), (195, 35, 143)]
SAMPLE_RATE = 48_000
KEPT_SAMPLES = 96
CODECS = {
    "vp8": rtc.VideoCodec.VP8,
    "h264": rtc.VideoCodec.H264,
    "vp9": rtc.VideoCodec.VP9,
    "av1": rtc.VideoCodec.AV1,
}


def draw(width, height, number):
    """Frame `number` of the test picture, as I420."""
    y_value, u_value, v_value = COLOURS[(number // 8) % 4]
    y = np.full((height, width), y_value, np.uint8)
    u = np.full((height // 2, width // 2), u_value, np.uint8)
    v = np.full((height // 2, width // 2), v_value, np.uint8)
    top, block = height * 3 // 4, width // 8
    for bit in range(8):
        y[top:, bit * block : (bit + 1) * block] = 235 if number >> (7 - bit) & 1 else 16
    u[top // 2 :], v[top // 2 :] = 128, 128
    data = b"".join(plane.tobytes() for plane in (y, u, v))
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, data)


def read(frame):
    """Counter and colour of a decoded I420 frame."""
    width, height = frame.width, frame.height
    data = np.frombuffer(frame.data, np.uint8)
    y = data[: width * height].reshape(height, width)
    chroma_width, chroma_height = (width + 1) // 2, (height + 1) // 2
    chroma = data[width * height :]
    size = chroma_width * chroma_height
    row, column = chroma_height * 3 // 8, chroma_width // 2
    at = row * chroma_width + column
    seen = (int(y[height * 3 // 8, width // 2]), int(chroma[at]), int(chroma[size + at]))
    distances = [sum((a - b) ** 2 for a, b in zip(seen, colour)) for colour in COLOURS]
    counter = 0
    for bit in range(8):
        counter = counter << 1 | int(y[height * 7 // 8, (2 * bit + 1) * width // 16] > 125)
    return [counter, distances.index(min(distances))]


class Received:
    """What arrived on one remote track."""

    def __init__(self, identity, kind, joined_at):
        self.identity, self.kind, self.joined_at = identity, kind, joined_at
        self.frames, self.first_frame_ms = 0, None
        self.width = self.height = 0
        self.samples = []
        self.audio = np.zeros(0, np.int16)
        self.track = None

    async def count(self):
        """For a track that nobody watches: what the native library received of it."""
        for entry in await self.track.get_stats():
            if entry.HasField("inbound_rtp"):
                inbound = entry.inbound_rtp
                video = inbound.inbound.frames_decoded
                self.frames = video if self.kind == "video" else inbound.received.packets_received

    async def watch_video(self, track):
        stream = rtc.VideoStream(track, format=rtc.VideoBufferType.I420)
        async for event in stream:
            if self.first_frame_ms is None:
                self.first_frame_ms = (time.monotonic() - self.joined_at) * 1000
            self.frames += 1
            self.width, self.height = event.frame.width, event.frame.height
            self.samples = (self.samples + [read(event.frame)])[-KEPT_SAMPLES:]

    async def watch_audio(self, track):
        stream = rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1)
        async for event in stream:
            if self.first_frame_ms is None:
                self.first_frame_ms = (time.monotonic() - self.joined_at) * 1000
            self.frames += 1
            chunk = np.frombuffer(event.frame.data, np.int16)
            self.audio = np.concatenate([self.audio, chunk])[-SAMPLE_RATE // 2 :]

    def report(self):
        report = {
            "identity": self.identity,
            "kind": self.kind,
            "frames": self.frames,
            "first_frame_ms": self.first_frame_ms,
        }
        if self.kind == "video":
            report |= {"width": self.width, "height": self.height, "samples": self.samples}
        elif len(self.audio) >= SAMPLE_RATE // 4:
            samples = self.audio.astype(np.float64)
            spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
            spectrum[: int(50 * len(samples) / SAMPLE_RATE)] = 0
            report["hz"] = float(np.argmax(spectrum)) * SAMPLE_RATE / len(samples)
            report["level"] = float(np.sqrt(np.mean(samples**2)) / 32768)
        return report


class Peer:
    def __init__(self):
        self.room = rtc.Room()
        self.tasks, self.received, self.data = [], {}, []
        self.video_publications = []

    def spawn(self, coroutine):
        self.tasks.append(asyncio.create_task(coroutine))

    async def join(self, url, token, v1=True, subscribe=True, watch=True):
        started = time.monotonic()

        @self.room.on("track_subscribed")
        def subscribed(track, publication, participant):
            kind = "video" if track.kind == rtc.TrackKind.KIND_VIDEO else "audio"
            received = Received(participant.identity, kind, started)
            self.received[publication.sid] = received
            if kind == "video":
                self.video_publications.append(publication)
            if not watch:
                received.track = track
                if kind == "video":
                    publication.set_video_quality(VideoQuality.VIDEO_QUALITY_LOW)
            elif kind == "video":
                self.spawn(received.watch_video(track))
            else:
                self.spawn(received.watch_audio(track))

        @self.room.on("data_received")
        def data_received(packet):
            self.data.append(
                {
                    "from": packet.participant.identity if packet.participant else None,
                    "text": packet.data.decode(errors="replace"),
                    "topic": packet.topic,
                    "reliable": packet.kind == rtc.DataPacketKind.KIND_RELIABLE,
                }
            )

        options = rtc.RoomOptions(auto_subscribe=subscribe, single_peer_connection=v1)
        await self.room.connect(url, token, options)
        return {
            "sid": self.room.local_participant.sid,
            "join_ms": (time.monotonic() - started) * 1000,
        }

    async def publish(self, video=None, audio=None, device=False):
        tracks = []
        if video:
            source = rtc.VideoSource(video["width"], video["height"])
            track = rtc.LocalVideoTrack.create_video_track("picture", source)
            options = rtc.TrackPublishOptions(
                source=rtc.TrackSource.SOURCE_CAMERA,
                simulcast=video.get("simulcast", False),
                video_codec=CODECS[video.get("codec", "vp8")],
            )
            self.spawn(self.draw_forever(source, video))
            tracks.append((await self.room.local_participant.publish_track(track, options)).sid)
        if audio:
            source = rtc.AudioSource(SAMPLE_RATE, 1)
            track = rtc.LocalAudioTrack.create_audio_track("tone", source)
            options = rtc.TrackPublishOptions(
                source=rtc.TrackSource.SOURCE_MICROPHONE,
                red=audio.get("red", True),
                dtx=audio.get("dtx", True),
            )
            self.spawn(self.hum_forever(source, audio["hz"]))
            tracks.append((await self.room.local_participant.publish_track(track, options)).sid)
        return {"tracks": tracks}

    async def mute(self, muted):
        for publication in self.room.local_participant.track_publications.values():
            if publication.track.kind == rtc.TrackKind.KIND_AUDIO:
                publication.track.mute() if muted else publication.track.unmute()

    async def draw_forever(self, source, video):
        started, number = time.monotonic(), 0
        while True:
            source.capture_frame(draw(video["width"], video["height"], number))
            number += 1
            await asyncio.sleep(max(0, started + number / video["fps"] - time.monotonic()))

    async def hum_forever(self, source, hz):
        # Long frames: many publishers in one process would spend it on calls.
        length, number = SAMPLE_RATE // 10, 0
        while True:
            at = (np.arange(length) + number * length) / SAMPLE_RATE
            samples = (np.sin(2 * math.pi * hz * at) * 12_000).astype(np.int16)
            frame = rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, length)
            await source.capture_frame(frame)
            number += 1

    async def send(self, text, topic="", reliable=True, to=()):
        await self.room.local_participant.publish_data(
            text, reliable=reliable, destination_identities=list(to), topic=topic
        )

    async def quality(self, quality):
        value = getattr(VideoQuality, f"VIDEO_QUALITY_{quality.upper()}")
        for publication in self.video_publications:
            publication.set_video_quality(value)

    async def report(self):
        for received in self.received.values():
            if received.track is not None:
                await received.count()
        return {
            "tracks": [received.report() for received in self.received.values()],
            "data": self.data,
            "participants": sorted(p.identity for p in self.room.remote_participants.values()),
            "connected": self.room.connection_state == rtc.ConnectionState.CONN_CONNECTED,
        }

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await self.room.disconnect()


class Host:
    def __init__(self):
        self.peers = {}

    async def run(self):
        reader = asyncio.StreamReader(limit=1 << 24)
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        tasks = set()
        while line := await reader.readline():
            request = json.loads(line)
            if request["command"] == "quit":
                break
            task = asyncio.create_task(self.answer(request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        for peer in list(self.peers.values()):
            await peer.leave()

    async def answer(self, request):
        number, command, name = (request.pop(key) for key in ("id", "command", "peer"))
        try:
            if command == "join":
                self.peers[name] = Peer()
            peer = self.peers[name]
            result = await getattr(peer, command)(**request)
            if command == "leave":
                del self.peers[name]
            answer = {"id": number, "result": result or {}}
        except Exception as error:  # reported to the driver, which fails the test
            answer = {"id": number, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


asyncio.run(Host().run())
