"""What a model is, in numbers: the data behind ``onnxviz inspect`` and the report's model card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.cost import model_parameters, node_cost
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.model import model_name
from onnxviz.graph.provenance import provenance_of
from onnxviz.graph.shapes import dtype_name, infer_shapes, model_inputs, open_dims, shape_list

__all__ = ["LayerSummary", "ModelSummary", "TensorInfo", "batch_dims", "inspect_model"]

Shape = list[int | str | None]


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output: dtype as numpy spells it, shape with names for symbolic dimensions, None if unknown."""

    name: str
    dtype: str | None
    shape: Shape | None


@dataclass(frozen=True)
class LayerSummary:
    """A node that does work: it holds parameters or multiplies tensors.

    ``source`` is the layer of the source network that it came from, as :class:`onnxviz.graph.provenance.Provenance`
    words it; empty where the file does not say.
    """

    name: str
    op_type: str
    kind: str
    input_shape: Shape | None
    output_shape: Shape | None
    output: str
    parameters: int
    macs: int | None
    source: str = ""


@dataclass(frozen=True)
class ModelSummary:
    """Result of :func:`inspect_model`.

    Attributes:
        opset: Version of the default domain; ``opsets`` has every domain's.
        nodes: Nodes as the file has them, those in bodies of If, Loop and Scan included; ``body_nodes`` counts these.
        parameters: Learned elements: floats and quantised integers that operators read as weights, each tensor once;
            not shapes, settings and constants of formulas (:func:`onnxviz.graph.learned.learned_inputs`).
        parameter_bytes: Their size.
        macs: Multiply-accumulates of one run at the sizes in ``assumed``; None if no layer's shape is known.
        macs_unknown: How many nodes ``macs`` leaves out: shapes unknown, or in a body that runs an unknown number of
            times.
        assumed: Sizes taken for open dimensions: 1 for the batch unless told otherwise.
        ops: How often each operator occurs, most frequent first.
        layers: The nodes of the main graph, functions inlined, that hold parameters or multiply tensors.
    """

    name: str
    producer: str
    ir_version: int
    opset: int | None
    opsets: dict[str, int]
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    nodes: int
    body_nodes: int
    functions: list[str]
    parameters: int
    parameter_bytes: int
    macs: int | None
    macs_unknown: int
    assumed: dict[str, int]
    ops: dict[str, int]
    layers: list[LayerSummary]
    metadata: dict[str, str] = field(default_factory=dict)
    description: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON types."""
        return asdict(self)

    def _repr_html_(self) -> str:
        rows = [
            ("producer", self.producer or "unknown"),
            ("opset", self.opset),
            ("inputs", ", ".join(f"{i.name} {i.dtype} {i.shape}" for i in self.inputs)),
            ("outputs", ", ".join(f"{o.name} {o.dtype} {o.shape}" for o in self.outputs)),
            ("nodes", self.nodes),
            ("parameters", f"{self.parameters:,}"),
            ("MACs", "unknown" if self.macs is None else f"{self.macs:,}"),
        ]
        body = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in rows)
        return f"<table><caption>{escape(self.name)}</caption>{body}</table>"


def batch_dims(model: ir.Model) -> dict[str, int]:
    """Return the size 1 for each open dimension that is the first axis of an input: the batch."""
    return {name: 1 for name, (_, axis) in open_dims(model).items() if axis == 0}


def inspect_model(model: ir.Model, dims: Mapping[str, int] | None = None) -> ModelSummary:
    """Summarise a model without running it and without loading its weights.

    Args:
        model: The model; it is not changed.
        dims: Sizes for symbolic dimensions, for the shapes and MACs of the layers. The batch is 1 unless given here.

    Raises:
        InputError: ``dims`` names a dimension that no input has.
        ModelError: A function of the model calls itself.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[n, 2] x) => (float[n, 1] y) <float[2, 1] w = {1, 2}> {y = MatMul(x, w)}''')
    >>> summary = inspect_model(model)
    >>> summary.parameters, summary.macs, summary.assumed
    (2, 2, {'n': 1})
    """
    assumed = {**batch_dims(model), **(dims or {})}
    inferred = infer_shapes(inline_functions(model), assumed)
    layers = list(_layers(inferred))
    macs = sum(layer.macs or 0 for layer in layers)
    unknown = sum(layer.macs is None for layer in layers)
    unknown += sum(node_cost(node).macs != 0 for node in inferred.graph.all_nodes() if node.graph is not inferred.graph)
    parameters, size = model_parameters(model)
    every = list(model.graph.all_nodes())
    graph = model.graph
    return ModelSummary(
        name=model_name(model),
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        ir_version=model.ir_version,
        opset=graph.opset_imports.get("", graph.opset_imports.get("ai.onnx")),
        opsets={domain or "ai.onnx": version for domain, version in graph.opset_imports.items()},
        inputs=[_info(v) for v in model_inputs(model)],
        outputs=[_info(v) for v in graph.outputs],
        nodes=len(every),
        body_nodes=len(every) - graph.num_nodes(),
        functions=[f"{f.domain}::{f.name}" for f in model.functions.values()],
        parameters=parameters,
        parameter_bytes=size,
        macs=macs if macs or not unknown else None,
        macs_unknown=unknown,
        assumed=assumed,
        ops=dict(sorted(Counter(node.op_type for node in every).items(), key=lambda item: (-item[1], item[0]))),
        layers=layers,
        metadata=dict(model.metadata_props),
        description=model.doc_string or graph.doc_string or "",
    )


def _info(value: ir.Value) -> TensorInfo:
    return TensorInfo(value.name or "", dtype_name(value), shape_list(value))


def _layers(model: ir.Model) -> Iterator[LayerSummary]:
    for position, node in enumerate(model.graph):
        cost = node_cost(node)
        if (cost.macs == 0 and cost.parameters == 0) or node.op_type == "Constant":
            continue
        data = next((v for v in node.inputs if v is not None and constant_tensor(v) is None), None)
        output = node.outputs[0] if node.outputs else None
        yield LayerSummary(
            name=node.name or f"{node.op_type}_{position}",
            op_type=node.op_type,
            kind=kind_of(node),
            input_shape=None if data is None else shape_list(data),
            output_shape=None if output is None else shape_list(output),
            output=output.name or "" if output is not None else "",
            parameters=cost.parameters,
            macs=cost.macs,
            source=str(provenance_of(node) or ""),
        )
