"""Secrets stay put: nobody opens the other's file, and what crosses the wire tells nothing."""

import subprocess

import numpy as np
import pytest
from relay import Relay
from safetensors.torch import load_file
from test_session import plan

from pibench.links.link import PROFILES, LinkUp
from pibench.session.session import run_session

pytestmark = pytest.mark.timeout(120)
SCALE = 1 << 16
PATIENT = {"timeout_s": 80.0, "deadline_s": 110.0}  # kernels are compiled on first use


def may_mount():
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0


class Hidden(LinkUp):
    """Loopback, where some files look empty to some roles: a mount of their own hides them."""

    def __init__(self, **hidden):
        super().__init__(PROFILES["loopback"])
        self._hidden = hidden

    def prefix(self, role):
        if role not in self._hidden:
            return []
        script = 'mount --bind /dev/null "$0" && exec "$@"'
        return ["unshare", "-rm", "sh", "-c", script, self._hidden[role]]


@pytest.mark.skipif(not may_mount(), reason="no mount namespaces for this user here")
def test_each_party_runs_where_the_others_secret_cannot_be_read(tmp_path):
    session_plan, _ = plan(tmp_path, protocol="masked")
    link = Hidden(client=session_plan.weights, server=session_plan.images, dealer=session_plan.weights)
    session_plan, reference = plan(tmp_path, protocol="masked", link=link, **PATIENT)
    result = run_session(session_plan)
    assert np.allclose(np.array(result.logits).reshape(-1, 10), reference, atol=0.01)
    with pytest.raises(Exception, match="server: "):  # and hiding does hide: the server cannot do without weights
        run_session(plan(tmp_path, protocol="masked", link=Hidden(server=session_plan.weights))[0])


class Tapped(Relay):
    """Loopback, with everything between client and server written down."""

    def __init__(self):
        super().__init__(PROFILES["loopback"])
        self.up, self.down = bytearray(), bytearray()

    def pump(self, source, target):
        seen = self.up if source is self.ends[0] else self.down
        while data := source.recv(1 << 16):
            seen.extend(data)
            target.sendall(data)


def tapped(folder, protocol):
    with Tapped() as link:
        session_plan, reference = plan(folder, protocol=protocol, link=link, **PATIENT)
        result = run_session(session_plan)
    assert np.allclose(np.array(result.logits).reshape(-1, 10), reference, atol=0.01)
    secrets = {"images": load_file(session_plan.images)["images"].numpy(), **{
        f"weight {name}": tensor.numpy() for name, tensor in load_file(session_plan.weights).items()
    }}  # fmt: skip
    return link, secrets


def encodings(values):
    """A few values as they might be sent: floats, fixed point in 8 bytes; each long enough to mean something."""
    start = values.ravel()[:16]
    return [
        start.astype("<f4").tobytes(), start.astype("<f8").tobytes(),
        np.round(start.astype(np.float64) * SCALE).astype("<i8").tobytes(),
    ]  # fmt: skip


def shown(seen, secrets):
    return {name for name, values in secrets.items() for code in encodings(values) if code in bytes(seen)}


def looks_random(seen):
    """Chi-square of the bytes against uniform: 255 degrees of freedom, far beyond any accident at 400."""
    counts = np.bincount(np.frombuffer(bytes(seen), np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float(((counts - expected) ** 2 / expected).sum()) < 400


def test_the_plaintext_protocol_shows_the_image_so_that_this_test_can_fail(tmp_path):
    link, secrets = tapped(tmp_path, "plaintext")
    assert "images" in shown(link.up, secrets)
    assert not looks_random(link.up)


def test_the_masked_protocol_sends_what_looks_random(tmp_path):
    link, secrets = tapped(tmp_path, "masked")
    assert len(link.up) > 3_000 < len(link.down)
    assert shown(link.up, secrets) == shown(link.down, secrets) == set()
    hello = 1200  # the greeting and what the parties agree on, in the clear on one host
    assert looks_random(link.up[hello:])
    assert looks_random(link.down[hello:])
