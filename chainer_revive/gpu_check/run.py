"""Computes the cases of a function in three ways, and compares the results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import chainer
import numpy as np
from chainer import backend

import chainer_revive
from chainer_revive import registry
from chainer_revive.cuda import current, linear
from chainer_revive.gpu_check import cuda_units, cudnn_units, faults
from chainer_revive.gpu_check.case import Case, Precision, Unit

_N_THREAD = min(8, os.cpu_count() or 1)


class Gpu:
    """The GPU that CuPy is on.

    Args:
        modules: Those with more functions.

    Attributes:
        names: Of all functions.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        import cupy

        self.xp = cupy
        self.names = {unit.name for unit in units(modules)}
        self.device = chainer.get_device(f"@cupy:{cupy.cuda.Device().id}")

    @contextlib.contextmanager
    def using(self, units: Iterable[Unit]) -> Iterator[None]:
        """A context in which these functions are used, and no others."""
        units = tuple(units)
        layers = {unit.layer for unit in units}
        names = {unit.name for unit in units}
        registry.leave_off(self.names - names)
        try:
            if "cuda" in layers:
                current.use(current.on_cupy())
            registry.switch("cudnn", "cudnn" in layers)
            with (
                linear.capturable() if "capture" in layers else contextlib.nullcontext()
            ):
                yield
        finally:
            current.use(None)
            registry.switch("cudnn", False)
            registry.leave_off(())

    @contextlib.contextmanager
    def poisoned(self) -> Iterator[None]:
        """A context in which memory is full of NaN until it is written."""

        def malloc(size: int):
            memory = pool.malloc(size)
            if size:
                memory.memset_async(0xFF, size)  # NaN in each float dtype
            return memory

        cupy = self.xp
        pool = cupy.cuda.MemoryPool()
        with cupy.cuda.using_allocator(malloc):
            yield

    def wait(self) -> None:
        """Waits until all is done that was asked for; raises what has gone wrong."""
        self.xp.cuda.Device().synchronize()


def units(modules: Iterable[str] = ()) -> tuple[Unit, ...]:
    """Returns all functions: those of Chainer's, and ``UNITS`` of other modules."""
    others = [import_module(name).UNITS for name in modules]
    return *cudnn_units.UNITS, *cuda_units.UNITS, *(u for more in others for u in more)


def compile_ahead(units: Iterable[Unit], gpu) -> None:
    """Computes all cases in threads, so that the check finds its kernels compiled.

    CUDA's and cuDNN's compilers take most of the time of a first check, and run beside
    each other. What comes out, and what goes wrong, is left for the check to see.

    Args:
        units: Functions.
        gpu (Gpu): Where.
    """
    units = tuple(units)

    def compute(case: Case, precision: Precision) -> None:
        with (
            contextlib.suppress(Exception),
            _as_asked(precision, gpu),
        ):
            case.compute(*_sent(case, precision, gpu))

    calls = [
        (turn, case, precision)
        for unit in units
        for turn, (case, precision) in enumerate(
            (case, precision) for case in unit.cases() for precision in case.precisions
        )
    ]
    calls.sort(key=lambda call: call[0])  # Those beside each other need other kernels.
    with (
        gpu.using([unit for unit in units if not unit.captures]),
        ThreadPoolExecutor(_N_THREAD) as pool,
    ):
        for _, case, precision in calls:
            pool.submit(compute, case, precision)
    gpu.wait()


def check(
    unit: Unit, gpu, others: Iterable[Unit] = (), beside: bool = True
) -> list[dict[str, Any]]:
    """Computes all cases of a function.

    Args:
        unit (Unit): The function.
        gpu (Gpu): Where.
        others: Functions that are used with it.
        beside (bool): Whether Chainer's own code computes them there, too.

    Returns:
        list: For each case and precision, a dict that JSON can hold: ``case``,
        ``precision``, ``ours`` and ``chainers``, the deviations from float64 on the
        CPU, as a share of the largest element; ``allowed``; and ``error``, or ``None``.
    """
    found = []
    for case in unit.cases():
        with _on_the_cpu(gpu):
            expected = _hosted(case.compute(*(a.copy() for a in case.inputs)))
        for precision in case.precisions:
            ours, error = _deviation(case, precision, gpu, [*others, unit], expected)
            chainers = None
            if beside:
                chainers, _ = _deviation(case, precision, gpu, [], expected)
            found.append(
                {
                    "case": case.name,
                    "precision": precision.name,
                    "ours": ours,
                    "chainers": chainers,
                    "allowed": precision.allowed,
                    "error": error,
                }
            )
    return found


def is_of_the_card(error: BaseException) -> bool:
    """Tells whether an error is the card's, or its driver's, and not a function's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        names & {"CUDARuntimeError", "CUDADriverError", "OutOfMemoryError"}
        or "CUDA_ERROR" in str(error)
        or faults.sentence(error)
    )


def _deviation(
    case: Case, precision: Precision, gpu, units: list[Unit], expected: list
) -> tuple[float | None, str | None]:
    inputs = _sent(case, precision, gpu)
    with _as_asked(precision, gpu), gpu.using(units):
        try:
            with gpu.poisoned():
                actual = _hosted(case.compute(*inputs))
            gpu.wait()
        except Exception as e:
            if is_of_the_card(e):
                raise
            gpu.wait()  # which raises if the card is lost
            return None, f"{type(e).__name__}: {e}"
    shares = [_share(a, e) for a, e in zip(actual, expected, strict=True)]
    worst = max(shares)
    return (worst, None) if np.isfinite(worst) else (None, "NaN or infinity")


def _sent(case: Case, precision: Precision, gpu) -> list:
    return [
        gpu.device.send(a.astype(precision.dtype) if a.dtype.kind == "f" else a)
        for a in case.inputs
    ]


@contextlib.contextmanager
def _as_asked(precision: Precision, gpu) -> Iterator[None]:
    with (
        chainer.using_device(gpu.device),
        chainer.using_config("use_cudnn_tensor_core", precision.tensor_cores),
    ):
        yield


def _share(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        return np.inf
    if not expected.size:
        return 0.0
    largest = np.abs(expected).max() or 1.0
    worst = np.abs(actual.astype(np.float64) - expected).max() / largest
    return float(worst) if np.isfinite(worst) else np.inf


def _hosted(arrays) -> list[np.ndarray]:
    return [np.array(backend.CpuDevice().send(a)) for a in arrays]


@contextlib.contextmanager
def _on_the_cpu(gpu) -> Iterator[None]:
    """A context in which Chainer's own code computes on NumPy's arrays."""
    path = chainer_revive.state()["cpu"]
    chainer_revive.use(cpu="chainer")
    registry.leave_off(gpu.names)
    try:
        with chainer.using_device("@numpy"):
            yield
    finally:
        registry.leave_off(())
        chainer_revive.use(cpu=path)
