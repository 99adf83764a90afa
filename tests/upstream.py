"""Runs Chainer's, ChainerMN's or ChainerCV's own tests in this environment.

    python tests/upstream.py CHECKOUT [pytest arguments]
    python tests/upstream.py CHECKOUT --ranks N [pytest arguments]

CHECKOUT is a git checkout of Chainer (tag v7.8.1; half an hour; with
``tests/onnx_chainer_tests`` those of onnx_chainer) or of ChainerCV (tag v0.13.1;
minutes). With --ranks, ChainerMN's tests in Chainer's checkout are run by N
ranks (minutes; needs the extra mpi), but for those that download data or turn out to
need ChainerX. The tests are copied, and what they themselves lack for NumPy 2 and
today's pytest is replaced in the copy; needs the package ``mock``.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPLACEMENTS = {
    r"\b(np|numpy)\.(int|float|object|complex|str)\b": r"\2",
    r"\bpytest\.warns\(None\)": "__import__('warnings').catch_warnings()",
    r"\b(np|numpy)\.complex_\b": r"\1.complex128",
    r"\b(np|numpy)\.product\b": r"\1.prod",
    r"\b(np|numpy)\.NINF\b": r"-\1.inf",
    r"\b(np|numpy)\.(PINF|Inf)\b": r"\1.inf",
    r"def setup\(self\):": "def setup_method(self, *args):",
    r"self\.setup\(\)": "self.setup_method()",
    r"self\.dtype\(self\.pad\)": "numpy.array(self.pad).astype(self.dtype)",
    r"float\(scaling \*\* (.*)\)": r"float((scaling ** \1).item())",
    r"\[\[\[False(, False, True)?\], \[True, True\]\]\]": "[[True, True]]",
    r"loss_expect -= ([^\\\n]+)\n": r"loss_expect -= float(\1)\n",
}
SKIPPED = (
    "gpu or cudnn or multi_gpu or ideep or chainerx or theano or mpi or slow or disk "
    "or pfnci_skip"
)
# A rank whose test has failed ends the others, which wait for it.
IN_RANKS = """
import pytest

collect_ignore = ["datasets_tests/test_mnist.py"]


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if item.name != "test_multinode_autoload"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and "chainerx" in str(call.excinfo.value).lower():
        report.outcome = "skipped"
        report.longrepr = str(item.path), 0, "needs ChainerX"
    return report


def pytest_sessionfinish(session, exitstatus):
    if exitstatus:
        import mpi4py.MPI

        mpi4py.MPI.COMM_WORLD.Abort(1)
"""
IGNORED = [
    # MultiprocessIterator's prefetching thread, unpickled, races on NumPy 1 too.
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
    "ignore:It is deprecated to return a value:DeprecationWarning",
]


def main(checkout: str, *arguments: str) -> int:
    source = Path(checkout)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tests"
        shutil.copytree(source / "tests", copy)
        shutil.copy(source / "setup.cfg", folder)
        for file in copy.rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            for pattern, replacement in REPLACEMENTS.items():
                text = re.sub(pattern, replacement, text)
            file.write_text(text, encoding="utf-8")
        tests = copy / "chainer_tests"
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short"]
        if arguments[:1] == ("--ranks",):
            _, n, *arguments = arguments
            mpiexec = Path(sys.executable).with_name("mpiexec")
            command = [str(mpiexec), "-prepend-rank", "-n", n, *command, "-x"]
            tests = copy / "chainermn_tests"
            (tests / "conftest.py").write_text(IN_RANKS)
        command += ["-p", "no:cacheprovider", "-m", f"not ({SKIPPED})"]
        command += [option for warning in IGNORED for option in ("-W", warning)]
        command += arguments or [str(tests if tests.exists() else copy)]
        environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=folder, env=environment).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
