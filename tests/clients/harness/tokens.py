"""Access tokens, made by the binary under test."""

import os
import subprocess

from .server import KEY, SECRET, binary


def join_token(room, identity, *more):
    words = ["create-token", "--room", room, "--identity", identity]
    words += ["--api-key", KEY, "--api-secret", SECRET, *more]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LIVEKIT_")}
    made = subprocess.run(
        [binary(), *words], check=True, capture_output=True, text=True, env=environment, timeout=20
    )
    return made.stdout.strip()
