#!/usr/bin/env bash
# Chainer 7.8.1: softmax_cross_entropy takes class_weight and normalize=False with soft
# targets and ignores them.
#
# Guess: both act as documented, whatever the targets, so that a soft target that is
# one-hot has the loss of its label, and a mixed one lam * loss(a) + (1 - lam) * loss(b).
# Seen: so it is without options. With class_weight the loss and its gradient stay
# unweighted; with normalize=False, on maps, the loss is still divided by all positions.
# A training on rare classes that turns to mixed labels loses its weights, and nothing
# is said. Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5
pip --no-build-isolation chainer==7.8.1
cat > "$work/run.py" <<'PYTHON'
import chainer
import chainer.functions as F
import numpy as np

rng = np.random.default_rng(0)
scores = rng.normal(size=(4, 3, 2, 5)).astype(np.float32)  # maps of 2 x 5 positions
a, b = rng.integers(0, 3, (2, 4, 2, 5)).astype(np.int32)
lam = np.float32(0.7)
eye = np.eye(3, dtype=np.float32)
mixed = (lam * eye[a] + (1 - lam) * eye[b]).transpose(0, 3, 1, 2)


def both(**options):
    """Losses and gradients by labels, and by the same labels as soft targets."""
    x, y = chainer.Variable(scores), chainer.Variable(scores)
    hard = lam * F.softmax_cross_entropy(x, a, **options)
    hard += (1 - lam) * F.softmax_cross_entropy(x, b, **options)
    soft = F.softmax_cross_entropy(y, mixed, **options)
    hard.backward()
    soft.backward()
    return float(hard.array), float(soft.array), x.grad, y.grad


plain = both()
weighted = both(class_weight=np.array([1, 2, 8], np.float32))
unnormalized = both(normalize=False)
for name, (hard, soft, *_) in (
    ("no options", plain),
    ("class_weight", weighted),
    ("normalize=False", unnormalized),
):
    print(f"{name}: {hard:.4f} by labels, {soft:.4f} by soft targets")
np.testing.assert_allclose(plain[0], plain[1], rtol=1e-5)
np.testing.assert_allclose(plain[2], plain[3], atol=1e-6)
np.testing.assert_allclose(unnormalized[0], 10 * plain[0], rtol=1e-5)
assert weighted[0] > 1.5 * plain[0]
for ignored in (weighted, unnormalized):
    assert ignored[1] == plain[1]
    assert np.array_equal(ignored[3], plain[3])
PYTHON
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/python" -W ignore "$work/run.py"
