"""Says what is wrong with the form of a batch, where Chainer does not."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import chainer
from chainer.links import Convolution2D
from chainer.utils.type_check import InvalidType

from chainer_mmix.links.graph import is_array
from chainer_mmix.mixing.targets import NoAccuracyError, RowsError


def naming_the_flaw(compute_loss: Callable) -> Callable:
    """Has a classifier's ``compute_loss`` name the remedy for arrays of a wrong form.

    Images that are too small, and too few or too many targets, get a ValueError, all
    else a TypeError.

    What goes through is not changed, but for images with their channels last, which
    would train without a word if they came to a convolution.
    """

    @functools.wraps(compute_loss)
    def wrapper(self, draw, *args, **kwargs):
        arrays = filter(is_array, (*args, *kwargs.values()))
        last = any(_has_channels_last(array) for array in arrays)
        try:
            with _NoChannelsLast() if last else contextlib.nullcontext():
                return compute_loss(self, draw, *args, **kwargs)
        except (InvalidType, TypeError, ValueError, RuntimeError) as e:
            flaw, kind = None, TypeError
            with contextlib.suppress(TypeError, ValueError):
                inputs, named, target = self._split(args, dict(kwargs))
                given, y = [*inputs, *named.values()], getattr(self, "y", None)
                if flaw := _flaw_of_number(given, target, y, e):
                    kind = ValueError
                elif y is None:  # else the network has taken the inputs
                    flaw = flaw_of_inputs(given, self.predictor, str(e))
                elif not isinstance(e, (ValueError, NoAccuracyError)):  # which say it
                    flaw = _flaw_of_target(target, y, str(e))
            if flaw is None:
                raise
            raise kind(flaw) from e
        except AssertionError as e:
            if (flaw := flaw_of_size(e, [*args, *kwargs.values()])) is None:
                raise
            raise ValueError(flaw) from e

    return wrapper


def flaw_of_size(error: AssertionError, inputs: Sequence[Any]) -> str | None:
    """Says which inputs are too small, if that is what Chainer's error means."""
    if not str(error).endswith("should be positive."):  # the size after a layer
        return None
    floats = [x for x in inputs if is_array(x) and x.dtype.kind == "f"]
    sizes = ["x".join(map(str, x.shape[2:])) for x in floats]
    given = " and ".join(size for size in dict.fromkeys(sizes) if size)
    if not given:
        return None
    return (
        f"inputs of size {given} are too small for the network, in which a layer would "
        "have an output of size 0: give larger ones, or a network that shrinks them "
        "less"
    )


def flaw_of_inputs(
    inputs: Sequence[Any], predictor: chainer.Link, error: str
) -> str | None:
    """Says which input a network does not take, if that is what its error means."""
    is_of_dtype = "dtype" in error  # as the type checks say, and mixup_data
    for x in filter(is_array, inputs):
        what = f"an input is of dtype {x.dtype}"
        is_integer = x.dtype.kind in "iu"
        if is_of_dtype and is_integer and (x.dtype == "uint8" or x.ndim == 4):
            return (
                f"{what}: make x.astype(numpy.float32) / 255 of images, and "
                "x.astype(numpy.int32) of indices"
            )
        if x.dtype.kind in "iub" and "dtype.kind == f" in error:
            return (
                f"{what}, but the network takes floats: convert it, as by "
                "x.astype(numpy.float32)"
            )
        dtypes = {p.dtype for p in predictor.params(include_uninit=False)}
        is_other = x.dtype.kind == "f" and dtypes and x.dtype not in dtypes
        if is_of_dtype and is_other and "dtype.kind == i" not in error:
            names = sorted(dtype.name for dtype in dtypes)
            return (
                f"{what}, but the network of {' and '.join(names)}: convert it, as by "
                f"x.astype(numpy.{names[0]})"
            )
        found = re.search(
            r"in_types\[0\]\.shape\[1\] == in_types\[1\]\..*\s.* (\d+) != (\d+)$", error
        )
        if x.ndim == 4 and found and x.shape[1] == int(found[1]):
            return (
                f"a convolution takes {found[2]} channels, and the input has "
                f"{found[1]}, shape {x.shape}: give all images, those to validate on "
                "too, the channels of the network"
            )
        if x.ndim < 4 and re.search(r"unpack \(expected 4|ndim == 4", error):
            grey = ", as by x[:, None] of grey ones" if x.ndim == 3 else ""
            return (
                "a convolution takes images of shape (N, C, H, W), and the input has "
                f"shape {x.shape}: give it that shape{grey}"
            )
    return None


def _flaw_of_number(
    inputs: Sequence[Any], t: Any, y: Any, error: Exception
) -> str | None:
    """Says that there are not as many targets as inputs, if the error means that."""
    shapes = [x.shape for x in inputs if is_array(x)]
    if all(shape[:1] == t.shape[:1] for shape in shapes):
        return None
    if isinstance(error, RowsError):
        reason = f" ({error})"
        if any(str(shape) in reason for shape in shapes):
            return None  # it says so
    else:
        n, reason = next(iter(getattr(y, "shape", ())), None), ""
        if isinstance(error, (TypeError, ValueError)) or n in (None, len(t)):
            return None  # which say what they mean
        found = rf"^Actual: \(?{n}\b.* != \(?{len(t)}\b|^An Expr instance"
        if not re.search(found, str(error), re.MULTILINE):
            return None
    given = " and ".join(map(str, shapes))
    return (
        f"the batch has inputs of shape {given}, but targets of shape {t.shape}: give "
        f"one target a sample{reason}"
    )


def _flaw_of_target(t: Any, y: Any, error: str) -> str | None:
    kind, shape = t.dtype.kind, t.shape
    scores: tuple[int, ...] = getattr(y, "shape", ())
    dtype = getattr(y, "dtype", None)
    if re.search(rf"dtype == .*\s.* {dtype} != {t.dtype}$", error):
        return (
            f"the loss takes targets of the dtype of the predictions, {dtype}, not "
            f"{t.dtype}: t.astype(numpy.{dtype})"
        )
    if f"{scores} != {shape}" in error:
        is_flat = scores == (*shape, 1)
        remedy = "t[:, None]" if is_flat else "give a number for each output"
        return (
            f"the loss takes targets of the shape of the predictions, {scores}, not "
            f"{shape}: {remedy}"
        )
    if kind in "USO":
        return (
            f"the labels are of dtype {t.dtype}: number them, as by "
            "class_names, t = numpy.unique(labels, return_inverse=True), and "
            "t.astype(numpy.int32)"
        )
    if kind in "iub" and len(shape) == 2 and shape[1] == 1:
        return (
            f"the labels have shape {shape}, but one number a sample is needed, shape "
            f"({shape[0]},): t.ravel().astype(numpy.int32)"
        )
    of_maps = (*scores[:1], *scores[2:])
    is_of_shape = re.search(r"target_a\.(ndim|shape)|Expr instance", error)
    if is_of_shape and kind in "iub" and len(scores) > 2 and shape != of_maps:
        remedy = ": t[:, 0]" if shape == (*scores[:1], 1, *scores[2:]) else ""
        return (
            f"the labels have shape {shape}, but those of predictions of shape "
            f"{scores} have {of_maps}{remedy}"
        )
    if kind in "ub":
        return (
            f"the labels are of dtype {t.dtype}, but Chainer's losses take signed "
            "integers: t.astype(numpy.int32)"
        )
    if kind == "f" and len(shape) == 1 and len(scores) == 2 and scores[1] > 1:
        return (
            f"the labels are of dtype {t.dtype} and shape {shape}: give class numbers, "
            "t.astype(numpy.int32)"
        )
    if kind == "i" and len(shape) == 2 and scores == shape:
        return (
            f"the labels have shape {shape} and dtype {t.dtype}, as one-hot vectors "
            "have: give class numbers, t.argmax(axis=1).astype(numpy.int32), or "
            "probabilities, t.astype(numpy.float32)"
        )
    return None


def _has_channels_last(x: Any) -> bool:
    if x.ndim != 4 or x.shape[3] not in (1, 3, 4) or x.shape[1] < 5:
        return False
    return x.shape[1] == x.shape[2] or (x.shape[3] > 1 and min(x.shape[1:3]) >= 16)


class _NoChannelsLast(chainer.LinkHook):
    """Raises an error if a convolution gets images whose channels come last."""

    name = "NoChannelsLast"

    def forward_preprocess(self, args) -> None:
        if not (isinstance(args.link, Convolution2D) and args.args):
            return
        x = args.args[0]
        if _has_channels_last(x):
            raise ValueError(
                f"a convolution gets {x.shape[1]} channels of {x.shape[2]}x"
                f"{x.shape[3]} pixels, shape {x.shape}, as of images with their "
                "channels last, (N, H, W, C): Chainer's have them first, "
                "x.transpose(0, 3, 1, 2)"
            )
