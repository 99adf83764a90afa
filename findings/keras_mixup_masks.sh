#!/usr/bin/env bash
# Keras 3.15.1: MixUp does not mix a segmentation mask with its partner's mask.
#
# Guess: masks (N, H, W, 1) come back in their shape, mixed by the weights of the images;
# if masks were not supported, an error. Seen: the partner is taken from the flattened
# masks, so that each mask is mixed with N single pixels of the batch's first mask, and
# the result is (N, H, W, N). Nothing is said.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 torch==2.13.0 numpy==2.4.6
KERAS_BACKEND=torch "$work/venv/bin/python" - <<'PYTHON'
import keras
import numpy as np

n, size = 6, 4
values = np.arange(1, n + 1, dtype="float32")
images = np.broadcast_to(values[:, None, None, None], (n, size, size, 1))
batch = {"images": images, "segmentation_masks": images}  # equal, so mixed alike
out = keras.layers.MixUp(alpha=1.0, seed=1)(batch, training=True)
mixed = np.asarray(out["images"].cpu())
masks = np.asarray(out["segmentation_masks"].cpu())
print("images:", mixed.shape, "masks:", masks.shape)
assert mixed.shape == (n, size, size, 1)
assert masks.shape == (n, size, size, n)
partners = mixed[:, 0, 0, 0]
print("images mixed with their partners:", partners.round(3))
print("masks mixed with the first mask: ", masks[:, 0, 0, 0].round(3))
# A mixture with the first mask, whose pixels are 1, is never above the own value.
assert (masks <= images + 1e-6).all()
assert (partners > values + 0.01).any()
PYTHON
