import numpy as np
import pytest
from chainer.dataset import download
from PIL import Image

from chainer_mmix import datasets
from chainer_mmix.cli import train

QUICK = ["--model", "cnn", "--batchsize", "16", "--quiet", "--lr", "0.01"]


def train_run(out, *options):
    assert train.main([*QUICK, "--out", str(out), *map(str, options)]) == 0
    return out


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run on digits whose best epoch is not its last one."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    # After the first epoch, lambda is 1, the highest, and of equals the first counts.
    options = ["--train-size", 100, "--mixup-off-epoch", 1, "--keep-best", "main/lam"]
    return train_run(out, "--epoch", 3, *options)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Pictures of two classes, of many kinds: those that are mostly red or blue."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.RandomState(0)
    for label, name in enumerate(["blue", "red"]):
        (root / name).mkdir()
        for i in range(12):
            height, width = rng.randint(20, 70, 2)
            array = rng.randint(0, 90, (height, width, 3)).astype(np.uint8)
            array[..., 2 - 2 * label] += 150
            image = Image.fromarray(array)
            if i == 3:  # turned by its tag
                exif = image.getexif()
                exif[274] = 6
                image.save(root / name / f"{i}.jpg", exif=exif)
            elif i == 4:
                image.convert("CMYK").save(root / name / f"{i}.jpg")
            elif i == 5:
                image.putalpha(180)
                image.save(root / name / f"{i}.png")
            else:
                image.save(root / name / f"{i}.{'jpg' if i % 2 else 'png'}")
    return root


@pytest.fixture(scope="session")
def folder_run(tmp_path_factory, pictures):
    out = tmp_path_factory.mktemp("runs") / "folder"
    options = ["--dataset", f"folder:{pictures}", "--size", 16, "--epoch", 3]
    options += ["--validation-split", 0.4, "--batchsize", 4]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "_dataset_root", str(tmp_path_factory.mktemp("cache")))
        return train_run(out, *options)


@pytest.fixture(scope="session")
def npz_run(tmp_path_factory):
    """A run on 64 grey images of bytes in an npz file."""
    folder = tmp_path_factory.mktemp("npz")
    (train_set, test) = datasets.get_digits()
    arrays = {}
    for suffix, part in (("", train_set), ("_test", test)):
        x, t = zip(*part[:200], strict=True)
        arrays |= {f"x{suffix}": np.rint(255 * np.stack(x)[:, 0]).astype(np.uint8)}
        arrays |= {f"t{suffix}": np.stack(t)}
    np.savez(folder / "data.npz", **arrays)
    options = ["--dataset", f"npz:{folder / 'data.npz'}", "--epoch", 2]
    return train_run(folder / "run", *options)
