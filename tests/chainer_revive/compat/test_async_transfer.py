"""Chainer's ConcatWithAsyncTransfer, which docs/graphs.md recommends."""

import contextlib
import types

import numpy as np
import pytest
from chainer.dataset import ConcatWithAsyncTransfer, convert


class Stream:
    """Does what it is asked for as late as it may, or at once if it is eager."""

    def __init__(self, non_blocking=False, eager=True):
        self.eager = eager
        self.todo = []
        self.n_done = 0

    def add(self, operation):
        self.todo.append(operation)
        if self.eager:
            self.run(len(self.todo))

    def run(self, until):
        while self.n_done < until:
            operation = self.todo[self.n_done]
            self.n_done += 1
            operation()

    def wait_event(self, event):
        # The place that the event has now, wherever it is recorded later.
        stream, until = event.stream, event.until
        self.add(lambda: stream.run(until))


class Event:
    stream = None  # never recorded

    def record(self, stream):
        self.stream, self.until = stream, len(stream.todo)

    def synchronize(self):
        if self.stream is not None:
            self.stream.run(self.until)


class Array:
    def __init__(self, shape, dtype):
        self.values = np.empty(shape, dtype)

    def set(self, pinned, stream):
        stream.add(lambda: np.copyto(self.values, pinned))


@pytest.fixture
def waits(monkeypatch):
    """CuPy is a double; a list of the times the host waits for the whole GPU."""
    waits = []
    runtime = types.SimpleNamespace(deviceSynchronize=lambda: waits.append(1))
    cuda = types.SimpleNamespace(runtime=runtime, alloc_pinned_memory=bytearray)
    cupy = types.SimpleNamespace(cuda=cuda, empty=Array)
    double = types.SimpleNamespace(
        Event=Event,
        Stream=Stream,
        cupy=cupy,
        get_device_from_id=lambda _: contextlib.nullcontext(),
    )
    monkeypatch.setattr(convert, "cuda", double)
    return waits


def make_batches(n=7):
    random = np.random.default_rng(0)
    return [
        [(random.random(3, np.float32), np.int32(random.integers(9))) for _ in range(4)]
        for _ in range(n)
    ]


@pytest.mark.parametrize("eager", [False, True])
def test_steps_see_their_batches_while_the_host_runs_ahead(waits, eager):
    compute, transfer = Stream(eager=False), Stream(eager=eager)
    converter = ConcatWithAsyncTransfer(transfer, compute_stream=compute)
    seen, batches, left = [], make_batches(), []
    for batch in batches:
        x, t = converter(batch, 0)
        compute.add(lambda x=x, t=t: seen.append((x.values.copy(), t.values.copy())))
        left.append(len(compute.todo) - compute.n_done)
    compute.run(len(compute.todo))
    for (x, t), batch in zip(seen, batches, strict=True):
        np.testing.assert_array_equal(x, [image for image, _ in batch])
        np.testing.assert_array_equal(t, [label for _, label in batch])
    assert min(left[1:]) > 2  # at least one step, and the waiting before the next
    assert len(waits) == 4  # for the memory of two images and two labels


def test_without_the_stream_of_the_computation_each_step_waits(waits):
    converter = ConcatWithAsyncTransfer()
    for batch in make_batches(7):
        converter(batch, 0)
    assert len(waits) == 4 + 7 * 2


def test_cupy_has_what_it_calls():
    cupy = pytest.importorskip("cupy")
    assert cupy.cuda.runtime.deviceSynchronize and cupy.cuda.alloc_pinned_memory
    assert cupy.cuda.Event.record and cupy.cuda.Event.synchronize
    assert cupy.cuda.Stream.wait_event and cupy.ndarray.set


@pytest.mark.gpu
def test_on_a_gpu():
    import cupy

    stream = cupy.cuda.Stream.null
    converter = ConcatWithAsyncTransfer(compute_stream=stream)
    batches = make_batches()
    found = [[array.copy() for array in converter(batch, 0)] for batch in batches]
    for (x, t), batch in zip(found, batches, strict=True):
        np.testing.assert_array_equal(x.get(), [image for image, _ in batch])
        np.testing.assert_array_equal(t.get(), [label for _, label in batch])
