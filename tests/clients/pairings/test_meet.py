"""The page for calls: strangers open its address in Chromium and see each other."""

from harness import judge
from harness.hosts import Peer

ENOUGH_FRAMES = 20


class Visitor:
    """A tab of Chromium on the page."""

    def __init__(self, hosts, server, name, room):
        self.peer = Peer(hosts("browser"), f"{room}/{name}")
        address = server.url.replace("ws:", "http:") + f"/meet?room={room}"
        self.peer.call("visit", address=address)
        self.peer.call("fill", field="#name", text=name)
        self.click("#join")

    def click(self, button):
        self.peer.call("click", button=button)

    def tile(self, label):
        tiles = self.peer.call("look")
        return next((tile for tile in tiles if tile["label"] == label), None)

    def wait_for_video(self, label):
        last = {}

        def decoded():
            last["tile"] = tile = self.tile(label)
            return tile and tile["shows"] and tile["frames"] >= ENOUGH_FRAMES

        judge.wait_for(decoded, 30, lambda: f"video of {label} at {self.peer.name}: {last}")


def test_two_strangers_open_the_address_and_are_in_a_call(servers, hosts, logs):
    server = servers()
    alice = Visitor(hosts, server, "Alice", "meet-1")
    bob = Visitor(hosts, server, "Bob", "meet-1")
    alice.wait_for_video("Bob")
    bob.wait_for_video("Alice")
    alice.wait_for_video("Alice (you)")
    judge.wait_for(lambda: alice.peer.call("sound") == 1, 10, "sound of Bob")
    assert alice.peer.call("text", field="#count") == "2 people"
    alice.peer.call("screenshot", path=str(logs / "meet.png"))

    bob.click("#microphone")
    silent = lambda: "silent" in alice.tile("Bob")["classes"]  # noqa: E731
    judge.wait_for(silent, 10, "mark that Bob is silent")
    bob.click("#microphone")
    judge.wait_for(lambda: not silent(), 10, "mark that Bob can be heard")

    bob.click("#camera")
    judge.wait_for(lambda: not alice.tile("Bob")["shows"], 10, "avatar in place of Bob's video")
    before = alice.tile("Bob")["frames"]
    bob.click("#camera")

    def again():
        tile = alice.tile("Bob")
        return tile["shows"] and tile["frames"] > before + ENOUGH_FRAMES

    judge.wait_for(again, 20, "Bob's video after the camera came back")

    bob.click("#leave")
    judge.wait_for(lambda: alice.tile("Bob") is None, 10, "end of Bob's tile")
    for visitor in (alice, bob):
        visitor.peer.call("close")


def test_visitor_of_the_page_meets_a_livekit_client(call, hosts):
    room = call()
    publishing = room.join("python", "robot")
    picture = {"width": 640, "height": 360, "fps": 16}
    publishing.call("publish", video=picture, audio={"hz": 440})
    visitor = Visitor(hosts, room.server, "Carol", room.room)
    visitor.wait_for_video("robot")

    def seen():
        report = publishing.call("report")
        return any(track["kind"] == "video" and track["frames"] > 0 for track in report["tracks"])

    judge.wait_for(seen, 20, "video of the visitor at the LiveKit client")
    visitor.peer.call("close")
    judge.wait_for(lambda: publishing.call("report")["participants"] == [], 10, "departure")
