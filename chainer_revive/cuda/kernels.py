"""CUDA of the optimizer step and of what labels cost.

In the step, a block works on one piece of one parameter; ``RULES`` has the expressions
of Chainer's own kernels. The labels of a batch are the work of one block, of which each
warp takes a sample at a time.
"""

from __future__ import annotations

import functools

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
static_assert(sizeof(Tensor) == {TENSOR.itemsize}, "as NumPy has it");
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

WARPS = 16

# All warps run as many rounds; in the last, some have no sample of their own. Sums are
# in float32, always in the same order.
_LABELS = f"""
#include <cuda_fp16.h>
constexpr int WARPS = {WARPS};
struct Sample {{
    const double* each;  // the weights of the first targets, if each has its own
    double lam;
    __device__ float weight(int k, int i) const {{
        const double first = each ? each[i] : lam;
        return k == 0 ? first : 1 - first;
    }}
}};
__device__ float warp_sum(float value) {{
    for (int n = 16; n > 0; n /= 2) value += __shfl_xor_sync(~0u, value, n);
    return value;
}}
// What all warps have, each in its first thread.
__device__ float block_sum(float value) {{
    __shared__ float sums[WARPS];
    __syncthreads();
    if (threadIdx.x == 0) sums[threadIdx.y] = value;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < WARPS; ++i) sum += sums[i];
    return sum;
}}
template <typename L> __device__ float count(const L* t, int n, long long ignored) {{
    float sum = 0;
    for (int i = threadIdx.y * 32 + threadIdx.x; i < n; i += 32 * WARPS)
        sum += t[i] != ignored;
    return block_sum(warp_sum(sum));
}}
template <typename T, typename L> __device__ void cross_entropy(
        const T* logits, const L* a, const L* b, Sample sample, int n, int c,
        long long ignored, int normalize, float smoothing, float* gradients, T* loss) {{
    const L* targets[] = {{a, b}};
    float counts[2], sum = 0;
    for (int k = 0; k < 2; ++k)
        counts[k] = normalize ? fmaxf(count(targets[k], n, ignored), 1) : n;
    for (int start = 0; start < n; start += WARPS) {{
        const bool is_own = start + threadIdx.y < n;
        const int i = is_own ? start + threadIdx.y : n - 1;
        const T* x = logits + static_cast<long long>(i) * c;
        float* gradient = gradients + static_cast<long long>(i) * c;
        float largest = x[0], total = 0, all = 0;
        for (int j = threadIdx.x; j < c; j += 32)
            largest = fmaxf(largest, static_cast<float>(x[j]));
        for (int m = 16; m > 0; m /= 2)
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, m));
        for (int j = threadIdx.x; j < c; j += 32) {{
            const float value = static_cast<float>(x[j]) - largest;
            total += expf(value);
            if (smoothing) all += value;
        }}
        total = warp_sum(total);
        all = warp_sum(all) / c - logf(total);  // the mean of log p
        long long labels[2];
        float hits[2], weight = 0, part = 0;
        for (int k = 0; k < 2; ++k) {{
            const bool valid = targets[k][i] != ignored;
            const float share = valid ? sample.weight(k, i) / counts[k] : 0;
            const long long t = valid ? targets[k][i] : 0;
            // A label out of range is seen: it makes NaN.
            const float log_p = t < 0 || t >= c
                ? nanf("") : static_cast<float>(x[t]) - largest - logf(total);
            hits[k] = share * (1 - smoothing);
            labels[k] = t;
            part -= hits[k] * log_p;
            if (smoothing) part -= share * smoothing * all;
            weight += share;
        }}
        if (!is_own) continue;
        sum += part;
        for (int j = threadIdx.x; j < c; j += 32) {{
            float target = weight * smoothing / c;
            for (int k = 0; k < 2; ++k) target += labels[k] == j ? hits[k] : 0;
            const float p = expf(static_cast<float>(x[j]) - largest) / total;
            gradient[j] = weight * p - target;
        }}
    }}
    sum = block_sum(sum);
    if (threadIdx.x == 0 && threadIdx.y == 0) *loss = static_cast<T>(sum);
}}
template <typename T, typename L> __device__ void accuracy(
        const T* scores, const L* a, const L* b, Sample sample, int n, int c,
        long long ignored, T* result) {{
    const L* targets[] = {{a, b}};
    float sums[2] = {{0, 0}}, accuracy = 0;
    for (int start = 0; start < n; start += WARPS) {{
        const bool is_own = start + threadIdx.y < n;
        const int i = is_own ? start + threadIdx.y : n - 1;
        const T* y = scores + static_cast<long long>(i) * c;
        int best = c;
        float largest = 0;
        // The first of the largest, or the first NaN.
        auto compare = [&](float value, int j) {{
            if (j >= c) return;
            const bool more = isnan(value) > isnan(largest) || value > largest;
            const bool same = isnan(value) ? isnan(largest) : value == largest;
            if (best == c || more || (same && j < best)) best = j, largest = value;
        }};
        for (int j = threadIdx.x; j < c; j += 32) compare(y[j], j);
        for (int m = 16; m > 0; m /= 2) {{
            const float value = __shfl_xor_sync(~0u, largest, m);
            compare(value, __shfl_xor_sync(~0u, best, m));
        }}
        for (int k = 0; k < 2; ++k) {{
            const long long t = targets[k][i];
            if (is_own && t != ignored && t == best) sums[k] += sample.weight(k, i);
        }}
    }}
    for (int k = 0; k < 2; ++k)
        accuracy += block_sum(sums[k]) / fmaxf(count(targets[k], n, ignored), 1);
    if (threadIdx.x == 0 && threadIdx.y == 0) *result = static_cast<T>(accuracy);
}}
#define KERNELS(T, t, L, l) \\
extern "C" __global__ void mmix_cross_entropy_##t##_##l( \\
        const T* x, const L* a, const L* b, const double* each, double lam, int n, \\
        int c, long long ignored, int normalize, float smoothing, float* gradient, \\
        T* loss) {{ \\
    cross_entropy(x, a, b, Sample{{each, lam}}, n, c, ignored, normalize, smoothing, \\
                  gradient, loss); \\
}} \\
extern "C" __global__ void mmix_accuracy_##t##_##l( \\
        const T* y, const L* a, const L* b, const double* each, double lam, int n, \\
        int c, long long ignored, T* result) {{ \\
    accuracy(y, a, b, Sample{{each, lam}}, n, c, ignored, result); \\
}}
"""
_C_TYPES = {
    "float32": "float",
    "float16": "__half",
    "int32": "int",
    "int64": "long long",
}


@functools.cache
def labels_source(dtype: str, label: str) -> str:
    """Returns the source of ``mmix_cross_entropy_*`` and ``mmix_accuracy_*``.

    Args:
        dtype (str): Of the logits, ``float32`` or ``float16``.
        label (str): The dtype of the labels, ``int32`` or ``int64``.
    """
    types = f"{_C_TYPES[dtype]}, {dtype}, {_C_TYPES[label]}, {label}"
    return f"{_LABELS}KERNELS({types})\n"
