#!/usr/bin/env bash
# torch 2.13.0: torch.compile's cache on disk does not know for which vector instructions
# it has compiled. It needs a processor with AVX-512.
#
# Guess: ATEN_CPU_CAPABILITY, which says what instructions are used, belongs to the key
# of the cache, as other settings do. Seen: a process that is told to use AVX2 takes what
# another one compiled for AVX-512, and the other way round. Who compares instructions by
# that variable measures those of the first run, and some gradients are then wrong
# numbers. With another TORCHINDUCTOR_CACHE_DIR for each, all is well.
set -euo pipefail
grep -qm1 avx512f /proc/cpuinfo || { echo "This processor has no AVX-512"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$work/run.py" <<'PYTHON'
import sys

import torch
from torch._dynamo.utils import counters
from torch._inductor.cpu_vec_isa import pick_vec_isa

torch.compile(lambda x: (2 * x + 1).relu())(torch.ones(64))
hits = counters["inductor"]["fxgraph_cache_hit"]
print(f"{pick_vec_isa()}: {'taken from the cache' if hits else 'compiled'}")
sys.exit(bool(hits) != (sys.argv[1] == "again"))
PYTHON
for order in "avx512 avx2" "avx2 avx512"; do
    export TORCHINDUCTOR_CACHE_DIR="$work/${order// /-}"
    when=first
    for capability in $order; do
        ATEN_CPU_CAPABILITY=$capability "$work/venv/bin/python" "$work/run.py" $when
        when=again
    done
done
