"""Augmentation of 128 images on a CPU: Pillow one by one, and NumPy at once."""

from __future__ import annotations

import chainer
import numpy as np
from chainer.datasets import TransformDataset
from paired import measure, report

from chainer_mmix.datasets import Augment
from chainer_mmix.training import DeviceBatches, convert_examples


def main() -> None:
    cpu = chainer.get_device("@numpy")
    for name, shape, augment in (
        ("digits", (1, 8, 8), Augment(padding=1)),
        ("MNIST", (1, 28, 28), Augment(padding=2)),
        ("CIFAR", (3, 32, 32), Augment(padding=4, flip=True)),
    ):
        images = np.random.RandomState(0).rand(128, *shape).astype(np.float32)
        examples = [(image, np.int32(0)) for image in images]
        dataset = TransformDataset(examples, augment)
        batches = DeviceBatches(dataset, cpu)
        candidates = {
            "Augment, one by one": lambda d=dataset: convert_examples(d[:], cpu),
            "DeviceBatches": lambda b=batches: b(b.indices),
        }
        report(f"Augmentation, {name}, input {images.shape}", measure(candidates, 15))


if __name__ == "__main__":
    main()
