"""What is kept of compiled loops, and what is run of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("numba")

from chainer_revive.cpu.axis import Axis
from chainer_revive.cpu.numba import (
    batch_normalization,
    compile_all,
    cross_entropy,
    native,
    objects,
    pooling,
    products,
    store,
    symbols,
    threads,
)
from chainer_revive.cpu.numba.intrinsics import floats, unpack
from chainer_revive.cpu.numba.later import carray, types

pytestmark = pytest.mark.skipif(not store.SUPPORTED, reason="for Linux on x86-64")

ROOT = Path(__file__).parents[3]


class Values(NamedTuple):
    values: int
    size: int


def double(arguments, start, stop):
    a = unpack(arguments, Values)
    values = carray(floats(a.values), a.size)
    copy = np.empty(a.size, np.float32)
    copy[:] = values
    for i in range(start, stop):
        values[i] = 2 * copy[i]


def run(task, size=5):
    values = np.arange(size, dtype=np.float32)
    threads.run(task, size, size, Values(values, size))
    return values.tolist()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


def kept(folder):
    (path,) = folder.glob(f"chainer_revive-*/*{double.__name__}")
    return path


def is_found():
    """Tells whether the code is loaded; else it is compiled. Either must be right."""
    with mock.patch.object(
        native.Native, "_compile", autospec=True, side_effect=native.Native._compile
    ) as compile_:
        assert run(threads.Task(double)) == [0, 2, 4, 6, 8]
    return not compile_.called


def test_a_function_is_compiled_once(folder):
    assert not is_found()
    assert is_found()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:],
        lambda data: b"\0" * len(data),
        lambda data: data[32:],
    ],
)
def test_a_damaged_file_is_replaced(folder, damage):
    is_found()
    path = kept(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert not is_found()
    assert is_found()


def test_code_of_another_function_is_not_run(folder, monkeypatch):
    is_found()
    path = kept(folder)
    monkeypatch.setattr(double, "__name__", "other")
    path.rename(kept_as := path.with_name(path.name.replace("double", "other")))
    assert not is_found()
    assert kept_as.exists() and is_found()


def change_version(name):
    version = store.version

    def changed(package):
        return version(package) + (".1" if package == name else "")

    return mock.patch.object(store, "version", changed)


def add_feature():
    features = {**store.processor(), "flags": store.processor()["flags"] + " new"}
    return mock.patch.object(store, "processor", lambda: features)


@pytest.mark.parametrize(
    "change",
    [
        lambda: change_version("numba"),
        lambda: change_version("llvmlite"),
        lambda: mock.patch.object(np, "__version__", "9.9"),
        lambda: mock.patch.object(store, "sources", lambda: "others"),
        lambda: mock.patch.object(store, "_source", lambda path: b"another"),
        lambda: mock.patch.dict(os.environ, NUMBA_ENABLE_AVX="0"),
        add_feature,
    ],
)
def test_code_from_before_a_change_is_not_run(folder, change):
    is_found()
    with change():
        store._surroundings.cache_clear()
        found = is_found()
    store._surroundings.cache_clear()
    assert not found


def test_what_others_may_write_is_not_run(folder):
    is_found()
    path = kept(folder)
    assert path.stat().st_mode & 0o777 == 0o644
    for mode in (0o664, 0o646):
        path.chmod(mode)
        assert not is_found()
        assert path.stat().st_mode & 0o777 == 0o644  # it was replaced
    path.parent.chmod(0o777)
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR") as found:
        store._warn.cache_clear()
        assert not is_found()
    assert len(found) == 1
    path.parent.chmod(0o755)
    assert is_found()


def test_links_are_not_followed(folder):
    is_found()
    path = kept(folder)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    assert not is_found()
    assert not path.is_symlink()
    moved = folder / "moved"
    path.parent.rename(moved)
    path.parent.symlink_to(moved)
    assert not is_found()


def test_what_others_own_is_not_run():
    own = Path(store.__file__).stat()
    for owner in (0, os.geteuid(), own.st_uid):
        assert store._is_ours(SimpleNamespace(st_uid=owner, st_mode=0o100644))
    stranger = max(0, os.geteuid(), own.st_uid) + 1
    assert not store._is_ours(SimpleNamespace(st_uid=stranger, st_mode=0o100644))


def test_where_nothing_can_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    store._warn.cache_clear()
    with pytest.warns(UserWarning, match="set NUMBA_CACHE_DIR to one"):
        assert not is_found()


def test_an_installation_that_is_only_read(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(store, "_HERE", tmp_path)
    assert not is_found()
    shutil.rmtree(tmp_path / "__pycache__")
    (tmp_path / "__pycache__").touch()
    assert not is_found()
    assert is_found()
    assert len(list(tmp_path.glob("user/*/*"))) == 1


SCRIPT = """
import sys

import chainer
import numpy as np
from chainer_revive.cpu.numba import threads
from test_kept_loops_task import Values, double

values = np.arange(5, dtype=np.float32)
threads.run(double, 5, 5, Values(values))
print(*values, "numba" in sys.modules)
"""
TASK = """
from typing import NamedTuple

from chainer_revive.cpu.numba.intrinsics import floats, unpack
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task


class Values(NamedTuple):
    values: int


@Task
def double(arguments, start, stop):
    values = carray(floats(unpack(arguments, Values).values), stop)
    for i in range(start, stop):
        values[i] *= 2
"""


def test_two_processes_at_once(tmp_path):
    (tmp_path / "test_kept_loops_task.py").write_text(TASK)
    (tmp_path / "script.py").write_text(SCRIPT)
    cache = tmp_path / "cache"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": paths}

    def start():
        command = [sys.executable, tmp_path / "script.py"]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        )

    for imported in ("True", "False"):
        both = [start(), start()]
        for process in both:
            output, _ = process.communicate(timeout=200)
            assert output.split() == ["0.0", "2.0", "4.0", "6.0", "8.0", imported]
    assert cache.is_dir() and not list(cache.glob("**/.*"))


AT_THE_END = """
import chainer
import numpy as np
from chainer_revive.cpu.numba import elementwise, threads

threads.count = lambda: 3
threads._LOOKS = 1 << 40  # for work, which takes hours
x = np.ones(1 << 20, np.float32)
elementwise.relu(x, x)
"""


def test_threads_that_run_on_while_python_ends(python):
    python(AT_THE_END)


def ask_the_interpreter(arguments, start, stop):
    values = carray(floats(unpack(arguments, Values).values), stop)
    values[0] = _version()


_version = types.ExternalFunction("PyThread_get_thread_native_id", types.intp())


def test_what_cannot_be_loaded_is_left_to_numba(folder):
    for _ in range(2):
        task = threads.Task(ask_the_interpreter)
        assert run(task)[0] > 0
        assert not task.is_kept()
    assert list(folder.glob("**/*.nbc"))


@pytest.mark.parametrize(
    ("symbol", "there"),
    [("memset", True), ("no_such_symbol", False), ("PyList_New", False)],
)
def test_symbols(symbol, there):
    if there:
        assert symbols.find(symbol)
        return
    with pytest.raises(objects.UnsuitableError, match=symbol):
        symbols.find(symbol)


@pytest.mark.parametrize("code", [b"\x7fELF" + b"\0" * 60, b"MZ" + b"\0" * 62])
def test_other_files_are_no_code(code):
    with pytest.raises(objects.UnsuitableError, match="not ELF"):
        objects.load(code, symbols.find)


def use_much_memory(arguments, start, stop):
    a = unpack(arguments, Values)
    values = carray(floats(a.values), stop)
    for i in range(start, stop):
        much = np.ones(a.size, np.uint8)
        values[i] = much[i]


def test_memory_is_given_back_and_too_little_is_an_error(folder):
    def use(size, times):
        values = np.empty(times, np.float32)
        threads.run(task, times, times, Values(values, size))
        assert np.all(values == 1)

    def in_use():
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

    for _ in range(2):  # as it is compiled, and as it is loaded
        task = threads.Task(use_much_memory)
        use(1 << 20, 3)
        before = in_use()
        use(1 << 20, 1000)
        assert in_use() - before < 100 << 20
        with pytest.raises(MemoryError, match="compiled loops"):
            use(1 << 60, 1)
        use(1 << 10, 1)


LOOPS = [
    (cross_entropy._cross_entropy, lambda: cross_entropy_and_gradient()),
    (pooling._max_forward, lambda: pooled()),
    (batch_normalization._deviations, lambda: statistics()),
    (products.pack, lambda: packed()),
]


def cross_entropy_and_gradient():
    random = np.random.RandomState(0)
    x = random.standard_normal((7, 11)).astype("f")
    p, gradient, numbers = np.empty_like(x), np.empty_like(x), np.empty(2)
    labels, weights = random.randint(0, 11, (2, 7)), np.full((2, 7), 0.5)
    settings = -1, True, 0.1
    cross_entropy.cross_entropy(x, labels, weights, *settings, p, gradient, numbers)
    return [p, gradient, numbers]


def pooled():
    x = np.random.RandomState(1).standard_normal((2, 9, 9, 5)).astype("f")
    y, indexes = np.empty((2, 4, 4, 5), "f"), np.empty((2, 4, 4, 5), np.uint8)
    axis = Axis.of(9, 4, 3, 2, 1, 0)
    pooling.max_forward(x, y, indexes, (axis, axis))
    return [y, indexes]


def statistics():
    x = np.random.RandomState(2).standard_normal((301, 37)).astype("f")
    y = np.empty_like(x)
    one = np.ones(37, "f")
    return [y, *batch_normalization.forward(x, one, one, 1e-5, y)]


def packed():
    w = np.random.RandomState(3).standard_normal((3, 3, 5, 33)).astype("f")
    panels = np.empty((-(-33 // products.COLUMNS), 45, products.COLUMNS), "f")
    strides = [stride // 4 for stride in w.strides]
    n = len(panels)
    threads.run(products.pack, n, n, products.Pack(w, panels, *w.shape, *strides))
    return [panels]


@pytest.mark.parametrize(("loop", "compute"), LOOPS)
def test_the_same_to_the_bit_as_by_numba(loop, compute):
    loaded = loop.address
    results = compute()
    numbas = loop._compile(loop.function)
    assert numbas.address != loaded
    with mock.patch.object(loop, "address", numbas.address):
        for result, numba_s in zip(results, compute(), strict=True):
            assert result.tobytes() == numba_s.tobytes()


def test_all_loops_can_be_kept(capsys):
    compile_all.main([], "compile")
    package = "chainer_revive.cpu.numba."
    own = [n for n in native.natives if n.function.__module__.startswith(package)]
    assert len(own) > 20 and all(n.is_kept() for n in own)
    assert re.search(r"Compiled \d+ of \d+ loops in", capsys.readouterr().out)


def test_make_compiles_the_loops_of_every_module():
    makefile = (ROOT / "Makefile").read_text()
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "chainer_mmix").rglob("*.py")
        if "cpu.numba.threads import Task" in path.read_text()
    ]
    assert modules
    assert all(module in makefile for module in modules)
