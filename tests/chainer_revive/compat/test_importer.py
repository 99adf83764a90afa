import base64
import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
from pathlib import Path

import chainer
import pytest

from chainer_revive import compat
from chainer_revive.compat import importer, patches

ROOT = Path(__file__).parents[3]
START_UP = ROOT / "chainer_revive.pth"
# What an interpreter looks like whose site-packages lack the start-up file.
WITHOUT_START_UP = """\
import sys
sys.meta_path[:] = [
    f for f in sys.meta_path if getattr(f, "__name__", "") != "ChainerMmixHook"
]
"""


@pytest.mark.parametrize(
    "first", ["chainer", "chainer.functions", "chainermn", "chainercv", "chainer_mmix"]
)
def test_whatever_is_imported_first(python, first):
    code = f"import {first}, chainer, chainermn, chainercv, chainer_mmix.mixing"
    python(code, "-W", "error::SyntaxWarning")


def test_import_of_the_package_is_enough_without_the_start_up_file(python):
    python(f"{WITHOUT_START_UP}\nimport chainer_mmix, chainer, chainercv")


def test_without_any_hook_chainer_does_not_import(python):
    python(f"{WITHOUT_START_UP}\nimport chainer", fails=True)


def test_too_late_to_patch(monkeypatch):
    bare = [f for f in sys.meta_path if not importer._is_hook(f)]
    monkeypatch.setattr(sys, "meta_path", bare)
    with pytest.raises(ImportError, match="Import chainer_revive or chainer_mmix"):
        compat.install()
    assert sys.meta_path == bare


def test_one_hook_only(python):
    code = "import sys, chainer_mmix; print(sys.meta_path)"
    assert python(code).count("ChainerMmixHook") == 1


@pytest.mark.parametrize("first", ["", "import chainer_mmix"])
def test_switched_off(python, first):
    error = python(f"{first}\nimport chainer", fails=True, CHAINER_MMIX_COMPAT="0")
    assert "sctypes" in error or "numpy.distutils" in error


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_children_that_import_chainer_first(python, method):
    code = f"""\
import multiprocessing
import chainer.functions as F

def work(queue):
    queue.put(F.relu(-1.0 * chainer.as_variable(np.ones(1, "f"))).array[0])

import chainer
import numpy as np

if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    queue = context.Queue()
    child = context.Process(target=work, args=(queue,))
    child.start()
    print(queue.get(timeout=100))
    child.join()
"""
    assert python(code) == "0.0\n"


def test_the_start_up_file_imports_nothing(python):
    code = "import sys; print(*sorted(sys.modules))"
    assert python(code) == python(code, CHAINER_MMIX_COMPAT="0")
    assert "chainer_mmix" not in python(f"import json\n{code}").split()


def test_the_start_up_file_is_one_line_that_adds_one_finder(monkeypatch):
    bare = [f for f in sys.meta_path if not importer._is_hook(f)]
    line = START_UP.read_text()
    assert line.startswith("import ") and line.count("\n") == 1
    monkeypatch.setattr(sys, "meta_path", bare[:])
    for _ in range(2):  # some Pythons run it twice
        exec(line)
    assert importer._is_hook(sys.meta_path[0]) and sys.meta_path[1:] == bare


def test_chainers_files_are_as_installed():
    for name in ("chainer", "chainercv"):
        files = [
            f for f in importlib.metadata.files(name) if f.hash and f.suffix == ".py"
        ]
        assert len(files) > 100
        for file in files:
            digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
            digest = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            assert digest == file.hash.value, file


def test_numpy_is_untouched(python):
    python("""\
import types, sys
import numpy
before = dict(vars(numpy))
import chainer, chainermn, chainercv
for name, value in vars(numpy).items():
    # Importing a submodule makes it an attribute.
    assert before.get(name) is value or isinstance(value, types.ModuleType), name
assert not hasattr(numpy, "sctypes")
assert not {"pkg_resources", "distutils"} & sys.modules.keys()
""")


def source_of(name):
    # Nothing is imported: onnx_chainer's modules need ONNX.
    package, *rest = name.split(".")
    path = Path(importlib.util.find_spec(package).origin)
    if rest:
        path = path.parent.joinpath(*rest)
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text(encoding="utf-8")


def is_installed(name):
    return importlib.util.find_spec(name.partition(".")[0]) is not None


@pytest.mark.parametrize("name", filter(is_installed, patches.PATCHES))
def test_patches_match_and_keep_line_numbers(name):
    source = source_of(name)
    patched = importer.patched(name, source)
    assert patched != source
    assert patched.count("\n") == source.count("\n")


def test_tracebacks_and_inspect_show_the_installed_source():
    assert inspect.getsource(chainer.reporter) == source_of("chainer.reporter")
    first = chainer.reporter.Summary.add.__code__.co_firstlineno
    lines = source_of("chainer.reporter").splitlines()
    assert "def add(self, value, weight=1)" in lines[first - 1]


def test_another_chainer_is_named(python, tmp_path):
    package = tmp_path / "chainer"
    package.mkdir()
    (package / "__init__.py").write_text("import chainer.reporter\n")
    (package / "reporter.py").write_text("import numpy\n")
    error = python("import chainer.reporter", fails=True)
    assert "PatchMismatch: cannot patch chainer.reporter: expected" in error
    assert "1 time(s), found it 0 time(s)" in error
    assert "written for Chainer 7.8.1 and ChainerCV 0.13.1" in error
    assert "installed: Chainer 7.8.1, ChainerCV 0.13.1" in error


def test_a_separate_chainermn_is_named(python, tmp_path):
    """ChainerMN 1.3.1 overwrites files of Chainer 7.8.1."""
    for name in ("chainermn", "chainermn-1.3.1.dist-info"):
        (tmp_path / name).mkdir()
    metadata = "Metadata-Version: 2.1\nName: chainermn\nVersion: 1.3.1\n"
    (tmp_path / "chainermn-1.3.1.dist-info" / "METADATA").write_text(metadata)
    extensions = tmp_path / "chainermn" / "extensions"
    extensions.mkdir()
    for folder in (tmp_path / "chainermn", extensions):
        (folder / "__init__.py").touch()
    (extensions / "observation_aggregator.py").touch()
    error = python("import chainermn.extensions.observation_aggregator", fails=True)
    assert "PatchMismatch: cannot patch chainermn.extensions" in error
    assert "chainermn 1.3.1 is installed over the ChainerMN that belongs" in error
    assert "pip uninstall chainermn" in error


def test_a_package_around_chainer_is_named(python, tmp_path):
    (tmp_path / "chainerrl").mkdir()
    (tmp_path / "chainerrl" / "__init__.py").touch()
    (tmp_path / "chainerrl" / "recurrent.py").write_text("import typing\n")
    code = "import chainer_revive, chainerrl.recurrent"
    error = python(code, fails=True)
    assert "written for chainerrl 0.8.0; installed: no chainerrl" in error


def test_chainer_without_sources_is_refused(python, tmp_path):
    package = tmp_path / "chainer"
    package.mkdir()
    (package / "__init__.py").write_text("import chainer.reporter\n")
    python("import py_compile; open('r.py', 'w'); py_compile.compile('r.py', 'r.pyc')")
    (tmp_path / "r.pyc").rename(package / "reporter.pyc")
    error = python("import chainer.reporter", fails=True)
    assert "must be installed as a source file" in error


def written(folder):
    """The byte code files of Chainer's patched modules: in ours, in Chainer's."""
    files = {file.name.partition(".cpython")[0] for file in folder.rglob("*.pyc")}
    ours = {f.rpartition("-")[0] for f in files if f.startswith("chainer")} - {""}
    return ours, files


# These three import Chainer with no byte code at all, which takes seconds.
@pytest.mark.slow
def test_byte_code_is_kept_in_our_package(python, tmp_path):
    cache = tmp_path / "cache"
    python("import chainer", PYTHONPYCACHEPREFIX=str(cache))
    ours, files = written(cache)
    assert "chainer.reporter" in ours
    assert "function_hook" in files and "reporter" not in files

    # Warm: nothing is patched again.
    forbid = "from chainer_revive.compat import importer\nimporter.patched = None"
    python(f"{forbid}\nimport chainer", PYTHONPYCACHEPREFIX=str(cache))
    error = python(
        f"{forbid}\nimport chainer", "-B", fails=True, PYTHONPYCACHEPREFIX="x"
    )
    assert "'NoneType' object is not callable" in error


@pytest.mark.slow
def test_no_byte_code_when_python_is_told_so(python, tmp_path):
    cache = tmp_path / "cache"
    python("import chainer", "-B", PYTHONPYCACHEPREFIX=str(cache))
    assert not cache.exists()


@pytest.mark.slow
def test_byte_code_that_cannot_be_written_is_not_needed(python, tmp_path):
    cache = tmp_path / "cache"
    cache.write_text("a file, where a folder is needed")
    python("import chainer", PYTHONPYCACHEPREFIX=str(cache))


def test_another_patch_has_another_byte_code_file(monkeypatch):
    loader = importer.PatchingLoader("chainer.reporter", "reporter.py")
    before = loader.cached
    monkeypatch.setitem(patches.PATCHES, "chainer.reporter", (patches.Patch("a", "b"),))
    assert loader.cached != before
