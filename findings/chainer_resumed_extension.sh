#!/usr/bin/env bash
# Chainer 7.8.1: what follows a snapshot in its iteration runs with later weights.
#
# Guess: a run that is resumed from the snapshot of epoch 1 does not write model_1 again,
# or writes what the uninterrupted run wrote, by the snapshot_object that comes after the
# snapshot in each epoch. Seen: it writes model_1 after the next iteration, with the
# weights of that one. Nothing is said.
# Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5
pip --no-build-isolation chainer==7.8.1
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/python" -W ignore - "$work" <<'PYTHON'
import sys
from pathlib import Path

import chainer
import numpy as np
from chainer.training import Trainer, extensions, updaters


def run(name, epochs, snapshot=None):
    """Trains two iterations an epoch; returns a weight of each saved model."""
    np.random.seed(0)
    model = chainer.links.Classifier(chainer.links.Linear(2, 2))
    x = np.arange(8, dtype="f").reshape(4, 2)
    data = chainer.datasets.TupleDataset(x, np.array([0, 1, 0, 1], "i"))
    iterator = chainer.iterators.SerialIterator(data, 2, shuffle=False)
    optimizer = chainer.optimizers.SGD().setup(model)
    updater = updaters.StandardUpdater(iterator, optimizer)
    out = Path(sys.argv[1], name)
    trainer = Trainer(updater, (epochs, "epoch"), str(out))
    trainer.extend(extensions.snapshot(), trigger=(1, "epoch"))
    trainer.extend(
        extensions.snapshot_object(model, "model_{.updater.epoch}"),
        trigger=(1, "epoch"),
    )
    if snapshot:
        chainer.serializers.load_npz(snapshot, trainer)
    trainer.run()
    found = {}
    for path in sorted(out.glob("model_*")):
        with np.load(path) as arrays:
            found[path.name] = float(arrays["predictor/W"][0, 0])
    return found


whole = run("whole", 2)
resumed = run("resumed", 2, Path(sys.argv[1], "whole", "snapshot_iter_2"))
print(f"whole run:   {whole}")
print(f"resumed run: {resumed}")
assert resumed["model_2"] == whole["model_2"]
assert resumed["model_1"] != whole["model_1"]
PYTHON
