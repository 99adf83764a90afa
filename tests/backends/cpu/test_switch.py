import pytest

QUESTION = """
from chainer.functions.connection.convolution_2d import Convolution2DFunction as C
print(C._forward_cpu_core.__code__.co_filename)
"""


@pytest.mark.parametrize("first", ["chainer", "chainer.links", "chainer_mmix.mixing"])
def test_fast_by_itself(python, first):
    assert "chainer_mmix" in python(f"import {first}{QUESTION}")


@pytest.mark.parametrize("first", ["chainer", "chainer_mmix.mixing"])
def test_switched_off(python, first):
    file = python(f"import {first}{QUESTION}", CHAINER_MMIX_CPU="0")
    assert file.endswith("chainer/functions/connection/convolution_2d.py\n")
