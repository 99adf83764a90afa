import importlib.util
import re

import pytest
from chainer.backends import cuda

QUESTION = """
from chainer.functions.connection.convolution_2d import Convolution2DFunction as C
print(C.forward_gpu.__code__.co_filename)
from chainer_revive import cudnn
print(cudnn.describe())
"""
without_gpu = pytest.mark.skipif(cuda.available, reason="there is a GPU")
needs_packages = pytest.mark.skipif(
    not (importlib.util.find_spec("cudnn") and importlib.util.find_spec("cupy")),
    reason="needs CuPy and nvidia-cudnn-frontend",
)


@without_gpu
@pytest.mark.parametrize("asked", ["", "auto", "0"])
def test_off_without_a_gpu(python, asked):
    file, line = python(f"import chainer{QUESTION}", CHAINER_MMIX_CUDNN=asked).split(
        "\n", 1
    )
    assert file.endswith("chainer/functions/connection/convolution_2d.py")
    assert line.startswith("GPU: Chainer's own code, without cuDNN")


@without_gpu
def test_off_costs_no_import(python):
    question = """
import chainer, sys
names = "chainer_revive.cu", "chainer_revive.gpu"
print([m for m in sys.modules if m.startswith(names)])
"""
    assert python(question, CHAINER_MMIX_CUDNN="") == "[]\n"


@needs_packages
@pytest.mark.parametrize("first", ["chainer", "chainer_revive.cudnn"])
def test_on(python, first):
    file, line = python(f"import {first}{QUESTION}", CHAINER_MMIX_CUDNN="1").split(
        "\n", 1
    )
    assert "chainer_revive" in file
    expected = r"GPU: cuDNN 9\.\S+ through nvidia-cudnn-frontend 1\.\S+"
    assert re.fullmatch(expected, line.strip())


@needs_packages
def test_numpy_goes_its_way(python):
    code = """
    import numpy as np
    import chainer.functions as F
    import chainer.links as L
    x = np.ones((2, 3, 5, 5), "f")
    y = F.relu(L.BatchNormalization(4)(F.convolution_2d(x, np.ones((4, 3, 3, 3), "f"))))
    print((y + y).array.sum())
    """
    code = code.replace("\n    ", "\n")
    assert python(code, CHAINER_MMIX_CUDNN="1") == python(code)


def test_an_unknown_value(python):
    error = python("import chainer", CHAINER_MMIX_CUDNN="yes", fails=True)
    assert "CHAINER_MMIX_CUDNN=yes is unknown: set it to 0 for Chainer's own" in error


@pytest.mark.parametrize("missing", ["cudnn", "cupy"])
def test_a_missing_package(python, missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import chainer"
    error = python(code, CHAINER_MMIX_CUDNN="1", fails=True)
    assert "CHAINER_MMIX_CUDNN=1 needs CuPy, cuDNN 9 and its frontend" in error
    assert "Install 'chainer-mmix[cuda13]'" in error
