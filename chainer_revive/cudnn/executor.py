"""Runs operations on CuPy's arrays: the only part that needs a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from chainer_revive.cudnn import plans
from chainer_revive.cudnn.operations import Operation

_ALIGNMENT = 16  # bytes, which plans rely on

_of_thread = threading.local()


def current() -> Executor:
    """Returns the executor of this thread; handles of cuDNN belong to one thread."""
    try:
        return _of_thread.executor
    except AttributeError:
        _of_thread.executor = Executor()
        return _of_thread.executor


class Executor:
    """Keeps handles and plans, and runs them on CuPy's current device and stream."""

    def __init__(self) -> None:
        import cudnn
        import cupy

        self.xp = cupy
        self._cudnn = cudnn
        self._targets: dict[int, plans.Target] = {}
        self._plans: dict[tuple[int, Operation], plans.Plan | None] = {}

    def prepare(self, operation: Operation) -> Callable | None:
        """Returns what computes an operation; ``None`` if cuDNN refuses it.

        Returns:
            callable: Called with two sequences of arrays, inputs and outputs, which
            look as the operation says; a scalar input is a number.
        """
        device = self.xp.cuda.runtime.getDevice()
        if device not in self._targets:
            self._targets[device] = self._target(device)
        target = self._targets[device]
        key = device, operation
        if key not in self._plans:
            self._plans[key] = plans.get(operation, target)
        plan = self._plans[key]
        return None if plan is None else partial(self._run, plan, target.handle)

    def _target(self, device: int) -> plans.Target:
        runtime = self.xp.cuda.runtime
        properties = runtime.getDeviceProperties(device)
        name = (
            properties["name"].decode(),
            f"sm_{properties['major']}{properties['minor']}",
            properties["multiProcessorCount"],
            runtime.driverGetVersion(),
        )
        return plans.Target(repr(name), self._cudnn.create_handle())

    def _run(self, plan: plans.Plan, handle, inputs: Sequence, outputs: Sequence):
        cuda = self.xp.cuda
        self._cudnn.set_stream(handle, cuda.get_current_stream().ptr)
        pointers, alive, moved = {}, [], []
        for uid, array in enumerate((*inputs, *outputs), 1):
            if isinstance(array, float):
                alive.append(np.array(array, np.float32))
                pointers[uid] = alive[-1].ctypes.data
                continue
            if array.data.ptr % _ALIGNMENT:
                aligned = array.copy(order="K")
                alive.append(aligned)
                if uid > len(inputs):
                    moved.append((array, aligned))
                array = aligned
            pointers[uid] = array.data.ptr
        workspace = cuda.alloc(max(plan.workspace, 1))
        plan.graph.execute(pointers, workspace.ptr, handle=handle)
        for array, aligned in moved:
            array[...] = aligned
