"""Judgements on what a receiver reports; each raises AssertionError with the facts."""

import time

# Decoded pictures that must show the colour their counter calls for. Frames that were captured
# while the publisher's encoder scaled or dropped may mix two pictures.
COLOUR_AGREEMENT = 0.9
# Largest step of the counter between two decoded frames of a stream in order.
MAX_COUNTER_STEP = 64
MIN_FRAMES = 24
MIN_COLOURS = 3
HZ_TOLERANCE = 15
MIN_LEVEL = 0.02


def track_of(report, identity, kind):
    for track in report["tracks"]:
        if track["identity"] == identity and track["kind"] == kind:
            return track
    return None


def wait_for(condition, seconds, what, every=0.25):
    """Polls until `condition()` returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still no {what() if callable(what) else what}")
        time.sleep(every)


def wait_for_media(peer, identity, seconds=20, video=True, audio=True):
    """Waits until enough was decoded of `identity`, then judges content; returns the report."""
    last = {}

    def enough():
        report = last["report"] = peer.call("report")
        picture = track_of(report, identity, "video")
        tone = track_of(report, identity, "audio")
        if video and (not picture or picture["frames"] < MIN_FRAMES or colours(picture) < MIN_COLOURS):
            return None
        if audio and (not tone or (tone.get("level") or 0) < MIN_LEVEL):
            return None
        return report

    def summary():
        tracks = [
            {k: v for k, v in track.items() if k != "samples"}
            for track in last["report"]["tracks"]
        ]
        return f"decoded media of {identity} at {peer.name}: {tracks}"

    return wait_for(enough, seconds, summary)


def colours(track):
    return len({colour for _, colour in track["samples"]})


def assert_picture(track):
    """The decoded frames are the publisher's, in order, and moving."""
    samples = track["samples"]
    agreeing = sum(colour == counter // 8 % 4 for counter, colour in samples)
    assert agreeing >= COLOUR_AGREEMENT * len(samples), (
        f"{agreeing} of {len(samples)} decoded frames show the colour of their counter: {samples}"
    )
    steps = [(b - a) % 256 for (a, _), (b, _) in zip(samples, samples[1:])]
    backwards = [step for step in steps if step > MAX_COUNTER_STEP]
    assert len(backwards) <= len(steps) // 20, f"frames out of order or stalled: steps {steps}"
    assert len({counter for counter, _ in samples}) >= len(samples) // 2, f"frozen: {samples}"


def is_tone(track, hz):
    return abs(track["hz"] - hz) <= HZ_TOLERANCE


def assert_tone(track, hz):
    assert is_tone(track, hz), f"heard {track['hz']} Hz instead of {hz} Hz"


def assert_encrypted(stats):
    """Every connected transport of a browser uses AES-GCM and DTLS."""
    for connection in stats["connections"]:
        for transport in connection["transports"]:
            if transport["dtlsState"] == "new":
                continue
            assert transport["dtlsState"] == "connected", connection
            assert "AEAD_AES_" in transport["srtpCipher"], connection
