"""Audio between real clients: with and without redundancy, muted and unmuted."""

import pytest

from harness import judge

TONE = 440
signalling = pytest.mark.parametrize("v1", [False, True], ids=["v0", "v1"])


def hears(peer, seconds=20):
    """While a sound begins, a part of what is measured is silence, or stretched by the jitter buffer."""
    judge.wait_for_media(peer, "publisher", seconds=seconds, video=False)
    track = lambda: judge.track_of(peer.call("report"), "publisher", "audio")
    judge.wait_for(
        lambda: judge.is_tone(track(), TONE), seconds, lambda: f"{TONE} Hz: {track()['hz']} Hz"
    )


def audio_stats(peer):
    return [
        entry
        for connection in peer.call("stats")["connections"]
        for entry in connection["inbound"]
        if entry["kind"] == "audio" and entry["packetsReceived"]
    ]


def bytes_per_packet(peer):
    """Of the audio that flows from now on."""
    total = lambda key: sum(entry[key] for entry in audio_stats(peer))
    packets, size = total("packetsReceived"), total("bytesReceived")
    judge.wait_for(lambda: total("packetsReceived") > packets + 50, 20, "audio packets")
    return (total("bytesReceived") - size) / (total("packetsReceived") - packets)


@signalling
@pytest.mark.parametrize("publisher", ["python", "browser"])
@pytest.mark.parametrize("red", [True, False], ids=["red", "plain"])
def test_each_receiver_gets_the_form_of_audio_it_takes(call, measure, publisher, red, v1):
    """A low-power receiver is spared the redundancy: it stands for every client without RED."""
    room = call(workers=2)
    receivers = {
        "python": room.join("python", "python", v1=v1),
        "browser": room.join("browser", "browser", v1=v1),
        "spared": room.join("browser", "spared", v1=v1, attributes={"low_power": "true"}),
    }
    publishing = room.join(publisher, "publisher", v1=v1)
    publishing.call("publish", audio={"hz": TONE, "red": red})
    for receiver in receivers.values():
        hears(receiver)
    with_red, without = (bytes_per_packet(receivers[name]) for name in ("browser", "spared"))
    measure(f"{with_red:.0f} and, spared, {without:.0f} bytes per packet")
    # Each packet repeats one or two frames; a browser does not say whether it decoded RED.
    assert (with_red > 1.6 * without) if red else (with_red < 1.2 * without)


@pytest.mark.parametrize("receiver", ["python", "browser"])
def test_a_muted_microphone_is_silent_and_comes_back(call, receiver):
    room = call(workers=2)
    receiving = room.join(receiver, "receiver")
    publishing = room.join("browser", "publisher")
    publishing.call("publish", audio={"hz": TONE, "red": True})
    hears(receiving)
    for _ in range(2):
        publishing.call("mute", muted=True)

        def level():
            track = judge.track_of(receiving.call("report"), "publisher", "audio")
            return (track or {}).get("level") or 0

        judge.wait_for(lambda: level() < 0.001, 10, lambda: f"silence: {level()}")
        publishing.call("mute", muted=False)
        hears(receiving)
