import json
import math
import struct
import sys

import pytest

from chainer_mmix.training import find_snapshot, load_snapshot
from chainer_mmix.training.extensions import TensorBoardReport

event_pb2 = pytest.importorskip(
    "tensorboardX.proto.event_pb2", reason="the extra tensorboard"
)


def read_events(path):
    """Yields the events of a file: length, checksum, event, checksum, and so on."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield event_pb2.Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def read_log(folder):
    """Reads the values as TensorBoard does: a new session purges later steps."""
    values = {}
    for path in sorted(folder.iterdir()):
        for event in read_events(path):
            if event.session_log.status == event.session_log.START:
                values = {k: v for k, v in values.items() if k[0] < event.step}
            for value in event.summary.value:
                assert (event.step, value.tag) not in values
                values[event.step, value.tag] = value.simple_value
    return values


def expected(out):
    return {
        (entry["iteration"], key): pytest.approx(value, rel=1e-6, nan_ok=True)
        for entry in json.loads((out / "log").read_text())
        for key, value in entry.items()
        if key != "iteration"
    }


def test_the_event_file_has_the_log(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path)
    # Before it in the Trainer, and yet after LogReport.
    report = TensorBoardReport()
    trainer.extend(report)
    trainer.extend(lambda trainer: {"bad": math.nan}, name="nan", priority=400)
    trainer.run()
    values = read_log(tmp_path / "tensorboard")
    assert values == expected(tmp_path)
    assert {step for step, _ in values} == {4, 7}
    tags = {tag for _, tag in values}
    assert {"validation/main/accuracy", "mixup/layer/0", "epoch", "lr"} <= tags


@pytest.mark.parametrize("before", [True, False])
def test_a_resumed_run_has_its_whole_log(make_trainer, tmp_path, before):
    for epoch in (1, 3):
        trainer = make_trainer(tmp_path, epoch=epoch)
        if before or epoch == 3:
            folder = f"tensorboard/{epoch}"  # files are named by the second
            trainer.extend(TensorBoardReport(folder=folder))
        if epoch == 3:
            load_snapshot(find_snapshot(tmp_path), trainer)
        trainer.run()
    everything = tmp_path / "all"
    everything.mkdir()
    for path in (tmp_path / "tensorboard").glob("*/*"):
        path.rename(everything / f"{path.parent.name}-{path.name}")
    assert read_log(everything) == expected(tmp_path)


def test_without_tensorboardx_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'chainer-mmix\[tensorboard\]'"):
        TensorBoardReport()
