"""asyncssh as a client of `sshvpn serve` at bastion: the scenario named by the argument.

An echo service (echo.py) is at 198.51.100.2:9000, behind the server, and at 127.0.0.1:9000 here.
"""
import asyncio
import os
import sys

import asyncssh
from asyncssh.packet import String, UInt32

FAR = ("198.51.100.2", 9000)
MIB = 1 << 20


def connect(**options):
    options.setdefault("compression_algs", ["none"])
    return asyncssh.connect("bastion", username="alice", config=None, **options)


async def echoes(reader, writer, size):
    """Sends `size` bytes and ends; all of them have to come back, and the service's end."""
    data = os.urandom(min(size, MIB))

    async def send():
        left = size
        while left:
            part = data[:left]
            writer.write(part)
            await writer.drain()
            left -= len(part)
        writer.write_eof()

    async def receive():
        left = size
        while left:
            expected = data[:left]
            assert await reader.readexactly(len(expected)) == expected, "changed bytes"
            left -= len(expected)
        assert await reader.read() == b"end", "no answer after the end of input"

    await asyncio.gather(send(), receive())
    writer.close()
    # socat has no such call, and a local connection needs none.
    await writer.wait_closed()


async def far(conn, size, place=FAR):
    await echoes(*await conn.open_connection(*place), size)


async def refused(opening, *codes):
    try:
        _, writer = await opening
    except asyncssh.ChannelOpenError as error:
        assert error.code in codes, error
        assert error.reason, "no reason"
        return
    writer.close()
    raise AssertionError("it was opened")


async def local():
    async with connect() as conn:
        await far(conn, 8 * MIB)


async def many():
    async with connect() as conn:
        await asyncio.gather(*(far(conn, 30_000) for _ in range(60)))
        # Each one that has ended makes room for another.
        for _ in range(4):
            await asyncio.gather(*(far(conn, 1) for _ in range(50)))
        held = [await conn.open_connection(*FAR) for _ in range(64)]
        await refused(conn.open_connection(*FAR), asyncssh.OPEN_RESOURCE_SHORTAGE)
        for reader, writer in held:
            await echoes(reader, writer, 10)
        await far(conn, 10)


async def remote():
    here = ("127.0.0.1", 9000)
    async with connect() as conn:
        listener = await conn.forward_remote_port("", 0, *here)
        port = listener.get_port()
        assert port, "no port"
        # Out by the server to its listener, and back by it to the service here.
        through = ("127.0.0.1", port)
        await far(conn, 4 * MIB, through)
        await asyncio.gather(*(far(conn, 20_000, through) for _ in range(20)))
        reader, writer = await conn.open_connection(*through)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        try:
            await conn.forward_remote_port("", port, *here)
            raise AssertionError("the port is given twice")
        except asyncssh.ChannelListenError:
            pass
        listener.close()
        await listener.wait_closed()
        await refused(conn.open_connection(*through), asyncssh.OPEN_CONNECT_FAILED)
        # What was accepted goes on.
        await echoes(reader, writer, 100_000)
        listener = await conn.forward_remote_port("", port, *here)
        await far(conn, 1, through)


async def dynamic():
    async with connect() as conn:
        await conn.forward_socks("127.0.0.1", 1080)
        await conn.forward_local_port("127.0.0.1", 8001, *FAR)
        await echoes(*await asyncio.open_connection("127.0.0.1", 8001), MIB)
        for host in (bytes([1, 198, 51, 100, 2]), b"\x03\x0c198.51.100.2"):
            reader, writer = await asyncio.open_connection("127.0.0.1", 1080)
            writer.write(b"\x05\x01\x00")
            assert await reader.readexactly(2) == b"\x05\x00"
            writer.write(b"\x05\x01\x00" + host + (9000).to_bytes(2, "big"))
            answer = await reader.readexactly(4)
            assert answer[1] == 0, answer
            await reader.readexactly({1: 6, 3: 7, 4: 18}[answer[3]])
            await echoes(reader, writer, MIB)


async def rekey():
    async with connect(rekey_bytes=MIB // 2) as conn:
        await asyncio.gather(*(far(conn, 3 * MIB) for _ in range(3)))


async def keepalive():
    async with connect(keepalive_interval=1, keepalive_count_max=2) as conn:
        await asyncio.sleep(4.5)  # the time of four keepalives, not a wait for something
        await far(conn, 1000)


async def algorithms():
    ciphers = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"]
    for cipher in ciphers:
        async with connect(encryption_algs=[cipher]) as conn:
            await far(conn, 100_000)
    for cipher in ["aes128-ctr", "aes192-ctr", "aes256-ctr"]:
        for mac in ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"]:
            async with connect(encryption_algs=[cipher], mac_algs=[mac]) as conn:
                await far(conn, 100_000)
    for kex in [
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
    ]:
        async with connect(kex_algs=[kex]) as conn:
            await far(conn, 1000)
    async with connect(compression_algs=["zlib@openssh.com", "none"]) as conn:
        await far(conn, 1000)
    for weak in (
        {"encryption_algs": ["3des-cbc"]},
        {"encryption_algs": ["aes128-ctr"], "mac_algs": ["hmac-md5"]},
        {"kex_algs": ["diffie-hellman-group1-sha1"]},
        {"compression_algs": ["zlib@openssh.com"]},
    ):
        try:
            async with connect(**weak):
                raise AssertionError(f"agreed on {weak}")
        except (asyncssh.DisconnectError, asyncssh.ConnectionLost, asyncssh.KeyExchangeFailed):
            pass


async def requests():
    """Everything else that asyncssh can ask for is refused, and the connection goes on."""
    async with connect() as conn:
        for ask in (
            lambda: conn.run("id", check=True),
            lambda: conn.create_process(),
            lambda: conn.create_process(term_type="xterm"),
            lambda: conn.create_process("id", env={"LANG": "C"}),
            lambda: conn.start_sftp_client(),
            lambda: conn.forward_remote_path("/run/listener", "/run/here"),
            lambda: conn.open_unix_connection("/run/socket"),
        ):
            try:
                result = await ask()
                raise AssertionError(f"allowed: {result}")
            except (asyncssh.ChannelOpenError, asyncssh.ChannelListenError, asyncssh.SFTPError):
                pass
        for host, port in (("127.0.0.1", 0), ("", 9000), ("a\0b", 22), ("x" * 300, 22)):
            await refused(
                conn.open_connection(host, port),
                asyncssh.OPEN_CONNECT_FAILED,
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED,
            )
        await refused(conn.open_connection("198.51.100.2", 1), asyncssh.OPEN_CONNECT_FAILED)
        await far(conn, 100_000)


async def hostile():
    """Messages that a client must not send; each with a connection of its own."""

    async def alone(attack):
        try:
            async with connect() as conn:
                reader, writer = await conn.open_connection(*FAR)
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                await attack(conn, writer.channel if hasattr(writer, "channel") else writer._chan)
                await far(conn, 10)
        except (asyncssh.Error, OSError, EOFError, AssertionError):
            # The server may end such a connection.
            pass

    async def data_after_the_end(conn, chan):
        chan.write_eof()
        for _ in range(100):
            conn.send_packet(94, UInt32(chan._send_chan), String(b"y" * 1000))

    async def data_after_the_close(conn, chan):
        number = chan._send_chan
        chan.abort()
        for _ in range(100):
            conn.send_packet(94, UInt32(number), String(b"y" * 1000))
            conn.send_packet(93, UInt32(number), UInt32(0xFFFFFFFF))

    async def no_such_channel(conn, _):
        for kind in range(91, 101):
            conn.send_packet(kind, UInt32(0x7FFFFFFF), String(b"nothing"))

    async def short_packets(conn, _):
        for kind in (80, 90, 93, 94, 98):
            conn.send_packet(kind, b"\0")

    async def the_number_of_another(conn, chan):
        for _ in range(3):
            tail = String(b"198.51.100.2"), UInt32(9000), String(b"127.0.0.1"), UInt32(1)
            numbers = UInt32(chan._recv_chan), UInt32(1 << 20), UInt32(32768)
            conn.send_packet(90, String(b"direct-tcpip"), *numbers, *tail)

    async def ends_without_a_word(conn, _):
        conn.abort()

    async def server_messages(conn, _):
        for kind in (51, 52, 60, 81, 91, 92, 99, 100):
            conn.send_packet(kind, UInt32(0), UInt32(0), UInt32(0), UInt32(0))

    async with connect() as quiet:
        reader, writer = await quiet.open_connection(*FAR)
        for attack in (
            data_after_the_end,
            data_after_the_close,
            no_such_channel,
            short_packets,
            the_number_of_another,
            ends_without_a_word,
            server_messages,
        ):
            await alone(attack)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x", attack.__name__
            async with connect() as conn:
                await far(conn, 1000)
        await echoes(reader, writer, 100_000)


SCENARIOS = (local, many, remote, dynamic, rekey, keepalive, algorithms, requests, hostile)
[scenario] = [one for one in SCENARIOS if one.__name__ == sys.argv[1]]
asyncio.run(asyncio.wait_for(scenario(), 100))
print("done")
