"""A stand-in for Turms, a real server that follows it, and users who talk to both."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import secrets
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from harness.server import KEY, Server, Setup, binary, end_with_parent

# As in its file: the line break belongs to the key.
JWT_KEY = b"a key of Turms' sign-in service, long enough\n"
EVENT_SECRET = b"a secret that the plugin and the adapter share"


def fake_turms_binary():
    """`FAKE_TURMS_BIN`, else beside the server under test."""
    path = os.environ.get("FAKE_TURMS_BIN") or pathlib.Path(binary()).with_name("fake-turms")
    if not pathlib.Path(path).exists():
        command = "cargo build --release -p sluice-tests --bin fake-turms"
        raise SystemExit(f"{path} is missing: run `{command}`, or set FAKE_TURMS_BIN")
    return str(path)


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(payload, key, header=None):
    """A JWT with HS256."""
    header = header or {"alg": "HS256", "typ": "JWT"}
    compact = [b64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, payload)]
    signed = ".".join(compact)
    return f"{signed}.{b64url(hmac.digest(key, signed.encode(), 'sha256'))}"


def exchange(url, body=None, headers=None, method=None):
    """Status and body of an HTTP exchange."""
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class PluginListener(http.server.ThreadingHTTPServer):
    """The webhook listener of Turms' stock plugin: it fails at every `room_finished`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), PluginListener.Handler)
        self.events = []  # room and event
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.events.append((event["room"]["name"], event["event"]))
            self.send_response(500 if event["event"] == "room_finished" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass


class World:
    """`plugin_listener` adds the stock plugin's webhook listener; everything else in `more` is
    configuration of the section `turms`."""

    def __init__(self, logs, more):
        self.listener = PluginListener() if more.pop("plugin_listener", False) else None
        self.process = subprocess.Popen(
            [fake_turms_binary()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=end_with_parent,
        )
        self.turms = json.loads(self.process.stdout.readline())
        self.directory = tempfile.TemporaryDirectory()
        files = {"jwt.key": JWT_KEY, "events.secret": EVENT_SECRET}
        for name, content in files.items():
            pathlib.Path(self.directory.name, name).write_bytes(content)
        path = self.directory.name
        config = {
            "enabled": True,
            "state_file": f"{path}/turms.state",
            "jwt": {"keys": [{"algorithm": "HS256", "hmac_file": f"{path}/jwt.key"}]},
            "admin": {
                "url": f"http://127.0.0.1:{self.turms['admin']}",
                "login": self.turms["login"],
                "password": self.turms["password"],
            },
            "events": {"secret_file": f"{path}/events.secret"},
        }
        extra = {"turms": config | more}
        if self.listener:
            url = f"http://127.0.0.1:{self.listener.server_port}"
            extra["webhook"] = {"api_key": KEY, "urls": [url]}
        self.setup, self.logs = Setup(extra=json.dumps(extra)), logs
        self._serve()

    def _serve(self):
        self.server = Server(self.setup, self.logs)
        self.http = f"http://127.0.0.1:{self.server.port}"

    def restart(self):
        """Kills the server without a warning and starts it again, on other ports."""
        assert not self.server.complaints(), self.server.complaints()
        self.server.kill()
        self._serve()

    def stop(self):
        problem = self.server.stop()
        if self.listener:
            self.listener.shutdown()
        self.process.stdin.close()
        self.process.wait(10)
        self.directory.cleanup()
        assert problem is None, problem
        assert not self.server.complaints(), self.server.complaints()

    def script(self, *commands):
        """Changes something in Turms, without a notice to anybody."""
        url = f"http://127.0.0.1:{self.turms['control']}/script"
        headers = {"Content-Type": "application/json"}
        status, answer = exchange(url, json.dumps(commands).encode(), headers)
        assert status == 200, answer

    def state(self):
        return json.loads(exchange(f"http://127.0.0.1:{self.turms['control']}/state")[1])

    def records(self):
        """The JSON records of the messages in Turms."""
        messages = self.state()["messages"]
        return [json.loads(base64.b64decode(message["records"][1])) for message in messages]

    def notice(self, **payload):
        """A change notice, as our plugin sends it."""
        stamp = {"v": 1, "op": "events", "ts": int(time.time() * 1000), "nonce": secrets.token_hex(8)}
        text = json.dumps(stamp | payload)
        mac = hmac.new(EVENT_SECRET, text.encode(), hashlib.sha256).hexdigest()
        body = json.dumps({"payload": text, "mac": mac}).encode()
        status, answer = exchange(f"{self.http}/turms/v1/events", body)
        assert status == 202, answer

    def user_jwt(self, user):
        """What the operator's sign-in service gives to a user."""
        allow_all = [{"effect": "ALLOW", "actions": "*", "resources": "*"}]
        payload = {"sub": str(user), "exp": int(time.time()) + 600, "authenticated": True}
        return jwt(payload | {"statements": allow_all}, JWT_KEY)

    def ask_token(self, user, **body):
        headers = {"Authorization": f"Bearer {self.user_jwt(user)}"}
        url = f"{self.http}/turms/v1/token"
        status, answer = exchange(url, json.dumps(body).encode(), headers)
        return status, json.loads(answer)

    def group_token(self, user, group):
        status, answer = self.ask_token(user, target={"type": "group", "id": str(group)})
        assert status == 200, answer
        return answer

    def roster(self, user, group):
        headers = {"Authorization": f"Bearer {self.user_jwt(user)}"}
        answer = exchange(f"{self.http}/turms/v1/rooms/group/{group}", headers=headers)[1]
        return json.loads(answer)
