import numpy as np
import pytest
from chainer.dataset import download
from PIL import Image


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
