"""Stock ops between real numbers and codes, and between codes in uint8 and in int8.

The same codes less 128 with a zero point less 128 stand for the same numbers: files made before 2020 compute in uint8,
weights included, and nothing is lost where a layer of theirs takes and gives int8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .flatbuffer import TensorType, one_scale, schema
from .graph import Graph

#: What lies between the codes of a number in uint8 and in int8.
_SHIFT = 128

#: The other one of the two 8-bit types.
_OTHER = {TensorType.UINT8: TensorType.INT8, TensorType.INT8: TensorType.UINT8}

#: The first version of an op that knows a type of codes, where that is not 1.
_VERSIONS = {
    ("QUANTIZE", TensorType.INT16): 2,
    ("DEQUANTIZE", TensorType.INT8): 2,
    ("DEQUANTIZE", TensorType.INT16): 3,
}


def quantize(graph: Graph, source: int, target: int) -> Any:
    """A QUANTIZE from tensor `source`, numbers or codes, to the codes of tensor `target`."""
    return _convert(graph, "QUANTIZE", source, target, graph.tensor(target).type)


def dequantize(graph: Graph, source: int, target: int) -> Any:
    """A DEQUANTIZE from the codes of tensor `source` to the numbers of tensor `target`."""
    return _convert(graph, "DEQUANTIZE", source, target, graph.tensor(source).type)


def _convert(graph: Graph, name: str, source: int, target: int, codes: int) -> Any:
    options = f"{name.capitalize()}Options"
    return schema.OperatorT(
        opcodeIndex=graph.operator_code(name, _VERSIONS.get((name, codes), 1)),
        inputs=np.asarray([source], np.int32),
        outputs=np.asarray([target], np.int32),
        builtinOptionsType=getattr(schema.BuiltinOptions, options),
        builtinOptions=getattr(schema, f"{options}T")(),
    )


def is_shift(graph: Graph, op: Any) -> bool:
    """Whether the op is a QUANTIZE that adds or takes off 128 and does nothing else."""
    if graph.kind(op) != "QUANTIZE":
        return False
    source, target = int(op.inputs[0]), int(op.outputs[0])
    if _OTHER.get(graph.tensor(source).type) != graph.tensor(target).type or graph.quantization(source) is None:
        return False
    return graph.quantization(target) == _shifted(graph, source)


def add_twin(graph: Graph, tensor: int) -> int:
    """A new tensor for the numbers of a uint8 one in int8, or the other way round."""
    codes = _OTHER[graph.tensor(tensor).type]
    name = f"{graph.name(tensor)}_{'int8' if codes == TensorType.INT8 else 'uint8'}"
    return graph.add_tensor(name, graph.shape(tensor), codes, one_scale(*_shifted(graph, tensor)))


def _shifted(graph: Graph, tensor: int) -> tuple[float, int]:
    """(scale, zero point) of the numbers of an 8-bit tensor with one scale in the other 8-bit type."""
    quantization = graph.quantization(tensor)
    assert quantization is not None, "the callers ask"
    scale, zero_point = quantization
    return scale, zero_point + (_SHIFT if graph.tensor(tensor).type == TensorType.INT8 else -_SHIFT)


class Int8Twins:
    """int8 twins of the uint8 tensors that layers in int8 take and give.

    What else reads or writes the uint8 tensors goes on as it was: a QUANTIZE stands between it and the layers.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._twins: dict[int, int] = {}
        self._computed: set[int] = set()

    def of(self, tensor: int) -> int:
        """The twin of a uint8 tensor with one scale; of any other, the tensor itself."""
        if self._graph.tensor(tensor).type != TensorType.UINT8 or self._graph.quantization(tensor) is None:
            return tensor
        if tensor not in self._twins:
            self._twins[tensor] = add_twin(self._graph, tensor)
        return self._twins[tensor]

    def connect(self, op: Any, layer: Any) -> list[Any]:
        """What replaces the stock `op` by `layer`, in the order of the graph: the layer and the QUANTIZEs around it.

        To be called for one layer after the other, in that order.
        """
        x, y = int(op.inputs[0]), int(op.outputs[0])
        operators = [layer]
        if self.of(x) != x and self.of(x) not in self._computed:
            operators.insert(0, quantize(self._graph, x, self.of(x)))
        if self.of(y) != y:
            operators.append(quantize(self._graph, self.of(y), y))
        self._computed |= {self.of(x), self.of(y)}
        return operators
