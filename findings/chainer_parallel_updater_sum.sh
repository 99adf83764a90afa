#!/usr/bin/env bash
# Chainer 7.8.1: with n devices, ParallelUpdater makes steps n times as long.
#
# Guess: as each minibatch is split among the devices, n devices make the step that one
# device makes of the whole minibatch; ChainerMN does so too. Seen: each device's loss is
# a mean over its own part, and the gradients are added, not averaged. With plain SGD the
# learning rate is in effect n times the given one; with Adam hardly anything is seen, so
# that a comparison of optimizers is off as well. The docstring does not say so. Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5
pip --no-build-isolation chainer==7.8.1
cat > "$work/run.py" <<'PYTHON'
import chainer
import chainer.links as L
import numpy as np
from chainer.iterators import SerialIterator
from chainer.training.updaters import ParallelUpdater, StandardUpdater

rng = np.random.default_rng(0)
examples = [
    (rng.normal(size=4).astype(np.float32), np.int32(i % 3)) for i in range(12)
]


def step(optimizer, n_devices):
    """The change of the weights by one update on all examples."""
    weights = np.zeros((3, 4), np.float32)
    model = L.Classifier(L.Linear(4, 3, initialW=weights))
    optimizer.setup(model)
    iterator = SerialIterator(examples, 12, shuffle=False)
    if n_devices == 1:
        updater = StandardUpdater(iterator, optimizer)
    else:
        names = ["main", "second", "third"][:n_devices]
        updater = ParallelUpdater(  # -1 is the CPU; GPUs go the same way
            iterator, optimizer, devices=dict.fromkeys(names, -1)
        )
    updater.update()
    return model.predictor.W.array - weights


for make in (chainer.optimizers.SGD, chainer.optimizers.Adam):
    alone = step(make(), 1)
    for n in (2, 3):
        ratio = np.linalg.norm(step(make(), n)) / np.linalg.norm(alone)
        print(f"{make.__name__}, {n} devices: a step of {ratio:.4f} times one device's")
        assert abs(ratio - (n if make is chainer.optimizers.SGD else 1)) < 1e-3
    if make is chainer.optimizers.SGD:
        np.testing.assert_allclose(step(make(), 3), 3 * alone, rtol=1e-4)
PYTHON
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/python" -W ignore "$work/run.py"
