#!/usr/bin/env bash
# ChainerMN of Chainer 7.8.1: processes do not share the gradients of a depthwise
# convolution, and their weights drift apart.
#
# Guess: multi_node_mean_grad leaves the same mean in each process for every link. Seen:
# with the "naive" communicator, the only one on CPUs, a gradient that is not contiguous
# in C's order receives the sum in a copy that is thrown away. Each process then divides
# its own gradient by the number of processes and goes its own way. This meets
# DepthwiseConvolution2D with a channel_multiplier above 1, and a parameter that is used
# transposed (W.T). Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5 mpi4py==4.1.1 mpich==5.0.2
pip --no-build-isolation chainer==7.8.1
cat > "$work/run.py" <<'PYTHON'
import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np

communicator = chainermn.create_communicator("naive")
rng = np.random.default_rng(communicator.rank)
images = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
vectors = images[:, 0, 0]


class Transposed(chainer.Link):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.W = chainer.Parameter(np.ones((8, 5), np.float32))

    def forward(self, x):
        return F.linear(x, self.W.T)


def differences(link, x):
    """How far apart processes' mean gradients and, after updates, weights are."""
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.SGD(0.01), communicator
    ).setup(link)
    for _ in range(5):
        optimizer.update(lambda: F.mean(link(x) ** 2))
    pairs = [
        communicator.allgather(np.ascontiguousarray(array))
        for array in (link.W.grad, link.W.array)
    ]
    return [float(abs(a - b).max()) for a, b in pairs]


for name, link, x, shared in (
    ("Convolution2D", L.Convolution2D(3, 6, 3), images, True),
    ("DepthwiseConvolution2D, 1", L.DepthwiseConvolution2D(3, 1, 3), images, True),
    ("DepthwiseConvolution2D, 2", L.DepthwiseConvolution2D(3, 2, 3), images, False),
    ("Linear", L.Linear(8, 5), vectors, True),
    ("linear with W.T", Transposed(), vectors, False),
):
    gradients, weights = differences(link, x)
    if communicator.rank == 0:
        print(f"{name}: gradients differ by {gradients:.2g}, weights by {weights:.2g}")
    if shared:
        assert gradients == weights == 0
    else:
        assert gradients > 1e-3 and weights > 1e-4
PYTHON
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/mpiexec" -n 2 \
  "$work/venv/bin/python" -W ignore "$work/run.py"
