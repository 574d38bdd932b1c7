"""What nodes say about their source layers."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxviz.graph.provenance import NO_MODULE, Provenance, leaving, nodes_by_layer, provenance_of, set_provenance

TORCH = {
    "pkg.torch.onnx.name_scopes": "['', 'block.0', 'block.0.conv', 'conv2d']",
    "pkg.torch.onnx.class_hierarchy": "['net.Net', 'net.Block', 'torch.nn.modules.conv.Conv2d', 'aten.conv2d']",
    "pkg.torch.onnx.stack_trace": 'File "/home/me/net.py", line 12, in forward\n  File "torch/nn/modules/conv.py", line 5',
}


def model() -> ir.Model:
    return ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {
        a = Relu(x) b = Neg(a) c = Abs(b) z = Add(c, a) }""")


def test_what_torch_export_wrote_is_read() -> None:
    source = provenance_of(ir.node("Conv", [], metadata_props=TORCH))
    assert source == Provenance("block.0.conv", "torch.nn.modules.conv.Conv2d", "net.py:12")


def test_own_keys_come_first_and_survive_the_way_through() -> None:
    node = ir.node("Conv", [], metadata_props=dict(TORCH))
    source = Provenance('odd "name"\n,', "a.B", "net.py:1", ("bn, 1", "relu"))
    set_provenance(node, source)
    assert provenance_of(node) == source
    set_provenance(node, Provenance("plain"))
    assert provenance_of(node) == Provenance("plain")


@pytest.mark.parametrize(
    "props",
    [
        {"pkg.torch.onnx.name_scopes": "__import__('os').system('true')"},
        {"pkg.torch.onnx.name_scopes": "('a',"},
        {"pkg.torch.onnx.name_scopes": "[" * 5000},
        {"pkg.torch.onnx.name_scopes": "{'a': 1}"},
        {"pkg.torch.onnx.name_scopes": f"['{NO_MODULE}', 'sym_size']"},
        {},
    ],
)
def test_damaged_metadata_are_none(props: dict[str, str]) -> None:
    assert provenance_of(ir.node("Conv", [], metadata_props=props)) is None


def test_damaged_own_metadata_lose_only_what_is_damaged() -> None:
    node = ir.node("Conv", [], metadata_props={"onnxviz.layer": "a", "onnxviz.folded": "{not json"})
    assert provenance_of(node) == Provenance("a")


def test_layers_and_what_leaves_them() -> None:
    found = model()
    for node, layer in zip(found.graph, ("stem", "block/neg", "block/abs", "head"), strict=True):
        set_provenance(node, Provenance(layer))
    set_provenance(found.graph[2], Provenance("block/abs", folded=("block/bn",)))
    layers = nodes_by_layer(found.graph)
    assert {layer: [n.op_type for n in nodes] for layer, nodes in layers.items()} == {
        "stem": ["Relu"], "block/neg": ["Neg"], "block": ["Neg", "Abs"], "block/bn": ["Abs"], "head": ["Add"],
    }  # fmt: skip
    assert [value.name for value in leaving(layers["block"])] == ["c"]
    assert [value.name for value in leaving(layers["stem"])] == ["a"]
    assert [value.name for value in leaving(layers["head"])] == ["z"]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (Provenance("a.conv1", "torch.nn.Conv2d", "net.py:3", ("a.bn1",)), "a.conv1 + bn1 (Conv2d) at net.py:3"),
        (Provenance("a/conv"), "a/conv"),
        (Provenance("", "", "net.py:9"), "(the network itself) at net.py:9"),
    ],
)
def test_in_words(source: Provenance, text: str) -> None:
    assert str(source) == text
