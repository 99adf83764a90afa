import gzip
import hashlib
import io
import pickle
import tarfile
from urllib.error import URLError

import chainer
import numpy as np
import pytest
from chainer.dataset import concat_examples, download

from chainer_mmix import datasets

URL = "https://www.cs.toronto.edu/~kriz/{}-python.tar.gz"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty dataset cache on a machine without a network."""

    def urlretrieve(url, path):
        raise URLError("no route to host")

    monkeypatch.setattr(download.request, "urlretrieve", urlretrieve)
    monkeypatch.setattr(download, "_dataset_root", str(tmp_path))
    return tmp_path


def archive_path(root, name):
    (root / "_dl_cache").mkdir(exist_ok=True)
    url = URL.format(name)
    return root / "_dl_cache" / hashlib.md5(url.encode()).hexdigest()


def write_archive(root, name, members):
    with tarfile.open(archive_path(root, name), "w:gz", compresslevel=1) as archive:
        for member, content in members.items():
            data = pickle.dumps(content)
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def cifar100(n, seed, label=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(100, size=n) if label is None else np.full(n, label)
    return {
        "data": rng.integers(256, size=(n, 3072), dtype=np.uint8),
        "fine_labels": labels.tolist(),
        "coarse_labels": [0] * n,
    }


def test_cifar100_reads_an_archive_of_its_format(root):
    parts = {"train": cifar100(7, 0), "test": cifar100(3, 1)}
    write_archive(
        root, "cifar-100", {f"cifar-100-python/{k}": v for k, v in parts.items()}
    )
    loaded = datasets.get_cifar100()
    again = datasets.get_cifar100()  # from the cache that Chainer makes
    for part, same, content in zip(loaded, again, parts.values(), strict=True):
        images, labels = concat_examples(part[:])
        assert images.dtype == np.float32
        expected = content["data"].reshape(-1, 3, 32, 32) / 255
        np.testing.assert_allclose(images, expected, rtol=1e-6)
        assert labels.tolist() == content["fine_labels"]
        np.testing.assert_array_equal(concat_examples(same[:])[0], images)


@pytest.mark.slow
def test_cifar10_reads_an_archive_of_its_format(root):
    # Chainer takes no fewer than 10000 images a batch, so they are of one colour.
    def batch(i):
        labels = (np.arange(10000) + i) % 10
        data = np.repeat(labels.astype(np.uint8), 3072).reshape(-1, 3072)
        return {"data": data, "labels": labels.tolist()}

    members = {f"cifar-10-batches-py/data_batch_{i}": batch(i) for i in range(1, 6)}
    members["cifar-10-batches-py/test_batch"] = batch(0)
    write_archive(root, "cifar-10", members)
    train, test = datasets.get_cifar10()
    assert (len(train), len(test)) == (50000, 10000)
    for part, index, label in ((train, 0, 1), (train, 49999, 4), (test, 13, 3)):
        image, found = part[index]
        assert found == label
        assert image.shape == (3, 32, 32)
        np.testing.assert_allclose(image, label / 255, rtol=1e-6)


@pytest.mark.parametrize(
    "name, loader",
    [("cifar-10", datasets.get_cifar10), ("cifar-100", datasets.get_cifar100)],
)
def test_without_network_the_error_says_where_to_put_the_archive(root, name, loader):
    with pytest.raises(OSError) as e:
        loader()
    assert "\n" not in str(e.value)
    for part in (name.upper(), URL.format(name), "CHAINER_DATASET_ROOT"):
        assert part in str(e.value)
    assert str(archive_path(root, name)) in str(e.value)


@pytest.mark.parametrize("content", [b"<html>404</html>", gzip.compress(b"x"), b""])
def test_a_damaged_archive_is_named(root, content):
    archive_path(root, "cifar-100").write_bytes(content)
    with pytest.raises(ValueError, match="is not CIFAR-100") as e:
        datasets.get_cifar100()
    assert str(archive_path(root, "cifar-100")) in str(e.value)


def test_an_archive_that_is_cut_off_is_named(root):
    parts = {"cifar-100-python/train": cifar100(50, 0)}
    parts["cifar-100-python/test"] = cifar100(50, 1)
    write_archive(root, "cifar-100", parts)
    path = archive_path(root, "cifar-100")
    path.write_bytes(path.read_bytes()[:-100000])
    with pytest.raises(ValueError, match="remove it"):
        datasets.get_cifar100()


def test_a_damaged_cache_is_named(root):
    path = root / "pfnet" / "chainer" / "cifar" / "cifar-100.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match="is not CIFAR-100") as e:
        datasets.get_cifar100()
    assert str(path) in str(e.value)


def test_labels_are_checked(root):
    parts = {"train": cifar100(4, 0, label=100), "test": cifar100(3, 1)}
    write_archive(
        root, "cifar-100", {f"cifar-100-python/{k}": v for k, v in parts.items()}
    )
    with pytest.raises(
        ValueError, match="the training set of cifar100 has the label 100"
    ):
        datasets.load(datasets.DATASETS["cifar100"], name="cifar100")


def test_images_are_float32_whatever_the_default_dtype(root):
    parts = {"train": cifar100(4, 0), "test": cifar100(3, 1)}
    write_archive(
        root, "cifar-100", {f"cifar-100-python/{k}": v for k, v in parts.items()}
    )
    with chainer.using_config("dtype", np.dtype("float16")):
        train, _ = datasets.get_cifar100()
    assert train[0][0].dtype == np.float32
