import gzip
import hashlib
import struct

import numpy as np
import pytest
from chainer.dataset import download
from PIL import Image

from chainer_mmix.datasets.download import RemoteFile


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty dataset cache."""
    root = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(download, "_dataset_root", str(root))
    return root


@pytest.fixture
def draw_picture():
    """``draw_picture(path)`` saves a picture of random colours."""
    rng = np.random.default_rng(0)

    def draw(path, size=(8, 8)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    return draw


@pytest.fixture
def publish(monkeypatch):
    """``publish(module, name, *paths)`` has a module take these files for the right."""

    def publish(module, name, *paths):
        files = tuple(
            RemoteFile(
                f"http://127.0.0.1:9/{path.name}",
                (hashlib.sha256(path.read_bytes()).hexdigest(),),
            )
            for path in paths
        )
        is_many = isinstance(getattr(module, name), tuple) and not isinstance(
            getattr(module, name), RemoteFile
        )
        monkeypatch.setattr(module, name, files if is_many else files[0])

    return publish


@pytest.fixture
def write_idx():
    """``write_idx(path, array)`` writes MNIST's format."""

    def write_idx(path, array):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        path.write_bytes(gzip.compress(header + array.tobytes(), 1))
        return path

    return write_idx
