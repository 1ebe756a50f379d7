"""A camera in VP9 with VP8 as its backup: a receiver without VP9 sees it nevertheless."""

import json

import pytest

from harness import judge

PICTURE = {"width": 640, "height": 360, "fps": 16}
PREFER_REGRESSION, SIMULCAST, REGRESSION = 0, 1, 2
QUICK = json.dumps({"video": {"dynacast_pause_delay": "1s"}})

signalling = pytest.mark.parametrize("v1", [False, True], ids=["v0", "v1"])


def videos(peer, direction, count):
    """Frames of video that a peer has sent or received, by codec."""
    frames = {}
    for connection in peer.call("stats")["connections"]:
        for entry in connection[direction]:
            if entry["kind"] == "video" and entry[count] and entry["codec"]:
                codec = entry["codec"].split("/")[1].lower()
                frames[codec] = frames.get(codec, 0) + entry[count]
    return frames


def decoded_now(peer):
    """The codec of what a peer decodes at the moment, `None` while nothing comes.

    One stream is one entry of `inbound`, whose codec is the latest one."""
    for connection in peer.call("stats")["connections"]:
        for entry in connection["inbound"]:
            if entry["kind"] == "video" and entry["framesDecoded"]:
                return entry["codec"].split("/")[1].lower()
    return None


def sends(peer, codec):
    """Whether a peer encodes frames of a codec now."""
    first = videos(peer, "outbound", "framesEncoded").get(codec, 0)

    def more():
        return videos(peer, "outbound", "framesEncoded").get(codec, 0) > first + 5

    try:
        return judge.wait_for(more, 4, f"frames of {codec}")
    except AssertionError:
        return False


def watch(peer):
    peer.call("forget")
    report = judge.wait_for_media(peer, "publisher", audio=False, seconds=30)
    judge.assert_picture(judge.track_of(report, "publisher", "video"))


@signalling
@pytest.mark.parametrize("policy", [SIMULCAST, PREFER_REGRESSION], ids=["simulcast", "regression"])
def test_a_receiver_without_the_codec_gets_the_backup(call, measure, policy, v1):
    room = call(workers=2, extra=QUICK)
    publishing = room.join("browser", "publisher", v1=v1)
    video = {**PICTURE, "codec": "vp9", "simulcast": True, "backup": "vp8", "policy": policy}
    publishing.call("publish", video=video, audio=None)
    modern = room.join("browser", "modern", v1=v1)
    watch(modern)
    assert decoded_now(modern) == "vp9"
    assert set(videos(publishing, "outbound", "framesEncoded")) == {"vp9"}

    older = room.join("browser", "older", v1=v1, cannot="vp9")
    watch(older)
    assert decoded_now(older) == "vp8"
    measure(f"first frame of the backup after {judge.track_of(older.call('report'), 'publisher', 'video')['first_frame_ms']:.0f} ms")

    if policy == SIMULCAST:
        watch(modern)
        assert decoded_now(modern) == "vp9"
        assert sends(publishing, "vp9") and sends(publishing, "vp8")
    else:
        judge.wait_for(lambda: decoded_now(modern) == "vp8", 20, "change to the backup codec")
        watch(modern)
        judge.wait_for(lambda: not sends(publishing, "vp9"), 30, "end of the first codec")
        assert sends(publishing, "vp8")

    # Who comes back from a broken signal connection still sees it.
    older.call("simulate", scenario="signal-reconnect")
    watch(older)
    for muted in (True, False):
        publishing.call("mute", muted=muted, source="camera")
    watch(older)
    late = room.join("browser", "late", v1=v1, cannot="vp9")
    watch(late)
    assert decoded_now(late) == "vp8"
