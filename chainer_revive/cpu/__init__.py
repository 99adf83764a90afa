"""Chainer's own functions, made fast on a CPU.

Once Chainer is loaded, methods of its functions are replaced by ones that compute the
same from fewer passes over memory (docs/cpu.md). For each function there is a file in
``adapters``, which meets Chainer, and one of the same name in ``numpy``, ``numba`` or
both, which computes. ``linear`` computes by the loops of ``convolution``; of Chainer's
own Python, ``function_node``, ``backprop`` and ``all_parameters`` leave out what NumPy
arrays do not need. What they do to numbers are ``steps``, which ``graphs`` can record
and do again.
"""

import chainer  # noqa: F401  (Chainer comes first)
