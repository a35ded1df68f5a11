"""Two hosts in two network namespaces: `python ci/two_hosts.py [SUITE.yaml]`.

`pibench party --listen` in one namespace, `pibench run --peer` in the other, the same suite on loopback beside it.
Bytes and rounds of every inference must be the same, strangers of six kinds must be refused and logged while a session
runs, and that session must not fail. Exit status 1 otherwise. Needs root or user namespaces.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pibench.links.link import PROFILES, LinkUp, open_link
from pibench.links.tls import generate

PIBENCH = [sys.executable, "-c", "import sys; from pibench.cli import main; sys.exit(main())"]
PORT = 7700
SUITE = """name: two-hosts
networks: [basech-16-c100]
protocols: [plaintext, masked]
sessions: 1
inferences: 3
accuracy_images: 0
"""
STRANGERS = """
import socket, ssl, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from types import SimpleNamespace
from test_hosts import KINDS, stranger
for kind in KINDS:
    try:
        stranger(kind, SimpleNamespace(address=("10.77.0.1", {port})), Path({keys!r}))
        print(kind, "got in")
    except Exception as error:
        print(kind, "refused:", str(error).splitlines()[0][:80])
"""


def counts(path: Path) -> dict[str, list[tuple[int, ...]]]:
    """Return bytes and rounds of every inference, by case without its link."""
    record = json.loads(path.read_text())
    for case in record["cases"]:
        print(f"  {case['id']}: {case['status']} {case['error'] or ''}")
    return {
        case["protocol"]: [
            (*(i[who][name] for who in ("server", "client") for name in ("sent_bytes", "received_bytes", "rounds")),)
            for session in case["sessions"] for i in session["inferences"]
        ]
        for case in record["cases"]
    }  # fmt: skip


def main(argv: list[str]) -> int:
    """Run both ways and compare."""
    with tempfile.TemporaryDirectory() as name, open_link(PROFILES["namespaces"]) as up:
        folder = Path(name)
        (folder / "keys").mkdir()
        for who in ("alice", "bob", "mallory"):
            generate(who, folder / "keys")
        suite = Path(argv[1]).resolve() if len(argv) > 1 else folder / "suite.yaml"
        if len(argv) < 2:
            suite.write_text(SUITE)
        subprocess.run([*PIBENCH, "run", str(suite), "-q", "--record", str(folder / "one.json")], cwd=folder)
        log, refused = two_hosts(up, folder, suite)
        one, two = counts(folder / "one.json"), counts(folder / "two.json")
        statuses = {case["status"] for case in json.loads((folder / "two.json").read_text())["cases"]}
    print(log)
    print(f"bytes and rounds are {'the same' if one == two else 'not the same'}; {refused} strangers refused")
    return int(one != two or refused < 6 or statuses != {"done"})


def commands(folder: Path, suite: Path) -> tuple[list[str], list[str]]:
    """Return what the lending host is called with, and the leading one."""
    keys, place = folder / "keys", f"10.77.0.1:{PORT}"
    listen = ["party", "--listen", place, "--key", str(keys / "alice.key"), "--trust", str(keys / "bob.crt")]
    lead = ["run", str(suite), "-q", "--record", str(folder / "two.json"), "--peer", place]
    lead += ["--key", str(keys / "bob.key"), "--trust", str(keys / "alice.crt")]
    return [*listen, "--cards", "*"], lead


def two_hosts(up: LinkUp, folder: Path, suite: Path) -> tuple[str, int]:
    """Run the suite between the namespaces, with strangers at the door; return the log and who was refused."""
    keys = folder / "keys"
    listen, lead = commands(folder, suite)
    with open(folder / "log", "w+") as log:
        host = subprocess.Popen([*up.prefix("server"), *PIBENCH, *listen], stderr=log, cwd=folder)
        try:
            wait_for(folder / "log", "listening", host)
            run = subprocess.Popen([*up.prefix("client"), *PIBENCH, *lead], cwd=folder)
            wait_for(folder / "log", "session 1 for", run)
            code = STRANGERS.format(tests=str(Path(__file__).parent.parent / "tests"), port=PORT, keys=str(keys))
            subprocess.run([*up.prefix("client"), sys.executable, "-c", code])
            run.wait()
        finally:
            host.terminate()
            host.wait()
    text = (folder / "log").read_text()
    return text, sum("refused 10.77.0.2" in line for line in text.splitlines())


def wait_for(path: Path, word: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the log has a word, or the process has ended."""
    while word not in path.read_text() and process.poll() is None:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
