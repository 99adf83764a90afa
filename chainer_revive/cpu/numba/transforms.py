"""Winograd's transforms for F(2x2, 3x3), of vectors of LANES channels.

Where a kernel g of 3x3 elements meets a tile d of 4x4 pixels, the 2x2 results are::

    A'((G g G') * (B' d B))A

with 16 products instead of 36. The gradient by g of results with gradient e is
``G'((A e A') * (B' d B))G``.

Lavin & Gray, `Fast Algorithms for Convolutional Neural Networks
<https://arxiv.org/abs/1509.09308>`_, 2016.
"""

from __future__ import annotations

from chainer_revive.cpu.numba.intrinsics import LANES, gather, pointer_at
from chainer_revive.cpu.numba.later import intrinsic, ir, types

SIDE = 4  # of a tile
POINTS = SIDE * SIDE
STEP = 2  # from tile to tile
TAPS = 3

_A = ((1, 0), (1, 1), (1, -1), (0, -1))
_B = ((1, 0, 0, 0), (0, 1, -1, 1), (-1, 1, 1, 0), (0, 0, 0, -1))
_G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT = ir.IntType(64)


def _transposed(matrix):
    return tuple(zip(*matrix, strict=True))


def _in_table(builder, table, i, offset):
    """Returns a pointer to a vector at the i-th address of a table, plus an offset."""
    table = pointer_at(builder, table, _INT)
    address = builder.load(builder.gep(table, [_INT(i)]))
    return pointer_at(builder, builder.add(address, offset), _VECTOR)


def _both_sides(matrix):
    """Returns a function that computes ``matrix x matrix'`` of a square x of vectors.

    It takes two tables of addresses, those of the vectors of x and those of the
    results, and what to add to each address of either table, in bytes.
    """

    @intrinsic
    def transform(typingctx, sources, source, targets, target):
        def codegen(context, builder, signature, args):
            sources, source, targets, target = args
            vectors = [
                builder.load(_in_table(builder, sources, i, source), align=4)
                for i in range(len(matrix[0]) ** 2)
            ]
            for i, value in enumerate(_transform(builder, matrix, vectors)):
                at = _in_table(builder, targets, i, target)
                builder.store(value, at, align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), codegen

    return transform


@intrinsic
def of_kernel(typingctx, source, stride_y, stride_x, stride_d, targets, target):
    """Transforms the 3x3 elements of a kernel for LANES channels d.

    It takes the first one's address, the strides in bytes, and a table of addresses of
    results as those of the other functions.
    """

    def codegen(context, builder, signature, args):
        source, stride_y, stride_x, stride_d, targets, target = args
        vectors = []
        for i in range(TAPS):
            for j in range(TAPS):
                y, x = builder.mul(_INT(i), stride_y), builder.mul(_INT(j), stride_x)
                at = builder.add(builder.add(source, y), x)
                vectors.append(gather(builder, at, stride_d))
        for i, value in enumerate(_transform(builder, _G, vectors)):
            builder.store(value, _in_table(builder, targets, i, target), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


@intrinsic
def to_kernel(typingctx, sources, source, target, stride_d):
    """Transforms gradients to the 3x3 elements of a kernel, which lie side by side.

    It takes a table of addresses as the other functions, the address of the first
    element, and the stride from channel to channel in bytes.
    """

    def codegen(context, builder, signature, args):
        sources, source, target, stride_d = args
        vectors = [
            builder.load(_in_table(builder, sources, i, source), align=4)
            for i in range(POINTS)
        ]
        results = _transform(builder, _transposed(_G), vectors)
        for lane in range(LANES):
            to = pointer_at(builder, target, ir.FloatType())
            for i, vector in enumerate(results):
                value = builder.extract_element(vector, ir.IntType(32)(lane))
                builder.store(value, builder.gep(to, [_INT(i)]))
            target = builder.add(target, stride_d)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


def _transform(builder, matrix, vectors):
    """Returns ``matrix x matrix'``, row after row."""
    n = len(matrix[0])
    columns = [_times(builder, matrix, vectors[j::n]) for j in range(n)]
    rows = zip(*columns, strict=True)
    return [value for row in rows for value in _times(builder, matrix, row)]


def _times(builder, matrix, vectors):
    """Multiplies by a matrix whose elements are 0, +-1 and +-0.5."""
    half = ir.Constant(_VECTOR, [0.5] * LANES)

    def total(row, size):
        result = None
        for factor, vector in zip(row, vectors, strict=True):
            if factor == size:
                result = builder.fadd(result, vector) if result else vector
        for factor, vector in zip(row, vectors, strict=True):
            if factor == -size:
                less = builder.fsub(result, vector) if result else builder.fneg(vector)
                result = less
        return result

    for row in matrix:
        whole, halves = total(row, 1), total(row, 0.5)
        if halves:
            halves = builder.fmul(half, halves)
            whole = builder.fadd(whole, halves) if whole else halves
        yield whole


of_image = _both_sides(_transposed(_B))
of_products = _both_sides(_transposed(_A))
of_output = _both_sides(_A)
