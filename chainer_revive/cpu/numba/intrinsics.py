"""What Numba cannot say in Python: atomic operations and a product in registers."""

from __future__ import annotations

import os
from itertools import chain
from types import FunctionType

from chainer_revive.cpu.numba import later
from chainer_revive.cpu.numba.later import Later, cgutils, intrinsic, ir, types
from chainer_revive.cpu.numba.processor import lanes
from chainer_revive.cpu.numba.store import SUPPORTED, named


def jit(function: FunctionType) -> Later:
    """Compiles what tasks call."""
    later.needs(function)

    def make():
        from numba import njit

        options = {"nogil": True, "error_model": "numpy"}
        if SUPPORTED:  # Each task has it in its own code.
            return njit(**options)(function)
        return njit(cache=True, **options)(named(function))

    return Later(make)


_INT = ir.IntType(64)
_FLOAT = ir.FloatType()

# A tile of results that fits into the registers: 12 of AVX's 16, 24 of AVX-512's and
# NEON's 32.
LANES = lanes()
VECTORS = 4 if LANES == 16 else 2
ROWS = 6
COLUMNS = VECTORS * LANES
HALF = COLUMNS // 2
TURNS = 64 // COLUMNS  # of a product's loop in which a line of memory can be read


def pointer_at(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


@intrinsic
def load(typingctx, address):
    """Reads an int64."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(pointer_at(builder, args[0], _INT), "seq_cst", 8)

    return types.intp(types.intp), codegen


@intrinsic
def store(typingctx, address, value):
    """Writes an int64."""

    def codegen(context, builder, signature, args):
        pointer = pointer_at(builder, args[0], _INT)
        builder.store_atomic(args[1], pointer, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def add(typingctx, address, value):
    """Adds to an int64."""

    def codegen(context, builder, signature, args):
        pointer = pointer_at(builder, args[0], _INT)
        builder.atomic_rmw("add", pointer, args[1], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def exchange(typingctx, address, old, new):
    """Writes an int64 if it has the old value, and tells whether it had."""

    def codegen(context, builder, signature, args):
        pointer = pointer_at(builder, args[0], _INT)
        result = builder.cmpxchg(pointer, *args[1:], "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return types.boolean(types.intp, types.intp, types.intp), codegen


@intrinsic
def give_way(typingctx):
    """Lets another thread run that waits for this processor."""

    def codegen(context, builder, signature, args):
        if hasattr(os, "sched_yield"):
            kind = ir.FunctionType(ir.IntType(32), [])
            name = "sched_yield"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call(typingctx, task, arguments, start, stop):
    """Calls a task by its address."""

    def codegen(context, builder, signature, args):
        task, arguments, start, stop = args
        kind = ir.FunctionType(ir.VoidType(), [_INT.as_pointer(), _INT, _INT])
        task = pointer_at(builder, task, kind)
        builder.call(task, [pointer_at(builder, arguments, _INT), start, stop])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


def _pointer_to(name: str) -> Later:
    """Returns a function that makes an address a pointer, for ``numba.carray``."""

    def pointer(typingctx, address):
        kind = getattr(types, name)

        def codegen(context, builder, signature, args):
            return pointer_at(builder, args[0], context.get_data_type(kind))

        return types.CPointer(kind)(types.intp), codegen

    return intrinsic(pointer)


floats = _pointer_to("float32")
doubles = _pointer_to("float64")
integers = _pointer_to("int64")
bytes_ = _pointer_to("uint8")


def _named(cls: types.NamedTupleClass) -> types.NamedUniTuple:
    fields = cls.instance_class._fields
    return types.NamedUniTuple(types.intp, len(fields), cls.instance_class)


def _read(context, builder, pointer, first: int, kind: types.NamedUniTuple):
    places = [_INT(first + i) for i in range(kind.count)]
    values = [builder.load(builder.gep(pointer, [place])) for place in places]
    return context.make_tuple(builder, kind, values)


@intrinsic
def unpack(typingctx, arguments, cls):
    """Returns a task's arguments as the NamedTuple that they were packed from."""
    kind = _named(cls)

    def codegen(context, builder, signature, args):
        return _read(context, builder, args[0], 0, kind)

    return kind(arguments, cls), codegen


@intrinsic
def unpack_both(typingctx, arguments, first, second):
    """Returns a task's arguments as the two NamedTuples they were packed from."""
    kinds = _named(first), _named(second)
    result = types.Tuple(kinds)

    def codegen(context, builder, signature, args):
        values = [
            _read(context, builder, args[0], 0, kinds[0]),
            _read(context, builder, args[0], kinds[0].count, kinds[1]),
        ]
        return context.make_tuple(builder, result, values)

    return result(arguments, first, second), codegen


def _copying(count: int):
    """Returns a function that copies float32 from one address to another."""

    @intrinsic
    def copy(typingctx, source, target):
        def codegen(context, builder, signature, args):
            vector = ir.VectorType(_FLOAT, count)
            source, target = (pointer_at(builder, address, vector) for address in args)
            builder.store(builder.load(source, align=4), target, align=4)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), codegen

    return copy


copy_vector, copy_lanes = _copying(LANES), _copying(COLUMNS)


def gather(builder, address, stride):
    """Reads a vector of LANES float32 that lie a stride of so many bytes apart."""
    vector = ir.Constant(ir.VectorType(_FLOAT, LANES), ir.Undefined)
    for lane in range(LANES):
        value = builder.load(pointer_at(builder, address, _FLOAT))
        vector = builder.insert_element(vector, value, ir.IntType(32)(lane))
        address = builder.add(address, stride)
    return vector


@intrinsic
def gather_lanes(typingctx, source, stride, target):
    """Copies LANES float32, a stride of so many bytes apart, side by side."""

    def codegen(context, builder, signature, args):
        source, stride, target = args
        vector = gather(builder, source, stride)
        builder.store(vector, pointer_at(builder, target, vector.type), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


PART = 16


def _fetch(builder, address, write=False):
    """Asks for a line of memory: soon to be read, or at once to be written."""
    byte, number = ir.IntType(8), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), *[number] * 3])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    how = map(number, (1, 3, 1) if write else (0, 2, 1))  # the second nearest cache: 2
    builder.call(fetch, [pointer_at(builder, address, byte), *how])


def _fetching(write: bool):
    """Returns a function that asks for the line of memory at an address."""

    @intrinsic
    def fetch(typingctx, address):
        def codegen(context, builder, signature, args):
            _fetch(builder, args[0], write)
            return context.get_dummy_value()

        return types.void(types.intp), codegen

    return fetch


fetch_to_read, fetch_to_write = _fetching(False), _fetching(True)


def _multiplying(
    count: int,
    parts: bool = False,
    results_ahead: bool = False,
    ahead: int = 0,
    gapless: bool = False,
):
    """Returns a function that computes ROWS x (count * LANES) elements of a product.

    Rows may lie anywhere. For all i < ROWS and j < count * LANES, with all indexes in
    elements::

        c[out[i] + j] = start[step * out[i] + j] + sum(
            a[row[i] + col[k]] * b[line[k] + j] for k in range(n))

    It takes the addresses of float32 a, b, start and c, the addresses of int64 row,
    col, line and out, n (at least one) and step (0 or 1). If ``parts``, n is a multiple
    of PART, and so many products at a time are added up before the rest is added. If
    ``gapless``, col[k] is col[0] + k, and line[k] is line[0] + k * count * LANES.

    Places in c are asked for before their turn: those of this tile or, if
    ``results_ahead``, of the next one, at out[ROWS] and on. If ``ahead``, it also takes
    an address and a pace in bytes, and asks for lines of memory, one for so many k:
    those at address + k // ahead * pace.
    """
    vector = ir.VectorType(_FLOAT, LANES)

    def multiply(typingctx, a, row, col, b, line, n, start, step, c, out):
        def codegen(context, builder, signature, args):
            a, row, col, b, line, n, start, step, c, out, *lines = args
            a, b, start, c = (pointer_at(builder, x, _FLOAT) for x in (a, b, start, c))
            row, col, line, out = (
                pointer_at(builder, x, _INT) for x in (row, col, line, out)
            )

            def vectors(pointer, offset):
                for v in range(count):
                    at = builder.gep(pointer, [builder.add(offset, _INT(v * LANES))])
                    yield builder.bitcast(at, vector.as_pointer())

            def read(pointer, offset):
                return [builder.load(at, align=4) for at in vectors(pointer, offset)]

            if gapless:
                a = builder.gep(a, [builder.load(col)])
                b = builder.gep(b, [builder.load(line)])
            outs = [builder.load(builder.gep(out, [_INT(i)])) for i in range(ROWS)]
            rows = [
                builder.gep(a, [builder.load(builder.gep(row, [_INT(i)]))])
                for i in range(ROWS)
            ]
            multiply_add = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector, [vector] * 3),
                f"llvm.fmuladd.v{LANES}f32",
            )
            for i in range(ROWS):
                place = _INT(i + ROWS * results_ahead)
                written = builder.load(builder.gep(out, [place]))
                for v in range(0, count, 16 // LANES):
                    at = builder.gep(c, [builder.add(written, _INT(v * LANES))])
                    _fetch(builder, builder.ptrtoint(at, _INT), write=True)
            undefined = ir.Constant(vector, ir.Undefined)
            nothing = ir.Constant(vector, [0.0] * LANES)
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)

            before = builder.block
            loop = builder.append_basic_block("product")
            after = builder.append_basic_block("results")
            begin, end = _INT(0), n
            if parts:
                totals = [
                    [cgutils.alloca_once(builder, vector) for _ in range(count)]
                    for _ in range(ROWS)
                ]
                for total in chain(*totals):
                    builder.store(nothing, total)
                part = builder.append_basic_block("part")
                builder.branch(part)
                builder.position_at_end(part)
                begin = builder.phi(_INT)
                begin.add_incoming(_INT(0), before)
                end = builder.add(begin, _INT(PART))
                before = part
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_INT)
            sums = [[builder.phi(vector) for _ in range(count)] for _ in range(ROWS)]
            if gapless:
                right, column = read(b, builder.mul(k, _INT(count * LANES))), k
            else:
                right = read(b, builder.load(builder.gep(line, [k])))
                column = builder.load(builder.gep(col, [k]))
            results = []
            for i in range(ROWS):
                value = builder.load(builder.gep(rows[i], [column]))
                left = builder.insert_element(undefined, value, ir.IntType(32)(0))
                left = builder.shuffle_vector(left, undefined, zeros)
                results.append(
                    [
                        builder.call(multiply_add, [left, right[v], sums[i][v]])
                        for v in range(count)
                    ]
                )
            if ahead:
                first, pace = lines
                turn = builder.udiv(k, _INT(ahead))
                _fetch(builder, builder.add(first, builder.mul(turn, pace)))
            next_k = builder.add(k, _INT(1))
            k.add_incoming(begin, before)
            k.add_incoming(next_k, loop)
            for i in range(ROWS):
                for v in range(count):
                    sums[i][v].add_incoming(nothing, before)
                    sums[i][v].add_incoming(results[i][v], loop)
            builder.cbranch(builder.icmp_signed("<", next_k, end), loop, after)

            builder.position_at_end(after)
            if parts:
                results = [
                    [
                        builder.fadd(builder.load(total), value)
                        for total, value in zip(*both, strict=True)
                    ]
                    for both in zip(totals, results, strict=True)
                ]
                both = zip(chain(*totals), chain(*results), strict=True)
                for total, value in both:
                    builder.store(value, total)
                done = builder.append_basic_block("done")
                begin.add_incoming(end, after)
                builder.cbranch(builder.icmp_signed("<", end, n), part, done)
                builder.position_at_end(done)
            # Last, so that the products are not rounded at the size of all before them.
            firsts = [read(start, builder.mul(step, offset)) for offset in outs]
            for offset, first, values in zip(outs, firsts, results, strict=True):
                for v, at in enumerate(vectors(c, offset)):
                    builder.store(builder.fadd(first[v], values[v]), at, align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 10), codegen

    if not ahead:
        return intrinsic(multiply)
    later.needs(multiply)

    @intrinsic
    def multiply_and_fetch(
        typingctx, a, row, col, b, line, n, start, step, c, out, first, pace
    ):
        _, codegen = multiply(typingctx, a, row, col, b, line, n, start, step, c, out)
        return types.void(*[types.intp] * 12), codegen

    return multiply_and_fetch


multiply_tile = _multiplying(VECTORS)
multiply_tile_ahead = _multiplying(VECTORS, results_ahead=True)
multiply_tile_and_fetch = _multiplying(VECTORS, ahead=TURNS)
multiply_gapless_ahead = _multiplying(VECTORS, results_ahead=True, gapless=True)
multiply_gapless_all_ahead = _multiplying(
    VECTORS, results_ahead=True, ahead=1, gapless=True
)
multiply_gapless_and_fetch = _multiplying(VECTORS, ahead=TURNS, gapless=True)
multiply_half = _multiplying(VECTORS // 2)
multiply_tile_in_parts = _multiplying(VECTORS, parts=True)
multiply_half_in_parts = _multiplying(VECTORS // 2, parts=True)
