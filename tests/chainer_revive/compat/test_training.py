"""The Trainer and what it is made of."""

import json

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import iterators, training
from chainer.datasets import TupleDataset
from chainer.training import extensions, updaters

rng = np.random.default_rng(0)
X = rng.standard_normal((40, 4)).astype("f")
T = (X.sum(1) > 0).astype("i")


def make_trainer(out, epochs, iterator=iterators.SerialIterator):
    model = L.Classifier(L.Linear(4, 2, initialW=np.zeros((2, 4), "f")))
    optimizer = chainer.optimizers.MomentumSGD(0.1).setup(model)
    data = TupleDataset(X, T)
    updater = updaters.StandardUpdater(iterator(data, 10, shuffle=False), optimizer)
    trainer = training.Trainer(updater, (epochs, "epoch"), out=str(out))
    test = iterators.SerialIterator(data, 16, repeat=False, shuffle=False)
    trainer.extend(extensions.Evaluator(test, model))
    trainer.extend(extensions.LogReport())
    return trainer


def test_evaluator_and_log_against_numpy(tmp_path):
    trainer = make_trainer(tmp_path, 2)
    trainer.run()
    link = trainer.updater.get_optimizer("main").target.predictor
    y = X.astype("d") @ link.W.array.T + link.b.array
    log_p = y - np.log(np.exp(y).sum(1, keepdims=True))
    losses = -log_p[np.arange(40), T]
    expected = losses.mean()  # though the last of the batches of 16 has 8
    entry = json.loads((tmp_path / "log").read_text())[-1]
    assert entry["validation/main/loss"] == pytest.approx(expected, rel=1e-5)
    assert entry["epoch"] == 2


def test_resume_from_a_snapshot(tmp_path):
    whole = make_trainer(tmp_path / "whole", 4)
    whole.run()
    half = make_trainer(tmp_path / "half", 2)
    half.extend(extensions.snapshot(filename="snapshot"))
    half.run()
    resumed = make_trainer(tmp_path / "rest", 4)
    chainer.serializers.load_npz(tmp_path / "half" / "snapshot", resumed)
    resumed.run()
    for a, b in zip(
        whole.updater.get_optimizer("main").target.params(),
        resumed.updater.get_optimizer("main").target.params(),
        strict=True,
    ):
        np.testing.assert_array_equal(a.array, b.array)
    logs = [json.loads((tmp_path / d / "log").read_text()) for d in ("whole", "rest")]
    for entry in logs[0] + logs[1]:
        del entry["elapsed_time"]
    assert logs[0] == logs[1]


def test_plot_report_draws(tmp_path):
    from PIL import Image

    trainer = make_trainer(tmp_path, 3)
    keys = ["main/loss", "validation/main/loss"]
    trainer.extend(extensions.PlotReport(keys, "epoch", filename="loss.png"))
    trainer.extend(extensions.VariableStatisticsPlot(
        trainer.updater.get_optimizer("main").target, trigger=(1, "epoch"),
        filename="statistics.png",
    ))  # fmt: skip
    trainer.run()
    for name in ("loss.png", "statistics.png"):
        with Image.open(tmp_path / name) as image:
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.parametrize("make", [iterators.MultithreadIterator, None])
def test_parallel_iterators_give_the_serial_log(tmp_path, make):
    def multiprocess(*args, **options):
        return iterators.MultiprocessIterator(*args, n_processes=2, **options)

    logs = []
    for name, iterator in (
        ("serial", iterators.SerialIterator),
        ("parallel", make or multiprocess),
    ):
        trainer = make_trainer(tmp_path / name, 2, iterator)
        trainer.run()
        trainer.updater.finalize()
        logs.append(json.loads((tmp_path / name / "log").read_text()))
    for entry in logs[0] + logs[1]:
        del entry["elapsed_time"]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("shared", [None, 1024])
def test_multiprocess_iterator(python, method, shared):
    assert python(f"""\
import multiprocessing
import chainer
import numpy as np

class Data(chainer.dataset.DatasetMixin):
    def __len__(self):
        return 8

    def get_example(self, i):
        return np.full(3, i, "f"), i

if __name__ == "__main__":
    multiprocessing.set_start_method("{method}")
    iterator = chainer.iterators.MultiprocessIterator(
        Data(), 4, repeat=False, shuffle=False, n_processes=2, shared_mem={shared}
    )
    for batch in iterator:
        x, i = chainer.dataset.concat_examples(batch)
        print(x.dtype, x.sum(), *i)
    iterator.finalize()
""").splitlines() == ["float32 18.0 0 1 2 3", "float32 66.0 4 5 6 7"]


def test_parallel_updater_of_one_process(tmp_path):
    trainer = make_trainer(tmp_path, 1)
    optimizer = trainer.updater.get_optimizer("main")
    updater = updaters.ParallelUpdater(
        iterators.SerialIterator(TupleDataset(X, T), 10, shuffle=False),
        optimizer,
        devices={"main": -1, "second": -1},
    )
    expected = L.Classifier(L.Linear(4, 2, initialW=np.zeros((2, 4), "f")))
    reference = chainer.optimizers.MomentumSGD(0.1).setup(expected)
    updater.update()
    reference.update(expected, X[:10], T[:10])
    for a, b in zip(optimizer.target.params(), expected.params(), strict=True):
        # Each half reports the mean of five, and the gradients of both are added.
        np.testing.assert_allclose(a.array, 2 * b.array, rtol=1e-5)


def test_multiprocess_parallel_updater_needs_nccl():
    if updaters.MultiprocessParallelUpdater.available():
        pytest.skip("this machine has NCCL")
    with pytest.raises(Exception, match="NCCL is not enabled"):
        updaters.MultiprocessParallelUpdater(
            [iterators.SerialIterator(X, 10)], chainer.optimizers.SGD(), devices=[0]
        )


def test_chainermn_naive_communicator(python):
    pytest.importorskip("mpi4py")
    assert (
        python("""\
import chainer, chainermn
import chainer.links as L
import numpy as np

communicator = chainermn.create_communicator("naive")
link = L.Linear(3, 2)
optimizer = chainermn.create_multi_node_optimizer(
    chainer.optimizers.SGD(), communicator
).setup(link)
for _ in range(2):
    optimizer.update(lambda: chainer.functions.sum(link(np.ones((4, 3), "f"))))
data = chainermn.scatter_dataset(np.arange(4), communicator)
print(communicator.size, len(data), link.W.array.dtype, link.W.grad[0, 0])
""")
        == "1 4 float32 4.0\n"
    )


def test_mixed16_trains(tmp_path):
    with chainer.using_config("dtype", chainer.mixed16):
        model = L.Classifier(L.Linear(4, 2))
        optimizer = chainer.optimizers.Adam().setup(model)
        optimizer.use_fp32_update()
        optimizer.loss_scaling()
        x = X.astype(np.float16)
        first = float(model(x, T).array)
        for _ in range(100):
            optimizer.update(model, x, T)
        assert model.predictor.W.dtype == np.float16
        assert float(F.softmax_cross_entropy(model.predictor(x), T).array) < first
