"""Predictions in test mode, and the labels that count."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import chainer
import numpy as np

from chainer_mmix.mixing.criterion import ignored_label


def call(predictor: chainer.Link, x, *args, **kwargs):
    """Calls a predictor with its inputs, followed by further arguments.

    Args:
        predictor (~chainer.Link): The network.
        x: Its input, or a tuple of all its inputs, or a dict of them by name.
        args, kwargs: Further arguments.
    """
    if isinstance(x, dict):
        return predictor(*args, **x, **kwargs)
    inputs = x if isinstance(x, tuple) else (x,)
    return predictor(*inputs, *args, **kwargs)


@contextlib.contextmanager
def in_test_mode() -> Iterator[None]:
    """Switches Chainer to test mode, without graphs."""
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        yield


def to_host(array) -> np.ndarray:
    """Returns an array or Variable of any device as a NumPy array."""
    return chainer.get_device("@numpy").send(chainer.as_array(array))


def predict(predictor: chainer.Link, x) -> np.ndarray:
    """Calls a predictor in test mode.

    Args:
        predictor (~chainer.Link): The network.
        x: Its input, an array of shape (N, ...), or a tuple of all its inputs, or a
            dict of them by name, on the device of the network.

    Returns:
        numpy.ndarray: The scores, of shape (N, C).
    """
    with in_test_mode():
        return to_host(call(predictor, x))


def predict_all(
    classifier: chainer.Link, batches: Iterable[tuple]
) -> tuple[np.ndarray, np.ndarray]:
    """Calls a classifier's predictor with all batches, in test mode.

    Args:
        classifier (~chainer.Link): A link with a predictor.
        batches (iterable of tuple): Inputs and targets; see :func:`counted`.

    Returns:
        tuple: The scores, of shape (M, C), and the labels, of shape (M,), without those
        that the classifier ignores.
    """
    label = ignored_by(classifier)
    found = [counted(predict(classifier.predictor, x), t, label) for x, t in batches]
    scores, labels = map(np.concatenate, zip(*found, strict=True))
    return scores, labels


def counted(
    scores, t, ignore_label: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores and labels with one row for each label that counts.

    Args:
        scores (array): Of shape (N, C, d1, ...), such as (N, C, H, W) for a map.
        t (array): Labels, integers of shape (N, d1, ...), or probabilities of the shape
            of the scores, of which the highest counts.
        ignore_label (int): A label that does not count.

    Returns:
        tuple: The scores, of shape (M, C), and the labels, of shape (M,), on the host.

    Raises:
        TypeError: If there is not one score per class, or the targets are neither
            labels nor probabilities.
        ValueError: If a label is out of range.
    """
    if not hasattr(scores, "shape"):
        raise TypeError(
            "one score a class is needed, as an array of shape (N, C), but the "
            f"predictor returned a {type(scores).__name__}"
        )
    scores, t = to_host(scores), to_host(t)
    if scores.ndim < 2 or scores.shape[1] < 2:
        raise TypeError(
            "one score a class is needed, shape (N, C) with C of 2 or more, but the "
            f"predictor returned shape {scores.shape}: for two classes with one logit "
            "y, measure a predictor that returns (0, y), the logits of both"
        )
    n_class = scores.shape[1]
    if t.shape == scores.shape and are_probabilities(t):
        t, ignore_label = t.argmax(axis=1), None
    elif t.dtype.kind not in "iu" or t.shape != (len(scores), *scores.shape[2:]):
        raise TypeError(
            "labels, integers of shape "
            f"{(len(scores), *scores.shape[2:])}, or probabilities of shape "
            f"{scores.shape} are needed, but the targets are of dtype {t.dtype} and "
            f"shape {t.shape}"
        )
    scores = np.moveaxis(scores, 1, -1).reshape(-1, n_class)
    t = t.reshape(-1)
    if ignore_label is not None:
        scores, t = scores[t != ignore_label], t[t != ignore_label]
    bad = (t < 0) | (t >= n_class)
    if bad.any():
        raise ValueError(
            f"labels must lie in [0, {n_class}), the number of scores; found "
            f"{t[bad][0]}: if it marks what has no label, say so to the classifier, as "
            "by accfun=functools.partial(chainer.functions.accuracy, ignore_label=...)"
        )
    return scores, t


def check_repeats(predictor: chainer.Link, x, what: str) -> None:
    """Raises a TypeError if a second call with the same input gives another result."""
    first, second = predict(predictor, x), predict(predictor, x)
    if first.shape != second.shape or not np.allclose(first, second, 1e-3, 1e-4, True):
        raise TypeError(
            f"{what} calls the predictor several times for each minibatch, but "
            f"{type(predictor).__name__} returns something else when it is called "
            "again: it keeps a state or draws random numbers, so leave this out, or "
            "let forward begin anew in each call"
        )


def n_right(scores: np.ndarray, labels: np.ndarray) -> float:
    """Counts the right predictions: NaN if a score is NaN.

    Args:
        scores (numpy.ndarray): Array of shape (M, C).
        labels (numpy.ndarray): Integers of shape (M,).
    """
    if np.isnan(scores).any():
        return np.nan
    return float((scores.argmax(axis=1) == labels).sum())


def accuracies(
    classifier: chainer.Link,
    batches: Iterable[tuple],
    variants: Callable[..., Iterable[tuple]],
    what: str,
) -> dict[str, float]:
    """Measures the accuracy on variants of the inputs.

    Args:
        classifier (~chainer.Link): A link with a predictor of one input.
        batches (iterable of tuple): Inputs and targets.
        variants (callable): Called as ``variants(x, t)``; yields names and inputs.
        what (str): What is measured, for errors.

    Returns:
        dict: The accuracies by name. Labels that the classifier ignores do not count;
        without any there is NaN.

    Raises:
        TypeError: If there are several inputs, the predictor keeps a state from call to
            call, or there is not one class a sample.
    """
    label = ignored_by(classifier)
    predictor = classifier.predictor
    n: Counter[str] = Counter()
    n_hit: Counter[str] = Counter()
    for x, t in batches:
        if not n:
            check_repeats(predictor, one_input(x, what), what)
        for name, variant in variants(x, t):
            scores, labels = counted(predict(predictor, variant), t, label)
            n[name] += len(labels)
            n_hit[name] += n_right(scores, labels)
    return {name: n_hit[name] / n[name] if n[name] else np.nan for name in n}


def labels_of(t) -> np.ndarray:
    """Returns class labels on the host.

    Args:
        t (array): Integers of shape (N,), or probabilities of shape (N, C), of which it
            takes the highest.

    Raises:
        TypeError: If the targets are neither.
    """
    t = to_host(t)
    if t.ndim == 2 and are_probabilities(t):
        return t.argmax(axis=1)
    if t.dtype.kind not in "iu" or t.ndim != 1:
        raise TypeError(
            "one class a sample is needed, as an integer or as probabilities of all, "
            f"but the targets are of dtype {t.dtype} and shape {t.shape}"
        )
    return t


def are_probabilities(t: np.ndarray) -> bool:
    """Tells whether targets are distributions over the classes, axis 1."""
    if t.dtype.kind != "f" or t.shape[1] < 2:
        return False
    return bool(
        (t >= 0).all() and np.allclose(t.sum(axis=1, dtype=float), 1, atol=0.01)
    )


def accuracy_functions(classifier: chainer.Link) -> dict[str, Callable]:
    """Returns the functions by which a classifier computes accuracies, by their names.

    Those of a :class:`~chainer_mmix.ManifoldMixupClassifier` leave out what its loss
    leaves out.
    """
    if own := getattr(classifier, "_accuracies", None):
        return own()
    accfun = getattr(classifier, "accfun", None)
    return {} if accfun is None else {"accuracy": accfun}


def ignored_by(classifier: chainer.Link) -> int | None:
    """Returns the label that a classifier's accuracy ignores, or else its loss."""
    lossfun = getattr(classifier, "lossfun", None)
    for criterion in (*accuracy_functions(classifier).values(), lossfun):
        label = None if criterion is None else ignored_label(criterion)
        if label is not None:
            return label
    return None


def one_input(x, what: str):
    """Returns the input of a network that has one.

    Raises:
        TypeError: If there are several, or it has a name.
    """
    if isinstance(x, (tuple, dict)):
        by_name = f" by name ({', '.join(x)})" if isinstance(x, dict) else ""
        raise TypeError(
            f"{what} is for networks of one input without a name, but this one takes "
            f"{len(x)}{by_name}: leave it out"
        )
    return x
