"""Checks that each rank makes; test_updates.py starts them."""

import copy
import functools
import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from unittest import mock

import chainer
import chainermn
import numpy as np
from chainer.optimizer_hooks import GradientClipping
from chainer.optimizers.sgd import SGDRule
from chainermn.communicators.naive_communicator import NaiveCommunicator

import chainer_revive
from chainer_revive.cpu.numba import exchange
from chainer_revive.multinode import mean_gradients

world = chainermn.create_communicator("naive")
everyone = world.mpi_comm.allgather
SHAPES = ((3,), (4, 5), (1000, 3), (), (129,), (7, 11))
OPTIMIZERS = {
    "MomentumSGD": lambda: chainer.optimizers.MomentumSGD(0.1, 0.8),
    "Adam": chainer.optimizers.Adam,
    "AdamW": lambda: chainer.optimizers.AdamW(eta=0.5, weight_decay_rate=0.01),
}


def model_of(shapes=SHAPES):
    """Returns a chain with a link, the same on all ranks."""
    random = np.random.RandomState(0)
    model = chainer.Chain(a=chainer.Link())
    for i, shape in enumerate(shapes):
        link = model.a if i % 2 else model
        with link.init_scope():
            array = np.array(random.standard_normal(shape), np.float32)
            setattr(link, f"p{i}", chainer.Parameter(array))
    return model


def params_of(model):
    return [param for _, param in sorted(model.namedparams())]


def give_gradients(model, step):
    random = np.random.RandomState(10 * step + world.rank)
    for param in params_of(model):
        scale = 10.0 ** random.randint(-3, 3, param.shape)
        param.grad = np.array(random.standard_normal(param.shape) * scale, "f")


def state_of(model, optimizer):
    """Returns all counters, and the bytes of parameters, gradients and states."""
    found = [optimizer.t]
    for param in params_of(model):
        rule = param.update_rule
        states = [rule.state[k] for k in sorted(rule.state or {})] if rule else []
        arrays = [param.array, param.grad, *states]
        found += [
            rule and rule.t,
            *[None if a is None else a.tobytes() for a in arrays],
        ]
    return found


@contextmanager
def chainers_own():
    before = chainer_revive.state()["cpu"]
    chainer_revive.use(cpu="chainer")
    try:
        yield
    finally:
        chainer_revive.use(cpu=before)


def mean_of(grads):
    """Sums in the order of the ranks."""
    total = grads[0]
    for grad in grads[1:]:
        total = total + grad
    return total * np.float32(1 / len(grads))


def wanted_by(make, prepare, change, steps):
    """Computes the means by themselves, and lets Chainer's own code update by them."""
    with chainers_own():
        model = model_of()
        optimizer = make().setup(model)
        prepare(model, optimizer)
        for step in range(steps):
            give_gradients(model, step)
            change(model)
            for param in params_of(model):
                grad = param.grad
                if grad is None:
                    grad = np.zeros_like(param.array)
                grads = everyone(np.array(grad, order="C"))
                param.grad = np.asarray(mean_of(grads))
            optimizer.update()
        return state_of(model, optimizer)


def nothing(*_):
    pass


def train(make, prepare=nothing, change=nothing, some=None, steps=3):
    """Returns the state after some steps of all ranks, and the loops that took them."""
    some = some or world.split(0, world.rank)
    model = model_of()
    optimizer = chainermn.create_multi_node_optimizer(make().setup(model), some)
    optimizer.is_changed(model)
    prepare(model, optimizer.actual_optimizer)
    with mock.patch.object(exchange, "exchange", wraps=exchange.exchange) as called:
        for step in range(steps):
            give_gradients(model, step)
            change(model)
            optimizer.update()
    loops = [call.args[2] for call in called.call_args_list]
    return state_of(model, optimizer.actual_optimizer), loops


def check_to_the_bit():
    for size in (mean_gradients._IN_CACHE, 512, 8 * world.size):
        for name, make in OPTIMIZERS.items():
            with mock.patch.object(mean_gradients, "_IN_CACHE", size):
                found, loops = train(make)
            loop = "momentum_sgd" if name == "MomentumSGD" else "adam"
            assert loops == 3 * [loop], loops
            assert found == wanted_by(make, nothing, nothing, 3), (size, name)


def clip(optimizer):
    for param in optimizer.target.params():
        param.grad.clip(-0.1, 0.1, out=param.grad)


def share(model, optimizer):
    model.a.p1.array = model.p2.array.reshape(-1)[20:40].reshape(4, 5)


def rate(model, optimizer):
    model.p2.update_rule.hyperparam.lr = 0.5


def freeze(model, optimizer):
    model.a.disable_update()


IN_ONE_PASS = {"rate": rate, "freeze": freeze}
APART = {
    "rule": lambda m, o: setattr(m.p2, "update_rule", SGDRule()),
    "hook": lambda m, o: o.add_hook(clip, "clip", timing="pre"),
    "after": lambda m, o: o.add_hook(clip, "clip", timing="post"),
    "clipping": lambda m, o: o.add_hook(GradientClipping(1)),
    "hook of a rule": lambda m, o: m.p2.update_rule.add_hook(
        lambda rule, param: param.grad.clip(-0.1, 0.1, out=param.grad)
    ),
    "share": share,
    "columns first": lambda m, o: setattr(
        m.p2, "array", np.asarray(m.p2.array, order="F")
    ),
    "all frozen": lambda m, o: m.disable_update(),
    "a step of its own": lambda m, o: setattr(o, "is_safe_to_update", lambda: False),
}


def check_what_is_unusual():
    make = OPTIMIZERS["MomentumSGD"]
    for cases, loop in ((IN_ONE_PASS, "momentum_sgd"), (APART, "")):
        for name, prepare in cases.items():
            found, loops = train(make, prepare)
            assert loops == 3 * [loop], (name, loops)
            assert found == wanted_by(make, prepare, nothing, 3), name


def check_ranks_that_differ():
    """Each rank for itself takes its step with the exchange or after it."""
    for name in ("clipping", "rule"):

        def prepare(model, optimizer, name=name):
            if world.rank == 1:
                APART[name](model, optimizer)

        make = OPTIMIZERS["Adam"]
        found, loops = train(make, prepare)
        assert loops == 3 * ["" if world.rank == 1 else "adam"]
        assert found == wanted_by(make, prepare, nothing, 3)


def check_gradients():
    def lack(model):
        if world.rank == 0:
            model.p2.cleargrad()

    def with_gaps(model):
        model.a.p1.grad = np.asfortranarray(model.a.p1.grad)
        model.p2.grad = np.repeat(model.p2.grad, 2, axis=1)[:, ::2]

    def no_number(model):
        if world.rank == world.size - 1:
            model.p2.grad[17, 1] = np.nan

    def of_one(model):
        model.p4.grad = model.p2.grad.reshape(-1)[100:229]

    def of_variables(model):
        for param in model.params():
            param.grad_var = chainer.Variable(param.grad)

    for change in (lack, with_gaps, no_number, of_one, of_variables):
        for name, make in OPTIMIZERS.items():
            found, loops = train(make, change=change)
            assert set(loops) != {""}
            assert found == wanted_by(make, nothing, change, 3), (change, name)


def check_a_gradient_that_is_a_parameter():
    """Of one that is frozen: the exchange writes to the other, which is updated."""

    def run(some):
        model = model_of(((300,), (300,)))
        optimizer = OPTIMIZERS["MomentumSGD"]().setup(model)
        model.p0.update_rule.enabled = False
        together = chainermn.create_multi_node_optimizer(optimizer, some)
        together.is_changed(model)
        for step in range(3):
            give_gradients(model, step)
            model.p0.grad = model.a.p1.array
            together.update()
        return state_of(model, optimizer)

    found = run(world.split(0, world.rank))
    with mock.patch.object(mean_gradients.updates, "_step", lambda *_: None):
        assert found == run(world.split(0, world.rank))


def check_gradients_that_all_lack():
    model = model_of()
    optimizer = OPTIMIZERS["Adam"]().setup(model)
    some = world.split(0, world.rank)
    together = chainermn.create_multi_node_optimizer(optimizer, some, zero_fill=False)
    together.is_changed(model)
    give_gradients(model, 0)
    model.p2.cleargrad()
    before = model.p2.array.copy()
    together.update()
    np.testing.assert_array_equal(model.p2.array, before)  # by a gradient of zeros


def check_different_gradients_leave_all_as_it_was():
    model = model_of()
    optimizer = OPTIMIZERS["Adam"]().setup(model)
    some = world.split(0, world.rank)
    together = chainermn.create_multi_node_optimizer(optimizer, some, zero_fill=False)
    together.is_changed(model)
    give_gradients(model, 0)
    if world.rank == 1:
        model.p2.cleargrad()
    before = state_of(model, optimizer)
    try:
        together.update()
    except ValueError as e:
        assert "the gradient of /p2 is" in str(e)
    else:
        raise AssertionError("means of different parameters")
    assert state_of(model, optimizer) == before


def halve(model):
    for param in model.params():
        param.grad *= np.float32(0.5)


class Halving(NaiveCommunicator):
    def multi_node_mean_grad(self, model, zero_fill=False):
        super().multi_node_mean_grad(model, zero_fill)
        halve(model)


class HalvingSGD(chainer.optimizers.MomentumSGD):
    def update(self, lossfun=None, *args, **kwds):
        halve(self.target)
        super().update(lossfun, *args, **kwds)


def first(model, *_):
    return model


def halving_afterwards(method, target_of):
    def call(*args, **kwargs):
        result = method(*args, **kwargs)
        halve(target_of(*args))
        return result

    return call


def check_what_a_user_does_between():
    """To gradients after the exchange, before the step: they step by halves."""

    def halved(model, optimizer):
        def hook(optimizer):
            halve(optimizer.target)

        optimizer.add_hook(hook, "halve", timing="pre")

    make = lambda: chainer.optimizers.MomentumSGD(0.1, 0.8)  # noqa: E731
    wanted = wanted_by(make, halved, nothing, 3)
    found, loops = train(make, some=Halving(world.mpi_comm))
    assert (found, set(loops)) == (wanted, {""})
    found, loops = train(lambda: HalvingSGD(0.1, 0.8))
    assert (found, set(loops)) == (wanted, {""})
    some = world.split(0, world.rank)
    own = some.multi_node_mean_grad
    some.multi_node_mean_grad = halving_afterwards(own, first)
    found, loops = train(make, some=some)
    assert (found, set(loops)) == (wanted, {""})
    some = world.split(0, world.rank)
    only_waits = lambda *args, **kwargs: own(*args, **kwargs)  # noqa: E731
    only_waits.__wrapped__ = own = some.multi_node_mean_grad
    only_waits.only_waits = only_waits
    theirs = functools.wraps(only_waits)(halving_afterwards(only_waits, first))
    some.multi_node_mean_grad = theirs
    found, loops = train(make, some=some)
    assert (found, set(loops)) == (wanted, {""})
    own = NaiveCommunicator.multi_node_mean_grad
    theirs = halving_afterwards(own, lambda self, model, *_: model)
    with mock.patch.object(NaiveCommunicator, "multi_node_mean_grad", theirs):
        found, loops = train(make)
    assert (found, set(loops)) == (wanted, {""})

    def before(self, *args, **kwds):
        halve(self.target)
        return update(self, *args, **kwds)

    update = chainer.GradientMethod.update
    with mock.patch.object(chainer.GradientMethod, "update", before):
        found, loops = train(make)
    assert (found, set(loops)) == (wanted, {""})

    def put(model, optimizer):
        own = optimizer.update

        def update(*args):
            halve(model)
            own(*args)

        optimizer.update = update

    found, loops = train(make, put)
    assert (found, set(loops)) == (wanted, {""})


def check_an_exchange_alone_takes_no_step():
    model = model_of()
    optimizer = OPTIMIZERS["MomentumSGD"]().setup(model)
    before = [param.array.tobytes() for param in params_of(model)]
    together = chainermn.create_multi_node_optimizer(optimizer, world)
    together.is_changed(model)
    failing = mock.patch.object(mean_gradients, "_agree", side_effect=OSError)
    with failing, suppress(OSError):
        together.update()
    give_gradients(model, 0)
    world.multi_node_mean_grad(model)
    assert [param.array.tobytes() for param in params_of(model)] == before
    assert optimizer.t == 0


def check_other_ways():
    make = OPTIMIZERS["MomentumSGD"]
    wanted = wanted_by(make, nothing, nothing, 3)
    threads = exchange.threads
    name = "open" if world.rank else "posix_fallocate"
    contexts = {
        "more threads": mock.patch.object(threads, "count", lambda: 2),
        "debug mode": chainer.using_config("debug", True),
        "no memory": mock.patch.object(os, name, side_effect=OSError),
    }
    for name, context in contexts.items():
        with context:
            found, loops = train(make)
        assert found == wanted, name
        assert loops == (3 * [""] if name != "no memory" else []), (name, loops)
    before = chainer_revive.state()["cpu"]
    with ExitStack() as stack:
        if world.rank == 1:
            stack.callback(chainer_revive.use, cpu=before)
            chainer_revive.use(cpu="numpy")
        found, loops = train(make)  # compiled loops on some ranks only
    assert (found, loops) == (wanted, [])


def check_a_network_in_float64():
    model = copy.deepcopy(model_of())
    for param in model.params():
        param.array = param.array.astype(np.float64)
    optimizer = OPTIMIZERS["Adam"]().setup(model)
    some = world.split(0, world.rank)
    together = chainermn.create_multi_node_optimizer(optimizer, some)
    together.is_changed(model)
    before = model.p2.array.copy()
    for param in model.params():
        param.grad = np.full(param.shape, world.rank + 1.0)
    together.update()
    assert (model.p2.grad == (world.size + 1) / 2).all()
    np.testing.assert_allclose(model.p2.array, before - 1e-3, atol=1e-9)


class Late(Exception):
    pass


def check_what_follows_a_signal_that_raised_while_ranks_waited():
    def late(*_):
        raise Late

    def with_step(*args):
        """Is called when all ranks have agreed, right before the exchange."""
        if step == 1 and world.rank == 0:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        elif step == 1:
            time.sleep(0.5)
        return own(*args)

    some, own = world.split(0, world.rank), mean_gradients.updates.with_step
    model = model_of()
    before = signal.signal(signal.SIGALRM, late)
    caught = 0
    with mock.patch.object(mean_gradients.updates, "with_step", with_step):
        for step in range(5):
            for param in params_of(model):
                param.grad = np.full_like(param.array, step + world.rank)
            try:
                some.multi_node_mean_grad(model)
            except Late:
                caught += 1
            mean = step + (world.size - 1) / 2
            for param in params_of(model):
                np.testing.assert_allclose(param.grad, mean, rtol=1e-6)
    signal.signal(signal.SIGALRM, before)
    assert caught == (world.rank == 0)


if __name__ == "__main__":
    chainermn.global_except_hook.add_hook()
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            if world.rank == 0:
                print(name)
    sys.stdout.flush()
