"""Two network namespaces between this one and a client, and what a bad access link does there.

    here: server, publisher        path: relay, shaper         far: watcher
    10.77.3.1  ───────────  10.77.3.2   10.77.2.1  ───────────  10.77.2.2

The server tells clients the relay's address for media. `tbf` limits the rate towards the watcher,
signalling included; the relay delays datagrams to and from it, and `nftables` loses some of those that
reach the far end and the relay.
"""

import json
import os
import pathlib
import subprocess
import sys

from harness.server import end_with_parent

HERE, PATH_NEAR, PATH_FAR, FAR = "10.77.3.1", "10.77.3.2", "10.77.2.1", "10.77.2.2"
RELAY = pathlib.Path(__file__).with_name("relay.py")
# What a home router keeps before it drops (tbf's `latency`).
QUEUE_MS = 200
# Loses a share of the datagrams that reach a namespace. The first line makes the second one succeed.
LOSS_STEPS = 1_000
LOSS = """
table ip sluice
delete table ip sluice
table ip sluice {{
    chain loss {{
        type filter hook input priority filter
        ip saddr {sender} meta l4proto udp numgen random mod {steps} < {share} counter drop
    }}
}}
"""


def run(*words):
    subprocess.run(words, check=True)


class Network:
    """The namespaces, until `close`. `far` is the one for the watcher."""

    def __init__(self):
        self.path, self.far = (f"sluice-{end}-{os.getpid()}" for end in ("path", "far"))
        self.relay = None
        run("ip", "link", "set", "lo", "up")
        for namespace in (self.path, self.far):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "link", "add", "near", "type", "veth", "peer", "name", "near", "netns", self.path)
        run("ip", "-n", self.path, "link", "add", "far", "type", "veth",
            "peer", "name", "far", "netns", self.far)
        for where, link, address in (
            ([], "near", HERE),
            (["-n", self.path], "near", PATH_NEAR),
            (["-n", self.path], "far", PATH_FAR),
            (["-n", self.far], "far", FAR),
        ):
            run("ip", *where, "address", "add", f"{address}/24", "dev", link)
            run("ip", *where, "link", "set", link, "up")
        run("ip", "route", "add", "default", "via", PATH_NEAR)
        run("ip", "-n", self.far, "route", "add", "default", "via", PATH_FAR)
        self._on_path("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def _on_path(self, *words):
        run("ip", "netns", "exec", self.path, *words)

    def carry(self, udp_port):
        """Starts the relay for the server's media port."""
        words = ["ip", "netns", "exec", self.path, sys.executable, str(RELAY)]
        self.relay = subprocess.Popen(
            [*words, f"{PATH_FAR}:{udp_port}", f"{HERE}:{udp_port}", FAR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=end_with_parent,
        )
        assert self.relay.stdout.readline() == b"ready\n"

    def limit(self, kbps, burst_bytes):
        """Limits the rate towards the watcher; what the bucket holds passes at once."""
        self._on_path(
            "tc", "qdisc", "replace", "dev", "far", "root", "tbf",
            "rate", f"{kbps}kbit", "burst", str(burst_bytes), "latency", f"{QUEUE_MS}ms",
        )

    def impair(self, delay_ms=0, jitter_ms=0, loss=0.0):
        """Delays media to and from the watcher (each way), varies that, and loses a share of it."""
        self._order(delay=delay_ms / 1000, jitter=jitter_ms / 1000)
        for namespace, sender in ((self.far, PATH_FAR), (self.path, FAR)):
            rules = LOSS.format(sender=sender, share=round(loss * LOSS_STEPS), steps=LOSS_STEPS)
            words = ["ip", "netns", "exec", namespace, "nft", "-f", "-"]
            subprocess.run(words, input=rules.encode(), check=True)

    def rebind(self):
        """Lets the watcher's media come from another address, and takes away the old one."""
        self._order(rebind=True)

    def _order(self, **order):
        self.relay.stdin.write(json.dumps(order).encode() + b"\n")
        self.relay.stdin.flush()

    def close(self):
        if self.relay:
            self.relay.stdin.close()
            self.relay.wait(10)
        for namespace in (self.far, self.path):
            run("ip", "netns", "del", namespace)
