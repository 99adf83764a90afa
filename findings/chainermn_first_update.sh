#!/usr/bin/env bash
# ChainerMN of Chainer 7.8.1: the first update of a multi-node optimizer trains nothing,
# after a resume neither.
#
# Guess: weights are made equal when the optimizer is made or set up, and each update is
# a step. Seen: the first update computes the gradients, makes the weights equal in place
# of a step, and throws the gradients away; the second is step 1. A new optimizer around
# a trained model does so again, so that each resume loses a minibatch and the resumed
# run is not the unbroken one. Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5 mpi4py==4.1.1 mpich==5.0.2
pip --no-build-isolation chainer==7.8.1
cat > "$work/run.py" <<'PYTHON'
import chainer
import chainer.links as L
import chainermn
import numpy as np

communicator = chainermn.create_communicator("naive")
x = np.ones((4, 3), np.float32)
t = np.zeros(4, np.int32)
model = L.Classifier(L.Linear(3, 2))


def updates(n):
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.SGD(0.1), communicator
    ).setup(model)
    moved = []
    for _ in range(n):
        before = model.predictor.W.array.copy()
        optimizer.update(model, x, t)
        moved.append(bool((model.predictor.W.array != before).any()))
    return moved, optimizer.t


first, t_first = updates(3)
again, t_again = updates(3)
if communicator.rank == 0:
    print("weights moved by updates 1 to 3:", first, "steps counted:", t_first)
    print("by a new optimizer's, as after a resume:", again, "counted:", t_again)
    assert first[1:] == again[1:] == [True, True]
    assert not again[0] and t_first == t_again == 2
PYTHON
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/mpiexec" -n 2 \
  "$work/venv/bin/python" -W ignore "$work/run.py"
