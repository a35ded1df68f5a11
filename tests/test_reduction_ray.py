"""The Ray route on a local cluster of two nodes: the same cards as here, logs brought back, failures reported."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from reduction_fakes import little, little_study

from pibench.errors import UsageError
from pibench.reduction import drive, jobs, output
from pibench.reduction.actions import network_at
from pibench.reduction.board import ReductionFailed
from pibench.reduction.tasks import Cache

ray = pytest.importorskip("ray", reason="ray is an optional extra")
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore"),  # ray's processes and files are its own
]
PLACES = ("here", "there")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start a cluster of two nodes with a CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call,unused-ignore]


def test_the_cluster_makes_what_this_process_makes(tmp_path: Path, address: str) -> None:
    from pibench.reduction.cluster import run_cluster

    study, here, there = little_study(tmp_path), Cache(tmp_path / "here"), Cache(tmp_path / "there")
    first = [study.base()]
    second = [study.student(f"cull-{k}", "Culled", little(culled=[k]), "deepreduce") for k in (1, 2)]
    for tasks in (first, second):
        ours = jobs.run_here(tasks, here, lambda _text: None)
        theirs = run_cluster(tasks, there, lambda _text: None, address)
        assert {k: (r.accuracy, r.relu_count) for k, r in ours.items()} == {
            k: (r.accuracy, r.relu_count) for k, r in theirs.items()
        }
        for task in tasks:
            a, b = (network_at(cache.path(task.key))[1].state_dict() for cache in (here, there))
            assert all(a[name].equal(b[name]) for name in a)
            assert "epoch 1/1" in (there.folder / "logs" / f"{task.key}.log").read_text(encoding="utf-8")
    nodes = {(there.folder / "logs" / f"{t.key}.log").read_text().splitlines()[0] for t in second}
    assert all(node.startswith("node ") for node in nodes)
    assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 2


def test_a_whole_reduction_gives_the_same_cards(tmp_path: Path, address: str) -> None:
    from pibench.reduction.cluster import run_cluster

    def quiet(_text: str) -> None: ...

    study = little_study(tmp_path, 512, settings={"samples": 256, "order": "2,1"})
    for name in PLACES:
        cache = Cache(tmp_path / name)
        run = partial(jobs.run_here, cache=cache, say=quiet)
        if name == "there":
            run = partial(run_cluster, cache=cache, say=quiet, address=address)
        output.write(drive.drive(study, ["deepreduce", "snl", "prune"], run), cache, tmp_path / f"{name}-out")
    here, there = ({p.name: p.read_text() for p in (tmp_path / f"{n}-out" / "networks").iterdir()} for n in PLACES)
    assert here == there
    assert len(here) > 5
    assert (tmp_path / "here-out" / "frontier.md").read_text() == (tmp_path / "there-out" / "frontier.md").read_text()
    for name in here:
        a, b = (network_at(tmp_path / f"{n}-out" / "zoo" / name.replace("yaml", "safetensors")) for n in PLACES)
        assert all(tensor.equal(b[1].state_dict()[k]) for k, tensor in a[1].state_dict().items())


def test_what_fails_on_the_cluster_is_tried_again_and_reported(tmp_path: Path, address: str) -> None:
    from pibench.reduction.cluster import run_cluster

    study, cache, said = little_study(tmp_path), Cache(tmp_path / "cache"), list[str]()
    recipe = {**study.base().recipe, "lr": 100.0, "weight_decay": 0.9, "epochs": 5}
    wild = study.base().model_copy(update={"name": "wild", "recipe": recipe})  # weights grow until the loss is none
    nonsense = {"sha256": "0", "path": str(_nonsense(tmp_path))}
    bad = study.base().model_copy(update={"name": "bad", "action": "given", "options": nonsense})
    with pytest.raises(ReductionFailed, match="2 trainings failed") as failed:
        run_cluster([bad, wild, study.base()], cache, said.append, address)
    assert cache.result(study.base().key) is not None
    assert "bad: DataError" in str(failed.value)
    assert "wild: PibenchError" in str(failed.value)
    failures = [line.rpartition(", ")[2] == "tried once more" for line in said if line.startswith("wild: failed")]
    assert failures == [True, False]
    assert sum(line.startswith("bad: failed") for line in said) == 1  # a wrong input stays wrong


def _nonsense(folder: Path) -> Path:
    path = folder / "nonsense.safetensors"
    path.write_bytes(b"nothing of the kind")
    return path


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "127.0.0.1:99999"])
def test_no_cluster_is_a_message(tmp_path: Path, address: str) -> None:
    from pibench.reduction.cluster import run_cluster

    ray.shutdown()
    began = time.monotonic()
    with pytest.raises(UsageError, match="no Ray cluster"):
        run_cluster([little_study(tmp_path).base()], Cache(tmp_path / "c"), print, address)
    assert time.monotonic() - began < 30  # Ray itself tries for minutes
