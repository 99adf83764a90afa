#!/usr/bin/env bash
# ChainerMN of Chainer 7.8.1: a multi-node evaluator averages over processes, not over
# examples.
#
# Guess: as parts of a data set may differ in size, each process counts by its examples,
# and n processes report the accuracy that one process reports. Seen: the mean of the
# processes' means. Three examples of which the last is wrong have accuracy 2/3; two
# processes with 2 and 1 of them report 1/2. With the default of scatter_dataset, which
# repeats examples until parts are equal, they report 3/4, as the repeated one counts
# twice. Needs Python 3.10 or 3.11, for NumPy 1.23.
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
from chainer.iterators import SerialIterator
from chainer.training.extensions import Evaluator

communicator = chainermn.create_communicator("naive")


class Logits(chainer.Chain):
    def forward(self, x):
        return F.identity(x)


model = L.Classifier(Logits())
eye = np.eye(2, dtype=np.float32)
examples = [(eye[0], 0), (eye[1], 1), (eye[1], 0)]  # the last one is wrong


def accuracy(force_equal_length):
    own = chainermn.scatter_dataset(
        examples if communicator.rank == 0 else None,
        communicator,
        force_equal_length=force_equal_length,
    )
    iterator = SerialIterator(own, 1, repeat=False, shuffle=False)
    evaluator = chainermn.create_multi_node_evaluator(
        Evaluator(iterator, model), communicator
    )
    result = evaluator()
    return len(own), result.get("main/accuracy")


alone = Evaluator(SerialIterator(examples, 1, repeat=False, shuffle=False), model)
assert np.isclose(alone()["main/accuracy"], 2 / 3)
for force_equal_length in (False, True):
    n, found = accuracy(force_equal_length)
    parts = communicator.gather_obj(n)
    if communicator.rank == 0:
        print("examples a process:", parts, "accuracy: %.3f" % found)
        assert parts == ([2, 2] if force_equal_length else [2, 1])
        assert np.isclose(found, 3 / 4 if force_equal_length else 1 / 2)
PYTHON
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/mpiexec" -n 2 \
  "$work/venv/bin/python" -W ignore "$work/run.py"
