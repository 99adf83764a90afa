import numpy as np
import pytest

QUESTION = """
from chainer.functions.connection.convolution_2d import Convolution2DFunction as C
print(C._forward_cpu_core.__code__.co_filename)
"""


@pytest.mark.parametrize(
    "first",
    ["chainer", "chainer.links", "chainer_mmix.mixing", "chainer_revive.cpu"],
)
def test_fast_by_itself(python, first):
    assert "chainer_revive" in python(f"import {first}{QUESTION}")


@pytest.mark.parametrize("first", ["chainer", "chainer_mmix.mixing"])
def test_switched_off(python, first):
    file = python(f"import {first}{QUESTION}", CHAINER_MMIX_CPU="0")
    assert file.endswith("chainer/functions/connection/convolution_2d.py\n")


CONVOLVE = """
import numpy as np
import chainer.functions as F
x, W = np.ones((2, 3, 5, 5), "f"), np.ones((4, 3, 3, 3), "f")
print(F.convolution_2d(x, W).array.sum())
"""


@pytest.mark.parametrize("path", ["0", "numpy", "numba", ""])
def test_each_path(python, path):
    if path == "numba":
        pytest.importorskip("numba")
    question = "import sys, chainer_revive as r; print(r.state()['cpu'], *sys.modules)"
    result = python(f"{CONVOLVE}\n{question}", CHAINER_MMIX_CPU=path).split()
    assert float(result[0]) == 2 * 4 * 9 * 27
    if path:
        assert result[1] == ("chainer" if path == "0" else path)
    if path in ("0", "numpy"):
        assert "numba" not in result and "chainer_revive.cpu.numba" not in result


def test_an_unknown_path_is_refused(python):
    error = python("import chainer", fails=True, CHAINER_MMIX_CPU="nmupy")
    assert "CHAINER_MMIX_CPU=nmupy is unknown: set it to 0" in error


def test_a_numba_that_does_not_suit_this_numpy(python, tmp_path):
    message = "Numba needs NumPy 2.2 or less"
    (tmp_path / "numba.py").write_text(f"raise ImportError({message!r})\n")
    code = f"""
import contextlib, sys
with contextlib.redirect_stderr(sys.stdout):
    exec({CONVOLVE!r})
"""
    output = python(code, NUMBA_CACHE_DIR=str(tmp_path))  # none compiled before
    assert f"NumPy has to do: {message}. Install a Numba" in output
    assert output.rstrip().endswith(str(np.float32(2 * 4 * 9 * 27)))
