"""Plans of operations, built once and kept on disk for later runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from pathlib import Path
from typing import NamedTuple

from chainer_revive.atomic import write_atomically
from chainer_revive.cudnn.operations import Operation, build, new_graph
from chainer_revive.user_cache import user_cache


class Target(NamedTuple):
    """The GPU for which a plan is made.

    Args:
        name (str): Tells apart what needs different plans: GPU and driver.
        handle: A cuDNN handle; ``None`` without a GPU.
        device_property: What :func:`cudnn.create_device_properties` returns; ``None``
            for the GPU of the handle.
    """

    name: str
    handle: object = None
    device_property: object = None

    @property
    def context(self) -> dict:
        return {
            k: v for k, v in self._asdict().items() if k != "name" and v is not None
        }


class Plan(NamedTuple):
    """A graph that is ready to run, and the bytes of GPU memory that it works in."""

    graph: object
    workspace: int


def folder() -> Path:
    """Returns where plans are kept: in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    # Without a home, nothing can be kept.
    return (user_cache() or Path(os.devnull)) / "chainer-mmix" / "cudnn"


def get(operation: Operation, target: Target) -> Plan | None:
    """Returns the plan of an operation, from the disk if it is there.

    Returns:
        Plan: The plan, or ``None`` if cuDNN has no engine for the operation.
    """
    import cudnn

    key = repr((cudnn.__version__, cudnn.backend_version(), target.name, operation))
    path = folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.plan"
    graph = _load(path, key, target)
    if graph is None:
        try:
            graph = build(operation, **target.context)
        except cudnn.cudnnGraphNotSupportedError:
            return None
        except RuntimeError as e:
            warnings.warn(
                f"Chainer's own code runs instead of cuDNN, which failed ({e}) to "
                f"prepare {operation}",
                stacklevel=2,
            )
            return None
        _save(path, key, graph)
    return Plan(graph, graph.get_workspace_size())


def _load(path: Path, key: str, target: Target):
    """Returns the graph in a file; ``None`` if it is missing, damaged or another's."""
    import cudnn

    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, plan = data[:32], data[32:]
    if digest != _digest(key, plan):
        return None
    graph = new_graph(**target.context)
    handle = [] if target.handle is None else [target.handle]
    try:
        graph.deserialize(*handle, list(plan))
    except (RuntimeError, cudnn.cudnnGraphNotSupportedError):
        return None
    return graph


def _save(path: Path, key: str, graph) -> None:
    plan = bytes(graph.serialize())
    with contextlib.suppress(OSError):  # A home that cannot be written is no error.
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path, "wb") as file:
            file.write(_digest(key, plan) + plan)


def _digest(key: str, plan: bytes) -> bytes:
    return hashlib.sha256(key.encode() + plan).digest()
