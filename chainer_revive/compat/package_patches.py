"""The replacements in the packages around Chainer; see :mod:`.patches`."""

from __future__ import annotations

from chainer_revive.compat.patch import HERE, Patch

# NumPy 2.4 refuses float() of an array of one element that has an axis.
_FLOAT = Patch(
    "\nimport chainer\n",
    f"\nimport chainer; from {HERE}.runtime import to_float as float\n",
)
_AGENTS = (
    "a2c",
    "a3c",
    "acer",
    "ddpg",
    "dqn",
    "nsq",
    "pcl",
    "pgt",
    "ppo",
    "reinforce",
    "soft_actor_critic",
    "td3",
    "trpo",
)

# What tells the cost of max pooling from others.
_MAX_POOLING = """\
    batch_size, in_c, in_h, in_w = x.shape
    out_h = get_conv_outsize(in_h, kh, sy, ph, cover_all=func.cover_all)
    out_w = get_conv_outsize(in_w, kw, sx, pw, cover_all=func.cover_all)

    out_size = batch_size * in_c * out_h * out_w
    flops = out_size * int(
"""[:-1]

# Distribution and version, by the name of its package.
VERSIONS = {
    "chainer_chemistry": ("chainer-chemistry", "0.7.1"),
    "chainer_computational_cost": ("chainer-computational-cost", "0.1.2"),
    "chainer_mask_rcnn": ("chainer-mask-rcnn", "0.5.24"),
    "chainercv2": ("chainercv2", "0.0.62"),
    "chainerrl": ("chainerrl", "0.8.0"),
    "chainerui": ("chainerui", "0.11.0"),
    "tb_chainer": ("tensorboard-chainer", "0.5.3"),
}

# By protoc: protobuf refuses them.
GENERATED = tuple(
    f"tb_chainer.src.{name}_pb2"
    for name in (
        "attr_value",
        "event",
        "graph",
        "node_def",
        "resource_handle",
        "summary",
        "tensor",
        "tensor_shape",
        "types",
        "versions",
    )
)

PATCHES: dict[str, tuple[Patch, ...]] = {
    **{f"chainerrl.agents.{name}": (_FLOAT,) for name in _AGENTS},
    # Gone from collections since Python 3.10.
    "chainerrl.recurrent": (
        Patch("import collections\n", "import collections.abc\n"),
        Patch("collections.Iterable", "collections.abc.Iterable"),
    ),
    "tb_chainer.ordered_set": (
        Patch("import collections\n", "import collections.abc\n"),
        Patch("collections.MutableSet", "collections.abc.MutableSet"),
    ),
    # numpy.asscalar, int and float are gone.
    **{
        f"chainer_chemistry.models.prediction.{name}": (
            Patch("numpy.asscalar(value)", "numpy.asarray(value).item()"),
        )
        for name in ("classifier", "regressor")
    },
    **{
        f"chainer_chemistry.dataset.{name}": (Patch("numpy.int)", "int)", count),)
        for name, count in (
            ("graph_dataset.base_graph_dataset", 2),
            ("preprocessors.ggnn_preprocessor", 2),
            ("preprocessors.gin_preprocessor", 1),
            ("splitters.stratified_splitter", 1),
        )
    },
    "chainer_chemistry.dataset.preprocessors.common": (
        Patch("astype(numpy.float)", "astype(float)"),
    ),
    # gevent 20 renamed it.
    "chainerui.app": (Patch("gevent.signal(", "gevent.signal_handler(", 2),),
    # Chainer 6 made one class of its max poolings.
    "chainer_computational_cost.cost_calculators.pooling": (
        Patch(
            "from chainer.functions.pooling.max_pooling_2d import MaxPooling2D\n",
            "from chainer.functions.pooling.max_pooling_nd import MaxPoolingND\n",
        ),
        Patch("@register(MaxPooling2D)", "@register(MaxPoolingND)"),
        Patch(
            "    kh, kw = int(func.kh), int(func.kw)\n"
            "    sy, sx = int(func.sy), int(func.sx)\n"
            f"    ph, pw = int(func.ph), int(func.pw)\n{_MAX_POOLING}",
            "    kh, kw = func.ksize\n"
            "    sy, sx = func.stride\n"
            f"    ph, pw = func.pad\n{_MAX_POOLING}",
        ),
    ),
    # Chainer 6 concatenates no Variable in place of a list.
    "chainer_mask_rcnn.models.mask_rcnn_train_chain": (
        Patch("F.concat(rpn_locs, axis=0)", "F.concat(list(rpn_locs), axis=0)"),
        Patch("F.concat(rpn_scores, axis=0)", "F.concat(list(rpn_scores), axis=0)"),
    ),
    # SciPy 1.13 moved the windows, and librosa 0.10 wants names.
    "chainercv2.models.jasper": (
        Patch("scipy_signal.hann(", "scipy_signal.windows.hann("),
        Patch(
            "            sample_rate,\n            n_fft,\n",
            "            sr=sample_rate,\n            n_fft=n_fft,\n",
        ),
    ),
    # int() of an array of one element.
    "chainercv2.models.common": (
        Patch("int(pts_x[b, k])", "int(pts_x[b, k, 0])"),
        Patch("int(pts_y[b, k])", "int(pts_y[b, k, 0])"),
    ),
    # numpy.int is gone.
    "chainercv2.models.ntsnet_cub": (Patch(".astype(np.int)", ".astype(int)", 2),),
    "chainercv2.models.regnet": (Patch(".astype(np.int)", ".astype(int)"),),
}
