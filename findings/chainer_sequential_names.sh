#!/usr/bin/env bash
# Chainer 7.8.1: the children of a Sequential are not named by their positions.
#
# Guess: namedlinks calls the link at seq[i] "/i", as for a ChainList, so that "/1" of
# five layers is the second. Seen: the second is "/4" and the last is "/1"; of three, the
# second is "/2". A weight that is looked up by its name in a file, frozen or mixed is
# another layer's, and nothing is said if the shapes agree.
# Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5
pip --no-build-isolation chainer==7.8.1
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/python" -W ignore - <<'PYTHON'
import chainer
import chainer.links as L


def names(kind, n):
    """Returns the name of the link at each position."""
    layers = kind(*(L.Linear(2, 2) for _ in range(n)))
    named = {id(link): name for name, link in layers.namedlinks(skipself=True)}
    return [named[id(layers[i])] for i in range(n)]


for n in (3, 5):
    print(f"{n} layers in order: Sequential {names(chainer.Sequential, n)}")
    assert names(chainer.ChainList, n) == [f"/{i}" for i in range(n)]
assert names(chainer.Sequential, 3) == ["/0", "/2", "/1"]
assert names(chainer.Sequential, 5) == ["/0", "/4", "/3", "/2", "/1"]
PYTHON
