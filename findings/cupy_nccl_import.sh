#!/usr/bin/env bash
# CuPy 13.6.0 and 14.2.0: `from cupy.cuda import nccl` succeeds where NCCL is missing.
#
# Guess: ImportError, as "try: from cupy.cuda import nccl, except ImportError" in
# Chainer's MultiprocessParallelUpdater and in ChainerMN takes for granted. Seen: the
# wheels bring a module without NcclCommunicator and get_version, whose `available` is
# False. Who only imports it believes to have NCCL, and fails at the first use.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cat > "$work/run.py" <<'PYTHON'
import warnings

warnings.simplefilter("ignore")
import cupy
from cupy.cuda import nccl

names = [n for n in ("NcclCommunicator", "get_version") if hasattr(nccl, n)]
print(f"CuPy {cupy.__version__}: available {nccl.available}, of two names: {names}")
assert nccl.available is False and names == []
PYTHON
for package in cupy-cuda12x==13.6.0 cupy-cuda13x==14.2.0; do
    "$work/venv/bin/pip" uninstall --quiet --yes cupy-cuda12x 2> /dev/null
    "$work/venv/bin/pip" install --quiet "$package" numpy==2.4.6
    "$work/venv/bin/python" "$work/run.py"
done
