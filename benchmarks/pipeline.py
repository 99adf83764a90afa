"""Images a second from a folder of photographs, beside PyTorch's DataLoader.

Both read JPEGs of 500x375 pixels in the same number of processes, crop and resize a
random part of each to 224x224, mirror half of them, normalise and batch them. What
PyTorch runs is written by hand on Pillow, as torchvision's transforms do it.

Processor time is that of all processes of each, which says more than images a second
where others use the machine, too.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import chainer
import numpy as np
from chainer.backend import CpuDevice
from chainer.dataset import get_dataset_root, set_dataset_root
from chainer.training.updaters import StandardUpdater
from PIL import Image, ImageOps

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.datasets import find, load_splits
from chainer_mmix.models import ResNet50
from chainer_mmix.training.trainer import iterate, keep_bytes

SIZE = 224
BATCHSIZE = 32
N_IMAGE = 512
N_AHEAD, N_BATCH = 8, 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "photographs")
        write_photographs(folder)
        candidates = {"chainer-mmix": ours(folder, workers)}
        if find_spec("torch"):
            candidates["PyTorch's DataLoader"] = theirs(folder, workers)
        found = measure(candidates, repeats=9)
        share = waiting_share(folder, workers)
    print(
        f"\nPictures of 500x375 to batches of {BATCHSIZE} of {SIZE}x{SIZE}, "
        f"{workers} workers"
    )
    first = next(iter(found.values()))
    for name, turns in found.items():
        speeds, times = zip(*turns, strict=True)
        low, median, high = statistics.quantiles(speeds, n=4)
        line = f"{median:.0f} images/s (quartiles {low:.0f} to {high:.0f})"
        if times[0]:
            line += f", {1e3 * statistics.median(times):.2f} ms of processor time each"
        if turns is not first:
            pairs = list(zip(first, turns, strict=True))
            ratio = statistics.median(a[0] / b[0] for a, b in pairs)
            line += f"; ratio {ratio:.2f}"
            if times[0]:
                saved = statistics.median(b[1] / a[1] for a, b in pairs)
                line += f", of processor time {saved:.2f}"
        print(f"  {name:<22} {line}")
    print(f"  a training step of ResNet50 waits for data {share:.2%} of its time")


def waiting_share(folder: Path, workers: int, n_step: int = 3) -> float:
    """Returns the share of their time that training steps wait for a batch."""
    photographs, convert = keep_bytes(load_photographs(folder))
    iterator = iterate(photographs, 8, workers)
    model = ManifoldMixupClassifier(ResNet50(2))
    optimizer = chainer.optimizers.Adam().setup(model)
    waited, next_batch = [], iterator.next

    def next_timed() -> list:
        start = time.perf_counter()
        batch = next_batch()
        waited.append(time.perf_counter() - start)
        return batch

    iterator.next = next_timed
    updater = StandardUpdater(iterator, optimizer, converter=convert)
    updater.update()
    start = time.perf_counter()
    for _ in range(n_step):
        updater.update()
    share = sum(waited[1:]) / (time.perf_counter() - start)
    iterator.finalize()
    return share


def measure(candidates: dict[str, Callable[[], object]], repeats: int) -> dict:
    """Measures images a second of functions that return the next batch, in turns.

    Both prefetch. What a turn of the one has prefetched while the other was measured
    is taken first, and so is what the other still prefetches meanwhile.

    Returns:
        dict: For each, pairs of images a second and seconds of processor time an image.
    """
    found: dict[str, list] = {name: [] for name in candidates}
    n = N_BATCH * BATCHSIZE
    for _ in range(repeats):
        for name, read in candidates.items():
            for _ in range(N_AHEAD):
                read()
            start, used = time.perf_counter(), processor_time()
            for _ in range(N_BATCH):
                read()
            seconds = time.perf_counter() - start
            found[name].append((n / seconds, (processor_time() - used) / n))
    return found


def processor_time() -> float:
    """Returns the seconds that this process and its children used; 0 if unknown."""
    if not Path("/proc/self/stat").exists():
        return 0.0
    total, me = 0, os.getpid()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if me in (int(path.parent.name), int(fields[1])):
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def write_photographs(folder: Path) -> None:
    """Writes parts of the two photographs that come with scikit-learn."""
    from sklearn.datasets import load_sample_images

    rng = random.Random(0)
    for label, photograph in enumerate(load_sample_images().images):
        image = Image.fromarray(photograph)
        (folder / str(label)).mkdir(parents=True)
        for i in range(N_IMAGE * 5 // 8):
            height = rng.uniform(0.8, 1) * image.height
            width = height * 4 / 3
            left = rng.uniform(0, image.width - width)
            top = rng.uniform(0, image.height - height)
            box = left, top, left + width, top + height
            part = image.resize((500, 375), Image.Resampling.BICUBIC, box)
            part.save(folder / str(label) / f"{i}.jpg", quality=90)


def load_photographs(folder: Path) -> Sequence:
    """Returns the training set of a folder, augmented."""
    cache = get_dataset_root()
    set_dataset_root(str(folder.parent))  # where it notes which files it has checked
    dataset = find(f"folder:{folder}", size=SIZE, validation_split=0.2)
    set_dataset_root(cache)
    train = load_splits(dataset, name="photographs", augment=True).train
    assert len(train) == N_IMAGE
    return train


def ours(folder: Path, workers: int) -> Callable[[], object]:
    """Reads as ``chainer-mmix train --workers`` does."""
    photographs, convert = keep_bytes(load_photographs(folder))
    iterator = iterate(photographs, BATCHSIZE, workers)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (MEAN, STD))

    def read() -> np.ndarray:
        x, _ = convert(iterator.next(), CpuDevice())
        x -= mean
        x /= std
        return x

    return read


def theirs(folder: Path, workers: int) -> Callable[[], object]:
    """Reads as torchvision's ImageFolder and transforms do."""
    import torch
    from torch.utils.data import DataLoader, Dataset, RandomSampler

    files = sorted(folder.glob("*/*.jpg"))
    files = random.Random(0).sample(files, N_IMAGE)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))

    class Photographs(Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, i):
            with open(files[i], "rb") as file:
                image = Image.open(file).convert("RGB")
            left, top, width, height = draw_box(*image.size)
            image = image.crop((left, top, left + width, top + height))
            image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            if torch.rand(1) < 0.5:
                image = ImageOps.mirror(image)
            x = torch.from_numpy(np.array(image, copy=True))
            x = x.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
            return x.sub_(mean).div_(std), int(files[i].parent.name)

    def draw_box(width, height):
        for _ in range(10):
            area = width * height * torch.empty(1).uniform_(0.08, 1).item()
            log_ratio = torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3))
            ratio = torch.exp(log_ratio).item()
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = torch.randint(0, height - h + 1, (1,)).item()
                left = torch.randint(0, width - w + 1, (1,)).item()
                return left, top, w, h
        return 0, 0, width, height

    # Without an end, as ours, so that no epoch waits for its first batch.
    order = RandomSampler(range(N_IMAGE), replacement=True, num_samples=10**9)
    loader = DataLoader(Photographs(), BATCHSIZE, sampler=order, num_workers=workers)
    return iter(loader).__next__


if __name__ == "__main__":
    main()
