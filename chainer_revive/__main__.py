"""``python -m chainer_revive doctor`` and ``compile``."""

from __future__ import annotations

import sys


def main() -> int | None:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    prog = f"python -m chainer_revive {command}"
    if command == "doctor":
        from chainer_revive.gpu_check import doctor

        return doctor.main(sys.argv[2:], prog)
    if command == "compile":
        from chainer_revive.cpu.numba import compile_all

        return compile_all.main(sys.argv[2:], prog)
    return sys.exit("usage: python -m chainer_revive {doctor,compile} [--help]")


if __name__ == "__main__":
    sys.exit(main())
