#!/usr/bin/env bash
# Keras 3.15.1: CutMix(factor=1.0) does not draw lambda from Beta(1, 1), and its labels
# are not weighted by the share of the image that is left.
#
# Guess: factor is the alpha of the paper, so that the share of the box is uniform; the
# labels get the share after rounding and clipping, as in the paper's code. Seen: each
# batch draws an alpha of its own, uniform between 0 and factor, so lambda is nearer to
# 0 and 1 (variance ln(3)/8 = 0.137 in place of 1/12); the labels get the area of a box with
# fractional corners, which differs from the pixels by up to a row and a column.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 torch==2.13.0 numpy==2.4.6
KERAS_BACKEND=torch "$work/venv/bin/python" - <<'PYTHON'
import keras
import numpy as np

n, size = 64, 32
numbers = np.arange(n)
images = np.broadcast_to(
    numbers[:, None, None, None].astype("float32"), (n, size, size, 1)
)
cutmix = keras.layers.CutMix(factor=1.0, seed=1)
weights, shares, spread = [], [], []
for _ in range(300):
    out = cutmix(
        {"images": images, "labels": np.eye(n, dtype="float32")}, training=True
    )
    mixed = np.asarray(out["images"].cpu())[..., 0]
    weight = np.asarray(out["labels"].cpu())[numbers, numbers]
    share = (mixed == numbers[:, None, None]).mean(axis=(1, 2))
    changed = share < 1  # others may have met themselves
    weights += list(weight[changed])
    shares += list(share[changed])
    spread.append(weight[changed].var())
weights, shares = np.array(weights), np.array(shares)
gap = abs(weights - shares)
print(f"variance of lambda: {weights.var():.3f}; of Beta(1, 1): {1 / 12:.3f}")
print(f"its lowest and highest in a batch: {min(spread):.3f}, {max(spread):.3f}")
print(f"label's weight less share of pixels: up to {gap.max():.4f}")
assert 0.11 < weights.var() < 0.19
assert max(spread) > 1.5 * min(spread)
assert 1.5 / size < gap.max() < 2 / size
PYTHON
