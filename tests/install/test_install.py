"""The three ways of the README to install this project, each in a fresh environment."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[2]
CHECK = """\
import multiprocessing
import sys

import chainer
import chainercv
import chainermn
import numpy as np

def child(queue):
    queue.put(str(chainer.functions.relu(np.ones(1, "f")).array))

if __name__ == "__main__":
    import chainer_mmix.models

    assert not {"tests", "models", "examples", "benchmarks"} & sys.modules.keys()
    assert not hasattr(np, "sctypes")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=100) == "[1.]"
    process.join()
    print("works")
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def index():
    """Skips these tests where packages cannot be downloaded."""
    url = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    try:
        urlopen(f"{url}/chainer/", timeout=20).close()
    except URLError as error:
        pytest.skip(f"the package index cannot be reached: {error}")


@pytest.fixture
def checkout(tmp_path):
    """A copy of the sources."""
    made = ".*", "__pycache__", "*.egg-info", "result", "build", "_build", "dist"
    ignore = shutil.ignore_patterns(*made)
    return Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignore))


def run_readme(first_line, checkout, bin):
    """Runs the commands of the README that begin with a line.

    Args:
        bin: A folder for the front of PATH, where python3 becomes this Python.
    """
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", readme, re.M | re.S)
    (block,) = [b for b in blocks if b.startswith(first_line)]
    (bin / "python3").unlink(missing_ok=True)
    (bin / "python3").symlink_to(sys.executable)
    path = f"{bin}{os.pathsep}{os.environ['PATH']}"
    run("bash", "-euc", block, cwd=checkout, PATH=path, UV_PYTHON=sys.executable)
    return checkout / ".venv" / "bin" / "python"


def run(*command, cwd, **environ):
    # Without what the make that runs these tests hands down to another make.
    ours = "PYTHON", "VENV", "MAKE", "MFLAGS"
    env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    process = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**env, **environ},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def new_environment(folder):
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def check(python, folder):
    (folder / "check.py").write_text(CHECK)
    assert run(python, "check.py", cwd=folder).endswith("works\n")


def installed_files(python, folder):
    listing = run(python, "-m", "pip", "show", "-f", "chainer-mmix", cwd=folder)
    site = Path(listing.partition("Location: ")[2].partition("\n")[0])
    return site, {line.strip() for line in listing.partition("Files:")[2].splitlines()}


def files_in(folder):
    """The names of the files that someone wrote, from the folder on."""
    paths = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    made = re.compile(r"(^|/)(__pycache__|\.venv|build|[^/]*\.egg-info)/")
    return {str(p) for p in paths if not made.search(str(p))}


def test_plain_pip(tmp_path, checkout):
    (tmp_path / "bin").mkdir()
    python = run_readme("python3 -m venv .venv\n", checkout, tmp_path / "bin")
    pip = [python, "-m", "pip", "install", "-q"]
    # Chainer does not need setuptools to run, though its metadata says so.
    run(python, "-m", "pip", "uninstall", "-q", "-y", "setuptools", cwd=checkout)
    check(python, tmp_path)

    site, files = installed_files(python, tmp_path)
    assert "chainer_revive.pth" in files
    top = {f.partition("/")[0] for f in files if f and not f.startswith("..")}
    assert {t for t in top if ".dist-info" not in t} == {
        "__pycache__",
        "chainer_mmix",
        "chainer_mmix_command.py",
        "chainer_revive",
        "chainer_revive.pth",
    }
    run(python, "-m", "pip", "uninstall", "-q", "-y", "chainer-mmix", cwd=tmp_path)
    assert not (site / "chainer_revive.pth").exists()

    # A wheel that is built from the source distribution is the same.
    run(*pip, "build", cwd=tmp_path)
    expected = files_in(checkout) - {"uv.lock"}
    run(python, "-m", "build", "-o", tmp_path / "dist", checkout, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(*pip, "--no-deps", wheel, cwd=tmp_path)
    assert installed_files(python, tmp_path)[1] == files
    check(python, tmp_path)

    # The command trains, and tells of compiling once only.
    away = tmp_path / "away"
    away.mkdir()
    command = python.with_name("chainer-mmix")
    words = ["train", "--model", "cnn", "--train-size", "100", "--epoch", "1", "--out"]
    told = [run(command, *words, out, cwd=away) for out in ("first", "second")]
    assert [text.count("compiling loops") for text in told] == [1, 0]
    assert {"log", "run.json", "loss.png"} <= files_in(away / "first")
    run(command, "compare", "first", "second", cwd=away)

    # The source distribution has all files of the checkout, and its tests run.
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        tar.extractall(tmp_path / "sdist", filter="data")
    (source,) = (tmp_path / "sdist").iterdir()
    made = {"PKG-INFO", "setup.cfg"}
    assert files_in(source) - made == expected
    run(*pip, "pytest", "pytest-timeout", "hypothesis", cwd=away)
    tests = "tests/test_docs.py", "tests/test_benchmarks.py", "tests/cli/test_main.py"
    run(python, "-m", "pytest", "-q", "-m", "not slow", *tests, cwd=source)


def test_make_venv(tmp_path, checkout):
    make = ["make", f"PYTHON={sys.executable}", "EXTRAS=dev", "venv"]
    run(*make, cwd=checkout)
    python = checkout / ".venv" / "bin" / "python"
    check(python, tmp_path)
    assert "Nothing to be done" in run(*make, cwd=checkout)
    assert "pip" not in run("make", "-n", "demo", cwd=checkout)
    assert f"venv --clear {python.parents[1].name}" in run(
        "make", "-n", "EXTRAS=docs", "venv", cwd=checkout
    )

    site, files = installed_files(python, tmp_path)
    assert "chainer_revive.pth" in files
    run(python, "-m", "pip", "uninstall", "-q", "-y", "chainer-mmix", cwd=tmp_path)
    assert not (site / "chainer_revive.pth").exists()


def test_uv(tmp_path, checkout):
    tools = new_environment(tmp_path / "tools")
    run(tools, "-m", "pip", "install", "-q", "uv", cwd=tmp_path)
    run(tools.parent / "uv", "sync", cwd=checkout, UV_PYTHON=sys.executable)
    check(checkout / ".venv" / "bin" / "python", tmp_path)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("no-such-python", "There is no no-such-python: choose a Python 3.10 to 3.13"),
        ("./old", "chainer-mmix needs Python 3.10 to 3.13 and ./old is Python 3.9.1"),
        ("./bare", "./bare has no venv or ensurepip: install them"),
    ],
)
def test_make_says_what_is_wrong_with_an_interpreter(checkout, python, message):
    # Fake interpreters: they answer make's questions by their exit status.
    scripts = {
        "old": 'case "$*" in -V) echo Python 3.9.1;; *version_info*) exit 1;; esac',
        "bare": 'case "$*" in *ensurepip*) exit 1;; esac',
    }
    for name, body in scripts.items():
        (checkout / name).write_text(f"#!/bin/sh\n{body}\n")
        (checkout / name).chmod(0o755)
    process = subprocess.run(
        ["make", f"PYTHON={python}", "venv"],
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    assert process.returncode != 0
    assert process.stderr.startswith(message)
    assert process.stderr.count("\n") == 2  # ours and make's own


def test_make_keeps_the_interpreter_of_the_environment(tmp_path, checkout):
    own = tmp_path / "venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.symlink_to(sys.executable)
    make = ["make", "-n", f"VENV={tmp_path / 'venv'}", "venv"]
    assert f"{own} -m venv" in run(*make, cwd=checkout)
    assert "elsewhere -m venv" in run(*make, "PYTHON=elsewhere", cwd=checkout)


def test_the_demo_installs_no_tools_of_developers(checkout):
    (install,) = re.findall(
        r"install --editable .*", run("make", "-n", "demo", cwd=checkout)
    )
    assert install == 'install --editable ".[fast]"'
