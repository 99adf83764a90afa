"""Hidden states of networks that know nothing of mixing, and how they are mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer

from chainer_mmix.links.graph import is_array, leaves
from chainer_mmix.mixing.functions import mixup_data


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
        if self.n_calls > 1:
            return forward(*args, **kwargs)
        h = forward(*args, **kwargs)
        mixed = self._mix(parts_of(h), f"the output of {self.name!r}")
        if isinstance(h, dict):
            return dict(zip(h, mixed, strict=True))
        if isinstance(h, tuple):
            return h._make(mixed) if hasattr(h, "_make") else mixed  # a namedtuple
        return mixed[0]

    def mix_inputs(self, args: Sequence, kwargs: dict) -> tuple[list, dict]:
        """Mixes all arrays among the arguments but masks."""
        values = {**dict(enumerate(args)), **kwargs}
        arrays = {k: v for k, v in values.items() if is_data(v)}
        mixed = self._mix(tuple(arrays.values()), "the input")
        values.update(zip(arrays, mixed, strict=True))
        return [values.pop(k) for k in range(len(args))], values

    def _mix(self, parts: tuple, what: str) -> tuple:
        check_parts(parts, len(self.target), what)
        # Not a tuple of one, since CutMix takes a single map only.
        h = parts if len(parts) > 1 else parts[0]
        mixed, *self.targets = mixup_data(h, self.target, self.lam)
        self.mixed = mixed if len(parts) > 1 else (mixed,)
        self.has_graph = chainer.config.enable_backprop
        return self.mixed


def is_data(value) -> bool:
    """Whether an argument has arrays in it, other than masks."""
    return any(leaf.dtype.kind != "b" for leaf in leaves(value))


def parts_of(h) -> tuple:
    if isinstance(h, dict):
        return tuple(h.values())
    return h if isinstance(h, tuple) else (h,)


def check_parts(parts: tuple, n: int, what: str) -> None:
    """Raises an error if a state of several parts cannot be mixed."""
    if not all(map(is_array, parts)) or not parts:
        kinds = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise TypeError(
            f"{what} cannot be mixed, since it is not an array with one row a sample, "
            f"nor a tuple or dict of these, but has {kinds}: choose another place"
        )
    for part in parts:
        if part.dtype.kind != "f":
            raise TypeError(
                f"{what} has dtype {part.dtype}, which cannot be mixed: choose a link "
                "behind it, such as the embedding of token ids, or convert it to float"
            )
        if part.shape[:1] != (n,):
            raise ValueError(
                f"{what} has shape {part.shape}, but there are {n} targets, and one "
                "row a sample is needed: check the targets, or choose another place"
            )


def is_mixable(parts: tuple, n: int) -> bool:
    try:
        check_parts(parts, n, "it")
    except (TypeError, ValueError):
        return False
    return True
