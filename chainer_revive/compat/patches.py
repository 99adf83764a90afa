"""The replacements in the sources of Chainer 7.8.1 and ChainerCV 0.13.1, and why.

``PATCHES``: module -> replacements of text, each with the number of times that it must
occur. Replacements keep the number of lines, so tracebacks point into the installed
files. ``REWRITES``: module -> function from its source to another one. ``STAND_INS``:
module -> file of this package that is loaded when the module is not installed.
"""

from __future__ import annotations

from collections.abc import Callable

from chainer_revive.compat import cupy_patches, package_patches
from chainer_revive.compat.patch import HERE as _HERE
from chainer_revive.compat.patch import Patch
from chainer_revive.compat.patch import with_runtime as _with_runtime
from chainer_revive.compat.protobuf import rebuild_pb2


def _with_example_random(line: str) -> Patch:
    module = "from chainer_revive import example_random as _mmix"
    return Patch(f"{line}\n", f"{line}; {module}\n")


# Of iterators that keep their whole state in an IteratorState.
_DRAWS_IN_STATE = (
    _with_example_random("import numpy"),
    Patch(
        "IteratorState(0, 0, False, order)",
        "IteratorState(0, 0, False, order, _mmix.new_draws(self))",
    ),
    Patch(
        "current_position, epoch, is_new_epoch, order)",
        "current_position, epoch, is_new_epoch, order, "
        "_mmix.serialize_draws(serializer, self))",
    ),
)

_ONNX_TYPES = Patch(
    "from onnx.mapping import NP_TYPE_TO_TENSOR_TYPE\n",
    f"from {_HERE}.onnx_types import NP_TYPE_TO_TENSOR_TYPE\n",
)

# setuptools 81 removed pkg_resources.
_PKG_RESOURCES = Patch(
    "import pkg_resources\n", f"from {_HERE} import requirements as pkg_resources\n"
)

PATCHES: dict[str, tuple[Patch, ...]] = {
    # --- Gone from Python, setuptools or NumPy ---------------------------------------
    # numpy.distutils is gone; it served to recognise Apple's Accelerate of NumPy 1.
    "chainer._environment_check": (
        _PKG_RESOURCES,
        Patch("import numpy.distutils.system_info\n", "\n"),
        Patch("numpy.distutils.system_info.get_info('blas_opt')", "{}"),
    ),
    "chainer.testing.doctest_helper": (_PKG_RESOURCES,),
    "chainer.testing.helper": (_PKG_RESOURCES,),
    "chainercv": (_PKG_RESOURCES,),
    # distutils is gone from Python 3.12.
    "chainercv.utils.download": (
        Patch("from distutils.util import strtobool\n", "\n"),
        Patch(
            "strtobool(os.getenv('CHAINERCV_DOWNLOAD_REPORT', 'ON'))",
            "os.getenv('CHAINERCV_DOWNLOAD_REPORT', 'ON').lower() "
            "in ('y', 'yes', 't', 'true', 'on', '1')",
        ),
    ),
    # numpy.sctypes is gone.
    "chainer.functions.array.as_strided": (
        Patch("np.sctypes['int']", "(np.int8, np.int16, np.int32, np.int64)"),
        Patch(
            "np.sctypes['float']",
            "(np.float16, np.float32, np.float64, np.longdouble)",
        ),
    ),
    # numpy.float and numpy.int are gone.
    "chainer.functions.array.resize_images": (
        Patch("numpy.float)", "numpy.float64)", 6),
    ),
    "chainercv.experimental.links.model.fcis.fcis_train_chain": (
        Patch(".astype(np.int)", ".astype(int)"),
    ),
    "chainercv.experimental.links.model.fcis.utils.proposal_target_creator": (
        Patch(".astype(np.int)", ".astype(int)", 2),
    ),
    # NumPy 2.5 deprecates numpy.fix and assignments to ndarray.shape.
    "chainer.functions.math.fix": (Patch("xp.fix(x)", "xp.trunc(x)"),),
    "chainer.links.activation.maxout": (
        Patch(
            "array.shape = (out_size, pool_size, in_size)\n",
            "array = array.reshape((out_size, pool_size, in_size))\n",
        ),
        Patch(
            "array.shape = (linear_out_size, in_size)\n",
            "array = array.reshape((linear_out_size, in_size))\n",
        ),
        Patch(
            "array.shape = (out_size, pool_size)\n",
            "array = array.reshape((out_size, pool_size))\n",
        ),
        Patch(
            "array.shape = linear_out_size,\n",
            "array = array.reshape((linear_out_size,))\n",
        ),
    ),
    # --- Gone from ONNX --------------------------------------------------------------
    "onnx_chainer.export": (
        Patch(
            "import warnings\n", f"import warnings; from {_HERE} import onnx_types\n"
        ),
        _ONNX_TYPES,
        Patch(
            "except ImportError:\n    _available = False\n",
            "except ImportError as error:\n"
            "    _available = onnx_types.available(error)\n",
        ),
        Patch("onnx<1.7.0", "chainer-mmix[onnx]"),
        # The oldest that the opset needs, in place of the newest.
        Patch(
            "model.ir_version = onnx.IR_VERSION\n",
            "model.ir_version = helper.find_min_ir_version_for(opset_imports, True)\n",
        ),
    ),
    "onnx_chainer.functions.array": (_ONNX_TYPES,),
    "onnx_chainer.functions.math": (_ONNX_TYPES,),
    # Constants are raw data then, which is as well.
    "onnx_chainer.context": (
        Patch(
            "onnx.mapping.STORAGE_TENSOR_TYPE_TO_FIELD.get(\n"
            "        tensor.data_type, None)\n",
            "None\n\n",
        ),
    ),
    # --- Needs what is faster elsewhere switched off ----------------------------------
    # A difference of two function values magnifies their rounding errors.
    "chainer.gradient_check": (
        Patch(
            "    with configuration.using_config('type_check', False):",
            "    with configuration.using_config('type_check', False), "
            "configuration.using_config('winograd', False):",
        ),
        Patch(
            "        with chainer.using_device(self.device):\n            self._run()",
            "        with chainer.using_device(self.device), "
            "configuration.using_config('winograd', False):\n            self._run()",
        ),
    ),
    # --- Does something else on NumPy 2 ----------------------------------------------
    # NumPy 2.4 deprecates a positional out; a negative padding of unsigned arrays
    # raises OverflowError.
    "chainer.dataset.convert": (
        _with_runtime("import numpy"),
        Patch(
            "numpy.maximum(shape, array.shape, shape)",
            "numpy.maximum(shape, array.shape, out=shape)",
        ),
        Patch(
            "device.xp.full(shape, padding, dtype=arrays[0].dtype)",
            "device.xp.full(shape, _mmix.cast(padding, arrays[0].dtype), "
            "dtype=arrays[0].dtype)",
        ),
    ),
    "chainer.functions.array.pad_sequence": (
        _with_runtime("import numpy"),
        Patch(
            "y[i, l:] = self.padding", "y[i, l:] = _mmix.cast(self.padding, y.dtype)"
        ),
    ),
    # numpy.meshgrid returns a tuple, which is another kind of index.
    "chainer.distributions.categorical": (
        Patch("self.log_p[mg + [", "self.log_p[list(mg) + [", 2),
    ),
    # int() takes no array with an axis any more.
    "chainermn.iterators.multi_node_iterator": (
        Patch("self.dataset_size = int(_size)", "self.dataset_size = int(_size[0])"),
    ),
    # A generator is no sequence of arrays any more.
    "chainercv.links.model.fpn.bbox_head": (
        Patch(
            "xp.array((l,) * len(rois[l])) for l in range(n_level)).astype",
            "[xp.array((l,) * len(rois[l])) for l in range(n_level)]).astype",
        ),
    ),
    "chainercv.links.model.fpn.mask_head": (
        Patch(
            "xp.array((l,) * len(rois[l])) for l in range(n_level)).astype",
            "[xp.array((l,) * len(rois[l])) for l in range(n_level)]).astype",
        ),
    ),
    # Arrays have a device now, the str "cpu".
    "chainer.variable": (
        Patch(
            "device = getattr(array, 'device', 'CPU')",
            "device = 'CPU' if isinstance(array, numpy.ndarray) else "
            "getattr(array, 'device', 'CPU')",
        ),
    ),
    # --- Was computed in 64 bits on NumPy 1: overflows and rounds, silently ----------
    "chainer.reporter": (
        _with_runtime("import numpy"),
        Patch(
            "            self._x += weight * value\n",
            "            value, weight = _mmix.wide(value), _mmix.wide(weight); "
            "self._x += weight * value\n",
        ),
    ),
    "chainer.training.extensions.micro_average": (
        _with_runtime("from chainer import reporter"),
        Patch(
            "+= observation[self._numerator_key]",
            "+= _mmix.wide(observation[self._numerator_key])",
        ),
        Patch(
            "+= observation[self._denominator_key]",
            "+= _mmix.wide(observation[self._denominator_key])",
        ),
    ),
    "chainermn.extensions.observation_aggregator": (
        _with_runtime("import chainerx as chx"),
        Patch("return sum(xs) / len(xs)", "return sum(map(_mmix.wide, xs)) / len(xs)"),
        # A bug of 7.8.1: a Variable went to ChainerX's device, which need not be there.
        Patch(
            'to_device("native")',
            'to_device("native" if chx.is_available() else "@numpy")',
        ),
    ),
    "chainer.optimizer_hooks.gradient_clipping": (
        _with_runtime("import chainer"),
        Patch("g = g.ravel()\n", "g = _mmix.at_least_single(g.ravel())\n"),
        Patch(
            "sq_sums.append(sum(dots))", "sq_sums.append(sum(map(_mmix.wide, dots)))"
        ),
    ),
    "chainer.optimizer_hooks.gradient_lars": (
        _with_runtime("import chainer"),
        *(
            Patch(
                f"xp.linalg.norm({x})",
                f"_mmix.wide(xp.linalg.norm(_mmix.at_least_single({x})))",
            )
            for x in "pg"
        ),
    ),
    # Another alias table, so other samples from the same seed.
    "chainer.utils.walker_alias": (
        Patch("p = prob * len(probs)", "p = float(prob) * len(probs)"),
        Patch("p -= 1.0 - threshold[ir]", "p -= 1.0 - float(threshold[ir])"),
    ),
    # --- Other libraries -------------------------------------------------------------
    # SciPy 1.15 refuses sparse matrices in half precision.
    "chainer.functions.math.sparse_matmul": (
        Patch(
            "    _n = B.shape[-1]\n    if B.ndim == 2:\n        sp_A = sparse",
            "    _n = B.shape[-1]; A_data = A_data.astype("
            "numpy.promote_types(A_data.dtype, numpy.float32), copy=False)\n"
            "    if B.ndim == 2:\n        sp_A = sparse",
        ),
    ),
    # h5py 3 returns strings as bytes. It takes no arrays of str, such as the log of a
    # LogReport, nor of None, which the snapshot extension makes.
    "chainer.serializers.hdf5": (
        _with_runtime("import numpy"),
        Patch("arr = _cpu._to_cpu(value)", "arr = _mmix.to_hdf5(_cpu._to_cpu(value))"),
        Patch("arr = numpy.asarray(value)", "arr = _mmix.to_hdf5(value)"),
        Patch(
            "compression = None if arr.size <= 1 else compression\n                try",
            "level = compression if arr.size and arr.size > 1 else None\n"
            "                try",
        ),
        Patch(
            "data=arr, compression=compression)\n                except",
            "data=arr, compression=level)\n                except",
        ),
        Patch("save in HDF5 format.\\n')", "save in HDF5 format.\\n'.format(key))"),
        Patch("sys.exec_info()", "sys.exc_info()"),
        Patch(
            "            return numpy.asarray(dataset)\n",
            "            return _mmix.hdf5_array(dataset)\n",
        ),
        Patch(
            "type(value)(numpy.asarray(dataset))",
            "type(value)(_mmix.hdf5_array(dataset))",
        ),
    ),
    **cupy_patches.PATCHES,
    # --- Bugs of 7.8.1: random transforms in workers ---------------------------------
    # What an example's transform drew at random depended on the worker that happened to
    # read the example, and workers drew the same.
    "chainer.iterators._statemachine": (
        Patch(
            "'is_new_epoch', 'order'))",
            "'is_new_epoch', 'order', 'draws'), defaults=(None,))",
        ),
        Patch("i, epoch, _, order = state", "i, epoch, _, order, draws = state"),
        Patch(
            "    state = IteratorState(i_end, epoch, is_new_epoch, order)\n"
            "    indices = numpy.concatenate(indices_list)\n",
            "    indices = numpy.concatenate(indices_list); "
            "draws = draws and draws.after(len(indices))\n"
            "    state = IteratorState(i_end, epoch, is_new_epoch, order, draws)\n",
        ),
    ),
    "chainer.iterators.serial_iterator": (
        *_DRAWS_IN_STATE,
        Patch(
            "[self.dataset[index] for index in indices]",
            "_mmix.fetch(self.dataset, indices, self._state.draws)",
        ),
    ),
    "chainer.iterators.multithread_iterator": (
        *_DRAWS_IN_STATE,
        Patch(
            "args = [(self.dataset, index) for index in indices]",
            "args = [(self.dataset, visit) for visit in "
            "_mmix.visits(indices, self._next_state.draws)]",
        ),
        Patch("return dataset[index]", "return _mmix.read(dataset, index)"),
        # A new order is drawn when its first batch is asked for, as by SerialIterator:
        # what the network draws before does not depend on prefetching, and a snapshot
        # has the state of numpy.random that belongs to it.
        Patch(
            "        self._invoke_prefetch()  # prefetch for the next iteration\n",
            "        _mmix.ends_epoch(self) or self._invoke_prefetch()\n",
        ),
    ),
    # setDaemon is deprecated since Python 3.10.
    "chainer.iterators.multiprocess_iterator": (
        Patch(
            "import numpy\n",
            "import numpy; from chainer_revive import example_random as _mmix, "
            "worker_errors as _errors, worker_signals as _signals\n",
        ),
        Patch(
            "signal.signal(signal.SIGINT, signal.SIG_IGN)",
            "_signals.outlast_signals()",
        ),
        Patch("thread.setDaemon(True)", "thread.daemon = True"),
        Patch(
            "current_position, epoch, is_new_epoch, order)\n        self._comm",
            "current_position, epoch, is_new_epoch, order, draws or "
            "_mmix.draws_of(self))\n        self._comm",
        ),
        Patch(
            "self._reset_state(0, 0, False, order)",
            "self._reset_state(0, 0, False, order, _mmix.new_draws(self))",
        ),
        Patch(
            "def _reset_state(self, current_position, epoch, is_new_epoch, order):",
            "def _reset_state(self, current_position, epoch, is_new_epoch, order, "
            "draws=None):",
        ),
        # Without shuffling there is no order, which a snapshot ended with.
        Patch(
            "        order = self._state.order.copy()\n"
            "        try:\n"
            "            serializer('order', order)\n",
            "        order = None if self._state.order is None else "
            "self._state.order.copy()\n"
            "        try:\n"
            "            order is None or serializer('order', order)\n",
        ),
        Patch(
            "        self._reset_state(current_position, epoch, is_new_epoch, order)\n"
            "        try:\n",
            "        self._reset_state(current_position, epoch, is_new_epoch, order, "
            "_mmix.serialize_draws(serializer, self))\n"
            "        try:\n",
        ),
        Patch(
            "            def fetch_batch():\n"
            "                batch_ret[0] = [self.dataset[idx] for idx in indices]\n",
            "            fetch_batch = _mmix.first_batch(\n"
            "                self.dataset, indices, self.prefetch_state.draws, "
            "batch_ret)\n",
        ),
        # An error ended the prefetching thread, for which the main thread waited.
        Patch("batch = batch_ret[0]\n", "batch = _errors.raised(batch_ret[0])\n"),
        Patch(
            "            return batch\n\n",
            "            return _errors.raised(batch)\n\n",
        ),
        Patch(
            "_fetch_run, enumerate(indices))",
            "_fetch_run, enumerate(_mmix.tasks(indices, self.prefetch_state.draws)), "
            # Pool's default, which fails while none of its workers is alive, as may be
            # with maxtasksperchild.
            "-(-len(indices) // (4 * self.n_processes)))",
        ),
        Patch(
            "data = _fetch_dataset[index]",
            "data = _errors.read(_mmix.read_in_worker, _fetch_dataset, index)",
        ),
        # New orders as above: the prefetching thread leaves them to the main thread.
        Patch("alive = self._task()", "alive = _mmix.attempt(self)"),
        Patch(
            "        if status == _Communicator.STATUS_RESET:\n"
            "            self.prefetch_state = prefetch_state\n"
            "        elif",
            "        sampler = self.asking = _mmix.Asking(self, reset_count)\n"
            "        if status == _Communicator.STATUS_RESET: "
            "self.prefetch_state = prefetch_state\n"
            "        elif",
        ),
        Patch(
            "            self.order_sampler, len(self.dataset))\n"
            "        if indices is None:  # stop iteration\n"
            "            batch = None\n"
            "        else:\n"
            "            future",
            "            sampler, len(self.dataset))\n"
            "        if indices is None:  # stop iteration\n"
            "            batch = None\n"
            "        else:\n"
            "            future",
        ),
        Patch(
            "                self._not_empty_cond.wait(_response_time)\n",
            "                _mmix.answer(self) or "
            "self._not_empty_cond.wait(_response_time)\n",
        ),
        # In the main thread, since the workers start now.
        Patch(
            "        measure_mode = False\n",
            "        measure_mode = False; self._state.draws.seeds.choose()\n",
        ),
    ),
    # --- Bugs of 7.8.1: what a resumed training forgets ------------------------------
    # snapshot(autoload=True) loads after other extensions have looked at the Trainer.
    "chainer.training.trainer": (
        _with_runtime("import traceback"),
        Patch(
            "        # invoke initializer of each extension\n"
            "        for _, entry in extensions:\n",
            "        # invoke initializer of each extension\n"
            "        for _, entry in _mmix.resuming_first(extensions):\n",
        ),
        # After the last drop, the rate would be the optimizer's first again.
        Patch(
            "finished = getattr(entry.trigger, 'finished', False)",
            "finished = _mmix.needs_no_initialize(entry)",
        ),
        Patch(
            "self.stop_trigger.serialize(serializer['stop_trigger'])",
            "_mmix.serialize_stop_trigger(self, serializer['stop_trigger'])",
        ),
        # The extensions that follow a snapshot in its iteration would run after the
        # next iteration, with its weights.
        Patch(
            "        s = serializer['extensions']\n",
            "        s = serializer['extensions']; "
            "_mmix.serialize_observation(self, serializer)\n",
        ),
        Patch(
            "        # main training loop\n        try:\n",
            "        try:\n            _mmix.catch_up(self, extensions)\n",
        ),
    ),
    # They set the attribute as at the beginning, until they are called again.
    "chainer.training.extensions.multistep_shift": (
        Patch(
            "        else:\n            setattr(optimizer, self._attr, self._init)\n",
            "        setattr(optimizer, self._attr,\n"
            "                self._init * pow(self._gamma, self._current_step))\n",
        ),
    ),
    "chainer.training.extensions.warmup_shift": (
        Patch(
            "from chainer.training import extension\n",
            "from chainer.training import extension; "
            f"from {_HERE} import runtime as _mmix\n",
        ),
        Patch(
            "        else:\n"
            "            setattr(optimizer, self._attr, self._warmup_start)\n",
            "        self._optimizer = optimizer\n"
            "        setattr(optimizer, self._attr, _mmix.warmed_up(self))\n",
        ),
        Patch(
            "        self._t = serializer('_t', self._t)\n",
            "        _mmix.serialize_warmup(self, serializer)\n",
        ),
    ),
    # The patience is in no snapshot.
    "chainer.training.triggers.early_stopping_trigger": (
        _with_runtime("import warnings"),
        Patch(
            "        observation = trainer.observation\n\n",
            "        observation = trainer.observation\n"
            "        self._seen = trainer.updater.iteration\n",
        ),
        Patch(
            "        return self.count >= self.patience\n\n",
            "        return self.count >= self.patience\n"
            "    serialize = _mmix.serialize_early_stopping\n",
        ),
    ),
    "chainermn.extensions.multi_node_early_stopping_trigger": (
        Patch(
            "        return self.actual_trigger._stop_condition()\n\n",
            "        return self.actual_trigger._stop_condition()\n"
            "    def serialize(self, s): self.actual_trigger.serialize(s)\n",
        ),
    ),
    # Nor are the states of recurrent links, nor generators that draw orders alone.
    "chainer.training.updaters.standard_updater": (
        _with_runtime("import warnings"),
        Patch(
            "            iterator.serialize(serializer['iterator:' + name])\n",
            "            iterator.serialize(serializer['iterator:' + name]); "
            "_mmix.serialize_order(iterator, serializer['order:' + name])\n",
        ),
        Patch(
            "            optimizer.target.serialize(serializer['model:' + name])\n\n",
            "            optimizer.target.serialize(serializer['model:' + name])\n"
            "            _mmix.serialize_states(optimizer.target, "
            "serializer['states:' + name])\n",
        ),
    ),
    # The other models of a ParallelUpdater keep the weights that they began with, for
    # one step.
    "chainer.training.updaters.parallel_updater": (
        _with_runtime("import copy"),
        Patch(
            "        self._models = models\n\n",
            "        self._models = models\n"
            "    serialize = _mmix.serialize_parallel_updater\n",
        ),
    ),
    # What spectral normalisation knows of a layer that learns its input size is in no
    # snapshot before that layer is called.
    "chainer.link_hooks.spectral_normalization": (
        _with_runtime("import chainer"),
        Patch(
            "        if not self._initialized:\n",
            "        if not (self._initialized or _mmix.has_vector(self, link)):\n",
        ),
        Patch(
            "                link.gamma = variable.Parameter(s0)\n",
            "                link.gamma = _mmix.filled(link, 'gamma', s0)\n",
        ),
    ),
    "chainer.link": (
        _with_runtime("import numpy"),
        Patch(
            "        d = self.__dict__  # type: tp.Dict[str, chainer.Parameter]\n"
            "        for name in self._params:\n"
            "            param = d[name]\n"
            "            data = serializer",
            "        _mmix.expect_vectors(self); d = self.__dict__\n"
            "        for name in self._params:\n"
            "            param = d[name]\n"
            "            data = serializer",
        ),
    ),
    # --- A bug of 7.8.1: means of minibatch means ------------------------------------
    # The last minibatch is smaller, and each of its examples counted more.
    "chainer.training.extensions.evaluator": (
        _with_runtime("import copy"),
        Patch(
            "            summary.add(observation)\n",
            "            summary.add(_mmix.weighted(observation, batch))\n",
        ),
        Patch("return summary.compute_mean()", "return _mmix.mean_of(self, summary)"),
    ),
    # Likewise, where ranks have unequal numbers of examples.
    "chainermn.extensions.multi_node_evaluator": (
        _with_runtime("import copy"),
        Patch(
            "global_mean_dict = {\n",
            "global_mean_dict = _mmix.mean_over_ranks(self, local_mean_dict) or {\n",
        ),
    ),
    # --- Several processes -----------------------------------------------------------
    # Links that draw random numbers have to know that there are other ranks.
    "chainermn.optimizers": (
        _with_runtime("import copy"),
        Patch("target = self.target\n", "target = _mmix.joined(self, lossfun)\n", 2),
        Patch(
            "import chainer\n",
            "import chainer; "
            "from chainer_revive.multinode import updates as _mmix_updates\n",
        ),
        # Both in one pass where that is all that happens.
        Patch(
            "self.communicator.multi_node_mean_grad(target, self.zero_fill)\n"
            "            self.actual_optimizer.update(None, *args, **kwds)\n",
            "_mmix_updates.update(\n                self, args, kwds)\n",
        ),
    ),
    # One message for each gradient.
    "chainermn.communicators.naive_communicator": (
        Patch(
            "import mpi_communicator_base\n",
            "import mpi_communicator_base; "
            "from chainer_revive.multinode import mean_gradients as _mmix\n",
        ),
        Patch("in params:\n", "in _mmix.average(self, model, params):\n"),
    ),
    # A bug of 7.8.1: of an array with gaps, a copy is received and forgotten.
    "chainermn.communicators.mpi_communicator_base": (
        _with_runtime("import numpy"),
        Patch(
            "                data = param.data\n",
            "                data = _mmix.array_to_receive(param)\n",
        ),
    ),
    # --- Others ----------------------------------------------------------------------
    # A list with a lambda function cannot be pickled, but copied.
    "chainer.sequential": (
        _with_runtime("import inspect"),
        Patch(
            "        return super(Sequential, self).__reduce__()\n\n",
            "        return super(Sequential, self).__reduce__()\n"
            "    __deepcopy__ = _mmix.deepcopy_sequential\n",
        ),
    ),
    # A parameter that was frozen when it was saved and no longer is has no state yet.
    # A bug of 7.8.1: a WeightDecay of one update rule was multiplied by the loss scale,
    # which the gradient has been divided by.
    "chainer.optimizer": (
        _with_runtime("import numpy"),
        Patch(
            "        self.target = link\n        self.t = 0\n",
            "        self.target = link; _mmix.expect_vectors(*link.links())\n"
            "        self.t = 0\n",
        ),
        Patch(
            "                        if self.enabled:\n",
            "                        if self.enabled and _mmix.had_state(self, "
            "serializer):\n",
        ),
        Patch(
            "param_.grad /= loss_scale",
            "param_.grad /= loss_scale; param_._loss_scale = None",
        ),
    ),
    # A parameter of a layer that has not been called has no array.
    "chainer.training.extensions.fail_on_nonnumber": (
        Patch("in target.params():", "in target.params(include_uninit=False):"),
    ),
    # The gradient of W when x needs none.
    "chainer.functions.connection.deconvolution_2d": (
        Patch("self._set_cover_all(x, W)\n", "self._set_cover_all(x.shape, W.shape)\n"),
    ),
    **package_patches.PATCHES,
}

REWRITES: dict[str, Callable[[str], str]] = {
    "chainer.links.caffe.protobuf3.caffe_pb2": rebuild_pb2,
    **dict.fromkeys(package_patches.GENERATED, rebuild_pb2),
}

STAND_INS: dict[str, str] = {
    "chainercv.utils.bbox._nms_gpu_post": "nms_gpu_post.py",
}
