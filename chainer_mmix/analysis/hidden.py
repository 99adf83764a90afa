"""The hidden states of a network in test mode."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import chainer
import numpy as np

from chainer_mmix.analysis.predictions import (
    call,
    ignored_by,
    in_test_mode,
    labels_of,
    to_host,
)
from chainer_mmix.links.graph import Trace, leaves
from chainer_mmix.links.names import INPUT, links_of, names_of
from chainer_mmix.mixing.draw import MixupDraw, using_draw
from chainer_mmix.mixing.functions import Mix


def hidden_states(
    predictor: chainer.Link, layer: int | str, x, t: np.ndarray
) -> np.ndarray:
    """Computes the hidden states of samples at one layer of a network.

    The layer is one of

    - a mixing point of a predictor that obeys the contract: the state is the argument
      of :func:`~chainer_mmix.mixup_data` there;
    - the name of a link of any network, as for :class:`~chainer_mmix.MixupLayers`: the
      state is the result of the first call of the link;
    - ``"input"``: the state is the input.

    Args:
        predictor (~chainer.Link): The network. It is not changed.
        layer (int or str): The layer.
        x: The input, an array of shape (N, ...), or a tuple of all inputs, or a dict of
            inputs by name, on the device of the network.
        t (array): The targets, of shape (N, ...), which the contract needs.

    Returns:
        numpy.ndarray: The states, flattened to shape (N, D); several parts are
        concatenated.

    Raises:
        RuntimeError: If the predictor does not reach the layer.
        TypeError: If the state contains no arrays.
        ValueError: If there is no such layer, or the state does not have one row per
            sample.
    """
    check_layer(predictor, layer)
    with in_test_mode():
        if _is_mixing_point(predictor, layer):
            parts = _at_mixing_point(predictor, layer, x, t)
        elif layer == INPUT:
            parts = x
        else:
            parts = _after_link(predictor, layer, x)
    parts = [to_host(part) for part in leaves(parts)]
    if not parts:
        raise TypeError(f"there are no arrays at {layer!r}: choose another place")
    for part in parts:
        if part.shape[:1] != (len(t),):
            raise ValueError(
                f"the state at {layer!r} has shape {part.shape}, but there are "
                f"{len(t)} samples, and one row a sample is needed: choose another "
                "place"
            )
    return np.concatenate([part.reshape(len(t), -1) for part in parts], axis=1)


def all_hidden_states(
    classifier: chainer.Link, batches: Iterable[tuple], layer: int | str
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the hidden states of all samples at one layer of a network.

    Args:
        classifier (~chainer.Link): A link with a predictor.
        batches (iterable of tuple): Inputs and targets, one class per sample.
        layer (int or str): The layer; see :func:`hidden_states`.

    Returns:
        tuple: The states, of shape (N, D), and the labels, of shape (N,), without the
        samples whose label the classifier ignores.
    """
    ignored = ignored_by(classifier)
    states, labels = [], []
    for x, t in batches:
        own = labels_of(t)
        keep = (own != ignored) | (t.dtype.kind == "f")
        states.append(hidden_states(classifier.predictor, layer, x, t)[keep])
        labels.append(own[keep])
    return np.concatenate(states), np.concatenate(labels)


def is_finite(states: np.ndarray, layer: int | str) -> bool:
    """Tells whether all hidden states are finite, and warns if they are not."""
    if np.isfinite(states).all():
        return True
    warnings.warn(
        f"hidden states at {layer!r} are NaN or infinite: there is no picture of them",
        stacklevel=2,
    )
    return False


def check_layer(predictor: chainer.Link, layer: int | str) -> None:
    """Raises a ValueError if a network has no such place, without calling it."""
    if _is_mixing_point(predictor, layer):
        return
    if isinstance(layer, str):
        names_of(predictor, [layer])
    else:
        raise ValueError(
            f"{type(predictor).__name__} has no mixing point {layer!r}; it has "
            f"{', '.join(map(repr, predictor.mixup_layers))}"
        )


def _is_mixing_point(predictor: chainer.Link, layer: int | str) -> bool:
    points = getattr(predictor, "mixup_layers", None)
    return layer in points if points else not isinstance(layer, str)


class _Catch(chainer.FunctionHook):
    """Notes what is mixed."""

    name = "chainer_mmix.hidden"

    def __init__(self) -> None:
        self.states: list = []

    def forward_preprocess(self, function: chainer.FunctionNode, in_data) -> None:
        if isinstance(function, Mix):
            self.states += in_data


def _at_mixing_point(predictor: chainer.Link, layer: int | str, x, t) -> list:
    # With a weight of 1, each sample stays what it is.
    draw = MixupDraw(layer, 1.0, np.arange(len(t)))
    mixing = {"mixup_hidden": True, "lam": draw.lam, "layer_mix": layer}
    with using_draw(draw) as mixture, _Catch() as catch:
        if isinstance(x, dict):
            call(predictor, x, target=t, **mixing)
        else:
            call(predictor, x, t, **mixing)
    if mixture.times_mixed != 1:
        raise RuntimeError(
            f"{type(predictor).__name__} called mixup_data {mixture.times_mixed} times "
            f"with layer_mix={layer!r}: it must call it once, at that point"
        )
    return catch.states


def _after_link(predictor: chainer.Link, name: str, x):
    trace = Trace(())
    (name,) = names_of(predictor, [name])
    with trace.watching({name: links_of(predictor)[name]}):
        call(predictor, x)
    if name not in trace.outputs:
        raise RuntimeError(
            f"{type(predictor).__name__} did not call its link {name!r}: name a link "
            "that it calls"
        )
    return trace.outputs[name]
