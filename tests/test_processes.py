"""What a process of ours imports, where it listens and where it writes is not up to the folder or the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pibench import kernelcache, processes

TRAPS = ("secrets", "hmac", "queue", "torch", "numpy", "json", "tempfile", "pibench")
MODEL = """
from torch import nn
import helper
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, helper.CLASSES))
"""


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `pibench` as its script does: the current folder is not on the path."""
    code = "import sys; from pibench.cli import main; sys.exit(main())"
    environment = {**processes.variables(), **variables}
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)


def suite(folder: Path, **changes: object) -> None:
    data = {
        "name": "s",
        "networks": ["digits-tiny"],
        "protocols": ["masked"],
        "sessions": 1,
        "inferences": 1,
        **changes,
    }
    (folder / "s.yaml").write_text(yaml.safe_dump({**data, "warmups": 0, "accuracy_images": 0}))


def test_code_in_the_current_folder_runs_in_no_party_and_a_model_of_ones_own_in_one_process(tmp_path: Path) -> None:
    for name in TRAPS[:3]:  # the folder's own user would fall over the others, too
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'caught')!r}, 'a').write({name!r})\n")
    (tmp_path / "mine.py").write_text(MODEL)
    note = f"import os\nopen({str(tmp_path / 'readers')!r}, 'a').write(f'{{os.getpid()}}\\n')\nCLASSES = 10\n"
    (tmp_path / "helper.py").write_text(note)
    suite(tmp_path)
    done = run(tmp_path, "run", "s.yaml", "-q", "--model", "mine:make", "--input", "1,8,8")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "caught").exists()
    assert len((tmp_path / "readers").read_text().split()) == 1


def test_children_find_no_module_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    for name in TRAPS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('caught')\n")
    program = "import sys; print([m for m in sys.argv[1:] if str(__import__(m).__file__).startswith('.')])"
    command = [sys.executable, "-P", "-c", program, *TRAPS]
    done = subprocess.run(command, env=processes.variables(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert str(tmp_path) not in processes.search_path()


def test_a_checkout_that_is_the_current_folder_comes_after_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(processes.ROOT)
    found = processes.search_path()
    place = found.index(str(processes.ROOT))
    assert any(Path(entry, "hmac.py").exists() for entry in found[:place])
    assert not any(Path(entry, "torch").exists() for entry in found[:place])


@pytest.mark.parametrize("interface", ["eth0", "no-such-interface"])
def test_gloo_listens_on_loopback_whatever_the_environment_says(tmp_path: Path, interface: str) -> None:
    from pibench.links.link import PROFILES, open_link, pair_of_processes

    with open_link(PROFILES["loopback"], any_socket=True) as up:
        code = pytest.MonkeyPatch()
        with code.context() as patch:
            patch.setenv("GLOO_SOCKET_IFNAME", interface)
            patch.setenv("GLOO_DEVICE_TRANSPORT", "IBVERBS")
            assert pair_of_processes(up, "pibench.links.glooprobe", "64")["round_ms"] > 0


def test_an_installation_that_cannot_be_written_keeps_its_kernels_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(kernelcache, "_of_numba", lambda: (Path("/proc/none/a"), Path("/proc/none/b")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kernelcache.settle()
    chosen = Path(os.environ["NUMBA_CACHE_DIR"])
    assert chosen.parent == tmp_path
    assert chosen.stat().st_mode & 0o777 == 0o700
    assert kernelcache.where() == str(chosen)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    chosen.chmod(0o777)  # somebody else could put code there
    kernelcache.settle()
    assert os.environ["NUMBA_CACHE_DIR"] != str(chosen)
    code = "import numba\n@numba.njit(cache=True)\ndef f(x): return x + 1\nassert f(1) == 2"
    (tmp_path / "kernel.py").write_text(code)
    subprocess.run([sys.executable, str(tmp_path / "kernel.py")], check=True, timeout=100)
