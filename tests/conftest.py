import chainer_mmix  # noqa: F401, I001  (Chainer needs it imported first)

import os

import pytest
from chainer.backends import cuda
from hypothesis import settings

# The first call of a kernel or a plot is slow: hypothesis must not count it. In CI, a
# change is judged by the same examples each time.
settings.register_profile("chainer_mmix", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("chainer_mmix")


def pytest_collection_modifyitems(items):
    if cuda.available:
        return
    skip = pytest.mark.skip(reason="needs CuPy and a GPU")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
