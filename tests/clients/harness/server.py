"""Starts the real `sluice` binary, one process per configuration, on free loopback ports."""

import ctypes
import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
KEY, SECRET = "devkey", "secret"
READY_SECONDS = 20
STOP_SECONDS = 10


def binary():
    """The server under test: `SLUICE_BIN`, else the release build of this tree."""
    path = os.environ.get("SLUICE_BIN") or ROOT / "target" / "release" / "sluice"
    if not pathlib.Path(path).exists():
        raise SystemExit(f"{path} is missing: run `cargo build --release`, or set SLUICE_BIN")
    return str(path)


def end_with_parent():
    """In a child: SIGTERM when the driver dies, so that nothing is left behind (prctl(2))."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What tests choose about a server."""

    tcp_only: bool = False
    workers: int = 1
    extra: str = "{}"  # more configuration, as JSON
    address: str = "127.0.0.1"  # where clients find the signalling
    node_ip: str = "127.0.0.1"  # where clients find the media

    def __str__(self):
        return f"{'tcp' if self.tcp_only else 'udp'}-{self.workers}w"


class Server:
    """One running server. `log_path` holds everything it wrote."""

    def __init__(self, setup, log_directory):
        self.setup = setup
        self.port = free_port(socket.SOCK_STREAM)
        self.metrics_port = free_port(socket.SOCK_STREAM)
        rtc = {"tcp_port": free_port(socket.SOCK_STREAM), "node_ip": setup.node_ip}
        self.udp_port = None
        if setup.tcp_only:
            rtc["force_tcp"] = True
        else:
            self.udp_port = rtc["udp_port"] = free_port(socket.SOCK_DGRAM)
        config = {
            "port": self.port,
            "bind_addresses": sorted({"127.0.0.1", setup.address}),
            "development": True,
            "keys": {KEY: SECRET},
            "rtc": rtc,
            "prometheus": {"port": self.metrics_port},
            "workers": setup.workers,
            # Media crosses between the workers wherever there are two.
            "room_affinity": 0,
        }
        config |= json.loads(setup.extra)
        self.log_path = pathlib.Path(log_directory) / f"sluice-{setup}-{self.port}.log"
        self.log = open(self.log_path, "wb")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LIVEKIT_")}
        self.process = subprocess.Popen(
            [binary(), "--config-body", json.dumps(config)],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=end_with_parent,
        )
        self.url = f"ws://{setup.address}:{self.port}"
        try:
            self._wait_until_ready()
        except BaseException:
            self.process.kill()
            raise

    def _wait_until_ready(self):
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended at once:\n{self.log_text()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise RuntimeError(f"the server was not ready in {READY_SECONDS} s:\n{self.log_text()}")

    def log_text(self):
        return self.log_path.read_text(errors="replace")

    def metrics(self):
        """Every sample of the metrics endpoint: `name{labels}` to value."""
        address = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def metric(self, name):
        """Sum of all samples of one metric."""
        return sum(
            value for key, value in self.metrics().items() if key.split("{")[0] == name
        )

    def rss_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self):
        """Ends the server as a crash would."""
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        """Ends the server as an operator would; returns what was wrong with that, or None."""
        if self.process.poll() is not None:
            return f"the server had ended by itself with {self.process.returncode}"
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"the server did not end within {STOP_SECONDS} s of SIGTERM"
        finally:
            self.log.close()
        return None if code == 0 else f"the server ended with {code} after SIGTERM"

    def complaints(self):
        """Lines of the log that a healthy run does not have."""
        return [
            line
            for line in self.log_text().splitlines()
            if re.search(r"\bERROR\b|panicked at|\"level\":\"ERROR\"", line)
        ]
