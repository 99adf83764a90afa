#!/usr/bin/env bash
# Keras 3.15.1: ImageDataGenerator's height_shift_range moves images sideways, and
# width_shift_range moves them up and down.
#
# Guess: as named and documented, height_shift_range moves along the first axis of an
# image (H, W, C), width_shift_range along the second. Seen: the axes are exchanged. A
# script that allows one direction only gets the other; nothing is said.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  keras==3.15.1 torch==2.13.0 numpy==2.4.6 scipy==1.17.1
KERAS_BACKEND=torch "$work/venv/bin/python" - <<'PYTHON'
import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator

image = np.zeros((15, 15, 1), "float32")
image[7, 7] = 1


def moved(**shift):
    generator = ImageDataGenerator(
        **shift, fill_mode="constant", data_format="channels_last"
    )
    changed = generator.random_transform(image, seed=0)[..., 0]
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    return abs(row - 7), abs(column - 7)


height = moved(height_shift_range=[3, 3])
width = moved(width_shift_range=[3, 3])
print("height_shift_range of 3: rows", height[0], "columns", height[1])
print("width_shift_range of 3: rows", width[0], "columns", width[1])
assert height == (0, 3)
assert width == (3, 0)
PYTHON
