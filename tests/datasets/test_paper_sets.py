"""The real formats: small files written as the publishers write them."""

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from chainer.dataset import concat_examples
from PIL import Image
from scipy.io import savemat

from chainer_mmix import datasets
from chainer_mmix.datasets import emnist, fashion_mnist, stl10, svhn, tiny_imagenet
from chainer_mmix.datasets.idx import read_idx

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def check(part, images, labels):
    x, t = concat_examples(part[:])
    assert x.dtype == np.float32 and t.dtype == np.int32
    assert x.flags.c_contiguous
    np.testing.assert_allclose(x, images / 255, rtol=1e-6)
    assert t.tolist() == list(labels)


def test_fashion_mnist(tmp_path, publish, write_idx):
    x, t = pixels(8, 28, 28), RNG.integers(0, 10, 8, dtype=np.uint8)
    rows = {"train": slice(5), "t10k": slice(5, 8)}
    paths = [
        write_idx(tmp_path / f"{part}-{what}-ubyte.gz", array[rows[part]])
        for part in rows
        for what, array in (("images-idx3", x), ("labels-idx1", t))
    ]
    publish(fashion_mnist, "_FILES", *paths)
    for part, some in zip(
        datasets.get_fashion_mnist(tmp_path), rows.values(), strict=True
    ):
        check(part, x[some, None], t[some])


def test_an_installed_fashion_mnist_needs_no_download(tmp_path, monkeypatch, write_idx):
    monkeypatch.setattr(fashion_mnist, "_INSTALLED", tmp_path)
    for part, n in (("train", 5), ("t10k", 3)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", pixels(n, 28, 28))
        write_idx(
            tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(n, dtype=np.uint8)
        )
    assert [len(part) for part in datasets.get_fashion_mnist()] == [5, 3]
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.arange(4, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"3 images and 4 labels: .* belong together"):
        datasets.get_fashion_mnist()


@pytest.mark.slow
@pytest.mark.skipif(
    not fashion_mnist._INSTALLED.is_dir(), reason="dataset-fashion-mnist not installed"
)
def test_the_real_fashion_mnist():
    # With data_root, checksums are looked at.
    for root in (None, fashion_mnist._INSTALLED.parent):
        train, test = datasets.get_fashion_mnist(root)
        images, labels = concat_examples(train[:])
        assert images.shape == (60000, 1, 28, 28) and len(test) == 10000
        # As widely published, for normalisation.
        assert abs(images.mean(dtype=np.float64) - 0.2860) < 1e-4
        assert abs(images.std(dtype=np.float64) - 0.3530) < 1e-4
        assert np.bincount(labels).tolist() == [6000] * 10
        assert labels[:5].tolist() == [9, 0, 0, 3, 0]  # an ankle boot, ...
    names = datasets.DATASETS["fashion-mnist"].class_names
    assert (names[9], names[0]) == ("Ankle boot", "T-shirt/top")


@pytest.mark.parametrize("split, first", [("balanced", 0), ("letters", 1)])
def test_emnist(tmp_path, publish, write_idx, split, first):
    upright = {"train": pixels(6, 28, 28), "test": pixels(4, 28, 28)}
    path = tmp_path / "gzip.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part, x in upright.items():
            # EMNIST's files have each picture on its side and mirrored.
            t = np.arange(first, first + len(x), dtype=np.uint8)
            for what, array in (
                ("images-idx3", x.transpose(0, 2, 1)),
                ("labels-idx1", t),
            ):
                name = f"emnist-{split}-{part}-{what}-ubyte.gz"
                archive.write(write_idx(tmp_path / name, array), f"gzip/{name}")
    publish(emnist, "_FILE", path)
    loaded = datasets.get_emnist(split, data_root=tmp_path)
    for part, x in zip(loaded, upright.values(), strict=True):
        check(part, x[:, None], range(len(x)))
    with pytest.raises(ValueError, match="no split 'x': there are balanced, byclass"):
        datasets.get_emnist("x")


def test_svhn(tmp_path, publish):
    parts = {
        name: (pixels(n, 3, 32, 32), np.array(digits))
        for name, n, digits in (("train", 4, [1, 0, 9, 0]), ("test", 2, [5, 0]))
    }
    paths = []
    for name, (x, t) in parts.items():
        paths.append(tmp_path / f"{name}_32x32.mat")
        y = np.where(t == 0, 10, t).astype(np.uint8)[:, None]
        savemat(paths[-1], {"X": x.transpose(2, 3, 1, 0), "y": y}, do_compression=True)
    publish(svhn, "_FILES", *paths)
    for part, (x, t) in zip(datasets.get_svhn(tmp_path), parts.values(), strict=True):
        check(part, x, t)


@pytest.fixture
def stl10_parts(tmp_path, publish):
    parts = {
        "train": (pixels(3, 3, 96, 96), [0, 9, 4]),
        "test": (pixels(1, 3, 96, 96), [2]),
    }
    path = tmp_path / "stl10_binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, (x, t) in parts.items():
            columns = x.transpose(0, 1, 3, 2).tobytes()  # column after column
            labels = (np.array(t, np.uint8) + 1).tobytes()
            for what, data in (("X", columns), ("y", labels)):
                info = tarfile.TarInfo(f"stl10_binary/{name}_{what}.bin")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    publish(stl10, "_FILE", path)
    return parts


def test_stl10(tmp_path, stl10_parts):
    for _ in range(2):  # the second time, what has been unpacked
        loaded = datasets.get_stl10(tmp_path)
        for part, (x, t) in zip(loaded, stl10_parts.values(), strict=True):
            check(part, x, t)
        (tmp_path / "stl10_binary.tar.gz").unlink(missing_ok=True)
    for root in (tmp_path, tmp_path / "stl10_binary"):
        assert len(datasets.get_stl10(root)[0]) == 3


def test_a_cut_stl10_is_named(tmp_path, stl10_parts):
    datasets.get_stl10(tmp_path)
    path = tmp_path / "stl10_binary" / "train_X.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"82943 bytes, not the 82944 of 3 images"
    ) as e:
        datasets.get_stl10(tmp_path)
    assert str(path) in str(e.value)


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def tiny(tmp_path, publish):
    path = tmp_path / "tiny-imagenet-200.zip"
    ids = ["n02", "n01", "n10"]  # the file is not sorted
    with zipfile.ZipFile(path, "w") as archive:

        def add(name, data):
            archive.writestr(f"tiny-imagenet-200/{name}", data)

        add("wnids.txt", "\n".join(ids) + "\n")
        add(
            "words.txt", "n01\tgoldfish, Carassius auratus\nn02\ttoad\nn10\tcar, auto\n"
        )
        for wnid in ids:
            add(f"train/{wnid}/{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
            for i in range(3):
                grey = i == 1  # some are
                value = int(wnid[1:]) * 10
                image = np.full((64, 64) if grey else (64, 64, 3), value, np.uint8)
                add(f"train/{wnid}/images/{wnid}_{i}.JPEG", jpeg(image))
        lines = ""
        for i, wnid in enumerate(["n10", "n01", "n02", "n10"]):
            value = int(wnid[1:]) * 10 + 5
            add(f"val/images/val_{i}.JPEG", jpeg(np.full((64, 64), value, np.uint8)))
            lines += f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n"
        add("val/val_annotations.txt", lines)
        add("test/images/test_0.JPEG", b"")
    publish(tiny_imagenet, "_FILE", path)
    return tmp_path


def test_tiny_imagenet(tiny):
    for _ in range(2):
        entry = datasets.find("tiny-imagenet", data_root=tiny)._replace(n_class=3)
        splits = datasets.load_splits(entry, name="tiny-imagenet")
        assert splits.held_out_name == "test"
        assert splits.class_names == ("goldfish", "toad", "car")
        train, test = (concat_examples(part[:]) for part in (splits.train, splits.test))
        assert train[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert test[1].tolist() == [2, 0, 1, 2]
        for (x, t), offset in ((train, 0), (test, 5)):
            assert x.shape[1:] == (3, 64, 64) and x.dtype == np.float32
            values = np.array([10, 20, 100])[t] + offset
            right = np.broadcast_to(values[:, None, None, None], x.shape) / 255
            np.testing.assert_allclose(x, right, atol=1.01 / 255)
        (tiny / "tiny-imagenet-200.zip").unlink(missing_ok=True)
    assert not (tiny / "tiny-imagenet-200" / "test").exists()


def test_tiny_imagenet_without_pictures_is_named(tiny):
    datasets.get_tiny_imagenet(tiny)
    for path in (tiny / "tiny-imagenet-200" / "train").glob("*/images/*"):
        path.unlink()
    with pytest.raises(ValueError, match="train has no pictures: remove"):
        datasets.get_tiny_imagenet(tiny)


@pytest.mark.parametrize(
    "content",
    [
        b"<html>404</html>",
        b"",
        gzip.compress(b"<html>404</html>"),
        gzip.compress(b""),
        gzip.compress(b"\0\0\x08\1\0\0"),
        gzip.compress(b"\0\0\x08\1\0\0\0\3ab"),
        gzip.compress(b"\0\0\x08\1\0\0\0\3abcd"),
        gzip.compress(b"\0\0\x0d\1\0\0\0\1abcd"),
        gzip.compress(os.urandom(1000))[:-8],
        gzip.compress(b"\0\0\x08\1\0\0\0\3abc")[:-1] + b"x",
    ],
)
def test_an_idx_file_that_is_not_right_is_named(tmp_path, content):
    path = Path(tmp_path) / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cut short") as e:
        read_idx(path)
    assert str(path) in str(e.value) and "\n" not in str(e.value)
