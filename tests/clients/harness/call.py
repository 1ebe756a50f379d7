"""A room and its real clients."""

import uuid

from .hosts import Peer
from .tokens import join_token


class Call:
    """One room on one server, and the peers that a test put into it."""

    def __init__(self, server, hosts):
        self.server, self.hosts = server, hosts
        self.room = f"room-{uuid.uuid4().hex[:8]}"
        self.peers = []

    def join(self, kind, identity, v1=True, attributes=None, **options):
        """A real client of this kind in the room; `peer.joined` tells how it went."""
        peer = Peer(self.hosts(kind), f"{self.room}/{identity}")
        self.peers.append(peer)
        pairs = (attributes or {}).items()
        more = [word for key, value in pairs for word in ("--attribute", f"{key}={value}")]
        token = join_token(self.room, identity, *more)
        peer.joined = peer.call("join", url=self.server.url, token=token, v1=v1, **options)
        return peer

    def leave(self):
        for peer in self.peers:
            if peer.host.alive:
                try:
                    peer.call("leave")
                except Exception as error:  # a peer that never joined
                    print(f"leaving: {error}")
