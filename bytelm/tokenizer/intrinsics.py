"""Three things numba lacks: arrays without reference counts, prefetching, and wide stores.

Compiled functions that hand a tuple of two dozen arrays to one another count every reference with
a locked instruction at every call; in the BPE trainer that was 60 % of all time. Arrays whose owner
is null are not counted. The caller must keep the originals alive, which a Python argument does.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


@intrinsic
def borrowed(typingctx, arrays):
    """The same arrays, owned by nobody. Only for use inside compiled functions."""
    assert isinstance(arrays, types.BaseTuple), arrays

    def codegen(context, builder, signature, args):
        (value,) = args
        for index, kind in enumerate(arrays.types):
            array = context.make_array(kind)(context, builder, builder.extract_value(value, index))
            array.meminfo = ir.Constant(array.meminfo.type, None)
            array.parent = ir.Constant(array.parent.type, None)
            value = builder.insert_value(value, array._getvalue(), index)
        return value

    return arrays(arrays), codegen


@intrinsic
def prefetch(typingctx, array, index):
    """Asks the processor to fetch array[index] for writing; no effect on results."""

    def codegen(context, builder, signature, args):
        values = context.make_array(array)(context, builder, args[0])
        address = builder.bitcast(builder.gep(values.data, [args[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def store8(typingctx, array, index, value):
    """array[index : index + 8] = the bytes of a uint64, wherever it lies; nothing is checked."""

    def codegen(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        builder.store(args[2], place, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), codegen
