"""Reads what lies side by side in memory into vectors of LANES channels, and back."""

from __future__ import annotations

from chainer_revive.cpu.numba.intrinsics import LANES, gather, pointer_at
from chainer_revive.cpu.numba.later import intrinsic, ir, types

TAPS = 3

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INT = ir.IntType(64)
_INDEX = ir.IntType(32)

_EIGHT = ir.VectorType(_FLOAT, 8)


def _mask(lanes):
    return ir.Constant(ir.VectorType(_INDEX, len(lanes)), list(lanes))


def _swapped(builder, vectors):
    """Transposes vectors of 8 elements, or of twice 8 side by side."""
    for bit in (4, 2, 1):
        results = list(vectors)
        for i in range(8):
            if i & bit:
                continue
            pair = vectors[i], vectors[i | bit]
            for to, taken in ((i, 0), (i | bit, bit)):
                mask = [
                    (lane & ~bit | taken) + (LANES if lane & bit else 0)
                    for lane in range(LANES)
                ]
                results[to] = builder.shuffle_vector(*pair, _mask(mask))
        vectors = results
    return vectors


def _eight(builder, source, stride):
    """Reads 8 elements side by side for LANES channels, a stride of bytes apart."""
    rows = []
    for lane in range(LANES):
        at = builder.add(source, builder.mul(_INT(lane), stride))
        rows.append(builder.load(pointer_at(builder, at, _EIGHT), align=4))
    if LANES == 16:
        rows = [
            builder.shuffle_vector(*pair, _mask(range(16)))
            for pair in zip(rows[:8], rows[8:], strict=True)
        ]
    return _swapped(builder, rows)


@intrinsic
def read_eight(typingctx, source, stride, target, target_stride):
    """Reads 8 elements side by side for LANES channels, a stride of bytes apart.

    It writes the vectors of each element, another stride apart.
    """

    def codegen(context, builder, signature, args):
        source, stride, target, target_stride = args
        for vector in _eight(builder, source, stride):
            builder.store(vector, pointer_at(builder, target, _VECTOR), align=4)
            target = builder.add(target, target_stride)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@intrinsic
def read_taps(typingctx, source, stride, target):
    """Reads 9 elements side by side for LANES channels, a stride of bytes apart.

    It writes the vectors of each element, side by side.
    """

    def codegen(context, builder, signature, args):
        source, stride, target = args
        vectors = _eight(builder, source, stride)
        last = gather(builder, builder.add(source, _INT(4 * 8)), stride)
        to = pointer_at(builder, target, _VECTOR)
        for i, vector in enumerate([*vectors, last]):
            builder.store(vector, builder.gep(to, [_INT(i)]), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@intrinsic
def write_taps(typingctx, source, target, stride):
    """Writes such vectors back to 9 elements side by side for LANES channels."""

    def codegen(context, builder, signature, args):
        source, target, stride = args
        at = pointer_at(builder, source, _VECTOR)
        *vectors, last = [
            builder.load(builder.gep(at, [_INT(i)]), align=4)
            for i in range(TAPS * TAPS)
        ]
        rows = _swapped(builder, vectors)
        if LANES == 16:
            rows = [
                builder.shuffle_vector(row, row, _mask(range(half, half + 8)))
                for half in (0, 8)
                for row in rows
            ]
        for lane, row in enumerate(rows):
            builder.store(row, pointer_at(builder, target, _EIGHT), align=4)
            value = builder.extract_element(last, _INDEX(lane))
            to = builder.add(target, _INT(4 * 8))
            builder.store(value, pointer_at(builder, to, _FLOAT))
            target = builder.add(target, stride)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen
