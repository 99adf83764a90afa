from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import chainer
import chainer.links as L
import numpy as np
from PIL import Image
from scipy.special import softmax

from chainer_mmix import models, training
from chainer_mmix.analysis.predictions import predict
from chainer_mmix.datasets import Preprocess
from chainer_mmix.links.contract import check_predictor
from chainer_mmix.runs.files import RunError
from chainer_mmix.runs.record import read_record


class Predictor:
    """A trained network with its preprocessing; see :func:`load_predictor`.

    Attributes:
        network (~chainer.Link): The network, which returns logits of shape (N, C).
        class_names (tuple of str): The name of each class; numbers if they have none. A
            name of several classes is followed by the number of each.
        preprocess (~chainer_mmix.datasets.Preprocess): Converts pictures and arrays to
            inputs, as in the validation of the run.
        batchsize (int): Inputs per minibatch, by default as in the run.
        snapshot (pathlib.Path): The file with the weights.
        record (dict): The content of ``run.json``.
        dtype: The ``chainer.config.dtype`` of the run.
    """

    def __init__(
        self,
        network: chainer.Link,
        class_names: Sequence[str],
        preprocess: Preprocess,
        batchsize: int,
        snapshot: Path,
        record: Mapping[str, Any],
        dtype: Any = np.float32,
    ) -> None:
        self.network = network
        self.class_names = tuple(class_names)
        self.preprocess = preprocess
        self.batchsize = batchsize
        self.snapshot = snapshot
        self.record = record
        self.dtype = dtype

    def __call__(
        self,
        inputs: np.ndarray | str | os.PathLike | Image.Image | Sequence,
    ) -> np.ndarray:
        """Computes the probability of each class.

        Args:
            inputs: A picture or a sequence of pictures, each a file or a
                PIL.Image.Image; or an array of shape (N, ...), or a sequence of arrays
                of one input each, with bytes from 0 to 255 or floats like those that
                the network was trained on.

        Returns:
            numpy.ndarray: The probabilities, float64 of shape (N, C).

        Raises:
            RunError: If the network does not have one output per class name.
            TypeError: If they are neither pictures nor arrays.
            ValueError: If the inputs do not fit the network.
            UnreadablePictureError: If a picture cannot be read.
        """
        if isinstance(inputs, np.ndarray):
            inputs = list(self.preprocess.array(inputs, "the array"))
        else:
            convert = self.preprocess.array
            inputs = [
                convert(x[None], f"array {i}")[0] if isinstance(x, np.ndarray) else x
                for i, x in enumerate(_listed(inputs))
            ]
        return softmax(self.scores(inputs).astype(np.float64), axis=1)

    def scores(self, inputs: Sequence) -> np.ndarray:
        """Computes logits, one minibatch after the other.

        Args:
            inputs (sequence): Pictures, as for a call, or arrays that are inputs
                already. None at all give an array of shape (0, C).

        Returns:
            numpy.ndarray: The logits, of shape (N, C).
        """
        inputs = _listed(inputs)
        if not inputs:
            return np.empty((0, len(self.class_names)), np.float32)
        found = []
        for start in range(0, len(inputs), self.batchsize):
            batch = [self._input(x) for x in inputs[start : start + self.batchsize]]
            found.append(self._scores_of(batch))
        return np.concatenate(found)

    def _input(self, x) -> np.ndarray:
        return x if isinstance(x, np.ndarray) else self.preprocess.picture(x)

    def _scores_of(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        # As the Evaluator of the training does it.
        with chainer.using_config("dtype", self.dtype):
            x, _ = training.convert_examples(
                [(x, 0) for x in batch], self.network.device
            )
            with chainer.using_device(self.network.device):
                scores = predict(self.network, x)
        if scores.shape[1:] != (len(self.class_names),):
            raise RunError(
                f"{type(self.network).__name__} returns {scores.shape[1:]} numbers an "
                f"input, not one for each of {len(self.class_names)} classes: name "
                f"them in the record of {self.snapshot.parent}, as data "
                "{'class_names': [...]}"
            )
        return scores


def _listed(inputs: Any) -> list:
    """Returns several inputs, or what is one, in a list."""
    is_one = isinstance(inputs, (str, os.PathLike, Image.Image))
    is_several = hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")
    return [inputs] if is_one or not is_several else [*inputs]


def load_predictor(
    run: str | os.PathLike,
    which: str = "best",
    *,
    network: chainer.Link | None = None,
    device: str | int | chainer.backend.Device = "@numpy",
    invert: bool = False,
    dtype: str | None = None,
) -> Predictor:
    """Loads the trained network of a run from its folder.

    ``run.json`` names the model, the classes and the preprocessing, and a snapshot has
    the weights. No code in either file is executed.

    Args:
        run (str or path-like): The output folder of a run. If the run is still
            training, its last snapshot is used.
        which (str): ``"best"``, the default, for the snapshot of the best epoch, or
            ``"final"`` for the newest.
        network (~chainer.Link): For a run on a network of your own, a predictor like
            the one that was trained, into which the weights are loaded. By default, it
            is the model that the record names.
        device (device specifier): Where to compute. The default is the CPU.
        invert (bool): Whether pictures are replaced by their negatives first, see
            :class:`~chainer_mmix.datasets.Preprocess`. The default is ``False``.
        dtype (str): ``"float32"``, ``"float16"`` or ``"mixed16"``, the precision to
            compute in. The default is that of the run.

    Returns:
        Predictor: The network; it can be called with pictures and arrays.

    Raises:
        RunError: If there is no run, no snapshot or no record.
        SnapshotError: If the snapshot is damaged or of another network.
        TypeError: If ``network`` is no predictor.
        ValueError: If ``which`` is something else, or there is no such device or
            ``dtype``.
    """
    if network is not None:
        check_predictor(network)
    folder = Path(run)
    record = _read(folder)
    snapshot = _find_snapshot(folder, which)
    arguments = record.get("arguments") or {}
    precision = dtype or arguments.get("dtype", "float32")
    if precision not in training.DTYPES:
        raise ValueError(
            f"there is no dtype {precision!r}: name one of "
            f"{', '.join(training.DTYPES)}, load_predictor(run, dtype=...)"
        )
    computes_in = training.DTYPES[precision]
    with chainer.using_config("dtype", computes_in):
        if network is None:
            network = _make_network(folder, arguments, snapshot)
            if arguments.get("standardise") is not None:
                constants = (record.get("data") or {}).get("standardise")
                network.standardise(**(constants or {"mean": None, "std": None}))
        training.load_weights(network, snapshot)
    network.cleargrads()  # New ones are full of NaN, and as large as the weights.
    to = device
    if not isinstance(to, chainer.backend.Device):
        to = training.get_device(to)
    network.to_device(to)
    names = (record.get("data") or {}).get("class_names")
    batchsize = arguments.get("batchsize")
    if not isinstance(batchsize, int) or batchsize < 1:  # of a program of one's own
        batchsize = 64
    return Predictor(
        network,
        _distinct(names or map(str, range(_n_class(network, snapshot)))),
        Preprocess.of_record(record, invert),
        batchsize,
        snapshot,
        record,
        computes_in,
    )


def _read(folder: Path) -> dict[str, Any]:
    if folder.is_file():
        raise RunError(f"{folder} is a file: name the output folder of a run")
    if not folder.is_dir():
        raise RunError(f"{folder} does not exist: name the output folder of a run")
    record = read_record(folder, "repair it, or train again")
    if not record:
        raise RunError(
            f"{folder} has no run.json, which tells what was trained: name the output "
            "folder of a run of the training command"
        )
    return record


def _distinct(names: Iterable[str]) -> list[str]:
    names = list(names)
    n = Counter(names)
    return [
        f"{name} ({label})" if n[name] > 1 else name for label, name in enumerate(names)
    ]


def _find_snapshot(folder: Path, which: str) -> Path:
    if which == "best":
        best = training.find_best_snapshot(folder)
        if best is None:
            raise RunError(
                f"{folder} has no snapshot of the best epoch (best_iter_*): take the "
                "newest with which='final' (--which final)"
                if training.find_snapshot(folder)
                else f"{folder} has no snapshot yet: let the run finish an epoch"
            )
        return best
    if which != "final":
        raise ValueError(f"which must be 'best' or 'final', not {which!r}")
    final, flaws = training.find_good_snapshot(folder)
    if final is None:
        raise RunError(
            f"none of the snapshots in {folder} is good: {flaws[0]}"
            if flaws
            else f"{folder} has no snapshot yet: let the run finish an epoch"
        )
    return final


def _make_network(
    folder: Path, arguments: Mapping[str, Any], snapshot: Path
) -> chainer.Link:
    name = arguments.get("model")
    if name is None:
        raise RunError(
            f"the record of {folder} names no model: give one like that which was "
            "trained, load_predictor(run, network=...)"
        )
    parameters = inspect.signature(models.make_model).parameters.values()
    options = {
        p.name: arguments[p.name]
        for p in parameters
        if p.kind == p.KEYWORD_ONLY and p.name in arguments
    }
    try:
        n_class = _n_class(models.make_model(name, 1, **options), snapshot)
        return models.make_model(name, n_class, **options)
    except (TypeError, ValueError) as e:
        if isinstance(e, training.SnapshotError):
            raise
        raise RunError(
            f"the record of {folder} is not of a model of this version: {e}; of a "
            "network of your own, give one like it, load_predictor(run, "
            "network=Net()), else install the version of chainer_mmix that it names"
        ) from e


def _n_class(network: chainer.Link, snapshot: Path) -> int:
    """Returns how many outputs the last linear layer has in a snapshot."""
    linear = [k for k, link in network.namedlinks() if isinstance(link, L.Linear)]
    if not linear:
        raise RunError(
            f"{type(network).__name__} has no linear layer by which to number the "
            "classes: record their names, RunRecord(..., data={'class_names': [...]})"
        )
    wanted = f"updater/model:main/predictor{linear[-1]}/W"
    found = training.read_snapshot(snapshot, wanted.__eq__)
    if not found:
        raise training.SnapshotError(
            f"the weights in {snapshot} do not fit {type(network).__name__}: they lack "
            f"{wanted}; load them into a link like the one that was saved"
        )
    return len(found[wanted])
