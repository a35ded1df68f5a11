"""Strangers: mutual TLS with pinned keys, the session's token, and what the parties must agree on."""

import errno
import io
import secrets
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress

import pytest
from two_threads import channel_pair

from pibench.errors import TransportError, UsageError
from pibench.links import frames
from pibench.links.callers import say
from pibench.links.meter import Meter
from pibench.links.tls import Identity, Wrapper, fingerprint, generate
from pibench.links.transport import Channel, listen
from pibench.session import connect
from pibench.session.connect import HANDSHAKE_S, accept, dial, plain
from pibench.session.handshake import agree, offer

TOKEN = b"t" * 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "bob", "mallory"):
        generate(name, folder)
    return folder


def identity(folder, name, *peers):
    return Identity(folder / f"{name}.key", folder / f"{name}.crt", tuple(folder / f"{peer}.crt" for peer in peers))


class Door:
    """A server that waits for one client behind TLS, in a thread."""

    def __init__(self, folder, token=TOKEN, seconds=5.0, wrap=None):
        self.listener = listen("127.0.0.1")
        self.address = self.listener.getsockname()
        self.found, self.error = {}, None
        wrap = wrap or Wrapper(identity(folder, "alice", "bob"), server=True)
        self.thread = threading.Thread(target=self._wait, args=(token, time.monotonic() + seconds, wrap))
        self.thread.start()

    def _wait(self, token, deadline, wrap):
        try:
            with self.listener:
                self.found = accept(self.listener, token, ["client"], deadline, wrap)
        except TransportError as error:
            self.error = error

    def call(self, wrap, token=TOKEN, role="client", seconds=5.0):
        return dial(self.address, token, role, time.monotonic() + seconds, wrap)

    def end(self):
        self.thread.join(10)
        assert not self.thread.is_alive()


def test_a_key_is_private_and_never_overwritten(folder):
    assert (folder / "alice.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="File exists"):
        generate("alice", folder)
    assert fingerprint(folder / "alice.crt") != fingerprint(folder / "bob.crt")
    assert fingerprint(folder / "alice.crt").startswith("sha256:")


def test_an_identity_that_is_none_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="no such key"):
        identity(folder, "nobody", "bob")
    with pytest.raises(UsageError, match="no peer is trusted"):
        identity(folder, "alice")
    (folder / "open.key").write_bytes((folder / "alice.key").read_bytes())
    (folder / "open.key").chmod(0o644)
    with pytest.raises(UsageError, match="other users may read"):
        Identity(folder / "open.key", folder / "alice.crt", (folder / "bob.crt",))
    (tmp_path / "junk.crt").write_text("junk")
    with pytest.raises(UsageError, match="not a certificate"):
        fingerprint(tmp_path / "junk.crt")
    with pytest.raises(UsageError, match="does not load"):
        Wrapper(Identity(folder / "alice.key", folder / "bob.crt", (folder / "bob.crt",)), server=True)


@pytest.mark.timeout(30)
def test_pinned_peers_exchange_over_tls(folder):
    door = Door(folder)
    sock = door.call(Wrapper(identity(folder, "bob", "alice"), server=False))
    door.end()
    assert sock.version() == "TLSv1.3"
    left, right = Channel(sock, Meter(), 10), Channel(door.found["client"], Meter(), 10)
    big = secrets.token_bytes(3_000_001)  # larger than any socket buffer, in both directions at once
    there, back = bytearray(len(big)), bytearray(len(big))
    thread = threading.Thread(target=right.exchange, args=(big, there))
    thread.start()
    left.exchange(big[::-1], back)
    thread.join(10)
    assert bytes(back) == big
    assert bytes(there) == big[::-1]
    left.close()
    right.close()


@pytest.mark.timeout(60)
def test_a_long_send_over_a_slow_link_is_no_dead_peer(folder):
    """3 MB that a peer takes in about four seconds, with two of patience: enough for a busy machine's pauses."""
    patience_s = 2.0
    door = Door(folder)
    sock = door.call(Wrapper(identity(folder, "bob", "alice"), server=False))
    door.end()
    reader = door.found["client"]
    for end, kind in ((sock, socket.SO_SNDBUF), (reader, socket.SO_RCVBUF)):
        end.setsockopt(socket.SOL_SOCKET, kind, 1 << 16)
    reader.settimeout(None)  # it waits as long as the sender takes
    taken = bytearray()

    def take():
        while data := reader.recv(1 << 14):
            taken.extend(data)
            time.sleep(0.022)

    thread = threading.Thread(target=take)
    thread.start()
    left, data = Channel(sock, Meter(), patience_s), secrets.token_bytes(3_000_000)
    start = time.monotonic()
    try:
        left.send(data)
        assert time.monotonic() - start > patience_s
    finally:
        left.close()
        thread.join(30)
    assert bytes(taken) == data
    reader.close()


def hung_up_after_s(sock, pieces, pause_s):
    """Send piece after piece with pauses; return when the other end hung up."""
    start = time.monotonic()
    sock.settimeout(pause_s)
    with suppress(ConnectionError):
        for piece in pieces:
            sock.send(piece)
            with suppress(TimeoutError):
                if not sock.recv(1 << 12):
                    break
    return time.monotonic() - start


@pytest.mark.timeout(60)
@pytest.mark.parametrize("secure", [False, True])
def test_a_stranger_who_drips_bytes_is_sent_away_in_time(folder, secure, monkeypatch, capfd):
    monkeypatch.setattr(connect, "HANDSHAKE_S", 1.0)
    door = Door(folder, seconds=25, wrap=None if secure else plain)
    hello = b"\x16\x03\x01\x02\x00" + b"\x01" * 50 if secure else connect.MAGIC + b"client  " + b"n" * 32
    with socket.create_connection(door.address) as drip:
        assert hung_up_after_s(drip, [bytes([b]) for b in hello], 0.2) < 4.0
    door.call(Wrapper(identity(folder, "bob", "alice"), server=False) if secure else plain).close()
    door.end()
    door.found["client"].close()
    assert "timed out" in capfd.readouterr().err


@pytest.mark.timeout(30)
@pytest.mark.parametrize("most", [2, 64])
def test_silent_strangers_keep_nobody_out_and_the_oldest_is_sent_away(folder, monkeypatch, capfd, most):
    monkeypatch.setattr(connect, "MAX_CALLERS", most)
    door = Door(folder, seconds=20)
    silent = [socket.create_connection(door.address) for _ in range(most + 3)]
    start = time.monotonic()
    door.call(Wrapper(identity(folder, "bob", "alice"), server=False)).close()
    assert time.monotonic() - start < HANDSHAKE_S / 2
    for sock in silent[:4]:  # three for those who came after them, one for the peer
        sock.settimeout(HANDSHAKE_S / 2)
        assert sock.recv(1) == b""
    door.end()
    door.found["client"].close()
    assert capfd.readouterr().err.count("too many callers") == 4
    for sock in silent:
        sock.close()


@pytest.mark.timeout(30)
def test_no_questioning_thread_outlives_its_listener(folder, monkeypatch):
    """A refusal that came after its listener found standard error closed, and took the thread down."""
    before = set(threading.enumerate())
    door = Door(folder, seconds=20)
    silent = [socket.create_connection(door.address) for _ in range(5)]
    door.call(Wrapper(identity(folder, "bob", "alice"), server=False)).close()
    door.end()
    assert set(threading.enumerate()) <= before
    door.found["client"].close()
    for sock in silent:
        assert sock.recv(1) == b""
        sock.close()


@pytest.mark.parametrize("stream", ["closed", "absent", "full"])
def test_a_refusal_is_logged_or_not_but_never_fails(stream, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "no space left")

    closed, full = io.StringIO(), Full()
    closed.close()
    monkeypatch.setattr(sys, "stderr", {"closed": closed, "absent": None, "full": full}[stream])
    say("refused 127.0.0.1:1: silence")


def test_a_strangers_text_controls_no_terminal(capfd):
    say("refused 127.0.0.1:1: \x1b[2J\rall is well\n2026-01-01 session 7 ended \u202e" + "x" * 5000)
    written = capfd.readouterr().err
    assert written.count("\n") == 1
    assert r"\x1b[2J\rall is well\n2026-01-01 session 7 ended \u202e" in written
    assert len(written) < 1100


def no_tls(sock):
    return sock


def old_tls(folder):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(folder / "bob.crt", folder / "bob.key")
    return made.wrap_socket


def no_certificate(folder):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made.wrap_socket


STRANGERS = {
    "speaks no TLS": lambda folder: {"wrap": no_tls},
    "speaks TLS 1.2": lambda folder: {"wrap": old_tls(folder)},
    "has no certificate": lambda folder: {"wrap": no_certificate(folder)},
    "has a key of its own": lambda folder: {"wrap": Wrapper(identity(folder, "mallory", "alice"), server=False)},
    "has a wrong token": lambda folder: {
        "wrap": Wrapper(identity(folder, "bob", "alice"), server=False), "token": b"x" * 64
    },
    "has another role": lambda folder: {
        "wrap": Wrapper(identity(folder, "bob", "alice"), server=False), "role": "dealer"
    },
}  # fmt: skip


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger_is_refused_and_logged_and_the_peer_is_not_kept_waiting(folder, kind, capfd):
    door = Door(folder, seconds=20)
    silent = socket.create_connection(door.address)  # says nothing, and does not hang anybody up
    with pytest.raises((TransportError, OSError)):  # noqa: PT012 - in TLS 1.3 a client learns of its refusal later
        sock = door.call(**STRANGERS[kind](folder), seconds=3)
        sock.settimeout(3)
        if not sock.recv(1):
            raise TransportError("hung up")
    start = time.monotonic()
    sock = door.call(Wrapper(identity(folder, "bob", "alice"), server=False))
    assert time.monotonic() - start < HANDSHAKE_S / 2
    door.end()
    door.found.pop("client").close()
    assert "refused 127.0.0.1:" in capfd.readouterr().err
    sock.close()
    silent.close()


@pytest.mark.timeout(30)
def test_a_recorded_conversation_opens_nothing(folder):
    """A man in the middle records both directions of a successful call, then plays the caller's part again."""
    door = Door(folder)
    recorded = bytearray()
    relay = socket.create_server(("127.0.0.1", 0))

    def carry():
        near, _ = relay.accept()
        far = socket.create_connection(door.address)

        def back():
            with suppress(OSError):  # whoever was first to hang up
                while data := far.recv(65536):
                    near.sendall(data)

        backward = threading.Thread(target=back, daemon=True)
        backward.start()
        with suppress(OSError):
            while data := near.recv(65536):
                recorded.extend(data)
                far.sendall(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)  # ends the other direction, too
        backward.join()
        far.close()

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    bob = Wrapper(identity(folder, "bob", "alice"), server=False)
    sock = dial(relay.getsockname(), TOKEN, "client", time.monotonic() + 5, bob)
    door.end()
    door.found["client"].close()
    sock.close()
    thread.join(5)
    relay.close()
    again = Door(folder, seconds=2.0)
    with socket.create_connection(again.address) as replay:
        replay.sendall(recorded)
        replay.settimeout(5)
        with suppress(ConnectionResetError):
            while replay.recv(65536):
                pass
    again.end()
    assert again.found == {}
    assert "the client did not connect in time" in str(again.error)


@pytest.mark.timeout(30)
def test_a_false_server_is_refused_by_the_client(folder):
    door = Door(folder, wrap=Wrapper(identity(folder, "mallory", "bob"), server=True), seconds=2)
    with pytest.raises(TransportError, match=r"no TLS 1\.3 with a trusted peer"):
        door.call(Wrapper(identity(folder, "bob", "alice"), server=False))
    door.end()
    plain_door = Door(folder, wrap=plain, token=b"y" * 64, seconds=2)
    with pytest.raises(TransportError, match="does not hold this session's token"):
        plain_door.call(plain)
    plain_door.end()


TERMS = {"protocol": "masked", "program": "abc", "options": {}, "batch": 1, "batches": 3, "offline_chunk": None}


def both(mine, theirs):
    """What agree() says on the left when the right offers `theirs`."""
    left, right = channel_pair((Meter(), Meter()), timeout_s=5)
    frames.send(right, theirs)
    return agree(left, mine)


def test_parties_that_run_the_same_agree():
    assert both(offer(**TERMS), offer(**TERMS))["program"] == "abc"


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"program": "abd"}, "the program"),
        ({"pibench": "9.9"}, "the version of pibench"),
        ({"wire": 0}, "the wire format"),
        ({"protocol": "plaintext"}, "the protocol"),
        ({"options": {"digits": 4}}, "options"),
        ({"batches": 4}, "the number of inferences"),
    ],
)
def test_parties_that_differ_stop_and_name_the_difference(change, label):
    with pytest.raises(TransportError, match=f"disagree on .*{label}"):
        both(offer(**TERMS), {**offer(**TERMS), **change})


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"\xff\xff\xff\xff", "announces a frame of 4294967295 bytes"),
        (b"\0\0\0\2[]", "not an object"),
        (b"\0\0\0\2\xff\xfe", "no message"),
        (b"\0\0\0\3NaN", "no message"),
        (b"\0\0\0\1{", "no message"),
    ],
)
def test_a_frame_that_is_none_is_refused(raw, complaint):
    left, right = channel_pair((Meter(), Meter()), timeout_s=5)
    left.move(raw)
    with pytest.raises(TransportError, match=complaint):
        frames.receive(right)


def test_a_truncated_frame_ends_with_the_connection():
    left, right = channel_pair((Meter(), Meter()), timeout_s=5)
    left.move(b"\0\0\0\x10{")
    left.close()
    with pytest.raises(TransportError, match="the peer closed the connection"):
        frames.receive(right)
