"""A handful of Chainer's own examples; ``chainer_examples.py`` runs all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EXAMPLES = ["mnist, static graph", "dcgan", "wavenet"]


@pytest.fixture
def checkout(tmp_path):
    """That of CHAINER_CHECKOUT, else a new one."""
    if own := os.environ.get("CHAINER_CHECKOUT"):
        return own
    url = "https://github.com/chainer/chainer"
    clone = ["git", "clone", "--depth", "1", "--branch", "v7.8.1", url]
    done = subprocess.run([*clone, tmp_path / "chainer"], capture_output=True)
    if done.returncode:
        pytest.skip("Chainer's sources cannot be downloaded")
    return tmp_path / "chainer"


def test_losses_are_those_of_chainer(checkout):
    pytest.importorskip("numba")
    script = Path(__file__).with_name("chainer_examples.py")
    command = [sys.executable, script, "--rounds", "1", checkout, *EXAMPLES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ")[0][2:] for line in done.stdout.splitlines()[2:]]
    assert rows == EXAMPLES
