"""The contract between a classifier that mixes and its predictor."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence

import chainer
import numpy as np
from chainer.variable import VariableNode

from chainer_mmix.links.graph import (
    is_array,
    is_recorded,
    kept_by,
    leaves,
    reached,
)
from chainer_mmix.links.names import links_of
from chainer_mmix.links.states import is_mask
from chainer_mmix.mixing.draw import Mixture


def check_link(link: chainer.Link, name: str) -> None:
    """Checks that an argument is a link.

    Args:
        link (~chainer.Link): What was given.
        name (str): The argument, for the error.

    Raises:
        TypeError: If it is a class or no link.
        ValueError: If it contains itself.
    """
    if isinstance(link, type):
        raise TypeError(
            f"{name} must be a link, not the class {link.__name__}: call it"
        )
    if not isinstance(link, chainer.Link):
        raise TypeError(f"{name} must be a chainer.Link, not {link!r}")
    _check_no_cycle(link, name, ())


def check_predictor(predictor: chainer.Link) -> None:
    """Checks that a link can be called and gives no loss.

    Raises:
        TypeError: If it cannot, is a classifier, or lists its mixing points as a bare
            number or name.
        ValueError: If it contains itself.
    """
    check_link(predictor, "predictor")
    name = type(predictor).__name__
    own = type(predictor).__call__ is not chainer.Link.__call__
    if not (own or callable(getattr(predictor, "forward", None))):
        raise TypeError(f"predictor is a {name}, which has no forward: give it one")
    if isinstance(predictor, chainer.Sequential) and not len(predictor):
        raise TypeError(f"predictor is a {name} of no links: give it some")
    if isinstance(predictor, chainer.links.Classifier):
        raise TypeError(
            f"predictor is a {name}, which computes a loss itself: give its predictor"
        )
    for attribute in ("mixup_layers", "default_layer_mix"):
        points = getattr(predictor, attribute, None)
        if isinstance(points, str) or not isinstance(points, (Iterable, type(None))):
            raise TypeError(
                f"{name}.{attribute} must be a tuple of mixing points, ({points!r},), "
                f"not {points!r}"
            )


def _check_no_cycle(link: chainer.Link, name: str, above: tuple) -> None:
    if any(link is one for one in above):
        raise ValueError(
            f"{name} contains itself (a {type(link).__name__}): hold it in a list "
            "instead of as a child"
        )
    for child in link.children():
        _check_no_cycle(child, name, (*above, link))


def check_contract(predictor: chainer.Link) -> None:
    """Raises a TypeError if a predictor does not accept what it gets to mix."""
    call = called(predictor)
    try:
        inspect.signature(call).bind_partial(mixup_hidden=True, lam=1.0, layer_mix=None)
    except TypeError as e:
        name = type(predictor).__name__
        raise TypeError(
            f"{name} does not mix by itself: wrap it, MixupLayers(net, names), with "
            "names that MixupLayers.suggest(net, x) finds; or let "
            f"{name}.{call.__name__} accept (x, target, mixup_hidden, lam, layer_mix), "
            f"of which it takes {inspect.signature(call)}: {e}"
        ) from None


def target_name(predictor: chainer.Link) -> str | None:
    """Returns the argument by which a predictor takes the target, if it takes one."""
    call = called(predictor)
    name = _target_name(getattr(call, "__func__", call))
    if name is None and callable(forward := getattr(predictor, "forward", None)):
        # __call__ may hand on all that it gets.
        is_open = _is_open(getattr(call, "__func__", call))
        name = _target_name(getattr(forward, "__func__", forward)) if is_open else None
    return name


@functools.lru_cache(maxsize=64)
def _target_name(function: Callable) -> str | None:
    signature = inspect.signature(function)
    try:
        signature.bind_partial(mixup_hidden=True, lam=1.0, layer_mix=None)
    except TypeError:
        return None
    names = list(signature.parameters)
    if "target" in names:
        return "target"
    if "mixup_hidden" not in names:
        return None
    before = signature.parameters[names[names.index("mixup_hidden") - 1]]
    is_optional = before.default is not before.empty
    by_name = before.kind == before.POSITIONAL_OR_KEYWORD
    return before.name if is_optional and by_name else None


@functools.lru_cache(maxsize=64)
def _is_open(function: Callable) -> bool:
    kinds = {p.kind for p in inspect.signature(function).parameters.values()}
    return {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds


def check_inputs(predictor: chainer.Link, inputs: Sequence) -> None:
    """Raises a TypeError if one of several inputs may be a second target.

    It looks at the arguments by place: more than the predictor takes, or such that it
    can do without, other than masks.
    """
    while hasattr(predictor, "mixup_layers") and isinstance(
        getattr(predictor, "net", None), chainer.Link
    ):
        predictor = predictor.net  # a wrapper's
    call = called(predictor)
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [*inspect.signature(call).parameters.values()]
    takes = [p for p in parameters if p.kind in kinds]
    name = f"{type(predictor).__name__}.{call.__name__}"
    remedy = (
        "Several targets go into one float array, side by side, which lossfun splits "
        "(docs/mixing.md, Targets)"
    )
    is_open = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    if len(inputs) > len(takes) and not is_open:
        raise TypeError(
            f"{name} takes {inspect.signature(call)}, but a batch has {len(inputs)} "
            f"arrays beside the target. {remedy}"
        )
    for value, parameter in list(zip(inputs, takes, strict=False))[1:]:
        if parameter.default is not None or not is_array(value):
            continue
        takes_target = parameter.name == target_name(predictor)
        if takes_target or not is_mask(value, inputs[0]):
            raise TypeError(
                f"{name} can do without its argument {parameter.name!r}, and gets an "
                f"array of {value.dtype} and shape {value.shape} there, by its place "
                f"in the batch: is it a second target? {remedy}. An input that may be "
                "missing goes in by name: let the converter return a dict, and name "
                "the target in label_key"
            )


def check_mixed(predictor: chainer.Link, outputs, mixture: Mixture, target) -> None:
    """Checks that a predictor has mixed once, and what it returns.

    Raises:
        RuntimeError: If it did not mix exactly once, or threw away the mixed state.
        TypeError: If it did not return ``(y, target_a, target_b)``.
    """
    name, point = type(predictor).__name__, mixture.draw.layer_mix
    static = ""
    if mixture.times_mixed == 0 and is_recorded(predictor):
        static = (
            "; a chain under chainer.static_graph replays what it did in its first "
            "call: mix before or after it"
        )
    if not (isinstance(outputs, tuple) and len(outputs) == 3):
        raise TypeError(
            f"{name}.forward must return (y, target_a, target_b) when mixup_hidden is "
            f"true, as mixup_data gives them, but it returned {type(outputs)}{static}"
        )
    if mixture.times_mixed != 1:
        raise RuntimeError(
            f"{name}.forward called mixup_data {mixture.times_mixed} times with "
            f"layer_mix={point!r}: it must mix exactly once, at that point{static}"
        )
    if kinds := [type(t).__name__ for t in outputs[1:] if not is_array(t)]:
        raise TypeError(
            f"{name}.forward must return (y, target_a, target_b) when mixup_hidden is "
            f"true, as mixup_data gives them, but one of its targets is a {kinds[0]}"
        )
    if outputs[2] is target:
        raise RuntimeError(
            f"{name}.forward returned the targets of the first partners where those of "
            "the second belong: return what mixup_data gives"
        )
    _check_partners(name, outputs[1:], mixture.targets)
    draw = mixture.draw
    is_cut = draw.center is not None and np.any(draw.lam != 1)
    if outputs[1] is target and is_cut and target.ndim > 2:
        raise RuntimeError(
            f"{name}.forward returned the targets as it was given them, but places "
            "were pasted, in them as in the samples: return what mixup_data gives"
        )
    is_dead = mixture.mixed and all(node() is None for node in mixture.mixed)
    is_dead = is_dead and not mixture.may_be_cut
    # An array may go into a function that does not keep it.
    if is_dead and (
        not mixture.unmixed or _is_computed_from(outputs[0], mixture.unmixed)
    ):
        raise RuntimeError(
            f"{name}.forward mixed at layer_mix={point!r}, but its outputs do not come "
            "from the mixed state: go on with what mixup_data returns, and freeze what "
            "follows by disable_update, not by cutting the graph (as no_backprop_mode "
            "does), or mix after it"
        )


def _check_partners(name: str, outputs: tuple, targets: tuple) -> None:
    """Raises a RuntimeError if samples have targets of others than their partners.

    Targets may come back in another form, as other classes or with the samples in
    another order: then it sees that both have changed, or that their pairs have not.
    """
    if outputs[0] is targets[0] and outputs[1] is targets[1]:
        return
    a, b, *own = map(chainer.as_array, (*targets, *outputs))
    if not all(type(t) is np.ndarray and t.shape == a.shape for t in (a, b, *own)):
        return  # a GPU would have to wait
    has_changed = [not np.array_equal(x, y) for x, y in zip((a, b), own, strict=True)]
    if sum(has_changed) != 1:
        return
    k = has_changed.index(True)
    if _rows(own[k]) == _rows(a) and _rows(*own) != _rows(a, b):
        raise RuntimeError(
            f"{name}.forward returned the targets of a batch in an order of its own, "
            "in which samples have the targets of others than they were mixed with: "
            "return what mixup_data gives"
        )


def _rows(*arrays: np.ndarray) -> list:
    rows = [array.reshape(len(array), -1).tolist() for array in arrays]
    return sorted(zip(*rows, strict=True))


def check_states(predictor: chainer.Link, outputs, mixture: Mixture, kept) -> None:
    """Checks that no state of an earlier step leads around the mixing point.

    Args:
        predictor (~chainer.Link): The predictor.
        outputs: Its outputs.
        mixture (Mixture): What it has mixed.
        kept (dict): What its links kept before the call, by :func:`kept_by`.

    Raises:
        RuntimeError: If one does.
    """
    if not kept:  # as by most networks, in each step
        return
    n, now = len(mixture.draw.perm), kept_by(predictor)
    # What the call has left as it was is a constant.
    states = {
        key: node
        for key, node in kept.items()
        if now.get(key) is not node and _is_of_samples(node.shape, n)
    }
    if not states:
        return
    mixed = {node for ref in mixture.mixed if isinstance(node := ref(), VariableNode)}
    around = reached(set(states.values()), outputs, mixed)
    if around:
        paths = {link: f"{name}/" for name, link in links_of(predictor).items()}
        names = sorted(
            f"{paths.get(link, '')}{attribute}"
            for (link, attribute), node in states.items()
            if node in around
        )
        raise RuntimeError(
            f"{type(predictor).__name__} carries its state ({', '.join(names)}) over "
            "from an earlier step, which had other partners or none, so that it would "
            f"meet mixed targets with layer_mix={mixture.draw.layer_mix!r}: mix after "
            "the last link with a state, reset the states before each step, or let the "
            "steps of one sequence share a draw: model.compute_loss(draw, x, t). What "
            "has no row for each sample, such as a memory, may be kept as an array"
        )


def _is_of_samples(shape: tuple[int, ...], n: int) -> bool:
    """Whether it is the shape of a state, or of those of the layers of an NStepLSTM."""
    return shape[:1] == (n,) or (len(shape) == 3 and shape[1] == n)


def called(link: chainer.Link) -> Callable:
    """Returns what a call of a link runs."""
    own = type(link).__call__
    if own is not chainer.Link.__call__:
        return own.__get__(link)
    return getattr(link, "forward", link)


def _is_computed_from(outputs, arrays: Sequence) -> bool:
    """Whether one of the arrays is where the graph of the outputs begins."""
    rest = [v.node for v in leaves(outputs) if isinstance(v, chainer.Variable)]
    seen = set()
    while rest:
        node = rest.pop()
        function = node.creator_node
        if function is None:
            if any(node.data is array for array in arrays):
                return True
        elif function not in seen:
            seen.add(function)
            rest += function.inputs
    return False
