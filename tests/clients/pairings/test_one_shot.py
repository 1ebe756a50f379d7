"""WHIP publishers and WHEP players, with Chromium's own RTCPeerConnection, beside LiveKit clients."""

import pytest

from harness import judge

PICTURE = {"width": 640, "height": 360, "fps": 16}
TONE = {"hz": 880}


@pytest.mark.parametrize("simulcast", [False, True], ids=["single", "simulcast"])
@pytest.mark.parametrize("receiver", ["python", "browser"])
def test_whip_publisher_is_a_participant_for_livekit_clients(call, receiver, simulcast):
    room = call(workers=2)
    watching = room.join(receiver, "watching")
    room.join(
        "browser", "camera", protocol="whip", video={**PICTURE, "simulcast": simulcast}, audio=TONE
    )
    report = judge.wait_for_media(watching, "camera")
    picture = judge.track_of(report, "camera", "video")
    judge.assert_picture(picture)
    judge.assert_tone(judge.track_of(report, "camera", "audio"), TONE["hz"])
    assert report["participants"] == ["camera"]

    def whole_picture():
        track = judge.track_of(watching.call("report"), "camera", "video")
        return (track["width"], track["height"]) == (PICTURE["width"], PICTURE["height"])

    judge.wait_for(whole_picture, 20, "the highest layer")


def test_whip_publisher_restarts_ice_and_leaves(call):
    room = call()
    watching = room.join("python", "watching")
    camera = room.join("browser", "camera", protocol="whip", video=PICTURE, audio=TONE)
    judge.wait_for_media(watching, "camera")
    assert camera.call("restart")["changed"]
    before = judge.track_of(watching.call("report"), "camera", "video")["frames"]

    def more_frames():
        return judge.track_of(watching.call("report"), "camera", "video")["frames"] > before + 16

    judge.wait_for(more_frames, 20, "video after the restart")
    camera.call("leave")
    room.peers.remove(camera)
    judge.wait_for(
        lambda: watching.call("report")["participants"] == [], 10, "departure of the publisher"
    )


@pytest.mark.parametrize("early", [True, False], ids=["publisher-first", "player-first"])
def test_whep_player_shows_the_room(call, early):
    room = call(workers=2)

    def publish():
        publishing = room.join("browser", "publisher")
        publishing.call("publish", video={**PICTURE, "simulcast": True}, audio=TONE)

    if early:
        publish()
    player = room.join("browser", "player", protocol="whep")
    if not early:
        publish()
    report = judge.wait_for_media(player, "stream")
    judge.assert_picture(judge.track_of(report, "stream", "video"))
    judge.assert_tone(judge.track_of(report, "stream", "audio"), TONE["hz"])


def test_whep_player_moves_on_to_the_next_publisher(call):
    room = call()
    first = room.join("python", "first")
    first.call("publish", video=PICTURE, audio={"hz": 440})
    player = room.join("browser", "player", protocol="whep")
    report = judge.wait_for_media(player, "stream")
    judge.assert_tone(judge.track_of(report, "stream", "audio"), 440)
    first.call("leave")
    room.peers.remove(first)
    second = room.join("python", "second")
    second.call("publish", video=PICTURE, audio={"hz": 1200})

    def heard():
        tone = judge.track_of(player.call("report"), "stream", "audio")
        return abs(tone["hz"] - 1200) <= judge.HZ_TOLERANCE

    judge.wait_for(heard, 20, "the second publisher's tone")
    frames = judge.track_of(player.call("report"), "stream", "video")["frames"]

    def more_frames():
        return judge.track_of(player.call("report"), "stream", "video")["frames"] > frames + 16

    judge.wait_for(more_frames, 20, "the second publisher's video")


def test_whep_player_of_one_participant_ignores_the_others(call):
    room = call()
    other = room.join("python", "other")
    other.call("publish", video=None, audio={"hz": 440})
    wanted = room.join("python", "wanted")
    wanted.call("publish", video=PICTURE, audio={"hz": 1200})
    player = room.join("browser", "player", protocol="whep", participant="wanted")
    report = judge.wait_for_media(player, "stream")
    judge.assert_tone(judge.track_of(report, "stream", "audio"), 1200)


def test_whip_feeds_whep(call):
    room = call()
    room.join("browser", "camera", protocol="whip", video=PICTURE, audio=TONE)
    player = room.join("browser", "player", protocol="whep")
    report = judge.wait_for_media(player, "stream")
    judge.assert_picture(judge.track_of(report, "stream", "video"))
    judge.assert_tone(judge.track_of(report, "stream", "audio"), TONE["hz"])
