"""Processes that hold real clients; see peers/PROTOCOL.md."""

import itertools
import json
import os
import pathlib
import subprocess
import sys
import threading

from .server import end_with_parent

CLIENTS = pathlib.Path(__file__).resolve().parents[1]
COMMANDS = {
    "python": [sys.executable, "peers/python_peer.py"],
    "node": ["node", "peers/node_peer.mjs"],
    "browser": ["node", "peers/browser_peer.mjs"],
}
CALL_SECONDS = 45
QUIT_SECONDS = 15


class ClientError(Exception):
    """A client refused or failed a command."""


class Host:
    """One process of one kind of client, in a network namespace if one is named."""

    def __init__(self, kind, log_directory, namespace=None):
        self.kind = kind
        self.log_path = pathlib.Path(log_directory) / f"client-{kind}.log"
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            inside + COMMANDS[kind],
            cwd=CLIENTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=os.environ | {"RUST_LOG": os.environ.get("CLIENT_LOG", "warn")},
            preexec_fn=end_with_parent,
        )
        self.numbers = itertools.count(1)
        self.answers = {}
        self.changed = threading.Condition()
        self.over = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            answer = answer_in(line)
            if answer is None:  # a library that prints
                self.log.write(line)
                continue
            with self.changed:
                self.answers[answer["id"]] = answer
                self.changed.notify_all()
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def begin(self, command, peer, **arguments):
        """Sends a command; the result is a function that waits for its answer."""
        number = next(self.numbers)
        request = {"id": number, "command": command, "peer": peer, **arguments}
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise ClientError(f"the {self.kind} client ended, see {self.log_path}") from error

        def finish(seconds=CALL_SECONDS):
            with self.changed:
                arrived = self.changed.wait_for(
                    lambda: number in self.answers or self.over, timeout=seconds
                )
                answer = self.answers.pop(number, None)
            if answer is None:
                reason = "ended" if arrived else f"gave no answer within {seconds} s"
                raise ClientError(f"{self.kind} {peer}: {command} {reason}, see {self.log_path}")
            if "error" in answer:
                raise ClientError(f"{self.kind} {peer}: {command}: {answer['error']}")
            return answer["result"]

        return finish

    def call(self, command, peer, **arguments):
        return self.begin(command, peer, **arguments)()

    @property
    def alive(self):
        return self.process.poll() is None

    def stop(self):
        if self.alive:
            try:
                self.process.stdin.write(b'{"command": "quit"}\n')
                self.process.stdin.close()
                self.process.wait(QUIT_SECONDS)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        self.log.close()


def answer_in(line):
    """The answer that a line of a host holds, or None."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    known = isinstance(value, dict) and ("result" in value or "error" in value)
    return value if known and "id" in value else None


class Peer:
    """One participant of one host."""

    def __init__(self, host, name):
        self.host, self.name = host, name

    def begin(self, command, **arguments):
        return self.host.begin(command, self.name, **arguments)

    def call(self, command, **arguments):
        return self.host.call(command, self.name, **arguments)
