"""What is asked of CUDA, and in which order."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

pytest.importorskip("cupy")
from chainer_revive.cuda import graphs


class Stream:
    def __init__(self, calls, name="own", non_blocking=True):
        assert non_blocking
        self.calls, self.name = calls, name

    def __enter__(self):
        self.calls.append(f"enter {self.name}")

    def __exit__(self, *_):
        self.calls.append(f"leave {self.name}")

    def record(self):
        return f"event of {self.name}"

    def wait_event(self, event):
        self.calls.append(f"{self.name} waits for {event}")

    def begin_capture(self):
        self.calls.append("begin")

    def end_capture(self):
        self.calls.append("end")
        return SimpleNamespace(
            launch=lambda stream: self.calls.append(f"launch in {stream.name}")
        )


@pytest.fixture
def calls(monkeypatch):
    calls = []

    @contextmanager
    def using_allocator(malloc):
        calls.append(malloc)
        yield
        calls.append("usual memory")

    cuda = SimpleNamespace(
        Stream=lambda non_blocking: Stream(calls, non_blocking=non_blocking),
        MemoryPool=lambda: SimpleNamespace(malloc="own memory"),
        get_current_stream=lambda: Stream(calls, "default"),
        using_allocator=using_allocator,
    )
    monkeypatch.setattr(graphs, "cupy", SimpleNamespace(cuda=cuda))
    return calls


def test_a_function_is_captured_once_and_launched_often(calls):
    replay = graphs.CudaGraphs().capture(lambda: calls.append("work") or "result")
    assert calls == ["own memory", "begin", "work", "end", "usual memory"]
    calls.clear()
    assert [replay(), replay()] == ["result", "result"]
    assert calls == ["launch in own"] * 2


def test_a_failure_ends_the_capture(calls, monkeypatch):
    def fail():
        raise RuntimeError("not permitted")

    def end_capture(self):
        calls.append("end")
        raise ValueError("the capture is invalid")

    monkeypatch.setattr(Stream, "end_capture", end_capture)
    with pytest.raises(RuntimeError, match="not permitted"):
        graphs.CudaGraphs().capture(fail)
    assert calls[-1] == "end"


def test_the_streams_wait_for_each_other(calls):
    with graphs.CudaGraphs().stream():
        calls.append("work")
    assert calls == [
        "own waits for event of default",
        "enter own",
        "work",
        "leave own",
        "default waits for event of own",
    ]
