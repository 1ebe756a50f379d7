"""Every pairing of real clients: what one publishes, the other sees and hears decoded."""

import pytest

from harness import judge

TONES = {"python": 440, "browser": 880, "node": 660}
PICTURE = {"width": 640, "height": 360, "fps": 16}

pairings = pytest.mark.parametrize(
    "publisher, receiver",
    [("python", "browser"), ("browser", "python"), ("browser", "browser"), ("node", "python")],
    ids=lambda kind: kind,
)
signalling = pytest.mark.parametrize("v1", [False, True], ids=["v0", "v1"])
transports = pytest.mark.parametrize("tcp_only", [False, True], ids=["udp", "tcp"])
workers = pytest.mark.parametrize("workers", [1, 2], ids=["1worker", "2workers"])


@workers
@transports
@signalling
@pairings
def test_call(call, publisher, receiver, v1, tcp_only, workers):
    room = call(tcp_only=tcp_only, workers=workers)
    before = room.server.metrics()
    receiving = room.join(receiver, "receiver", v1=v1)
    publishing = room.join(publisher, "publisher", v1=v1)
    simulcast = publisher == "browser"
    publishing.call(
        "publish", video={**PICTURE, "simulcast": simulcast}, audio={"hz": TONES[publisher]}
    )

    report = judge.wait_for_media(receiving, "publisher")
    judge.assert_picture(judge.track_of(report, "publisher", "video"))
    judge.assert_tone(judge.track_of(report, "publisher", "audio"), TONES[publisher])
    assert report["participants"] == ["publisher"]

    for kind, peer in ((publisher, publishing), (receiver, receiving)):
        if kind == "browser":
            assert_browser(peer.call("stats"), tcp_only, receives=peer is receiving)
    if workers == 2:
        crossed = room.server.metric("sluice_link_in_total") - sum(
            value for key, value in before.items() if key.split("{")[0] == "sluice_link_in_total"
        )
        assert crossed > 0, "two workers, but no packet crossed between them"


@signalling
@pytest.mark.parametrize("kind", ["python", "browser"])
def test_first_frame_of_a_running_stream_comes_at_once(call, measure, kind, v1):
    """Someone who joins a room where video is flowing asks for a key frame and sees it.

    How long that takes is printed, not judged: a busy machine is not a broken server.
    """
    room = call(workers=2)
    publishing = room.join("browser", "publisher", v1=v1)
    publishing.call("publish", video={**PICTURE, "simulcast": True}, audio=None)
    early = room.join("python", "early", v1=v1)
    judge.wait_for_media(early, "publisher", audio=False)

    late = room.join(kind, "late", v1=v1)
    report = judge.wait_for_media(late, "publisher", audio=False)
    first = judge.track_of(report, "publisher", "video")["first_frame_ms"]
    joined = late.joined["join_ms"]
    measure(f"first frame after {first:.0f} ms, of which joining took {joined:.0f} ms")
    assert first > 0


@pytest.mark.parametrize("codec", ["vp8", "h264", "vp9", "av1"])
def test_codecs_of_the_browser_arrive_decoded(call, codec):
    room = call()
    receiving = room.join("browser", "receiver")
    publishing = room.join("browser", "publisher")
    publishing.call("publish", video={**PICTURE, "codec": codec}, audio=None)
    report = judge.wait_for_media(receiving, "publisher", audio=False, seconds=30)
    judge.assert_picture(judge.track_of(report, "publisher", "video"))


def test_camera_and_microphone_of_the_browser_flow_without_a_freeze(call, measure):
    """The plain path of an application: livekit-client's own capture, both directions."""
    room = call(workers=2)
    peers = {name: room.join("browser", name) for name in ("a", "b")}
    for peer in peers.values():
        peer.call("publish", device=True)

    first = {name: judge.wait_for(lambda p=peer: decoded(p) > 10 and decoded(p), 20, "video")
             for name, peer in peers.items()}
    for name, peer in peers.items():
        judge.wait_for(lambda: decoded(peer) > first[name] + 30, 20, "rising framesDecoded")
        stats = peer.call("stats")
        cipher = {t["srtpCipher"] for c in stats["connections"] for t in c["transports"]}
        measure(f"{name}: {cipher}, {decoded(peer)} frames decoded")
        assert_browser(stats, tcp_only=False, receives=True)


@pytest.mark.parametrize(
    "receiver, codec", [("browser", "vp8"), ("browser", "h264"), ("browser", "vp9"), ("python", "vp8")]
)
def test_another_camera_turned_and_switched_off_and_on(call, codec, receiver):
    """A phone: from the front camera to the back one, turned upright, covered for a while."""
    room = call(workers=2)
    watching = room.join(receiver, "watching")
    phone = room.join("browser", "phone")
    phone.call("publish", video={**PICTURE, "codec": codec, "simulcast": codec != "vp9"}, audio=None)
    judge.wait_for_media(watching, "phone", audio=False, seconds=30)

    def frames():
        # A page in the background is shown few of the frames it decodes.
        return decoded(watching) if receiver == "browser" else seen()["frames"]

    def seen():
        return judge.track_of(watching.call("report"), "phone", "video")

    def goes_on(what):
        before = frames()
        judge.wait_for(lambda: frames() > before + 16, 20, what)

    upright = {**PICTURE, "width": PICTURE["height"], "height": PICTURE["width"]}
    for camera, wide in ((upright, False), (PICTURE, True)):
        phone.call("replace", video=camera)
        judge.wait_for(
            lambda wide=wide: (seen()["width"] > seen()["height"]) == wide, 20, "the other camera"
        )
        goes_on("pictures of the other camera")
        phone.call("mute", muted=True, source="camera")
        phone.call("mute", muted=False, source="camera")
        goes_on("pictures after a mute")


def decoded(peer):
    """Frames that Chromium decoded, of all videos."""
    stats = peer.call("stats")
    return sum(
        entry["framesDecoded"] or 0
        for connection in stats["connections"]
        for entry in connection["inbound"]
        if entry["kind"] == "video"
    )


@signalling
@pytest.mark.parametrize("sender, receiver", [("python", "browser"), ("browser", "node"), ("node", "python")])
def test_data_reaches_whom_it_is_for(call, sender, receiver, v1):
    room = call(workers=2)
    peers = {
        "sender": room.join(sender, "sender", v1=v1),
        "receiver": room.join(receiver, "receiver", v1=v1),
        "bystander": room.join("python", "bystander", v1=v1),
    }

    def texts(name):
        packets = peers[name].call("report")["data"]
        return sorted(packet["text"] for packet in packets if packet["text"] != "warm-up")

    # A lossy packet is lost on a channel that is still opening; both kinds flow once one arrived.
    def warm():
        for reliable in (True, False):
            peers["sender"].call("send", text="warm-up", reliable=reliable)
        reports = [peers[name].call("report")["data"] for name in ("receiver", "bystander")]
        return all({packet["reliable"] for packet in data} == {True, False} for data in reports)

    judge.wait_for(warm, 10, "data channels")
    for reliable in (True, False):
        kind = "reliable" if reliable else "lossy"
        peers["sender"].call("send", text=f"{kind} all", topic="t", reliable=reliable)
        peers["sender"].call("send", text=f"{kind} one", topic="t", reliable=reliable, to=["receiver"])

    everything = ["lossy all", "lossy one", "reliable all", "reliable one"]
    judge.wait_for(lambda: texts("receiver") == everything, 10, lambda: f"data: {texts('receiver')}")
    judge.wait_for(
        lambda: texts("bystander") == ["lossy all", "reliable all"],
        10,
        lambda: f"data: {texts('bystander')}",
    )
    for packet in peers["receiver"].call("report")["data"]:
        if packet["text"] != "warm-up":
            assert packet["from"] == "sender" and packet["topic"] == "t", packet
            assert packet["reliable"] == packet["text"].startswith("reliable"), packet


def test_leaving_is_seen_by_the_others(call):
    room = call()
    staying = room.join("browser", "staying")
    leaving = room.join("python", "leaving")
    judge.wait_for(lambda: staying.call("report")["participants"] == ["leaving"], 10, "participant")
    leaving.call("leave")
    room.peers.remove(leaving)
    judge.wait_for(lambda: staying.call("report")["participants"] == [], 10, "departure")


def assert_browser(stats, tcp_only, receives):
    judge.assert_encrypted(stats)
    protocols = {
        transport["protocol"]
        for connection in stats["connections"]
        for transport in connection["transports"]
        if transport["dtlsState"] == "connected"
    }
    assert protocols == {"tcp" if tcp_only else "udp"}, stats
    if receives:
        videos = [
            entry
            for connection in stats["connections"]
            for entry in connection["inbound"]
            if entry["kind"] == "video" and entry["framesDecoded"]
        ]
        assert videos, stats
        for video in videos:
            assert not video["freezeCount"], f"frozen {video['freezeCount']} times: {video}"
