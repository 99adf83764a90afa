"""Hidden states of networks that know nothing of mixing, and how they are mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import chainer
import numpy as np

from chainer_mmix.links.graph import is_array, leaves
from chainer_mmix.mixing.batch import mixup_data
from chainer_mmix.mixing.draw import current_mixture
from chainer_mmix.mixing.targets import RowsError


def take_target(args: Sequence, kwargs: dict | None = None) -> tuple[list, object]:
    """Splits the arguments of a mixing call: the target follows the inputs.

    Raises:
        TypeError: If no input or no target is there.
    """
    if not args or len(args) + len(kwargs or ()) < 2:
        raise TypeError(
            "to mix, call it as (x, target, mixup_hidden=True, lam=...): the target is "
            "missing"
        )
    *inputs, target = args
    return inputs, target


class Mixing:
    """One mixing, of the output of a link or of the inputs."""

    def __init__(self, name: str, target, lam) -> None:
        self.name = name
        self.target = target
        self.lam = lam
        self.n_calls = 0

    def call(self, forward: Callable, *args, **kwargs):
        """Mixes what a link's forward returns, if this is the first call."""
        self.n_calls += 1
        h = forward(*args, **kwargs)
        if self.n_calls > 1:
            return h
        parts = parts_of(h)
        check_parts(parts, len(self.target), f"the output of {self.name!r}")
        self.mixed = self._mix(parts)
        self.has_graph = chainer.config.enable_backprop
        return of_parts(h, self.mixed)

    def mix_inputs(self, args: Sequence, kwargs: dict) -> tuple[list, dict]:
        """Mixes all arrays among the arguments.

        The network gets arrays where it was given arrays, as in evaluation.
        """
        values = {**dict(enumerate(args)), **kwargs}
        arrays = data_of(values, len(self.target))
        is_variable = {k: isinstance(x, chainer.Variable) for k, x in arrays.items()}
        with chainer.using_config("enable_backprop", any(is_variable.values())):
            mixed = self._mix(tuple(arrays.values()))
        if mixture := current_mixture():
            mixture.may_be_cut = True  # the whole network has seen it
        for (k, keep), h in zip(is_variable.items(), mixed, strict=True):
            values[k] = chainer.as_variable(h) if keep else chainer.as_array(h)
        return [values.pop(k) for k in range(len(args))], values

    def leave_unmixed(self) -> None:
        """Pairs each sample with itself."""
        n = len(self.target)
        mixture = current_mixture()
        draw = mixture.draw if mixture else None
        if mixture and draw:
            # Pasting would want a map.
            mixture.draw = dataclasses.replace(draw, center=None)
        with chainer.no_backprop_mode():
            x, alone = np.zeros((n, 1), np.float32), np.arange(n)
            _, *self.targets = mixup_data(x, self.target, self.lam, alone)
        if mixture and draw:
            mixture.draw = dataclasses.replace(draw, lam=1.0)

    def _mix(self, parts: tuple) -> tuple:
        # Not a tuple of one, since pasting takes a single map only.
        h = parts if len(parts) > 1 else parts[0]
        mixed, *self.targets = mixup_data(h, self.target, self.lam)
        return mixed if len(parts) > 1 else (mixed,)


def parts_of(h) -> tuple:
    """Returns the parts of a state, which are mixed alike."""
    if isinstance(h, dict):
        return tuple(h.values())
    return tuple(h) if isinstance(h, (tuple, list)) else (h,)


def of_parts(h, parts: tuple):
    """Returns a state like ``h`` of other parts."""
    if isinstance(h, dict):
        return dict(zip(h, parts, strict=True))
    if isinstance(h, tuple) and hasattr(h, "_make"):
        return h._make(parts)  # a namedtuple
    return type(h)(parts) if isinstance(h, (tuple, list)) else parts[0]


def check_parts(parts: tuple, n: int, what: str) -> None:
    """Raises an error if a state of several parts cannot be mixed."""
    if not all(map(is_array, parts)) or not parts:
        kinds = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise TypeError(
            f"{what} cannot be mixed, since it is not an array with one row a sample, "
            f"nor a tuple, list or dict of these, but has {kinds}: choose another "
            "mixing point"
        )
    for part in parts:
        if part.dtype.kind != "f":
            raise TypeError(
                f"{what} has dtype {part.dtype}, which cannot be mixed: choose a link "
                "behind it, such as the embedding of token ids, or convert it to float"
            )
        if part.shape[:1] != (n,):
            raise RowsError(
                f"{what} has shape {part.shape}, but there are {n} targets, and one "
                "row a sample is needed: check the targets, or choose another mixing "
                "point"
            )


def is_mixable(parts: tuple, n: int) -> bool:
    """Whether a state of several parts can be mixed, with one row for n samples."""
    try:
        check_parts(parts, n, "it")
    except (TypeError, ValueError):
        return False
    return True


def data_of(inputs: Mapping, n: int) -> dict:
    """Returns the inputs that are mixed, and checks that all can be.

    Raises:
        TypeError: If they are no float arrays, or look like lengths or masks, of which
            a mixed sample has two.
        ValueError: If they do not have one row a sample.
    """
    data = {k: x for k, x in inputs.items() if leaves(x)}
    beside = {k: x for k, x in data.items() if _is_beside(x, data.values())}
    for k, x in beside.items():
        x = chainer.as_array(x)
        if x.shape[:1] == (n,) and (x != x[:1]).any():
            raise TypeError(
                f"the input cannot be mixed: argument {k!r} of shape {x.shape} and "
                f"dtype {x.dtype} looks like lengths, indices or a mask, and a mixed "
                f"sample has those of both partners: {JOIN}. If it is data, scale it, "
                "so that its numbers are not whole"
            )
    data = {k: x for k, x in data.items() if k not in beside}
    check_parts(tuple(data.values()), n, "the input")
    return data


JOIN = (
    "mix at a point behind their use, such as the pooling over a sequence, or call "
    "mixup_data in a forward of your own and join those of both partners there, as in "
    "mask | mask[current_draw().perm]"
)


def _is_beside(x, inputs: Iterable) -> bool:
    """Whether an input seems to tell which part of another is valid."""
    if not is_array(x) or x.dtype.kind == "O":
        return False
    if x.dtype.kind == "b":
        return True
    shape = _without_ones(x.shape)
    of = [
        other
        for other in inputs
        if other is not x
        and is_array(other)
        and other.shape[: len(shape)] == shape
        and (other.ndim > len(shape) or not _is_whole(other))
    ]
    if x.dtype.kind != "f" or not of:
        return bool(of)
    x = chainer.as_array(x)
    if len(shape) > 1:
        return _is_of_bits(x) and not bool((x.sum(axis=1) == 1).all())  # one-hot
    longest = max((n for other in of for n in other.shape[1:]), default=-1)
    return _is_whole(x) and bool(((x >= 0) & (x <= longest)).all())


def is_mask(x, other) -> bool:
    """Whether an input seems to tell which places of another are valid."""
    shape = _without_ones(x.shape)
    return x.dtype.kind == "b" or (
        len(shape) > 1
        and getattr(other, "shape", ())[: len(shape)] == shape
        and _is_of_bits(x)
    )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _is_of_bits(x) -> bool:
    x = chainer.as_array(x)
    return bool(((x == 0) | (x == 1)).all())


def _is_whole(x) -> bool:
    x = chainer.as_array(x)
    return bool((x == x.round()).all())
