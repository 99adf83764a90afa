#!/usr/bin/env bash
# Chainer 7.8.1: snapshots that a queue writes are not limited by n_retains.
#
# Guess: snapshot(n_retains=1, writer=ThreadQueueWriter()) keeps the newest file, as it
# does with SimpleWriter and ThreadWriter. Seen: all five files stay, without a word; the
# disk of a long run fills up.
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
from chainer.training.extensions import snapshot_writers as writers


def kept(writer):
    """Returns the snapshots that are there after five epochs."""
    model = chainer.links.Classifier(chainer.links.Linear(2, 2))
    data = chainer.datasets.TupleDataset(np.ones((4, 2), "f"), np.zeros(4, "i"))
    iterator = chainer.iterators.SerialIterator(data, 4)
    optimizer = chainer.optimizers.SGD().setup(model)
    out = Path(sys.argv[1], type(writer).__name__)
    updater = updaters.StandardUpdater(iterator, optimizer)
    trainer = Trainer(updater, (5, "epoch"), str(out))
    trainer.extend(
        extensions.snapshot(n_retains=1, writer=writer), trigger=(1, "epoch")
    )
    trainer.run()
    return sorted(path.name for path in out.glob("snapshot_iter_*"))


found = {
    kind.__name__: kept(kind())
    for kind in (writers.SimpleWriter, writers.ThreadWriter, writers.ThreadQueueWriter)
}
for name, files in found.items():
    print(f"n_retains=1, {name}: {len(files)} of 5 snapshots are there: {files}")
assert found["SimpleWriter"] == ["snapshot_iter_5"]
assert len(found["ThreadQueueWriter"]) == 5
PYTHON
