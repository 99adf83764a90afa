#!/usr/bin/env bash
# Chainer 7.8.1: a snapshot of a MultiprocessIterator that does not shuffle fails.
#
# Guess: it is saved as a SerialIterator or MultithreadIterator that does not shuffle is,
# without an order. Seen: AttributeError, for it copies the order, which is None; so the
# first snapshot ends the training.
# Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5
pip --no-build-isolation chainer==7.8.1
cat > "$work/program.py" <<'PYTHON'
import chainer
from chainer import iterators


def save(name, shuffle):
    iterator = getattr(iterators, name)(range(6), 2, shuffle=shuffle)
    try:
        iterator.next()
        chainer.serializers.DictionarySerializer().save(iterator)
    except AttributeError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        iterator.finalize()
    return "saved"


if __name__ == "__main__":
    found = {}
    for name in ("SerialIterator", "MultithreadIterator", "MultiprocessIterator"):
        for shuffle in (True, False):
            found[name, shuffle] = save(name, shuffle)
            print(f"{name}(shuffle={shuffle}): {found[name, shuffle]}")
    error = found.pop(("MultiprocessIterator", False))
    assert error == "AttributeError: 'NoneType' object has no attribute 'copy'", error
    assert set(found.values()) == {"saved"}, found
PYTHON
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/python" -W ignore "$work/program.py"
