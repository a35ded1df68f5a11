"""The tasks of a wave on a Ray cluster: one task each, what it reads sent along, checkpoints and logs brought back.

Ray is an optional extra (`pip install pibench[ray]`). The nodes need pibench and the data set (PIBENCH_DATA there);
the digits come with scikit-learn and need nothing.
"""

from __future__ import annotations

import logging
import re
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pibench.errors import UsageError
from pibench.reduction.board import Board, Say
from pibench.reduction.tasks import Cache, Result, Task

KNOCK_S = 10.0  # longest wait for an answer from where the cluster should be


def run_cluster(tasks: Sequence[Task], cache: Cache, say: Say, address: str) -> dict[str, Result]:
    """Do the tasks on the cluster at `address` ("local" starts one in this process's machine)."""
    board = Board(cache, say)
    waiting = [(task, 1) for task in board.open(tasks)]
    if not waiting:
        return board.close()
    ray = _connect(address)
    remote = ray.remote(num_cpus=1, max_retries=0)(on_node)
    running: dict[Any, tuple[Task, int]] = {}

    def submit(task: Task, tried: int) -> None:
        inputs = {key: cache.path(key).read_bytes() for key in task.needs}
        given = task.options.get("path")
        file = Path(str(given)).read_bytes() if given else None
        running[remote.remote(task.model_dump_json(), inputs, file)] = (task, tried)

    for task, tried in waiting:
        submit(task, tried)
    while running:
        done, _ = ray.wait(list(running), num_returns=1)
        task, tried = running.pop(done[0])
        _collect(ray, done[0], task, tried, board, submit)
    return board.close()


def _collect(
    ray: Any, reference: Any, task: Task, tried: int, board: Board, submit: Callable[[Task, int], None]
) -> None:
    """Fetch one task's checkpoint and log, or its failure."""
    try:
        checkpoint, log, node = ray.get(reference)
    except Exception as error:
        cause = getattr(error, "cause", None) or error
        if board.failed(task, cause, tried):
            submit(task, tried + 1)
        return
    path = board.cache.path(task.key)
    logs = board.cache.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / f"{task.key}.log").write_text(f"node {node}\n{log}", encoding="utf-8")
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(checkpoint)
    temporary.replace(path)
    result = board.cache.result(task.key)
    assert result is not None
    board.finished(task, result)


def on_node(document: str, inputs: dict[str, bytes], given: bytes | None) -> tuple[bytes, str, str]:
    """Do one task on a node; returns its checkpoint, its log and the node's name."""
    import torch

    from pibench.reduction.actions import perform, threads_from_environment

    torch.set_num_threads(threads_from_environment())
    task = Task.model_validate_json(document)
    log: list[str] = []
    with tempfile.TemporaryDirectory(prefix="pibench-") as folder:
        cache = Cache(Path(folder))
        for key, content in inputs.items():
            cache.path(key).write_bytes(content)
        if given is not None:
            file = Path(folder) / "given.safetensors"
            file.write_bytes(given)
            task = task.model_copy(update={"options": {**task.options, "path": str(file)}})
        perform(task, cache, log.append)
        return cache.path(task.key).read_bytes(), "\n".join(log), _node()


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("ray is not installed", remedy="pip install 'pibench[ray]', or leave --ray away") from error
    if not ray.is_initialized():
        _knock(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise UsageError(f"there is no Ray cluster at {address}: {error}", where="--ray") from error
    return ray


def _knock(address: str) -> None:
    """Raise UsageError where nothing listens at HOST:PORT; Ray itself would try for minutes."""
    if not (found := re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)):
        return  # auto, local
    try:
        with socket.create_connection((found[1], int(found[2])), KNOCK_S):
            pass
    except (OSError, OverflowError) as error:
        raise UsageError(f"there is no Ray cluster at {address}: {error}", where="--ray") from error
