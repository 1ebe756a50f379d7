"""Soak test: participants that all publish sound and simulcast video, on one server with two
workers; some of them receive everyone. Prints memory, processor time and packet rates over time,
and fails when the server complains, dies, or keeps growing after warm-up.

    python soak/soak.py --minutes 5 --participants 20
"""

import argparse
import pathlib
import sys
import time

CLIENTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CLIENTS))

from harness import judge  # noqa: E402
from harness.hosts import Host, Peer  # noqa: E402
from harness.server import Server, Setup  # noqa: E402
from harness.tokens import join_token  # noqa: E402

LOGS = pathlib.Path("/tmp/sluice-soak")
WARM_UP_SHARE = 0.25
# Growth of resident memory from the end of warm-up to the end that counts as a leak.
MAX_GROWTH = 0.05


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--participants", type=int, default=20)
    parser.add_argument(
        "--receivers",
        type=int,
        default=6,
        help="how many of them receive: the clients, not the server, are the cost (default 6)",
    )
    parser.add_argument(
        "--hosts", type=int, default=5, help="client processes: one does all its signalling in turn"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fps", type=int, default=4)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--height", type=int, default=270)
    parser.add_argument("--every", type=float, default=10, help="seconds between lines")
    return parser.parse_args()


def fill(server, hosts, options):
    """Joins and publishes one after the other, as a real meeting fills."""
    peers = []
    for number in range(options.participants):
        peer = Peer(hosts[number % len(hosts)], f"p{number:02}")
        peer.receives = number < options.receivers
        peer.call(
            "join",
            url=server.url,
            token=join_token("soak", peer.name),
            v1=number % 2 == 0,
            subscribe=peer.receives,
            watch=False,
        )
        video = {"width": options.width, "height": options.height, "fps": options.fps}
        peer.call("publish", video=video | {"simulcast": True}, audio={"hz": 300 + 20 * number})
        peers.append(peer)
    return peers


def main():
    options = arguments()
    LOGS.mkdir(parents=True, exist_ok=True)
    server = Server(Setup(workers=options.workers), LOGS)
    hosts = [Host("python", LOGS) for _ in range(options.hosts)]
    failures = []
    try:
        started = time.monotonic()
        peers = fill(server, hosts, options)
        print(f"{len(peers)} participants after {time.monotonic() - started:.0f} s", flush=True)
        rss = watch(server, options)
        failures += judge_media(peers)
        warm, end = rss[int(len(rss) * WARM_UP_SHARE)], rss[-1]
        print(f"memory: {warm / 1e6:.1f} MB after warm-up, {end / 1e6:.1f} MB at the end")
        if end > warm * (1 + MAX_GROWTH):
            failures.append(f"memory grew by {(end / warm - 1) * 100:.1f} % after warm-up")
    finally:
        for host in hosts:
            host.stop()
        failures += [server.stop(), *server.complaints()]
    failures = [failure for failure in failures if failure]
    print("\n".join(failures) or "soak: no complaint")
    sys.exit(1 if failures else 0)


def watch(server, options):
    """One line per interval; returns the memory readings."""
    started = time.monotonic()
    rss, cpu, forwarded = [], server.cpu_seconds(), server.metric("sluice_forwarded_total")
    print("  time   rss MB   cpu %   forwarded/s   us/packet   dropped", flush=True)
    while time.monotonic() - started < options.minutes * 60:
        time.sleep(options.every)
        now = server.cpu_seconds(), server.metric("sluice_forwarded_total")
        spent, packets = now[0] - cpu, now[1] - forwarded
        cpu, forwarded = now
        rss.append(server.rss_bytes())
        print(
            f"{time.monotonic() - started:6.0f} {rss[-1] / 1e6:8.1f} "
            f"{spent / options.every * 100:7.1f} {packets / options.every:13.0f} "
            f"{spent / max(packets, 1) * 1e6:11.1f} {server.metric('sluice_dropped_total'):9.0f}",
            flush=True,
        )
    return rss


def judge_media(peers):
    """Everyone still receives moving pictures and sound of everyone else."""
    receivers = [peer for peer in peers if peer.receives]
    before = {peer.name: peer.call("report") for peer in receivers}
    time.sleep(5)
    failures = []
    for peer in receivers:
        report = peer.call("report")
        for other in peers:
            if other is peer:
                continue
            for kind in ("video", "audio"):
                old = judge.track_of(before[peer.name], other.name, kind)
                new = judge.track_of(report, other.name, kind)
                if not new or not old or new["frames"] <= old["frames"]:
                    failures.append(f"{peer.name} receives no {kind} of {other.name}")
    return failures


if __name__ == "__main__":
    main()
