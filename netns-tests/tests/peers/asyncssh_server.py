"""Servers of asyncssh for our client: from port 2201 on, each with one choice of algorithms or
one way to log in. A command gets its input back and ends with 7."""
import asyncio

import asyncssh

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
AUTHORIZED = "/etc/ssh/authorized_keys/root"
ETM = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"]


async def echo(process):
    while data := await process.stdin.read(65536):
        process.stdout.write(data)
        await process.stdout.drain()
    process.exit(7)


class Forwards(asyncssh.SSHServer):
    def connection_requested(self, *_):
        return True


class Questions(asyncssh.SSHServer):
    def kbdint_auth_supported(self):
        return True

    def get_kbdint_challenge(self, username, lang, submethods):
        return "Two things", "Answer both.", "", [("First: ", False), ("Second: ", True)]

    def validate_kbdint_response(self, username, responses):
        return list(responses) == ["open-sesame", "open-sesame"]


class OldPassword(asyncssh.SSHServer):
    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        raise asyncssh.PasswordChangeRequired("It has expired.")


def servers():
    for cipher in ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]:
        yield {"encryption_algs": [cipher]}
    yield {"encryption_algs": ["chacha20-poly1305@openssh.com"]}
    for cipher in ["aes128-ctr", "aes192-ctr", "aes256-ctr"]:
        for mac in ETM:
            yield {"encryption_algs": [cipher], "mac_algs": [mac]}
    for kex in [
        "curve25519-sha256",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group-exchange-sha256",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group18-sha512",
    ]:
        yield {"kex_algs": [kex]}
    # No rekeying: asyncssh 2.10 may send a channel request after its KEXINIT, which ends the
    # connection (RFC 4253, section 7.1).
    yield {"compression_algs": ["zlib@openssh.com", "none"]}


async def main():
    port = 2201
    common = {"server_host_keys": [HOST_KEY], "process_factory": echo, "encoding": None}
    by_key = {"server_factory": Forwards, "authorized_client_keys": AUTHORIZED}
    for options in servers():
        await asyncssh.listen("", port, **common, **by_key, **options)
        print("works at", port, flush=True)
        port += 1
    await asyncssh.listen("", 2301, server_factory=Questions, **common)
    await asyncssh.listen("", 2302, server_factory=OldPassword, **common)
    print("all of them listen", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
