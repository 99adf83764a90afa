"""``python -m chainer_revive doctor``."""

from __future__ import annotations

import sys

from chainer_revive.gpu_check import doctor

if __name__ == "__main__":
    prog = "python -m chainer_revive doctor"
    if sys.argv[1:2] != ["doctor"]:
        sys.exit(f"usage: {prog} [--help]")
    sys.exit(doctor.main(sys.argv[2:], prog))
