#!/usr/bin/env bash
# Hugging Face datasets 5.2.0: where one of an image folder's classes is called "train",
# "imagefolder" loads the images of that class alone, without labels.
#
# Guess: as each class has a folder at the top, there is one split with all images and
# the folders' names as labels, as torchvision's and Keras's readers see it. Seen: a
# folder whose name is a split's is taken as that split; all others are left out, and so
# is the column of labels. CIFAR-100, Pascal VOC and COCO have a class "train"; "test"
# does the same. Nothing is said.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 \
  "$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
from pathlib import Path

from datasets import load_dataset
from PIL import Image


def load(*classes):
    """How many images each split has, and the names of the classes."""
    folder = Path(sys.argv[1], "-".join(classes))
    for i, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for j in range(i + 2):
            Image.new("RGB", (8, 8), (50 * i, 50 * j, 0)).save(
                folder / name / f"{j}.png"
            )
    splits = load_dataset("imagefolder", data_dir=str(folder))
    sizes = {name: len(split) for name, split in splits.items()}
    (split,) = splits.values()
    label = split.features.get("label")
    print(f"{classes}: images {sizes}, classes {label and label.names}")
    return sizes, label and label.names


assert load("bicycle", "bus", "tram") == ({"train": 9}, ["bicycle", "bus", "tram"])
assert load("bicycle", "bus", "train") == ({"train": 4}, None)
assert load("control", "placebo", "test") == ({"test": 4}, None)
PYTHON
