import shutil
from pathlib import Path

import pytest

import chainer_revive

pytest.importorskip("numba")

CONVOLVE = """
import numpy as np
import chainer.functions as F
x, W = np.ones((2, 3, 5, 5), "f"), np.ones((4, 3, 3, 3), "f")
print(F.convolution_2d(x, W).array.max())
"""


@pytest.mark.slow
def test_loops_are_compiled_anew_when_what_they_call_changes(python, tmp_path):
    package = tmp_path / "chainer_revive"
    shutil.copytree(Path(chainer_revive.__file__).parent, package)
    environment = {
        "PYTHONPATH": str(tmp_path),
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "CHAINER_MMIX_CPU": "numba",
    }

    def kept():
        return sum(path.is_file() for path in (tmp_path / "cache").rglob("*"))

    assert float(python(CONVOLVE, **environment)) == 27
    first = kept()
    assert first > 0
    assert float(python(CONVOLVE, **environment)) == 27
    assert kept() == first
    intrinsics = package / "cpu/numba/intrinsics.py"
    code, sum_ = intrinsics.read_text(), "builder.fadd(first[v]"
    assert sum_ in code
    intrinsics.write_text(code.replace(sum_, "builder.fsub(first[v]"))
    assert float(python(CONVOLVE, **environment)) == -27
