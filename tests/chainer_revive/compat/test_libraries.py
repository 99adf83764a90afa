"""CUDA's libraries out of wheels, before CuPy looks for them."""

import os
import sys
from pathlib import Path

import pytest

import chainer_revive
from chainer_revive.compat import libraries

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="wheels for Linux")
without_own_wheels = pytest.mark.skipif(
    libraries._folder() is not None, reason="the extra cuda12 is installed"
)

WHERE = """
import multiprocessing
from chainer_revive.compat import libraries

def where():
    try:
        import FIRST
    except ImportError:
        pass
    with open("/proc/self/maps") as maps:
        return {line.split()[-1] for line in maps if "libcudnn.so.8" in line}

if __name__ == "__main__":
    before = "cudnn" in open("/proc/self/maps").read()
    found = []
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            found.append(pool.apply(where))
    found.append(where())
    print(libraries.found())
    print(before, *found, sep="\\n")
"""


@pytest.fixture
def wheels(tmp_path, compile_library):
    """A folder with a package ``nvidia`` that holds a cuDNN, and nothing else."""
    library = tmp_path / "site" / "nvidia" / "cudnn" / "lib" / "libcudnn.so.8"
    library.parent.mkdir(parents=True)
    source = tmp_path / "empty.c"
    source.write_text("int nothing;\n")
    compile_library(library, source)
    return tmp_path / "site"


def run(python, folder, first, start=""):
    path = f"{folder}{os.pathsep}{Path(chainer_revive.__file__).parent.parent}"
    code = f"import chainer_revive\n{start}{WHERE.replace('FIRST', first)}"
    return python(code, PYTHONPATH=path).splitlines()


@without_own_wheels
@pytest.mark.parametrize("first", ["cupy", "chainer"])
def test_they_are_loaded_in_every_process(python, wheels, first):
    line, before, *found = run(python, wheels, first)
    assert f"1 of the wheels in {wheels}/nvidia" in line
    assert "libnvrtc.so.12: cannot open" in line  # what is not there is said
    assert before == "False"
    assert found == [str({f"{wheels}/nvidia/cudnn/lib/libcudnn.so.8"})] * 3


@without_own_wheels
def test_another_cudnn_that_is_loaded_stays(python, wheels, tmp_path):
    other = tmp_path / "libcudnn.so.8"
    other.write_bytes((wheels / "nvidia/cudnn/lib/libcudnn.so.8").read_bytes())
    load = f"import ctypes; ctypes.CDLL({str(other)!r})\n"
    line, *found = run(python, wheels, "cupy", load)
    assert line == "CUDA's libraries: cuDNN 8 was loaded before"
    assert found == ["True", *[str({str(other)})] * 3]


@without_own_wheels
def test_nothing_without_wheels(python, tmp_path):
    line, *found = run(python, tmp_path, "cupy")
    assert line == "CUDA's libraries: where CuPy finds them"
    assert found == ["False", "set()", "set()", "set()"]


def test_chainer_has_cudnn_8_by_itself(python, driver):
    cupy = pytest.importorskip("cupy")
    if cupy.__version__ >= "14":
        pytest.skip("for CuPy 13")
    code = """
import warnings
warnings.simplefilter("error", UserWarning)
from chainer.backends import cuda
print(cuda.available, cuda.cudnn_enabled, cuda.cuda.cudnn.getVersion())
"""
    assert python(code, LD_LIBRARY_PATH=str(driver)) == "True True 8907\n"
