"""Loops that Numba compiles when they are first called, and keeps on disk.

They run on the thread that calls them, without the GIL. A second pool of threads would
only take the processors from BLAS, whose threads wait for work by spinning.

Arrays are of float32; matrices have shape (M, C).
"""

from __future__ import annotations

import numba
import numpy as np

_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}
# Each element by itself, rounded as NumPy rounds it.
elementwise = numba.njit(**_OPTIONS)
# Sums may be taken in any order, as the processor's vectors do.
summing = numba.njit(fastmath={"contract", "nsz", "reassoc"}, **_OPTIONS)

_ROWS = 128  # added up in float32 before they go into a sum in float64


@elementwise
def im2col(x, col, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x):
    """See :func:`chainer_mmix.backends.cpu.columns.im2col`."""
    _, h, w, c = x.shape
    n, out_h, out_w, taps_h, taps_w, _ = col.shape
    for i in range(n):
        for a in range(out_h):
            for b in range(out_w):
                for j in range(taps_h):
                    row = a * stride_y + j * dilation_y - pad_y
                    for k in range(taps_w):
                        column = b * stride_x + k * dilation_x - pad_x
                        if 0 <= row < h and 0 <= column < w:
                            for q in range(c):
                                col[i, a, b, j, k, q] = x[i, row, column, q]
                        else:
                            for q in range(c):
                                col[i, a, b, j, k, q] = 0


@elementwise
def col2im(col, x, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x):
    """See :func:`chainer_mmix.backends.cpu.columns.col2im`."""
    _, h, w, c = x.shape
    n, out_h, out_w, taps_h, taps_w, _ = col.shape
    for i in range(n):
        for a in range(out_h):
            for j in range(taps_h):
                row = a * stride_y + j * dilation_y - pad_y
                if not 0 <= row < h:
                    continue
                for b in range(out_w):
                    for k in range(taps_w):
                        column = b * stride_x + k * dilation_x - pad_x
                        if 0 <= column < w:
                            for q in range(c):
                                x[i, row, column, q] += col[i, a, b, j, k, q]


@summing
def bn_forward(x, gamma, beta, eps, y, mean, var, inv_std):
    m, c = x.shape
    total, part = np.zeros(c), np.empty(c, np.float32)
    for start in range(0, m, _ROWS):
        part[:] = 0
        for i in range(start, min(start + _ROWS, m)):
            for q in range(c):
                part[q] += x[i, q]
        for q in range(c):
            total[q] += part[q]
    for q in range(c):
        mean[q] = total[q] / m
        total[q] = 0
    for start in range(0, m, _ROWS):
        part[:] = 0
        for i in range(start, min(start + _ROWS, m)):
            for q in range(c):
                d = x[i, q] - mean[q]
                part[q] += d * d
        for q in range(c):
            total[q] += part[q]
    for q in range(c):
        var[q] = total[q] / m
        inv_std[q] = np.float32(1) / np.sqrt(var[q] + eps)
        part[q] = inv_std[q] * gamma[q]
    for i in range(m):
        for q in range(c):
            y[i, q] = (x[i, q] - mean[q]) * part[q] + beta[q]


@summing
def bn_backward(x, gy, gamma, mean, inv_std, gx, ggamma, gbeta):
    m, c = x.shape
    products, total = np.zeros(c), np.zeros(c)
    product, part = np.empty(c, np.float32), np.empty(c, np.float32)
    for start in range(0, m, _ROWS):
        product[:] = 0
        part[:] = 0
        for i in range(start, min(start + _ROWS, m)):
            for q in range(c):
                product[q] += gy[i, q] * (x[i, q] - mean[q])
                part[q] += gy[i, q]
        for q in range(c):
            products[q] += product[q]
            total[q] += part[q]
    scale = np.empty(c, np.float32)
    for q in range(c):
        ggamma[q] = products[q] * inv_std[q]
        gbeta[q] = total[q]
        scale[q] = gamma[q] * inv_std[q]
        product[q] = -scale[q] * inv_std[q] * inv_std[q] * products[q] / m
        part[q] = -scale[q] * total[q] / m
    for i in range(m):
        for q in range(c):
            d = x[i, q] - mean[q]
            gx[i, q] = scale[q] * gy[i, q] + (product[q] * d + part[q])


@summing
def bn_apply(x, mean, scale, beta, y):
    m, c = x.shape
    for i in range(m):
        for q in range(c):
            y[i, q] = (x[i, q] - mean[q]) * scale[q] + beta[q]


@elementwise
def relu_backward(y, gy, gx):
    for i in range(y.size):
        gx[i] = gy[i] * np.float32(y[i] > 0)


@elementwise
def momentum_sgd(p, g, v, lr, momentum):
    for i in range(p.size):
        v[i] = v[i] * momentum - lr * g[i]
        p[i] += v[i]


@elementwise
def adam(p, g, m, v, alpha, rate1, rate2, eps, eta, keep):
    for i in range(p.size):
        m[i] += rate1 * (g[i] - m[i])
        v[i] += rate2 * (g[i] * g[i] - v[i])
        p[i] = p[i] * keep - eta * (alpha / (np.sqrt(v[i]) + eps) * m[i])
