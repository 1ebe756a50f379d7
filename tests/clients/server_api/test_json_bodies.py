"""JSON bodies of the API, field by field, against golden bodies written from LiveKit's schema and
its JSON rules: proto names, every field written, 64-bit numbers as text, enums by name."""

import asyncio
import contextlib
import json
import pathlib
import urllib.error
import urllib.request

import pytest
from conftest import HERE, KEY, SECRET, joined
from livekit import api

GOLDEN = HERE / "golden"


def grants_of(room):
    return api.VideoGrants(
        room_create=True, room_list=True, room_record=True, room_admin=True, ingress_admin=True,
        room=room, destination_room=room + "-other",
    )


def post(server, service, method, body, grants):
    token = api.AccessToken(KEY, SECRET).with_grants(grants)
    token = token.with_sip_grants(api.SIPGrants(admin=True, call=True)).to_jwt()
    request = urllib.request.Request(
        f"{server.url.replace('ws', 'http', 1)}/twirp/livekit.{service}/{method}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def differences(golden, body, at=""):
    """Where a body differs from a golden one. In golden bodies `<sid XX_>`, `<number>`, `<bool>`
    and `<text>` stand for what no two servers share."""
    if isinstance(golden, str) and golden.startswith("<"):
        fits = {
            "<number>": lambda: isinstance(body, int) and not isinstance(body, bool),
            "<number text>": lambda: isinstance(body, str) and body.isdigit(),
            "<bool>": lambda: isinstance(body, bool),
            "<text>": lambda: isinstance(body, str),
        }.get(golden, lambda: isinstance(body, str) and body.startswith(golden[5:-1]))
        return [] if fits() else [f"{at}: {body!r} is no {golden}"]
    if isinstance(golden, dict) and isinstance(body, dict):
        missing = [f"{at}.{name}: missing" for name in golden if name not in body]
        more = [f"{at}.{name}: not in LiveKit's" for name in body if name not in golden]
        common = [name for name in golden if name in body]
        deep = [differences(golden[name], body[name], f"{at}.{name}") for name in common]
        return missing + more + sum(deep, [])
    if isinstance(golden, list) and isinstance(body, list):
        if len(golden) != len(body):
            return [f"{at}: {len(body)} elements instead of {len(golden)}"]
        pairs = enumerate(zip(golden, body))
        return sum((differences(g, b, f"{at}[{i}]") for i, (g, b) in pairs), [])
    return [] if golden == body and type(golden) is type(body) else [f"{at}: {body!r}, not {golden!r}"]


def fill_in(text, room):
    for name, value in {"$ROOM": room, "$LARGE": "x" * 524_289, "$LONG": "x" * 257}.items():
        text = text.replace(name, value)
    return text


def cases():
    return sorted(GOLDEN.glob("*.json"), key=lambda path: path.name)


@pytest.mark.parametrize("path", cases(), ids=lambda path: pathlib.Path(path).stem)
def test_body(server, room, path):
    """Each file: what to call, in order, and how the last answer looks."""

    async def body():
        case = json.loads(fill_in(path.read_text(), room))
        async with joined(server, room, "alice") if case.get("joined") else contextlib.nullcontext():
            for call in case["calls"]:
                status, answer = await asyncio.to_thread(
                    post, server, call["service"], call["method"], call["body"], grants_of(room)
                )
            assert status == case["status"], answer
            found = differences(case["answer"], answer)
            assert not found, "\n".join(found)

    asyncio.run(body())
