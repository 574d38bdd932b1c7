"""What is done to a graph of torch.export behind the exporter: another opset, its clean-up without folding."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from onnxviz.runtime.quiet import quiet

__all__ = ["LOWEST", "lower", "optimize_without_folding"]

#: The opset that torch.export's graphs are made of; lower ones are converted down.
LOWEST = 18


def lower(model: ir.Model, opset: int) -> bool:
    """Convert a model down to an opset below torch.export's lowest, in place; say whether that worked.

    The converter drops what the nodes say about their origin, so it is put back by the tensors that they make.
    """
    if opset >= LOWEST:
        return True
    from onnxscript import version_converter

    def nodes() -> dict[str, ir.Node]:
        return {value.name: n for graph in model.graphs() for n in graph for value in n.outputs if value.name}

    known = {name: dict(node.metadata_props) for name, node in nodes().items()}
    try:
        with quiet():
            version_converter.convert_version(model, opset, fallback=True)
    except Exception:  # noqa: BLE001 - onnx's converter raises anything where it has no way down
        return False
    for name, node in nodes().items():
        node.metadata_props.update(known.get(name, {}))
    return model.opset_imports.get("") == opset and all(_is_of(node, opset) for node in nodes().values())


def _is_of(node: ir.Node, opset: int) -> bool:
    """Say whether an opset has all attributes of a node; those that say what is so anyway are taken off."""
    if node.domain or not onnx.defs.has(node.op_type):
        return True
    try:
        known = onnx.defs.get_schema(node.op_type, opset).attributes
    except onnx.defs.SchemaError:
        return False
    today = onnx.defs.get_schema(node.op_type).attributes
    for name in [name for name in node.attributes if name not in known]:
        default = today[name].default_value if name in today else None
        if default is None or ir.serde.deserialize_attribute(default).value != node.attributes[name].value:
            return False
        del node.attributes[name]
    return True


def optimize_without_folding(model: ir.Model) -> None:
    """Do what the exporter does to a graph by default, but for the rules that fold BatchNorm."""
    import onnx_ir.passes.common as passes
    from onnxscript import optimizer, rewriter
    from onnxscript.rewriter.rules import common

    rules = [
        common.add_0_rule, common.sub_0_rule, common.mul_by_1_rule, common.div_by_1_rule, common.cast_cast_rule,
        common.no_op_cast_rule, common.no_op_expand_rule, common.no_op_transpose_rule, common.transpose_transpose_rule,
        common.reshape_reshape_rule, common.unsqueeze_unsqueeze_rule, common.squeeze_reshape_1d_rule,
        common.dropout_inference_rule, common.collapse_slice_rule, common.collapse_slice2_rule,
        common.materialize_reshape_shape_rule, common.fuse_pad_into_conv_rule,
        common.remove_optional_bias_from_conv_rule, common.successive_relu_rule, common.successive_clip_rule,
    ]  # fmt: skip
    with quiet():
        for _ in range(2):
            optimizer.fold_constants(model)
            rewriter.rewrite(model, rules)
        ir.passes.Sequential(
            passes.RemoveUnusedNodesPass(),
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            passes.DeduplicateInitializersPass(),
            passes.CommonSubexpressionEliminationPass(),
            passes.NameFixPass(),
        )(model)
