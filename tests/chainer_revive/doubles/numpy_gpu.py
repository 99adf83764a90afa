"""A GPU whose arrays are NumPy's."""

import contextlib
from unittest import mock

import chainer
import numpy as np
from numpy_executor import NumpyExecutor, through
from numpy_launcher import NumpyLauncher

import chainer_revive
from chainer_revive import registry
from chainer_revive.cuda import current, linear
from chainer_revive.gpu_check import run


class NumpyGpu:
    xp = np

    def __init__(self, modules=()):
        self.names = {unit.name for unit in run.units(modules)}
        self.device = chainer.get_device("@numpy")
        self.executor = NumpyExecutor()
        self.launcher = NumpyLauncher()
        self.matmul = np.matmul

    @contextlib.contextmanager
    def using(self, units):
        names = {unit.name for unit in units}
        layers = {unit.layer for unit in units}
        path = chainer_revive.state()["cpu"]
        chainer_revive.use(cpu="chainer")
        registry.leave_off(self.names - names)
        try:
            with contextlib.ExitStack() as stack:
                if "cuda" in layers:
                    current.use(self.launcher)
                if "capture" in layers:
                    stack.enter_context(linear.capturable(self.matmul))
                stack.enter_context(through(self.executor, names.__contains__))
                yield
        finally:
            current.use(None)
            registry.leave_off(())
            chainer_revive.use(cpu=path)

    @contextlib.contextmanager
    def poisoned(self):
        empty, empty_like = np.empty, np.empty_like

        def poison(array):
            if array.dtype.kind == "f":
                array.fill(np.nan)
            return array

        with (
            mock.patch.object(np, "empty", lambda *a, **k: poison(empty(*a, **k))),
            mock.patch.object(
                np, "empty_like", lambda *a, **k: poison(empty_like(*a, **k))
            ),
        ):
            yield

    def wait(self):
        pass
