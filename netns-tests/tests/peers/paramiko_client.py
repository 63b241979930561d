"""paramiko as a client of `sshvpn serve` at bastion: the scenario named by the argument.

An echo service (echo.py) is at 198.51.100.2:9000, behind the server, and at 127.0.0.1:9000 here.
"""
import os
import socket
import sys
import threading
import time

import paramiko

FAR = ("198.51.100.2", 9000)
MIB = 1 << 20


def connect():
    client = paramiko.SSHClient()
    client.load_host_keys("/run/home/root/.ssh/known_hosts")
    client.connect("bastion", username="alice", key_filename="/run/home/root/.ssh/id_ed25519")
    return client


def opened(transport, place=FAR):
    channel = transport.open_channel("direct-tcpip", place, ("127.0.0.1", 1), timeout=20)
    channel.settimeout(30)
    return channel


def echoes(channel, size):
    """Sends `size` bytes and ends; all of them have to come back, and the service's end."""
    data = os.urandom(size)
    sender = threading.Thread(target=lambda: (channel.sendall(data), channel.shutdown_write()))
    sender.start()
    heard = bytearray()
    while part := channel.recv(65536):
        heard += part
    sender.join()
    assert heard == data + b"end", f"{len(heard)} bytes, or changed ones"
    channel.close()


def in_threads(count, work):
    failures = []

    def one():
        try:
            work()
        except BaseException as error:  # pylint: disable=broad-except
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def local(transport):
    echoes(opened(transport), 6 * MIB)
    in_threads(30, lambda: echoes(opened(transport), 20_000))


def pass_on(channel):
    """Joins a channel of a remote forward to the service here."""
    service = socket.create_connection(("127.0.0.1", 9000))

    def upload():
        while part := channel.recv(65536):
            service.sendall(part)
        service.shutdown(socket.SHUT_WR)

    threading.Thread(target=upload, daemon=True).start()
    while part := service.recv(65536):
        channel.sendall(part)
    channel.shutdown_write()


def remote(transport):
    def handler(channel, _origin, _server):
        threading.Thread(target=pass_on, args=(channel,), daemon=True).start()

    port = transport.request_port_forward("", 0, handler)
    echoes(opened(transport, ("127.0.0.1", port)), 2 * MIB)
    in_threads(10, lambda: echoes(opened(transport, ("127.0.0.1", port)), 20_000))
    transport.cancel_port_forward("", port)
    # paramiko does not ask for an answer; what it asks next is answered after it.
    try:
        opened(transport, ("127.0.0.1", port))
        raise AssertionError("it listens")
    except paramiko.ChannelException as error:
        assert error.code == 2, error


def rekey(transport):
    # Not while other threads send: paramiko fails at that with sshd too.
    channel = opened(transport)
    for _ in range(10):
        transport.renegotiate_keys()
        data = os.urandom(100_000)
        channel.sendall(data)
        heard = bytearray()
        while len(heard) < len(data):
            heard += channel.recv(65536)
        assert heard == data, "changed bytes"
    echoes(channel, 1000)


def keepalive(transport):
    transport.set_keepalive(1)
    time.sleep(3.5)  # the time of three keepalives, not a wait for something
    echoes(opened(transport), 1000)


def requests(transport):
    for ask in (
        lambda: transport.open_session().exec_command("id"),
        lambda: transport.open_session().invoke_shell(),
        lambda: transport.open_session().get_pty(),
        lambda: transport.open_session().invoke_subsystem("sftp"),
        lambda: transport.open_session().request_x11(),
        lambda: transport.open_channel("nonsense", timeout=20),
    ):
        try:
            ask()
            raise AssertionError("allowed")
        except paramiko.SSHException:
            pass
    echoes(opened(transport), 1000)


SCENARIOS = (local, remote, rekey, keepalive, requests)
[scenario] = [one for one in SCENARIOS if one.__name__ == sys.argv[1]]
with connect() as connected:
    scenario(connected.get_transport())
print("done")
