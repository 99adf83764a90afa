import io
import pickle
import tarfile

import chainer
import numpy as np
import pytest
from chainer.dataset import concat_examples

from chainer_mmix import datasets
from chainer_mmix.datasets import cifar


@pytest.fixture
def root(tmp_path, publish):
    """``root(name, members)`` writes an archive and returns the folder for it."""

    def root(name, members):
        path = tmp_path / f"{name}-python.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            for member, content in members.items():
                data = pickle.dumps(content, protocol=2)
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        publish(cifar, "_CIFAR10" if name == "cifar-10" else "_CIFAR100", path)
        return tmp_path

    return root


def batch(n, seed, key, n_class, label=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_class, size=n) if label is None else np.full(n, label)
    return {
        "data": rng.integers(256, size=(n, 3072), dtype=np.uint8),
        key: labels.tolist(),
        "batch_label": "x",
    }


def cifar100(root, **options):
    parts = (
        batch(7, 0, "fine_labels", 100, **options),
        batch(3, 1, "fine_labels", 100),
    )
    names = ("cifar-100-python/train", "cifar-100-python/test")
    return root("cifar-100", dict(zip(names, parts, strict=True))), parts


def check(part, batches, key):
    images, labels = concat_examples(part[:])
    assert images.dtype == np.float32 and labels.dtype == np.int32
    rows = np.concatenate([batch["data"] for batch in batches])
    right = rows.reshape(-1, 3, 32, 32) / 255
    np.testing.assert_allclose(images, right, rtol=1e-6)
    assert labels.tolist() == [label for batch in batches for label in batch[key]]


def test_cifar100_reads_an_archive_of_its_format(root):
    folder, parts = cifar100(root)
    for part, content in zip(datasets.get_cifar100(folder), parts, strict=True):
        check(part, [content], "fine_labels")


def test_cifar10_reads_an_archive_of_its_format(root):
    batches = [batch(3, i, "labels", 10) for i in range(6)]
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    folder = "cifar-10-batches-py"
    members = {f"{folder}/{n}": b for n, b in zip(names, batches, strict=True)}
    train, test = datasets.get_cifar10(root("cifar-10", members))
    check(train, batches[:5], "labels")
    check(test, batches[5:], "labels")


def test_an_archive_that_is_not_as_published_is_named(root):
    folder, _ = cifar100(root)
    path = folder / "cifar-100-python.tar.gz"
    for content in (b"<html>404</html>", path.read_bytes()[:-10], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="remove it") as e:
            datasets.get_cifar100(folder)
        assert str(path) in str(e.value)


def test_labels_are_checked(root):
    folder, _ = cifar100(root, label=100)
    entry = datasets.find("cifar100", data_root=folder)
    with pytest.raises(
        ValueError, match="the training set of cifar100 has the label 100"
    ):
        datasets.load(entry, name="cifar100")


def test_images_are_float32_whatever_the_default_dtype(root):
    folder, _ = cifar100(root)
    with chainer.using_config("dtype", np.dtype("float16")):
        train, _ = datasets.get_cifar100(folder)
    assert train[0][0].dtype == np.float32
