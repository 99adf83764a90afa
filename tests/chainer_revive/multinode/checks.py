"""Checks that each rank makes; test_mean_gradients.py starts them."""

import os
import sys
from contextlib import nullcontext
from unittest import mock

import chainer
import chainermn
import numpy as np

import chainer_revive
from chainer_revive.multinode import mean_gradients

comm = chainermn.create_communicator("naive")
everyone = comm.mpi_comm.allgather
SHAPES = ((3,), (), (0,), (4, 5), (1000, 3), (1, 2, 3), (129,), (7, 11))


def model_of(shapes=SHAPES, dtypes=(np.float32,)):
    """Returns a link with gradients of very different sizes, whose order counts."""
    rng = np.random.RandomState(comm.rank)
    model = chainer.Link()
    with model.init_scope():
        for i, shape in enumerate(shapes):
            dtype = dtypes[i % len(dtypes)]
            param = chainer.Parameter(np.zeros(shape, dtype))
            scale = 10.0 ** rng.randint(-3, 3, shape)
            param.grad = np.array(rng.standard_normal(shape) * scale, dtype)
            setattr(model, f"p{i}", param)
    return model


def params_of(model):
    return [param for _, param in sorted(model.namedparams())]


def grads_of(model):
    return [param.grad.copy() for param in params_of(model)]


def mean_of(grads):
    """Sums in the order of the ranks, in float32 at least."""
    total = grads[0].astype(np.promote_types(grads[0].dtype, np.float32))
    for grad in grads[1:]:
        total = total + grad
    return (total * (1.0 / len(grads))).astype(grads[0].dtype)


def means_of(model):
    return [mean_of(grads) for grads in zip(*everyone(grads_of(model)), strict=True)]


def assert_equal(model, expected):
    for grad, mean in zip(grads_of(model), expected, strict=True):
        assert grad.dtype == mean.dtype
        np.testing.assert_array_equal(grad, mean)


def without_memory(rank):
    """Lets the ranks share no memory, since this one cannot."""
    if comm.rank != rank:
        return nullcontext()
    name = "open" if rank else "posix_fallocate"
    return mock.patch.object(os, name, side_effect=OSError("no memory"))


def way_of(communicator):
    return type(mean_gradients._ways[communicator]).__name__


def check_the_mean_to_the_bit_by_each_way():
    ways = {None: "_Shared", 0: "_Messages", comm.size - 1: "_Messages"}
    for size in (1 << 18, 64, 1):
        for rank, way in ways.items():
            some = comm.split(0, comm.rank)
            model = model_of(SHAPES if size > 1 else SHAPES[:4])
            arrays, expected = [p.grad for p in params_of(model)], means_of(model)
            sizes = dict.fromkeys(("_IN_CACHE", "_IN_MESSAGES"), 8 * size)
            with mock.patch.multiple(mean_gradients, **sizes), without_memory(rank):
                some.multi_node_mean_grad(model)
            assert way_of(some) == way
            assert_equal(model, expected)
            for array, param in zip(arrays, params_of(model), strict=True):
                assert array is param.grad  # hooks and users may hold it


def check_dtypes_are_mixed():
    model = model_of(dtypes=(np.float32, np.float16, np.float64))
    expected = means_of(model)
    assert len({mean.dtype for mean in expected}) == 3
    comm.multi_node_mean_grad(model)
    assert_equal(model, expected)
    for param in model.params():
        param.grad = np.full_like(param.array, 6e4)
    comm.multi_node_mean_grad(model)  # whose sum float16 does not hold
    assert all((param.grad == param.dtype.type(6e4)).all() for param in model.params())


def check_gradients_share_memory():
    """As those of a sum do, of which one may be a part of another."""
    for size in (1 << 18, 64):
        link = model_of(((4, 5), (20,), (7,), (1000,)))
        grad = np.array(link.p3.grad)
        link.p0.grad = grad[:20].reshape(4, 5)
        link.p1.grad, link.p2.grad, link.p3.grad = grad[:20], grad[3:10], grad
        model = chainer.Chain(a=link, b=chainer.Link())
        with model.b.init_scope():
            model.b.p3 = model.a.p3  # one parameter by two names
        expected = means_of(model)
        with mock.patch.object(mean_gradients, "_IN_CACHE", 8 * size):
            comm.split(0, comm.rank).multi_node_mean_grad(model)
        assert_equal(model, expected)


def check_steps_differ():
    for shapes in (SHAPES, SHAPES[:2], ((50,),), SHAPES[::-1]):
        model = model_of(shapes)
        expected = means_of(model)
        comm.multi_node_mean_grad(model)
        assert_equal(model, expected)
    comm.multi_node_mean_grad(chainer.Link())


def check_missing_gradients_count_as_zeros():
    model = model_of()
    with model.init_scope():
        model.uncalled = chainer.Parameter()  # of a layer that learns its input size
    own = model.p4.grad if comm.rank else np.zeros_like(model.p4.grad)
    expected = mean_of(everyone(own))
    if comm.rank == 0:
        model.p4.cleargrad()
    comm.multi_node_mean_grad(model, zero_fill=True)
    np.testing.assert_array_equal(model.p4.grad, expected)


def check_gradients_that_all_lack_are_left_out():
    model = model_of()
    expected = means_of(model)
    del expected[4]
    model.p4.cleargrad()
    comm.multi_node_mean_grad(model, zero_fill=False)
    assert model.p4.grad is None
    del model.p4
    assert_equal(model, expected)


def check_different_gradients_are_refused():
    for shapes, wrong in ((SHAPES[:-1], "p7"), ((*SHAPES[:-1], (11, 7)), "p7")):
        model = model_of(shapes if comm.rank == comm.size - 1 else SHAPES)
        try:
            comm.multi_node_mean_grad(model)
        except ValueError as e:
            kind = "missing" if len(shapes) < len(SHAPES) else "float32 (11, 7)"
            said = f"the gradient of /{wrong} is {kind} on rank {comm.size - 1} and"
            assert str(e).startswith(f"{said} float32 (7, 11) on rank 0"), e
        else:
            raise AssertionError("means of different parameters")


def check_gradients_of_different_parts_of_a_network_are_refused():
    """Though they are as many, of the same shapes."""
    model = model_of(((4, 5), (4, 5)))
    (model.p0 if comm.rank else model.p1).cleargrad()
    try:
        comm.multi_node_mean_grad(model)
    except ValueError as e:
        said = "the gradient of /p0 is missing on rank 1 and float32 (4, 5) on rank 0"
        assert str(e).startswith(said), e
    else:
        raise AssertionError("means of different parameters")


def check_gradients_with_gaps_and_of_others():
    """As of ``F.transpose(W)`` and ``F.sum(W)``; ChainerMN forgets their means."""
    for some in (comm, of_several_machines()):
        model = model_of(((4, 5), (4, 5), (6, 2)))
        model.p0.grad = np.asfortranarray(model.p0.grad)
        model.p1.grad = np.broadcast_to(model.p1.grad[0, 0], (4, 5))
        model.p2.grad = np.repeat(model.p2.grad, 2, axis=1)[:, ::2]
        expected = means_of(model)
        some.multi_node_mean_grad(model)
        for grad, mean in zip(grads_of(model), expected, strict=True):
            np.testing.assert_allclose(grad, mean, 1e-6)


def check_weights_with_gaps_are_those_of_rank_0():
    model = chainer.Link()
    with model.init_scope():
        model.W = chainer.Parameter(np.full((2, 3), comm.rank + 1.0, np.float32).T)
    comm.bcast_data(model)
    np.testing.assert_array_equal(model.W.array, np.ones((3, 2)))


def of_several_machines():
    some = comm.split(0, comm.rank)
    some._intra_size = 1
    return some


def check_others_exchange_as_before():
    """Between machines, and where one rank is set to Chainer's own code."""
    before = chainer_revive.state()["cpu"]
    comm.multi_node_mean_grad(model_of())  # has found its way
    for some, cpu in (
        (of_several_machines(), before),
        (comm.split(0, 0), "chainer"),
        (comm, "chainer"),
    ):
        model = model_of(((3, 4), (5,)))
        expected = means_of(model)
        if comm.rank == 1:
            chainer_revive.use(cpu=cpu)
        with mock.patch.object(
            some, "_multi_node_mean", side_effect=some._multi_node_mean
        ) as called:
            some.multi_node_mean_grad(model)
        chainer_revive.use(cpu=before)
        assert called.call_count == 2
        for grad, mean in zip(grads_of(model), expected, strict=True):
            np.testing.assert_allclose(grad, mean, 1e-6)


def check_what_is_no_number_is_no_number_on_all():
    for kind in (comm, of_several_machines()):
        for debug in (False, True):
            model = model_of(((3,), (4,)))
            if comm.rank == 1:
                model.p1.grad[2] = np.nan
            try:
                with chainer.using_config("debug", debug):
                    kind.multi_node_mean_grad(model)
            except ValueError as e:
                assert debug
                assert "diverged" in str(e)
            else:
                assert not debug
                assert list(np.isnan(model.p1.grad)) == [False, False, True, False]
            assert np.isfinite(model.p0.grad).all()


if __name__ == "__main__":
    chainermn.global_except_hook.add_hook()
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            if comm.rank == 0:
                print(name)
    sys.stdout.flush()
