"""A UDP relay that delays: `relay.py LISTEN SERVER IMPAIRED_CLIENT`.

Every client gets a socket of its own towards the server, as behind a NAT. One JSON object per line
on standard input changes what happens to the datagrams of the impaired client (`delay`, `jitter`)
or forgets its sockets (`rebind`), as a NAT does that was restarted; its end ends us.
"""

import asyncio
import json
import random
import sys


class Upstream(asyncio.DatagramProtocol):
    """Towards the server, for one client."""

    def __init__(self, relay, client):
        self.relay, self.client = relay, client

    def datagram_received(self, data, _):
        self.relay.pass_on(self.client, data, self.relay.send_down, 0)


class Relay(asyncio.DatagramProtocol):
    def __init__(self, server, impaired):
        self.server, self.impaired = server, impaired
        self.delay = self.jitter = 0.0
        self.upstreams = {}
        self.last = {}

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, client):
        upstream = self.upstreams.get(client)
        if upstream is None:
            made = asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Upstream(self, client), remote_addr=self.server
            )
            self.upstreams[client] = asyncio.ensure_future(made)
            return  # ICE repeats its checks
        if upstream.done():
            self.pass_on(client, data, self.send_up, 1)

    def rebind(self):
        """The server sees the impaired client's next datagram come from another address."""
        for client in [client for client in self.upstreams if client[0] == self.impaired]:
            opening = self.upstreams.pop(client)
            opening.add_done_callback(lambda opened: opened.result()[0].close())

    def send_up(self, client, data):
        upstream = self.upstreams.get(client)
        if upstream and upstream.done():
            upstream.result()[0].sendto(data)

    def send_down(self, client, data):
        self.transport.sendto(data, client)

    def pass_on(self, client, data, send, direction):
        """In order per direction, as queues are."""
        if client[0] != self.impaired:
            return send(client, data)
        loop = asyncio.get_running_loop()
        due = loop.time() + self.delay + random.random() * self.jitter
        # Equal times are no order to a heap: a microsecond apart.
        due = self.last[client, direction] = max(due, self.last.get((client, direction), 0) + 1e-6)
        return loop.call_at(due, send, client, data)


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


async def main(listen, server, impaired):
    loop = asyncio.get_running_loop()
    _, relay = await loop.create_datagram_endpoint(
        lambda: Relay(address(server), impaired), local_addr=address(listen)
    )
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("ready", flush=True)
    while line := await orders.readline():
        order = json.loads(line)
        if order.pop("rebind", False):
            relay.rebind()
        for name, value in order.items():
            setattr(relay, name, value)


asyncio.run(main(*sys.argv[1:]))
