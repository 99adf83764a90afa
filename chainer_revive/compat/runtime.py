"""Functions that patched code calls."""

from __future__ import annotations

import copy
import json
import re
import sys
import warnings
import weakref

import numpy

_WIDE = {"f": numpy.float64, "i": numpy.int64, "u": numpy.int64}


def wide(value):
    """Widens a NumPy scalar or zero-dimensional array to 64 bits.

    NumPy 1 did so wherever one met a Python number, so sums and means of scalars were
    64-bit. Since NumPy 2 (NEP 50) they have the type of the scalar, and overflow.
    CuPy has never done so: its half precision is widened to float32, in which a sum
    over an epoch is good enough. Everything else (Python numbers, larger arrays) is
    returned as it is.
    """
    if isinstance(value, (numpy.generic, numpy.ndarray)):
        if value.ndim == 0 and value.dtype.itemsize < 8 and value.dtype.kind in _WIDE:
            return _WIDE[value.dtype.kind](value)
    elif _is_half_on_a_gpu(value):
        return value.astype(numpy.float32)
    return value


def at_least_single(array):
    """Widens an array in half precision, whose squares end at 65504, to float32."""
    return array.astype(numpy.float32) if array.dtype == numpy.float16 else array


def _is_half_on_a_gpu(value) -> bool:
    from chainer.backends import cuda  # which imports this module

    return (
        isinstance(value, cuda.ndarray)
        and value.ndim == 0
        and value.dtype == numpy.float16
    )


def to_float(value) -> float:
    """``float`` as before NumPy 2.4: an array of one element may have axes."""
    return float(value.item() if getattr(value, "size", None) == 1 else value)


def cast(value, dtype):
    """Casts a Python int as C does: -1 to an unsigned dtype is its largest value.

    NumPy 2 raises OverflowError where such an int is assigned to an unsigned array.
    """
    return numpy.asarray(value).astype(dtype)[()] if isinstance(value, int) else value


def hdf5_array(dataset) -> numpy.ndarray:
    """Reads an HDF5 dataset, with text as ``str``; h5py 3 would return bytes.

    Bytes, which h5py stores with a fixed length or as ASCII, stay bytes.
    """
    import h5py

    text = h5py.check_string_dtype(dataset.dtype)
    if text and text.length is None and text.encoding == "utf-8":
        return numpy.asarray(dataset.asstr()[()], object)
    return numpy.asarray(dataset)


def to_hdf5(value):
    """Returns an array that h5py can store: text as such, and ``None`` as empty."""
    import h5py

    array = numpy.asarray(value)
    if array.dtype.kind == "U":
        return array.astype(h5py.string_dtype())
    return h5py.Empty("f") if array.dtype == object and array[()] is None else array


def nccl():
    """Imports CuPy's NCCL, without the warning where it is not installed.

    Chainer imports it for one of its updaters, which says itself what it lacks.

    Raises:
        ImportError: If it is not installed. CuPy's module can be imported nevertheless.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl
    if not nccl.available:
        raise ImportError("NCCL is not installed")
    return nccl


def check_cuda_driver() -> None:
    """Raises OSError when the CUDA driver is missing.

    CuPy imports without one, and Chainer takes that for an available GPU. The library
    is loaded and not initialised: a process that has initialised CUDA cannot fork.
    """
    import ctypes

    import cupy

    if cupy.cuda.runtime.is_hip:
        return
    if sys.platform == "linux":
        ctypes.CDLL("libcuda.so.1")
    elif sys.platform == "win32":
        ctypes.CDLL("nvcuda.dll")


def send(cupy, array: numpy.ndarray):
    """Copies an array to the current GPU, so that it may be overwritten afterwards.

    CuPy takes a copy of what is not in pinned memory, and need not wait for it.
    """
    pinned = cupy.cuda.pinned_memory.is_memory_pinned(array.ctypes.data)
    return cupy.asarray(array, blocking=pinned)


def resuming_first(extensions: list) -> list:
    """Puts the extensions first that load a snapshot as they are initialised.

    The others then find the Trainer as they would after a ``load_npz`` before ``run``.
    """

    def resumes(extension) -> bool:
        # chainermn's has one in it.
        extension = getattr(extension, "snapshot", extension)
        return bool(getattr(extension, "autoload", False))

    return sorted(extensions, key=lambda item: not resumes(item[1].extension))


def needs_no_initialize(entry) -> bool:
    """Tells whether an extension of a resumed Trainer has nothing left to do.

    Extensions that shift a value set it again, though they will not change it.
    """
    is_shift = hasattr(entry.extension, "_last_value")
    return getattr(entry.trigger, "finished", False) and not is_shift


def warmed_up(shift) -> float:
    """Returns the value that a ``WarmupShift`` sets as a training begins or goes on."""
    if shift._t == 0:
        return shift._warmup_start
    if shift._t <= shift._warmup_iter:
        rest = shift._warmup_iter - shift._t
        start = rest * shift._warmup_start
        return (shift._t * shift._init + start) / shift._warmup_iter
    # Other extensions may have shifted it since.
    value = getattr(shift, "_value", None)
    return shift._init if value is None else float(value)


def serialize_warmup(self, serializer) -> None:
    """Like ``WarmupShift.serialize``, but with the value that it leaves to others."""
    import chainer

    self._t = serializer("_t", self._t)
    if not isinstance(serializer, chainer.Deserializer):
        if self._optimizer is not None:
            serializer("_value", getattr(self._optimizer, self._attr))
        return
    try:
        self._value = serializer("_value", None)
    except (KeyError, ValueError):  # a snapshot of Chainer's own
        self._value = None


def serialize_early_stopping(self, serializer) -> None:
    """The method that ``EarlyStoppingTrigger`` lacks, as ``BestValueTrigger`` has it.

    A snapshot of Chainer's own leaves the trigger as it is.
    """
    for trigger, name in (
        (self._interval_trigger, "interval_trigger"),
        (self._max_trigger, "max_trigger"),
    ):
        if hasattr(trigger, "serialize"):
            trigger.serialize(serializer[name])
    try:
        self.count = serializer("count", self.count)
    except (KeyError, ValueError):
        warnings.warn(
            "The snapshot has no count of EarlyStoppingTrigger: its patience begins "
            "anew",
            stacklevel=2,
        )
        return
    self.best = serializer("best", self.best)
    self._summary.serialize(serializer["summary"])


def serialize_stop_trigger(trainer, serializer) -> None:
    """Serializes a stop trigger, and what it has not yet seen.

    A snapshot is taken before the trigger looks at the observation of its iteration.
    """
    import chainer

    trainer.stop_trigger.serialize(serializer)
    trigger = trainer.stop_trigger
    if not isinstance(trigger, chainer.training.triggers.EarlyStoppingTrigger):
        return
    if not isinstance(serializer, chainer.Deserializer):
        value = None
        if getattr(trigger, "_seen", None) != trainer.updater.iteration:
            value = trainer.observation.get(trigger.monitor)
        if value is not None:
            value = float(chainer.as_array(value))
        serializer("observed", value)
        return
    try:
        value = serializer("observed", None)
    except (KeyError, ValueError):
        return
    if value is not None:
        trainer.observation[trigger.monitor] = float(value)


def serialize_observation(trainer, serializer) -> None:
    """Serializes what was reported before a snapshot in the middle of an iteration."""
    import chainer

    if isinstance(serializer, chainer.Deserializer):
        try:
            saved = json.loads(str(serializer("observation", "null")))
        except (KeyError, ValueError):  # a snapshot of Chainer's own
            saved = None
        if saved is not None:
            saved = {key: decode(value) for key, value in saved.items()}
        trainer._resumed = saved
        return
    saved = None
    if any(_is_due(entry.trigger, trainer) for entry in trainer._extensions.values()):
        saved = encoded(trainer.observation)
    serializer("observation", json.dumps(saved))


def catch_up(trainer, extensions: list) -> None:
    """Runs the extensions that follow a snapshot in its iteration, if it was resumed.

    They find the weights, the iteration and the observation that they would have found.
    """
    observation = vars(trainer).pop("_resumed", None)
    due = [entry for _, entry in extensions if _is_due(entry.trigger, trainer)]
    if observation is None or not due:
        return
    trainer.observation = {**trainer.observation, **observation}
    with trainer.reporter.scope(trainer.observation):
        for entry in due:
            if entry.trigger(trainer):
                entry.extension(trainer)


def _is_due(trigger, trainer) -> bool:
    """Whether a trigger has yet to be asked in this iteration.

    Those that do not keep the last iteration cannot tell.
    """
    trigger = getattr(trigger, "_interval_trigger", trigger)  # of a BestValueTrigger
    asked = getattr(trigger, "_previous_iteration", None)
    return asked is not None and 0 <= asked == trainer.updater.iteration - 1


def encoded(observation: dict) -> dict:
    """Returns what JSON can hold of reported values: numbers, words, tuples of them.

    A program may report anything else, which Chainer's own extensions leave out.
    """
    values = {key: _encode(value) for key, value in observation.items()}
    return {key: value for key, value in values.items() if value is not None}


def _encode(value) -> list | None:
    import chainer

    if isinstance(value, tuple):
        parts = [_encode(part) for part in value]
        return parts if parts and None not in parts else None
    value = chainer.as_array(value)
    if not (numpy.isscalar(value) or isinstance(value, chainer.get_array_types())):
        return None
    array = numpy.asarray(chainer.backends.cuda.to_cpu(value))
    return [array.dtype.str, array.tolist()] if array.dtype.kind in "biufU" else None


def decode(value: list):
    """Returns a value of :func:`encoded`, as an array on the CPU."""
    if isinstance(value[0], list):
        return tuple(decode(part) for part in value)
    return numpy.array(value[1], str(value[0]))


def serialize_order(iterator, serializer) -> None:
    """Saves or loads the generator that a ``ShuffleOrderSampler`` has of its own.

    That of :mod:`numpy.random` is not the iterator's, and what is no generator of
    NumPy's cannot be saved.
    """
    import chainer

    sampler = getattr(iterator, "order_sampler", None)
    if type(sampler) is not chainer.iterators.ShuffleOrderSampler:
        return
    random = sampler._random
    is_new = isinstance(random, numpy.random.Generator)
    is_old = isinstance(random, numpy.random.RandomState)
    if not (is_new or is_old) or random is numpy.random.random.__self__:
        return
    state = random.bit_generator.state if is_new else random.get_state(legacy=False)
    try:
        text = str(
            serializer("random", json.dumps(state, default=numpy.ndarray.tolist))
        )
    except (KeyError, ValueError):  # npz, HDF5
        warnings.warn(
            "The snapshot has no state of the generator of ShuffleOrderSampler, which "
            "begins anew",
            stacklevel=2,
        )
        return
    if not isinstance(serializer, chainer.Deserializer):
        return
    state = json.loads(text)
    for key, value in state["state"].items():
        if isinstance(value, list):
            state["state"][key] = numpy.array(value, numpy.uint64)
    if is_new:
        random.bit_generator.state = state
    else:
        random.set_state(state)


# The links with a state, and its parts.
_STATES = {
    "LSTM": "ch",
    "StatefulPeepholeLSTM": "ch",
    "StatefulZoneoutLSTM": "ch",
    "StatefulGRU": "h",
    "StatefulMGU": "h",
}


def serialize_states(model, serializer) -> None:
    """Saves or loads the states of the recurrent links of a model.

    They belong to a training, and not to the model's file: another batch has another
    shape. After truncated backprop, which unchains them, they are all that the next
    step needs. A snapshot of Chainer's own leaves them as they are.
    """
    import chainer

    is_loading = isinstance(serializer, chainer.Deserializer)
    for path, link in model.namedlinks():
        for kind, names in _STATES.items():
            if not isinstance(link, getattr(chainer.links, kind)):
                continue
            for name in names:
                state = getattr(link, name)
                own = serializer[path.lstrip("/") or "self"]
                if not is_loading:
                    own(name, None if state is None else state.array)
                    continue
                try:
                    array = own(name, None)
                except (KeyError, ValueError):  # npz, HDF5
                    warnings.warn(
                        f"The snapshot has no state of {path}, which begins anew",
                        stacklevel=2,
                    )
                    continue
                if array is not None:
                    array = chainer.Variable(link.device.send(array))
                setattr(link, name, array)


_UPDATE_RULE = re.compile("/?updater/optimizer:(.*?)/(.*?)/?")


def had_state(rule, deserializer) -> bool:
    """Tells whether an update rule, whose ``t`` is loaded, was saved with a state.

    It had none if its parameter was frozen from the beginning, or has no array, as in a
    layer that has never been called and does not know its input size.
    """
    if not rule.t:
        return False
    group = getattr(deserializer, "group", None)  # of HDF5
    path = getattr(deserializer, "path", "") if group is None else group.name
    match = _UPDATE_RULE.fullmatch(path)
    if match is None:
        return True
    weight = f"updater/model:{match[1]}/{match[2]}"
    if group is None:
        saved = deserializer.npz
        return weight not in saved or saved[weight][()] is not None
    return weight not in group.file or group.file[weight].shape is not None


def serialize_parallel_updater(updater, serializer) -> None:
    """Saves or loads the main model; the others get what it has."""
    import chainer

    super(chainer.training.updaters.ParallelUpdater, updater).serialize(serializer)
    if not isinstance(serializer, chainer.Deserializer):
        return
    main = updater.get_optimizer("main").target
    for model in updater._models.values():
        if model is not main:
            model.copyparams(main)


def expect_vectors(*links) -> None:
    """Registers what ``SpectralNormalization`` will need, to be loaded or drawn.

    Later than this, when a link is saved or loaded or its optimizer is set up, it would
    be passed over.
    """
    import chainer
    from chainer.link_hooks import SpectralNormalization

    for link in links:
        for hook in (link._local_link_hooks or {}).values():
            is_new = isinstance(hook, SpectralNormalization) and not hook._initialized
            if not is_new or hasattr(link, hook.vector_name):
                continue
            setattr(link, hook.vector_name, None)
            link.register_persistent(hook.vector_name)
            if hook.use_gamma:
                with link.init_scope():
                    link.gamma = chainer.Parameter()


def has_vector(hook, link) -> bool:
    """Tells whether it has been loaded since the hook was added."""
    u = getattr(link, hook.vector_name, None)
    if u is not None:
        setattr(link, hook.vector_name, link.device.send(u))
        hook._initialized = True
    return u is not None


def filled(link, name: str, value):
    """Returns a link's parameter, which may have been uninitialised, with a value."""
    import chainer

    param = getattr(link, name, None)
    if not isinstance(param, chainer.Parameter) or param.is_initialized:
        return chainer.Parameter(value)
    param.initialize(value.shape)
    param.array[...] = value
    return param


def weighted(observation: dict, batch) -> dict:
    """Weighs the values of a minibatch by its examples, as tuples."""
    weight = len(batch) if isinstance(batch, (list, tuple, numpy.ndarray)) else 1
    return {
        k: v if isinstance(v, tuple) else (v, weight) for k, v in observation.items()
    }


def mean_of(evaluator, summary) -> dict:
    """Returns the means of an evaluation, whose weights the evaluator keeps."""
    weights = {name: one._n for name, one in summary._summaries.items()}
    evaluator._mmix_weights = weights
    return summary.compute_mean()


def mean_over_ranks(evaluator, means: dict) -> dict:
    """Weighs the means of each rank; none if a rank does not know the weights."""
    weights = vars(evaluator).pop("_mmix_weights", None)
    own = weights and {name: (float(means[name]), weights[name]) for name in means}
    all_ranks = evaluator._mn_communicator.allreduce_obj([own])
    if None in all_ranks:
        return {}
    found = {}
    for name in sorted(set().union(*all_ranks)):
        pairs = [rank[name] for rank in all_ranks if name in rank]
        n = sum(weight for _, weight in pairs)
        total = sum(mean * weight for mean, weight in pairs if weight)
        found[name] = total / n if n else float("nan")
    return found


def joined(optimizer, lossfun=None):
    """Returns the target of a multi-node optimizer, whose links know that it is one.

    Each link of the target, and of a loss function that is one, is told the
    communicator once, before its first step, by its method ``use_communicator``.
    """
    import chainer

    target = optimizer.target
    told = vars(optimizer).setdefault("_mmix_told", weakref.WeakSet())
    for root in (target, lossfun):
        if isinstance(root, chainer.Link) and root not in told:
            for link in root.links():
                use = getattr(link, "use_communicator", None)
                if use is not None and link not in told:
                    use(optimizer.communicator)
                told.add(link)
    return target


def to_receive(array):
    """Returns an array, or a copy if it has gaps or may not be written."""
    flags = getattr(array, "flags", None)  # ChainerX's arrays have none
    if flags is None or (flags.c_contiguous and getattr(flags, "writeable", True)):
        return array
    return array.copy(order="C")


def array_to_receive(param):
    """Returns the array of a parameter, after :func:`to_receive`."""
    if (array := to_receive(param.array)) is not param.array:
        param.array = array
    return array


def deepcopy_sequential(sequential, memo: dict):
    """Copies it as Python copies any object."""
    memo[id(sequential)] = copied = object.__new__(type(sequential))
    vars(copied).update(copy.deepcopy(vars(sequential), memo))
    return copied
