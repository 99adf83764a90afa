"""Winograd's transforms for F(2x2, 3x3) and F(4x4, 3x3), of vectors of LANES channels.

Where a kernel g of 3x3 elements meets a tile d of pixels, the results are::

    A'((G g G') * (B' d B))A

with 16 products instead of 36 for 2x2 results, and 36 instead of 144 for 4x4. The
gradient by g of results with gradient e is ``G'((A e A') * (B' d B))G``. If the tile is
an image of 2x2 pixels with zeros around it, 9 products are enough, instead of 16.

The matrices come from polynomials that are multiplied by their values at points (Toom
and Cook). Errors grow with the spread of the points, and those of 4x4 results are
smallest near 0, +-5/8, +-3/2 and infinity: half of those with +-1 and +-2. Each matrix
but G has elements without rounding then.

Lavin & Gray, `Fast Algorithms for Convolutional Neural Networks
<https://arxiv.org/abs/1509.09308>`_, 2016. Barabasz, Anderson, Soodhalter & Gregg,
`Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks <https://arxiv.org/abs/1803.10986>`_, 2018.
"""

from __future__ import annotations

import numpy as np

from chainer_revive.cpu.numba.intrinsics import LANES, jit, pointer_at
from chainer_revive.cpu.numba.later import cgutils, intrinsic, ir, types
from chainer_revive.cpu.numba.transposes import TAPS

# By their number, besides infinity: zero, then each before its negative.
_POINTS = {4: (0, 1, -1), 6: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)}

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INT = ir.IntType(64)


def matrices(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns A, B and G for so many points, of which three are for 2x2 pixels."""
    if side == 3:
        # Neighbours are alike: their difference has smaller errors than their sum.
        a = np.array([[0, 1], [1, -1], [1, 0]])
        b = np.array([[1, 1, 0], [0, -1, 1]])
        g = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]])
        return a, b, g
    points = _POINTS[side]
    step = side - TAPS + 1
    a, b, g = np.zeros((side, step)), np.zeros((side, side)), np.zeros((side, TAPS))
    a[-1, -1] = g[-1, -1] = 1  # at infinity
    b[:, -1] = np.poly(points)[::-1]
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1 :]
        size = np.prod(np.subtract(point, others))
        a[i] = point ** np.arange(step)
        b[:-1, i] = np.sign(size) * np.poly(others)[::-1]
        g[i] = point ** np.arange(TAPS) / abs(size)
    return a, b, g


def _in_table(builder, table, i, offset):
    """Returns a pointer to a vector at the i-th address of a table, plus an offset."""
    table = pointer_at(builder, table, _INT)
    address = builder.load(builder.gep(table, [_INT(i)]))
    return pointer_at(builder, builder.add(address, offset), _VECTOR)


def _read(builder, table, offset, count):
    return [
        builder.load(_in_table(builder, table, i, offset), align=4)
        for i in range(count)
    ]


def _write(builder, vectors, table, offset):
    for i, vector in enumerate(vectors):
        builder.store(vector, _in_table(builder, table, i, offset), align=4)


def _transform(builder, matrix, vectors):
    """Returns ``matrix x matrix'``, row after row."""
    n = matrix.shape[1]
    columns = [_times(builder, matrix, vectors[j::n]) for j in range(n)]
    return [
        value
        for row in zip(*columns, strict=True)
        for value in _times(builder, matrix, row)
    ]


def _times(builder, matrix, vectors):
    """Multiplies by a matrix."""
    pairs = len(vectors) > 3  # of a point and its negative
    if pairs and len(matrix) < len(vectors):
        return _fewer(builder, matrix, vectors)
    return _more(builder, matrix, vectors)


def _more(builder, matrix, vectors):
    """Multiplies by a matrix with a row for each point.

    Rows of a point and its negative differ in the sign of every second element.
    """
    known = {}

    def combined(factors):
        if factors not in known:
            known[factors] = _combined(builder, factors, vectors)
        return known[factors]

    results = []
    for row in matrix:
        odd = np.arange(len(row)) % 2
        parts = [tuple(row * (1 - odd)), tuple(row * odd)]
        negative = tuple(-row * odd)
        if not any(parts[0]) or not any(parts[1]):
            results.append(_combined(builder, tuple(row), vectors))
        elif negative in known:
            result = builder.fsub(combined(parts[0]), known[negative])
            results.append(result)
        else:
            results.append(builder.fadd(*map(combined, parts)))
    return results


def _fewer(builder, matrix, vectors):
    """Multiplies by a matrix with a column for each point, in the same way."""
    sums, differences = list(vectors), list(vectors)
    for j in range(1, len(vectors) - 1, 2):
        sums[j] = builder.fadd(vectors[j], vectors[j + 1])
        differences[j] = builder.fsub(vectors[j], vectors[j + 1])
    for row in matrix:
        pairs = row[1:-1:2]
        alike = np.array_equal(pairs, row[2:-1:2])
        factors = row.copy()
        factors[2:-1:2] = 0
        yield _combined(builder, tuple(factors), sums if alike else differences)


def _combined(builder, factors, vectors):
    """Returns the sum of vectors times factors."""
    multiply_add = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(_VECTOR, [_VECTOR] * 3),
        f"llvm.fmuladd.v{LANES}f32",
    )
    terms = sorted(
        [term for term in zip(factors, vectors, strict=True) if term[0]],
        key=lambda term: (abs(term[0]) != 1, term[0] < 0),
    )
    result = None
    for factor, vector in terms:
        if result is None and factor == 1:
            result = vector
        elif result is not None and factor == 1:
            result = builder.fadd(result, vector)
        elif result is not None and factor == -1:
            result = builder.fsub(result, vector)
        else:
            constant = ir.Constant(_VECTOR, [float(np.float32(factor))] * LANES)
            if result is None:
                result = builder.fmul(constant, vector)
            else:
                result = builder.call(multiply_add, [constant, vector, result])
    return result


def _both_sides(matrix):
    """Returns a function that computes ``matrix x matrix'`` of a square x of vectors.

    It takes two tables of addresses, those of the vectors of x and those of the
    results, and what to add to each address of either table, in bytes.
    """

    @intrinsic
    def transform(typingctx, sources, source, targets, target):
        def codegen(context, builder, signature, args):
            sources, source, targets, target = args
            vectors = _read(builder, sources, source, matrix.shape[1] ** 2)
            _write(builder, _transform(builder, matrix, vectors), targets, target)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), codegen

    return transform


def _of_products(matrix):
    """Returns a function that does so and adds a vector, at an address, to each."""

    @intrinsic
    def transform(typingctx, sources, source, bias, targets, target):
        def codegen(context, builder, signature, args):
            sources, source, bias, targets, target = args
            vectors = _read(builder, sources, source, matrix.shape[1] ** 2)
            bias = builder.load(pointer_at(builder, bias, _VECTOR), align=4)
            results = _transform(builder, matrix, vectors)
            results = [builder.fadd(value, bias) for value in results]
            _write(builder, results, targets, target)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), codegen

    return transform


def _of_kernel(matrix):
    """Returns a function that transforms vectors of the 3x3 elements of a kernel.

    It takes the first one's address, the stride to the next in bytes, and a table of
    results as the other functions.
    """

    @intrinsic
    def transform(typingctx, source, stride, targets, target):
        def codegen(context, builder, signature, args):
            source, stride, targets, target = args
            vectors = []
            for i in range(TAPS * TAPS):
                at = builder.add(source, builder.mul(_INT(i), stride))
                at = pointer_at(builder, at, _VECTOR)
                vectors.append(builder.load(at, align=4))
            _write(builder, _transform(builder, matrix, vectors), targets, target)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), codegen

    return transform


def _to_kernel(matrix):
    """Returns a function that transforms gradients to those of 3x3 elements.

    It takes a table of addresses as the other functions, and the address of the
    vectors of results, which lie side by side.
    """

    @intrinsic
    def transform(typingctx, sources, source, target):
        def codegen(context, builder, signature, args):
            sources, source, target = args
            vectors = _read(builder, sources, source, matrix.shape[1] ** 2)
            to = pointer_at(builder, target, _VECTOR)
            for i, value in enumerate(_transform(builder, matrix, vectors)):
                builder.store(value, builder.gep(to, [_INT(i)]), align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 3), codegen

    return transform


_A3, _B3, _G3 = matrices(3)
_A4, _B4, _G4 = matrices(4)
_A6, _B6, _G6 = matrices(6)
_image_3, _image_4, _image_6 = map(_both_sides, (_B3.T, _B4.T, _B6.T))
_output_3, _output_4, _output_6 = map(_both_sides, (_A3, _A4, _A6))
_products_3, _products_4, _products_6 = map(_of_products, (_A3.T, _A4.T, _A6.T))
_kernel_3, _kernel_4, _kernel_6 = map(_of_kernel, (_G3, _G4, _G6))
_to_kernel_3, _to_kernel_4, _to_kernel_6 = map(_to_kernel, (_G3.T, _G4.T, _G6.T))


@jit
def of_image(side, sources, source, targets, target):
    if side == 3:
        _image_3(sources, source, targets, target)
    elif side == 4:
        _image_4(sources, source, targets, target)
    else:
        _image_6(sources, source, targets, target)


@jit
def of_output(side, sources, source, targets, target):
    if side == 3:
        _output_3(sources, source, targets, target)
    elif side == 4:
        _output_4(sources, source, targets, target)
    else:
        _output_6(sources, source, targets, target)


@jit
def of_products(side, sources, source, bias, targets, target):
    if side == 3:
        _products_3(sources, source, bias, targets, target)
    elif side == 4:
        _products_4(sources, source, bias, targets, target)
    else:
        _products_6(sources, source, bias, targets, target)


@jit
def of_kernel(side, source, stride, targets, target):
    if side == 3:
        _kernel_3(source, stride, targets, target)
    elif side == 4:
        _kernel_4(source, stride, targets, target)
    else:
        _kernel_6(source, stride, targets, target)


@jit
def to_kernel(side, sources, source, target):
    if side == 3:
        _to_kernel_3(sources, source, target)
    elif side == 4:
        _to_kernel_4(sources, source, target)
    else:
        _to_kernel_6(sources, source, target)
