"""CUDA of the optimizer step: a block works on one piece of one parameter.

``RULES`` has the expressions of Chainer's own kernels.
"""

from __future__ import annotations

import numpy as np

THREADS = 256
PIECE = 1 << 13  # elements a block

# As the struct Tensor below.
TENSOR = np.dtype(
    [
        *((name, np.int64) for name in ("param", "grad", "s0", "s1", "half", "size")),
        ("is_half", np.int32),
        *((name, np.float32) for name in ("before", "after", "loss_scale")),
        ("rates", np.float32, 6),
    ]
)

RULES = {
    "MomentumSGDRule": """
        float lr = t.rates[0], momentum = t.rates[1];
        float v = t.s0[i];
        v = momentum * v - lr * grad;
        param += v;
        t.s0[i] = v;""",
    "NesterovAGRule": """
        float lr = t.rates[0], momentum = t.rates[1];
        float v = t.s0[i];
        v = v * momentum - lr * grad;
        param += momentum * momentum * v - (1 + momentum) * lr * grad;
        t.s0[i] = v;""",
    "AdamRule": """
        float alpha_t = t.rates[0], one_minus_beta1 = t.rates[1];
        float one_minus_beta2 = t.rates[2], eps = t.rates[3];
        float eta = t.rates[4], weight_decay_rate = t.rates[5];
        float m = t.s0[i], v = t.s1[i];
        m += one_minus_beta1 * (grad - m);
        v += one_minus_beta2 * (grad * grad - v);
        param -= eta * (alpha_t * m / (sqrt(v) + eps) + weight_decay_rate * param);
        t.s0[i] = m;
        t.s1[i] = v;""",
}

_COMMON = f"""
#include <cuda_fp16.h>
struct Tensor {{
    float* param;
    const void* grad;
    float* s0;
    float* s1;
    __half* half;
    long long size;
    int is_half;  // the gradient
    float before, after, loss_scale;
    float rates[6];
}};
static_assert(sizeof(Tensor) == {TENSOR.itemsize});
struct Piece {{ int tensor, number; }};
__device__ float gradient(const Tensor& t, long long i) {{
    return t.is_half ? __half2float(static_cast<const __half*>(t.grad)[i])
                     : static_cast<const float*>(t.grad)[i];
}}
"""

_LOOP = f"""
    const Piece piece = pieces[blockIdx.x];
    const Tensor& t = tensors[piece.tensor];
    const long long start = static_cast<long long>(piece.number) * {PIECE};
    const long long stop = min(start + {PIECE}, t.size);
    for (long long i = start + threadIdx.x; i < stop; i += {THREADS})"""


def update_source(rule: str) -> str:
    """Returns the source of ``mmix_update``, one step of a rule."""
    return f"""{_COMMON}
extern "C" __global__ void mmix_update(
        const Tensor* tensors, const Piece* pieces, const float* clip) {{{_LOOP} {{
        float param = t.param[i];
        float grad = gradient(t, i) + t.before * param;
        if (clip) grad *= *clip;
        grad = (grad + t.after * param) / t.loss_scale;{RULES[rule]}
        t.param[i] = param;
        if (t.half) t.half[i] = __float2half_rn(param);
    }}
}}"""


# The sum of squares of each piece, then of all: the same each time.
CLIP = f"""{_COMMON}
__device__ void add_up(double sum, double* total) {{
    __shared__ double sums[{THREADS}];
    sums[threadIdx.x] = sum;
    for (int n = {THREADS} / 2; n > 0; n /= 2) {{
        __syncthreads();
        if (threadIdx.x < n) sums[threadIdx.x] += sums[threadIdx.x + n];
    }}
    if (threadIdx.x == 0) *total = sums[0];
}}
extern "C" __global__ void mmix_squares(
        const Tensor* tensors, const Piece* pieces, double* squares) {{
    double sum = 0;{_LOOP} {{
        float grad = gradient(t, i) + t.before * t.param[i];
        sum += grad * grad;
    }}
    add_up(sum, &squares[blockIdx.x]);
}}
extern "C" __global__ void mmix_clip(
        const double* squares, int size, float threshold, float* clip) {{
    double sum = 0, total;
    for (int i = threadIdx.x; i < size; i += {THREADS}) sum += squares[i];
    add_up(sum, &total);
    if (threadIdx.x == 0) *clip = fmin(threshold / sqrt(total), 1.0);
}}"""

FINITE = f"""{_COMMON}
extern "C" __global__ void mmix_finite(
        const Tensor* tensors, const Piece* pieces, int* is_bad) {{{_LOOP} {{
        if (!isfinite(gradient(t, i))) is_bad[piece.tensor] = 1;
    }}
}}"""
