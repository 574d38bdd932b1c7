"""Names after layers, and metadata without paths."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from onnxviz.converters.naming import drop_empty_scopes, name_by_layer, name_weights, shorten_paths, strip_paths
from onnxviz.graph.model import to_proto
from onnxviz.graph.provenance import NO_MODULE, provenance_of


def branching() -> ir.Model:
    return ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[2] x, bool cond) => (float[2] z) <float[2] w = {1, 2}, int64[1] s = {2}>
        {
          a = Add(x, w)
          b = If(cond) <then_branch = t () => (float[2] p) { p = Relu(a) },
                        else_branch = e () => (float[2] q) { q = Neg(a) }>
          c, d = Split<axis = 0>(b)
          e = Concat<axis = 0>(c, d)
          z = Reshape(e, s)
        }"""
    )


def test_names_are_unique_and_subgraphs_still_see_the_outer_tensor():
    import onnx

    model = branching()
    name_by_layer(
        model, lambda node: "x" if node.op_type in ("Add", "If") else "s" if node.op_type == "Split" else None, ["out"]
    )
    names = [node.name for graph in model.graphs() for node in graph]
    assert len(set(names)) == len(names)
    assert {"x/Add", "x/If", "s", "Concat", "Reshape", "Relu", "Neg"} == set(names)
    assert [v.name for v in model.graph.outputs] == ["out"]
    split = next(node for node in model.graph if node.op_type == "Split")
    assert [v.name for v in split.outputs] == ["s_1", "s:1"], "s is taken by an initializer"
    onnx.checker.check_model(to_proto(model), full_check=True)


def test_a_layers_name_that_an_input_has_is_numbered():
    model = branching()
    name_by_layer(model, lambda node: "x")
    assert "x" in [v.name for v in model.graph.inputs]
    values = [v.name for node in model.graph for v in node.outputs]
    assert len(values) == len(set(values))


def test_weights_get_their_role():
    model = branching()
    name_by_layer(model, lambda node: None)
    name_weights(model, lambda node: "mix" if node.op_type == "Add" else "shape")
    assert set(model.graph.initializers) == {"mix/bias", "Reshape/shape"}


def test_paths_in_metadata_are_cut():
    model = branching()
    node = next(iter(model.graph))
    node.metadata_props["pkg.torch.onnx.stack_trace"] = (
        'File "/srv/a b/nets/net.py", line 3, in forward\n    return x / y'
    )
    node.doc_string = "# /usr/lib/python3/site-packages/torch/nn/linear.py:4:0"
    strip_paths(model, Path("/srv/a b/nets"))
    assert node.metadata_props["pkg.torch.onnx.stack_trace"] == 'File "net.py", line 3, in forward\n    return x / y'
    assert node.doc_string == "# torch/nn/linear.py:4:0"


def test_what_is_no_path_stays():
    for text in ("aten/conv2d", "a / b / c", ": net.LeNet5/conv1: torch.nn", "/layers/0", "['', 'layers.0']"):
        assert shorten_paths(text) in (text, text.lstrip("/")) or text == "/layers/0"


def test_a_placeholder_for_no_module_is_no_layer():
    node = next(iter((model := branching()).graph))
    recorded = {
        "namespace": f"{NO_MODULE}: {NO_MODULE}/sym_size: aten.sym_size.int",
        "pkg.torch.onnx.name_scopes": f"['{NO_MODULE}', 'sym_size']",
        "pkg.torch.onnx.class_hierarchy": f"['{NO_MODULE}', 'aten.sym_size.int']",
    }
    node.metadata_props.update(recorded)
    assert provenance_of(node) is None, "nor in a file that another program wrote"
    drop_empty_scopes(model)
    assert dict(node.metadata_props) == {
        "namespace": "sym_size: aten.sym_size.int",
        "pkg.torch.onnx.name_scopes": "['sym_size']",
        "pkg.torch.onnx.class_hierarchy": "['aten.sym_size.int']",
    }
