"""Mutual TLS 1.3 between two hosts, with keys that the users made and pinned: no authority, no host names, no clock.

Each host has one identity: a private key and a self-signed certificate (`pibench party keygen`). A host trusts the
certificates that its user put into its list of peers, and no others; a certificate's fingerprint is what two users
compare over the telephone. Validity never ends, because a pinned key is trusted until it is taken off the list, and a
clock that jumps must not break a run. Without session tickets and early data nothing recorded can be replayed.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pibench.errors import TransportError, UsageError

FIRST_DAY = datetime(1970, 1, 2, tzinfo=UTC)
LAST_DAY = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280's way to say: it does not end
KEYGEN = "make a pair with `pibench party keygen NAME`, and give the peer the .crt file"


@dataclass(frozen=True)
class Identity:
    """Who this host is, and whom it talks to: files of its own."""

    key: Path
    certificate: Path
    peers: tuple[Path, ...]

    def __post_init__(self) -> None:
        for path in (self.key, self.certificate, *self.peers):
            if not path.is_file():
                raise UsageError("no such key or certificate", where=str(path), remedy=KEYGEN)
        if not self.peers:
            raise UsageError("no peer is trusted", remedy="name the peer's certificate with --trust PEER.crt")
        if self.key.stat().st_mode & 0o077:
            raise UsageError(
                "other users may read this private key", where=str(self.key), remedy=f"chmod 600 {self.key}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the paths as plain data, for a job."""
        return {"key": str(self.key), "certificate": str(self.certificate), "peers": [str(p) for p in self.peers]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Identity:
        """Read the paths back."""
        return cls(Path(data["key"]), Path(data["certificate"]), tuple(Path(peer) for peer in data["peers"]))


def generate(name: str, folder: Path) -> tuple[Path, Path, str]:
    """Make a private key and its self-signed certificate; return both paths and the fingerprint."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    certificate = builder.not_valid_before(FIRST_DAY).not_valid_after(LAST_DAY).sign(key, None)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    paths = folder / f"{name}.key", folder / f"{name}.crt"
    _write_new(paths[0], private, 0o600)
    _write_new(paths[1], certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return *paths, fingerprint(paths[1])


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not be there yet: a key is never overwritten."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise UsageError(f"cannot write: {error.strerror}", where=str(path), remedy="choose another name") from error
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def fingerprint(certificate: Path) -> str:
    """Return the SHA-256 of a certificate file, as users compare it."""
    try:
        return _digest(ssl.PEM_cert_to_DER_cert(certificate.read_text("ascii")))
    except (OSError, ValueError) as error:
        raise UsageError(f"not a certificate: {error}", where=str(certificate), remedy=KEYGEN) from error


def _digest(der: bytes) -> str:
    return "sha256:" + hashlib.sha256(der).hexdigest()


def context(identity: Identity, *, server: bool) -> ssl.SSLContext:
    """Return a context that speaks TLS 1.3 with pinned peers and nothing else."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False  # the pin says who, wherever it is
    made.verify_mode = ssl.CERT_REQUIRED
    if server:
        made.num_tickets = 0
    try:
        made.load_cert_chain(identity.certificate, identity.key)
        for peer in identity.peers:
            made.load_verify_locations(peer)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"the key or a certificate does not load: {error}", remedy=KEYGEN) from error
    return made


class Wrapper:
    """Turns a connected socket into a TLS connection with a pinned peer; within the socket's own timeout."""

    def __init__(self, identity: Identity, *, server: bool) -> None:
        self._context, self._server = context(identity, server=server), server
        self._pins = {fingerprint(peer) for peer in identity.peers}

    def __call__(self, sock: socket.socket) -> ssl.SSLSocket:
        """Do the handshake; raises TransportError for a stranger, and closes the socket."""
        try:
            wrapped = self._context.wrap_socket(sock, server_side=self._server, do_handshake_on_connect=False)
            wrapped.do_handshake()
            self._check(wrapped)
            return wrapped
        except ssl.SSLError as error:
            sock.close()
            raise TransportError(
                f"no TLS 1.3 with a trusted peer: {error.reason or error}", remedy=_advice(error)
            ) from error
        except (OSError, TransportError) as error:
            sock.close()
            raise TransportError(f"the TLS handshake failed: {error or 'timed out'}") from error

    def _check(self, wrapped: ssl.SSLSocket) -> None:
        der = wrapped.getpeercert(binary_form=True)
        if der is None or _digest(der) not in self._pins:
            wrapped.close()
            raise TransportError("the peer's certificate is not pinned here")


def _advice(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE" in (error.reason or ""):
        return "compare fingerprints with the peer (`pibench party fingerprint FILE`) and --trust the right certificate"
    return "the other end must be `pibench party` with a key that is trusted here"
