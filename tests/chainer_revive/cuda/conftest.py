import pytest
from numpy_launcher import NumpyLauncher

from chainer_revive.cuda import current


@pytest.fixture
def numpy_launcher():
    return NumpyLauncher()


@pytest.fixture
def launcher(numpy_launcher):
    """Optimizers work through a NumpyLauncher, which is returned."""
    current.use(numpy_launcher)
    yield numpy_launcher
    current.use(None)
