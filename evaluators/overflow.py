"""Whether sums of products of bytes overflow on this machine, and what weights must keep to where they do.

x86 processors without VNNI add two products of an unsigned and a signed byte in 16 bits, which do not hold 2 x 255 x 127: the
sum is cut off at 32,767, in ONNX Runtime and in OpenVINO, and answers can be off by a third of their size.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from paretrim.evaluators.storage import PEAK, REDUCED_PEAK
from paretrim.evaluators.target import ReduceRange

_SIZE = 64


def peak(setting: ReduceRange) -> int:
    """Return the largest code of weights that are computed with as integers."""
    reduced = overflows() if setting == "auto" else setting == "always"
    return REDUCED_PEAK if reduced else PEAK


@cache
def overflows() -> bool:
    """Tell whether this machine's sums overflow: ONNX Runtime multiplies matrices of the largest bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_product(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((_SIZE, _SIZE), 255, np.uint8)})
    return bool((found != 255 * PEAK * _SIZE).any())


def _product() -> bytes:
    """Return a model that multiplies a matrix of unsigned bytes by one of the largest codes."""
    from onnx import TensorProto, helper, numpy_helper

    shape = [_SIZE, _SIZE]
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, shape)],
        [numpy_helper.from_array(np.full(shape, PEAK, np.int8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    serialized: bytes = model.SerializeToString()
    return serialized
