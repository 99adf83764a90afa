#!/usr/bin/env bash
# Numba 0.68.1: a tuple of starred parts, given to one name in two branches, is not
# compiled.
#
# Guess: (*a, *b) is a sum of tuples wherever a + b would be one; when it failed once on
# Python 3.11, that this is a matter of the byte code of 3.11. Seen, on 3.11, 3.12 and
# 3.13 alike: where the control flow parts between two such assignments to the same
# name, the compiler ends with an AssertionError that has no message. Both in a row, or a
# second name, or a + b instead, compile.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numba==0.68.1 numpy==2.4.6
cat > "$work/run.py" <<'PYTHON'
import numba


def one_name(flag, a, b):
    if flag:
        c = (*a, *b)
    else:
        c = (*b, *a)
    return c[0]


def two_names(flag, a, b):
    if flag:
        c = (*a, *b)
        return c[0]
    d = (*b, *a)
    return d[0]


def in_a_row(flag, a, b):
    c = (*b, *a)
    c = (*a, *b)
    return c[0]


def sums(flag, a, b):
    if flag:
        c = a + b
    else:
        c = b + a
    return c[0]


for function in (one_name, two_names, in_a_row, sums):
    assert function(True, (1, 2), (3, 4)) == 1
    try:
        found = numba.njit(function)(True, (1, 2), (3, 4))
    except AssertionError as error:
        found = f"AssertionError({str(error)!r})"
    print(f"{function.__name__:9} {found}")
    assert found == ("AssertionError('')" if function is one_name else 1)
PYTHON
"$work/venv/bin/python" "$work/run.py"
