"""Downloads from a local server: progress, broken connections taken up again, archives that are not the right one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pibench.cli import main
from pibench.errors import DataError, UsageError
from pibench.training.fetch import fetch, fetch_source
from pibench.training.plan import find_weights
from pibench.training.sources import SOURCES, Archive
from pibench.training.zoo import fetch_network, fetched_root, missing, write_index

CONTENT = bytes(range(256)) * 4000  # about 1 MB


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; breaks off after `cut` bytes; may not know ranges."""

    cut: int | None = None
    ranges = True
    served = "/set.tar.gz"
    asked: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if self.path != self.served:
            self.send_error(404)
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Handler]]]:
    handler = type("Fresh", (Handler,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}/set.tar.gz", handler
        http.shutdown()
        thread.join()


def archive(url: str, content: bytes = CONTENT) -> Archive:
    return Archive(url, hashlib.md5(content).hexdigest(), len(content))


def test_a_download_tells_its_progress(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(archive(server[0]), tmp_path / "deep" / "set.tar.gz", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not list(path.parent.glob("*.part"))


def test_what_is_there_is_not_fetched_again(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(CONTENT)
    fetch(archive(server[0]), tmp_path / "set.tar.gz")
    assert server[1].asked == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_taken_up_again(server: tuple[str, type[Handler]], tmp_path: Path, ranges: bool) -> None:
    url, handler = server
    handler.cut, handler.ranges = 300_000, ranges
    target = tmp_path / "set.tar.gz"
    with pytest.raises(DataError, match=r"broke off at 300000 of 1024000 bytes \(0.3 MB are kept"):
        fetch(archive(url), target)
    assert not target.exists()
    handler.cut = None
    assert fetch(archive(url), target).read_bytes() == CONTENT
    assert handler.asked == [None, "bytes=300000-"]


def test_a_complete_part_is_only_checked(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT)
    assert fetch(archive(server[0]), tmp_path / "set.tar.gz").read_bytes() == CONTENT


def test_another_file_is_refused_and_deleted(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hash differs"):
        fetch(archive(server[0], b"something else"), tmp_path / "set.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_address_says_so(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be fetched: Not Found"):
        fetch(archive(server[0] + ".gone"), tmp_path / "x.tar.gz")
    with pytest.raises(DataError, match="could not be fetched") as caught:
        fetch(archive("http://127.0.0.1:9/x.tar.gz"), tmp_path / "x.tar.gz")
    assert "put it into" in caught.value.remedy


def test_digits_have_nothing_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to download"):
        fetch_source(SOURCES["digits"], tmp_path)


@pytest.fixture
def zoo(server: tuple[str, type[Handler]], in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a zoo whose index names one network, as CONTENT, that is not there, and an address that has it."""
    monkeypatch.setattr("pibench.training.zoo.data_folders", lambda _kind: [in_tmp / "zoo"])
    monkeypatch.setenv("PIBENCH_DATA", str(in_tmp / "cache" / "data"))
    monkeypatch.setenv("PIBENCH_ZOO", server[0].rpartition("/")[0])
    server[1].served = "/large.safetensors"
    (in_tmp / "zoo").mkdir()
    (in_tmp / "zoo" / "large.safetensors").write_bytes(CONTENT)
    write_index(in_tmp / "zoo")
    (in_tmp / "zoo" / "large.safetensors").unlink()
    return in_tmp / "zoo"


def test_a_network_of_the_zoo_is_fetched_by_hash(zoo: Path, server: tuple[str, type[Handler]]) -> None:
    assert missing() == ["large"]
    assert find_weights("large", []) is None
    server[1].cut = 300_000
    assert main(["zoo", "--fetch", "all"]) != 0
    server[1].cut = None
    assert main(["zoo", "--fetch", "all"]) == 0
    path = fetched_root() / "large.safetensors"
    assert path.read_bytes() == CONTENT
    assert find_weights("large", []) == path
    assert missing() == []
    asked = list(server[1].asked)
    assert asked == [None, "bytes=300000-"]
    assert main(["zoo", "--fetch", "all"]) == main(["zoo", "--fetch", "large"]) == 0
    assert server[1].asked == asked


def test_a_network_with_another_hash_is_not_kept(zoo: Path) -> None:
    (zoo / "index.json").write_text(json.dumps({"large": {"sha256": "0" * 64, "bytes": 5}}))
    with pytest.raises(DataError, match="its hash differs"):
        fetch_network("large")
    assert not list(fetched_root().iterdir())


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [("larg", "http://127.0.0.1:9", "no network 'larg'.*large"), ("large", "", "names no address")],
)
def test_what_cannot_be_fetched_says_why(
    zoo: Path, monkeypatch: pytest.MonkeyPatch, name: str, address: str, message: str
) -> None:
    monkeypatch.setenv("PIBENCH_ZOO", address)
    with pytest.raises(UsageError, match=message):
        fetch_network(name)
