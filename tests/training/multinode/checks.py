"""Checks that each rank makes; test_in_ranks.py starts them."""

import sys
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
from chainer.iterators import MultithreadIterator, SerialIterator
from chainer.serializers import load_npz
from chainer.training import StandardUpdater, Trainer, extensions

from chainer_mmix import ManifoldMixupClassifier, MixupLayers, MixupPolicy
from chainer_mmix.training import SGD, GraphUpdater
from chainer_mmix.training.extensions import CalibrationEvaluator, Evaluator
from chainer_mmix.training.multinode import (
    ObservationMean,
    Ranks,
    RankSnapshot,
    RankStates,
    SharedOrder,
    Watchdog,
    synchronize_statistics,
)
from chainer_revive.cpu import compiled

comm = chainermn.create_communicator("naive")
everyone = comm.mpi_comm.allgather
rng = np.random.RandomState(0)
X = rng.randn(61, 5).astype(np.float32)
T = rng.randint(0, 3, 61).astype(np.int32)


class Net(chainer.Chain):
    def __init__(self, size=6):
        super().__init__()
        rng = np.random.RandomState(1)
        with self.init_scope():
            self.l1 = L.Linear(5, size, initialW=rng.randn(size, 5))
            self.bn = L.BatchNormalization(size)
            self.l2 = L.Linear(size, 3, initialW=rng.randn(3, size))

    def forward(self, x):
        return self.l2(F.relu(self.bn(self.l1(x))))


def draws(**options):
    """Trains as ChainerMN's users do, in three lines; returns all ranks' draws."""
    model = ManifoldMixupClassifier(
        MixupLayers(Net(), ["input", "l1"]), policy=MixupPolicy(1.0, **options)
    )
    data = chainermn.scatter_dataset(chainer.datasets.TupleDataset(X, T), comm)
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.SGD(0.1).setup(model), comm
    )
    updater = StandardUpdater(SerialIterator(data, 10), optimizer)
    found = []
    for _ in range(6):
        updater.update()
        draw = model.draw
        found.append((draw.layer_mix, draw.lam, tuple(draw.perm)))
    state = model.policy._rng.bit_generator.state
    assert all(other == state for other in everyone(state))
    weights = next(model.params()).array
    assert all(np.array_equal(other, weights) for other in everyone(weights))
    return list(zip(*everyone(found), strict=True))


def check_each_rank_draws_its_own_by_itself():
    for seed in (0, None):
        steps = draws(seed=seed)
        assert all(len({lam for _, lam, _ in step}) == comm.size for step in steps)
        assert len({layer for step in steps for layer, _, _ in step}) == 2
        assert all(len({perm for _, _, perm in step}) > 1 for step in steps)


def check_common_draw():
    for step in draws(seed=0, common_draw=True):
        assert len({(layer, lam) for layer, lam, _ in step}) == 1
        assert len({perm for _, _, perm in step}) > 1
    steps = draws(seed=0, common_draw=True)
    assert len({step[0][0] for step in steps}) == 2
    assert len({step[0][1] for step in steps}) == len(steps)


def check_statistics_of_all_ranks_are_those_of_one_process():
    model, single = (L.Classifier(Net()) for _ in range(2))
    synchronize_statistics(model, comm)
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.SGD(0.5).setup(model), comm
    )
    optimizer.is_changed(model)
    alone = chainer.optimizers.SGD(0.5).setup(single)
    for k in range(3):
        b = 6
        start = 18 * k + b * comm.rank
        optimizer.update(model, X[start : start + b], T[start : start + b])
        every = slice(18 * k, 18 * k + b * comm.size)
        alone.update(single, X[every], T[every])
    for (name, one), (_, other) in zip(
        sorted(model.namedparams()), sorted(single.namedparams()), strict=True
    ):
        np.testing.assert_allclose(one.array, other.array, 1e-4, 1e-5, err_msg=name)
    bn, own = single.predictor.bn, model.predictor.bn
    np.testing.assert_allclose(own.avg_mean, bn.avg_mean, 1e-4, 1e-6)


def check_each_example_comes_once_an_epoch():
    def iterators(cls):
        shared = SharedOrder(comm, np.random.RandomState(3))
        alone = SharedOrder(Ranks(), np.random.RandomState(3))
        size = 4 * comm.size
        return (cls(list(range(61)), size, order_sampler=o) for o in (shared, alone))

    for cls in (SerialIterator, MultithreadIterator):
        own, single = iterators(cls)
        for _ in range(40):
            parts = everyone(own.next())
            assert {len(part) for part in parts} == {4}
            assert [x for part in parts for x in part] == single.next()
            assert own.epoch_detail == single.epoch_detail


def check_the_state_of_each_rank():
    order = SharedOrder(comm, np.random.RandomState(4))
    model = L.Classifier(Net())
    optimizer = chainer.optimizers.SGD().setup(model)
    iterator = SerialIterator(list(range(9)), 3, order_sampler=order)
    folder = comm.bcast_obj(tempfile.mkdtemp() if comm.rank == 0 else None)
    trainer = Trainer(StandardUpdater(iterator, optimizer), out=folder)
    states = RankStates(comm, order, model)
    trainer.extend(states, name="RandomState")
    snapshot = RankSnapshot(comm, extensions.snapshot(filename="snapshot"))
    bn = model.predictor.bn
    bn.avg_mean[...] = np.arange(6) + comm.rank / 3
    trainer._start_at = 0.0
    _ = np.random.rand(), order.random_state.rand()
    snapshot(trainer)
    before = np.random.rand(), order.random_state.rand(), bn.avg_mean.copy()
    bn.avg_mean[...] = 0
    comm.mpi_comm.Barrier()
    load_npz(Path(folder, "snapshot"), trainer)
    assert (np.random.rand(), order.random_state.rand()) == before[:2]
    assert np.array_equal(bn.avg_mean, before[2])
    numbers = everyone(before[0])
    assert len(set(numbers)) == comm.size  # of dropout, say
    assert len(set(everyone(before[1]))) == 1
    # One rank less.
    states._size, states._rank = comm.size - 1, 0
    load_npz(Path(folder, "snapshot"), trainer)
    mean = np.arange(6) + (comm.size - 1) / 6
    np.testing.assert_allclose(bn.avg_mean, mean, 1e-6)
    assert order.random_state.rand() == before[1]


def check_a_watchdog_lets_the_step_be_taken_with_the_exchange():
    loops = compiled.loops(np.dtype(np.float32))
    if loops is None:
        return
    some = comm.split(0, comm.rank)
    model = L.Classifier(Net())
    optimizer = chainermn.create_multi_node_optimizer(SGD().setup(model), some)
    optimizer.is_changed(model)
    data = chainer.datasets.TupleDataset(X, T)
    trainer = Trainer(StandardUpdater(SerialIterator(data, 10), optimizer))
    watchdog = Watchdog(Ranks(some))
    watchdog.watch(trainer)
    with mock.patch.object(
        loops.exchange, "exchange", wraps=loops.exchange.exchange
    ) as e:
        trainer.updater.update()
    watchdog.close()
    assert [call.args[2] for call in e.call_args_list] == ["sgd"]
    assert optimizer.t == 1


def check_sgd_steps_with_the_exchange():
    """As NumPy by itself, to the bit."""
    for options in ({}, {"weight_decay": 0.3}, {"weight_decay": 0.3, "nesterov": True}):
        models = L.Linear(30, 20, initialW=rng.randn(20, 30)), L.Linear(30, 20)
        models[1].copyparams(models[0])
        own, alone = (SGD(0.1, **options).setup(model) for model in models)
        together = chainermn.create_multi_node_optimizer(own, comm.split(0, comm.rank))
        together.is_changed(models[0])
        random = np.random.RandomState(comm.rank)
        for _ in range(3):
            for one, other in zip(*(model.params() for model in models), strict=True):
                one.grad = random.randn(*one.shape).astype(np.float32)
                first, *others = everyone(one.grad.copy())
                other.grad = sum(others, first) * np.float32(1 / comm.size)
            together.update()
            with mock.patch.object(compiled, "wanted", False):
                alone.update()
        for one, other in zip(*(model.params() for model in models), strict=True):
            velocities = (param.update_rule.state["velocity"] for param in (one, other))
            assert np.array_equal(one.grad, other.grad)
            assert np.array_equal(one.array, other.array)
            assert np.array_equal(*velocities)
        assert own.t == alone.t == 3


def check_an_evaluation_is_that_of_all_examples():
    model = L.Classifier(Net())
    data = chainer.datasets.TupleDataset(X, T)
    ranks = Ranks(comm)
    share = ranks.share_of(data)
    assert sum(everyone(len(share))) == 61
    for kind in (Evaluator, extensions.Evaluator):
        whole = kind(SerialIterator(data, 7, False, False), model)()
        own = kind(SerialIterator(share, 7, False, False), model)
        found = chainermn.create_multi_node_evaluator(own, comm)()
        assert found.keys() == whole.keys()
        for key, value in found.items():
            np.testing.assert_allclose(value, whole[key], 1e-6)
    try:
        ranks.share_of(range(comm.size - 1))
    except ValueError as e:
        assert "too few" in str(e)
    else:
        raise AssertionError("a rank without examples")
    kind = CalibrationEvaluator(SerialIterator(data, 7, False, False), model)
    try:
        chainermn.create_multi_node_evaluator(kind, comm)
    except TypeError as e:
        assert "the Trainer of rank 0" in str(e)
    else:
        raise AssertionError("the mean of calibration errors")


class Observed:
    def __init__(self, **observation):
        self.observation = observation


def check_the_means_of_reports():
    mean = ObservationMean(comm)
    value = np.float32(comm.rank)
    for _ in range(2):
        trainer = Observed(
            loss=chainer.Variable(np.array(value)),
            pair=(float(comm.rank), comm.rank + 1.0),
            text="some",
            **{f"own/{comm.rank}": 5.0},
        )
        if comm.rank == comm.size - 1:
            trainer.observation["last"] = float("nan")
            trainer.observation["last_pair"] = 4.0, 3
        mean(trainer)
        found = trainer.observation
        n = comm.size
        assert found["loss"] == (n - 1) / 2
        weights = np.arange(n) + 1.0
        expected = np.average(np.arange(n), weights=weights), weights.sum()
        np.testing.assert_allclose(found["pair"], expected)
        assert found["text"] == "some"
        assert [found[f"own/{k}"] for k in range(n)] == [5.0] * n
        assert np.isnan(found["last"])  # on all ranks
        assert found["last_pair"] == (4.0, 3)


def check_an_error_of_one_is_that_of_all():
    ranks = Ranks(comm)
    assert ranks.on_first(lambda: comm.rank) == 0
    assert ranks.in_turn(lambda: comm.rank) == comm.rank
    assert ranks.largest(comm.rank) == comm.size - 1
    try:
        if comm.rank == 1:
            ranks.fail(OSError("no file"))
        ranks.on_first(lambda: 3)
    except ValueError as e:
        assert str(e) == "rank 1: no file"
    else:
        raise AssertionError("no error")


def trained(updater, optimizer, wrap=lambda model: model, **options):
    """Trains some steps; returns the updater, and all that they leave behind."""
    net = Net()
    wrap(net)
    policy = MixupPolicy(1.0, seed=0)
    model = ManifoldMixupClassifier(
        MixupLayers(net, ["input", "l1"]), policy=policy, **options
    )
    optimizer = chainermn.create_multi_node_optimizer(optimizer.setup(model), comm)
    order = SharedOrder(comm, np.random.RandomState(2))
    data = chainer.datasets.TupleDataset(X, T)
    iterator = SerialIterator(data, 5 * comm.size, order_sampler=order)
    updater = updater(iterator, optimizer)
    found = []
    for _ in range(40):
        observed: dict = {}
        reporter = chainer.Reporter()
        reporter.add_observer("main", model)
        reporter.add_observers("main", model.namedlinks(skipself=True))
        with reporter.scope(observed):
            updater.update()
        found += [chainer.as_array(value) for _, value in sorted(observed.items())]
        layer = model.draw.layer_mix
        found.append(layer)
    for _, param in sorted(model.namedparams()):
        found += [param.array, param.grad, *param.update_rule.state.values()]
    found += [net.bn.avg_mean, net.bn.avg_var]
    return updater, [np.asarray(value).tobytes() for value in found]


def check_replayed_steps_are_the_usual_ones():
    if compiled.loops(np.dtype("f")) is None:
        return
    for make in (
        lambda: chainer.optimizers.MomentumSGD(0.1),
        lambda: chainer.optimizers.Adam(),
    ):
        updater, found = trained(GraphUpdater, make())
        assert updater.reason is None
        assert updater.n_graphs == 2  # one for each layer
        _, wanted = trained(StandardUpdater, make())
        assert found == wanted


def check_ranks_may_replay_while_others_do_not():
    if compiled.loops(np.dtype("f")) is None:
        return
    usual = StandardUpdater if comm.rank == 1 else GraphUpdater
    updater, found = trained(usual, chainer.optimizers.MomentumSGD(0.1))
    assert comm.rank == 1 or updater.reason is None
    assert found == trained(StandardUpdater, chainer.optimizers.MomentumSGD(0.1))[1]


def check_what_exchanges_numbers_is_not_replayed():
    if compiled.loops(np.dtype("f")) is None:
        return

    def synchronize(net):
        synchronize_statistics(net, comm)

    other = chainermn.create_communicator("naive")  # which no link holds

    def exchange(net):
        forward = net.l1.forward
        net.l1.forward = lambda x: forward(x * other.allreduce_obj(0.5))

    for wrap in (synchronize, exchange):
        what_exchanges_numbers_is_not_replayed(wrap)


def what_exchanges_numbers_is_not_replayed(wrap):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        options = {"wrap": wrap}
        updater, found = trained(
            GraphUpdater, chainer.optimizers.MomentumSGD(0.1), **options
        )
    assert "exchanges numbers with other ranks" in updater.reason
    assert sum("exchanges" in str(w.message) for w in caught) == 1
    sgd = chainer.optimizers.MomentumSGD(0.1)
    assert found == trained(StandardUpdater, sgd, **options)[1]


def check_an_evaluation_that_exchanges_numbers_is_the_usual_one():
    """The batches of two ranks pair up, though only one has enough to record them."""
    if compiled.loops(np.dtype("f")) is None or comm.size != 2:
        return
    net = Net()
    forward = net.l1.forward

    def exchange(x):
        h = forward(x)
        parts = chainermn.functions.allgather(comm, F.mean(h, axis=0))
        return h - sum(parts) / comm.size

    net.l1.forward = exchange
    n = 40 if comm.rank == 0 else 38
    data = chainer.datasets.TupleDataset(X[:n], T[:n])
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for graph in (False, True):
            iterator = SerialIterator(data, 10, repeat=False, shuffle=False)
            model = ManifoldMixupClassifier(net, mixup_hidden=False)
            evaluator = Evaluator(iterator, model, graph=graph)
            found.append([evaluator() for _ in range(2)])
    assert found[0] == found[1]


if __name__ == "__main__":
    chainermn.global_except_hook.add_hook()
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            if comm.rank == 0:
                print(name)
    sys.stdout.flush()
