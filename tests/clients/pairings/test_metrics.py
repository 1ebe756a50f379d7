"""What the metrics say is what the room service says, with real clients in the rooms."""

import json
import os
import subprocess
import urllib.request

from harness import judge
from harness.server import KEY, SECRET, binary

PICTURE = {"width": 320, "height": 180, "fps": 8}


def admin_token(*grants):
    words = ["create-token", *grants, "--api-key", KEY, "--api-secret", SECRET]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LIVEKIT_")}
    made = subprocess.run(
        [binary(), *words], check=True, capture_output=True, text=True, env=environment, timeout=20
    )
    return made.stdout.strip()


def ask(server, path, token, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def test_metrics_debug_pages_and_room_service_agree(call):
    # An own server: others may still be closing rooms on a shared one.
    room = call(extra='{"region": "metrics"}')
    receiving = room.join("python", "receiving")
    publishing = room.join("browser", "publishing")
    publishing.call("publish", video=PICTURE, audio={"hz": 880})
    judge.wait_for_media(receiving, "publishing")
    server = room.server

    rooms = ask(server, "/twirp/livekit.RoomService/ListRooms", admin_token("--list"), {})["rooms"]
    assert [(each["num_participants"], each["num_publishers"]) for each in rooms] == [(2, 1)]
    grants = ["--admin", "--room", room.room]
    path = "/twirp/livekit.RoomService/ListParticipants"
    participants = ask(server, path, admin_token(*grants), {"room": room.room})["participants"]
    tracks = sum(len(each["tracks"]) for each in participants)

    samples = server.metrics()

    def total(name, label=""):
        return sum(v for k, v in samples.items() if k.split("{")[0] == name and label in k)

    assert total("livekit_room_total") == len(rooms)
    assert total("livekit_participant_total") == len(participants) == 2
    assert total("livekit_track_published_total") == tracks == 2
    assert total("livekit_track_subscribed_total", 'kind="VIDEO"') == 1
    assert total("livekit_track_subscribe_counter", 'state="success"') == 2
    assert total("livekit_participant_join_total", "rtc_active") == 2
    assert total("livekit_session_start_time_ms_count") == 2
    for direction in ("incoming", "outgoing"):
        assert total("livekit_packet_total", direction) > 0
        assert total("livekit_packet_bytes", direction) > total("livekit_packet_total", direction)

    node = ask(server, "/debug/node", admin_token("--list"))
    assert (node["rooms"], node["participants"], node["state"]) == (1, 2, "SERVING")
    (described,) = ask(server, "/debug/rooms", admin_token("--list"))
    assert len(described["tracks"]) == tracks
    assert {each["identity"] for each in described["participants"]} == {"receiving", "publishing"}
    flowing = [
        subscription
        for each in described["participants"]
        for subscription in each["subscriptions"]
        if subscription["mid"]
    ]
    assert len(flowing) == 2
