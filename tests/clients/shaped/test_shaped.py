"""What Chromium decodes of Chromium behind a path whose rate changes, with delay, jitter and loss.

Layers must follow the link, down and up again, and pictures must never stop for good. How fast, how
many freezes and frames: measured, not judged, for an encoder may lack the processor.
"""

import time

import pytest

from harness import judge

# 720p in three layers: 160, 450 and 1,700 kbit/s; coded SVC asks for about the same in all.
PICTURE = {"width": 1280, "height": 720, "fps": 15, "busy": True}
CODECS = {
    "vp8": {"codec": "vp8", "simulcast": True},
    "h264": {"codec": "h264", "simulcast": True},
    "vp9-svc": {"codec": "vp9", "mode": "L3T3_KEY"},
    "av1-svc": {"codec": "av1", "mode": "L3T3_KEY"},
}
# Rates of the link in turn, kbit/s, and the widths that fit.
STEPS = [(4_000, {1280}), (600, {320, 640}), (300, {320}), (4_000, {1280})]
# Buckets of the shaper, bytes: two packets, and what guides for `tbf` recommend.
BURSTS = (3_200, 16_000)
PATIENCE = 40
# Fewest frames decoded until a step has settled: a call that stands still has none.
MIN_FRAMES = 10
# How long a layer must be watched to have settled there, seconds.
SETTLED = 3


def inbound(peer):
    """What the watcher's `getStats` says of the video."""
    entries = [
        entry
        for connection in peer.call("stats")["connections"]
        for entry in connection["inbound"]
        if entry["kind"] == "video" and entry["framesDecoded"]
    ]
    return entries[0] if entries else None


def publishing(peer):
    """What the publisher's `getStats` says: a path of its own that seems narrow to it holds back layers."""
    connections = peer.call("stats")["connections"]
    connection = next(entry for entry in connections if entry["role"] == "publisher")
    return {key: connection[key] for key in ("transports", "outbound", "remoteInbound")}


class Watched:
    """A call in which `far` watches `near` over the network."""

    def __init__(self, call, network, video, burst=BURSTS[0]):
        network.limit(STEPS[0][0], burst)
        self.network = network
        self.far = call.join("far", "far")
        self.near = call.join("near", "near")
        self.near.call("publish", video={**PICTURE, **video}, audio={"hz": 440})
        self.video = judge.wait_for(lambda: inbound(self.far), 20, "decoded video")

    def settle(self, widths):
        """Waits until only these widths were decoded for a while; returns the seconds it took to
        get there, for how long pictures froze meanwhile, and the frames decoded."""
        before, start = self.video, time.monotonic()
        since = [None]

        def settled():
            self.video = inbound(self.far)
            now = time.monotonic()
            if self.video["frameWidth"] not in widths:
                since[0] = None
            elif since[0] is None:
                since[0] = now
            return since[0] is not None and now >= since[0] + SETTLED

        judge.wait_for(
            settled, PATIENCE, lambda: f"width of {widths}: {self.video} of {publishing(self.near)}"
        )
        gained = {key: (self.video[key] or 0) - (before[key] or 0) for key in (
            "framesDecoded", "freezeCount", "totalFreezesDuration", "packetsLost")}
        assert gained["framesDecoded"] >= MIN_FRAMES, gained
        return since[0] - start, gained

    def audio_goes_on(self):
        report = self.far.call("report")
        judge.assert_tone(judge.track_of(report, "near", "audio"), 440)


@pytest.mark.parametrize("burst", BURSTS)
@pytest.mark.parametrize("codec", CODECS)
def test_layers_follow_the_rate_of_the_link(call, network, measure, codec, burst):
    network.impair(delay_ms=20, jitter_ms=5)
    watched = Watched(call, network, CODECS[codec], burst)
    for rate, widths in STEPS:
        network.limit(rate, burst)
        seconds, gained = watched.settle(widths)
        measure(
            f"{rate} kbit/s: {watched.video['frameWidth']} wide after {seconds:.1f} s, "
            f"{gained['framesDecoded']} frames, {gained['packetsLost']} packets lost, "
            f"{gained['freezeCount']} freezes of {gained['totalFreezesDuration']:.1f} s"
        )
        watched.audio_goes_on()
    measure(f"in all {watched.video['framesDecoded']} frames, {watched.video['freezeCount']} freezes")


@pytest.mark.parametrize("codec", CODECS)
def test_random_loss_costs_no_layer(call, network, measure, codec):
    network.impair(delay_ms=20, jitter_ms=5)
    watched = Watched(call, network, CODECS[codec])
    watched.settle({1280})
    network.impair(delay_ms=20, jitter_ms=5, loss=0.05)
    _, gained = watched.settle({1280})
    measure(f"5 % loss: {gained}")
    watched.audio_goes_on()


def test_a_call_survives_another_address(call, network, measure):
    """From one access network to another, as the server sees it: nobody reconnects."""
    network.impair(delay_ms=20)
    watched = Watched(call, network, CODECS["vp8"])
    watched.settle({1280})
    sid = watched.far.call("report")["sid"]
    for _ in range(3):
        frames, start = inbound(watched.far)["framesDecoded"], time.monotonic()
        network.rebind()
        judge.wait_for(lambda: inbound(watched.far)["framesDecoded"] > frames + 15, PATIENCE, "pictures")
        measure(f"15 more frames {time.monotonic() - start:.1f} s after the change of address")
        watched.audio_goes_on()
    report = watched.far.call("report")
    assert report["sid"] == sid and not report["events"], report["events"]
