from pathlib import Path

import pytest

pytest.importorskip("numba")

CHECKS = Path(__file__).with_name("update_checks.py")


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_step_by_the_mean_of_gradients(n, in_ranks):
    done = in_ranks(n, "-W", "error", CHECKS)
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = CHECKS.read_text().count("def check_")
    assert done.stdout.count("check_") == wanted > 0
