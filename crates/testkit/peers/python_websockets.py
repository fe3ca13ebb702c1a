"""A room member that shares no code with this project: PyPI `websockets` and a few bytes of protobuf written by hand.

What lives here: one WebSocket client, driven line by line. What does not: any judgement about what it saw; the test that
started it judges (`crates/testkit/src/peers.rs`).

    python_websockets.py URL [--trust CERTIFICATE.pem] [--deadline SECONDS]

Commands come on standard input and events go to standard output, one JSON object a line, the same as in browser.mjs:

    {"do": "send", "count": 10, "email": "ana", "bytes": 200}   numbered packets, made here
    {"do": "send_hex", "hex": "08021203616e61"}                 one packet as given
    {"do": "close", "code": 1000}

    {"event": "open", "via": "websocket"}       {"event": "refused", "via": "websocket", "status": 403}
    {"event": "sent", "via": "websocket", "count": 10}
    {"event": "packet", "via": "websocket", "hex": "...", "datagram": false}
    {"event": "closed", "via": "websocket", "code": 1001, "reason": "..."}
    {"event": "failed", "via": "websocket", "message": "..."}

Standard input is a pipe; its end means: close and go. Exit codes: 0 closed or refused, 1 failed, 3 the deadline passed.
"""

import argparse
import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

VIA = "websocket"
MAX_PACKET_BYTES = 4_000_000
MAX_COMMAND_BYTES = 3 * MAX_PACKET_BYTES  # a packet in hexadecimal, and some


def report(event, **fields):
    print(json.dumps({"event": event, "via": VIA, **fields}), flush=True)


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, content):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def numbered_packet(email, number, size):
    """A PacketWrapper (MEDIA) around a MediaPacket (AUDIO) whose data is the number in 4 bytes, then filler."""
    email = email.encode()
    data = number.to_bytes(4, "big") + bytes(max(0, size - 4))
    media = b"\x08\x01" + field(2, email) + field(3, data)
    return b"\x08\x02" + field(2, email) + field(3, media)


async def receive(socket):
    async for message in socket:
        if isinstance(message, bytes):
            report("packet", hex=message.hex(), datagram=False)
        else:
            report("failed", message="a text message came")


async def obey(socket):
    """Reads commands until standard input ends or one of them closes the connection."""
    lines = asyncio.StreamReader(limit=MAX_COMMAND_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        command = json.loads(line)
        match command["do"]:
            case "send":
                for number in range(command["count"]):
                    await socket.send(numbered_packet(command["email"], number, command["bytes"]))
                report("sent", count=command["count"])
            case "send_hex":
                await socket.send(bytes.fromhex(command["hex"]))
                report("sent", count=1)
            case "close":
                await socket.close(command["code"])
                return
            case other:
                raise ValueError(f"unknown command {other!r}")
    await socket.close(1000)


async def main(url, trust):
    options = {"ssl": ssl.create_default_context(cafile=trust)} if trust else {}
    try:
        socket = await connect(url, max_size=MAX_PACKET_BYTES, proxy=None, **options)
    except InvalidStatus as refused:
        report("refused", status=refused.response.status_code)
        return
    report("open")
    receiving = asyncio.create_task(receive(socket))
    obeying = asyncio.create_task(obey(socket))
    # Either the server closes, or there is nothing more to do: then what still comes before the close is taken too.
    await asyncio.wait([receiving, obeying], return_when=asyncio.FIRST_COMPLETED)
    if receiving.done():
        obeying.cancel()
    else:
        await socket.close()
    for result in await asyncio.gather(receiving, obeying, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, ConnectionClosed):
            raise result
    report("closed", code=socket.close_code, reason=socket.close_reason)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--trust", help="a PEM file with the certificate to trust")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds after which to give up")
    arguments = parser.parse_args()
    try:
        asyncio.run(asyncio.wait_for(main(arguments.url, arguments.trust), arguments.deadline))
    except TimeoutError:
        report("failed", message=f"the deadline of {arguments.deadline:g} s passed")
        sys.exit(3)
    except Exception as error:  # whatever it is, the test wants to read it
        report("failed", message=f"{type(error).__name__}: {error}")
        sys.exit(1)
