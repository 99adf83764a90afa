"""Requests to cuDNN, as values that can be compared, hashed and printed.

An operation says everything that its plan depends on. Arrays come later.
"""

from __future__ import annotations

from dataclasses import dataclass

import chainer

from chainer_revive.cudnn.layout import Tensor

SCALAR = Tensor("f", (), ())  # a number in host memory


@dataclass(frozen=True)
class Operation:
    """One graph of cuDNN's.

    Args:
        kind (str): A key of :data:`_BUILD`.
        inputs, outputs: What the arrays must look like.
        attributes: Pairs of a name and a value: padding, stride and dilation.
        tensor_cores (bool): Whether float32 may be rounded to TF32, and half precision
            multiplied by tensor cores.
        deterministic (bool): Whether engines that give other bits each time are out.
    """

    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[tuple[str, tuple[int, int]], ...]
    tensor_cores: bool
    deterministic: bool


def operation(kind: str, inputs, outputs, **attributes) -> Operation:
    """Makes an operation as ``chainer.config`` asks at this moment."""
    return Operation(
        kind,
        tuple(inputs),
        tuple(outputs),
        tuple(attributes.items()),
        tensor_cores=chainer.config.use_cudnn_tensor_core != "never",
        deterministic=bool(chainer.config.cudnn_deterministic),
    )


def build(operation: Operation, **target):
    """Builds the plan of an operation; the first engine that cuDNN recommends.

    The arrays get the numbers 1, 2, ...: inputs, then outputs.

    Args:
        operation (Operation): What to compute.
        target: ``handle`` for the GPU of a cuDNN handle, or ``device_property`` for
            one that need not be here.

    Returns:
        cudnn.pygraph: The graph, ready to run.

    Raises:
        cudnn.cudnnGraphNotSupportedError: If cuDNN has no engine for it.
    """
    import cudnn

    graph = new_graph(**target)
    dtypes = {"f": cudnn.data_type.FLOAT, "e": cudnn.data_type.HALF}
    inputs = [
        graph.tensor(
            dim=list(tensor.shape) or [1] * 4,
            stride=list(tensor.strides) or [1] * 4,
            data_type=dtypes[tensor.dtype],
            is_pass_by_value=tensor == SCALAR,
            uid=uid,
        )
        for uid, tensor in enumerate(operation.inputs, 1)
    ]
    attributes = {name: list(value) for name, value in operation.attributes}
    outputs = _BUILD[operation.kind](graph, *inputs, **attributes)
    pairs = zip(outputs, operation.outputs, strict=True)
    for uid, (output, tensor) in enumerate(pairs, len(inputs) + 1):
        output.set_output(True).set_uid(uid).set_data_type(dtypes[tensor.dtype])
        output.set_dim(list(tensor.shape)).set_stride(list(tensor.strides))
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    note = cudnn.numerical_note
    unwanted = []
    if not operation.tensor_cores:
        unwanted += [note.TENSOR_CORE, note.DOWN_CONVERT_INPUTS]
    if operation.deterministic:
        unwanted += [note.NONDETERMINISTIC]
    if unwanted:
        graph.deselect_numeric_notes(unwanted)
    graph.build_plans(cudnn.build_plan_policy.HEURISTICS_CHOICE)
    return graph


def new_graph(**target):
    """Returns an empty graph that computes in float32."""
    import cudnn

    float32 = cudnn.data_type.FLOAT
    return cudnn.pygraph(
        io_data_type=float32,
        intermediate_data_type=float32,
        compute_data_type=float32,
        **target,
    )


def _batch_normalization(graph, x, gamma, beta, mean, var, eps, rate):
    return graph.batchnorm(
        input=x,
        scale=gamma,
        bias=beta,
        in_running_mean=mean,
        in_running_var=var,
        epsilon=eps,
        momentum=rate,
    )


_BUILD = {
    "convolution": lambda graph, x, W, **attributes: [
        graph.conv_fprop(image=x, weight=W, **attributes)
    ],
    "convolution by x": lambda graph, gy, W, **attributes: [
        graph.conv_dgrad(loss=gy, filter=W, **attributes)
    ],
    "convolution by W": lambda graph, x, gy, **attributes: [
        graph.conv_wgrad(image=x, loss=gy, **attributes)
    ],
    # x, gamma, beta, running mean and variance, eps, 1 - decay
    # -> y, mean, 1 / deviation, running mean and variance
    "batch normalization": _batch_normalization,
    # gy, x, gamma, mean, 1 / deviation -> gradients by x, gamma, beta
    "batch normalization by x": lambda graph, gy, x, gamma, mean, inv_std: (
        graph.batchnorm_backward(
            grad=gy, input=x, scale=gamma, mean=mean, inv_variance=inv_std
        )
    ),
}
