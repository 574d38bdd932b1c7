"""Which tensors of two models stand for the same, as far as names, weights and structure tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxviz.graph.extract import reads
from onnxviz.graph.shapes import model_inputs
from onnxviz.graph.twin_keys import Fingerprints, Key, Sources, first_weight

__all__ = ["match_tensors", "paired_inputs"]

#: Names that exporters count through: they say nothing by themselves.
_NUMBERED = re.compile(r"[\W_]*[A-Za-z]{0,2}[\W_]*\d+[\W_]*|val_\d+")
#: Names that the next export may give to another layer.
_COUNTED = re.compile(r"[A-Za-z_]*\d+")
_ALIKE = 0.9  # cosine of two weights that may be versions of one


def match_tensors(
    reference: ir.Model, model: ir.Model, inputs: Mapping[str, str] | None = None
) -> dict[str, tuple[str, str]]:
    """Return tensors of a model -> the reference's tensor, and how: ``"name"``, ``"weights"`` or ``"structure"``.

    1. A name counts where both nodes have the same operator, or where it is no mere number of an exporter. Where layers
       with weights of their own show that the models count through their layers differently, only names that are not
       numbered count. A name that contradicts such weights counts in no case.
    2. Layers whose weights occur once in each model are twins where these are equal to the precision of float16.
    3. From the inputs and from these twins on, nodes with the same operator that read twins are twins; of several,
       those with equal attributes and constants, then the last that is left, then those with similar weights.
       Identity, Cast and pairs of QuantizeLinear and DequantizeLinear are looked through.
    4. What is left of layers with equal weights is paired in order.

    Args:
        reference: The reference, functions inlined.
        model: The model, functions inlined.
        inputs: The model's inputs -> the reference's; None pairs them by name, else in order.

    >>> text = '''<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 2] %s)
    ...   <float[2, 2] w = {1, 2, 3, 4}> { %s = MatMul(x, w) %s = Relu(%s) }'''
    >>> one, other = (ir.from_onnx_text(text % names) for names in (("y", "h", "y", "h"), ("b", "a", "b", "a")))
    >>> match_tensors(one, other)
    {'a': ('h', 'weights'), 'b': ('y', 'structure')}
    """
    matcher = _Matcher(reference, model, paired_inputs(reference, model) if inputs is None else inputs)
    matcher.by_name()
    for name, twin in matcher.unique.items():
        matcher.add(name, twin, "weights")
    matcher.by_structure()
    matcher.leftovers()
    return matcher.found


def paired_inputs(reference: ir.Model, model: ir.Model) -> dict[str, str]:
    """Return the model's inputs -> the reference's: by name where all are the same, else in order.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] %s) => (float[2] y) {y = Neg(%s)}'
    >>> paired_inputs(ir.from_onnx_text(text % ("x", "x")), ir.from_onnx_text(text % ("t0", "t0")))
    {'t0': 'x'}
    """
    theirs, own = ([str(v.name) for v in model_inputs(m)] for m in (reference, model))
    return dict(zip(own, own if set(own) == set(theirs) else theirs, strict=False))


class _Matcher:
    """What was found so far, and what finds more."""

    def __init__(self, reference: ir.Model, model: ir.Model, inputs: Mapping[str, str]) -> None:
        self.reference, self.model, self.inputs = reference, model, inputs
        self.prints, self.sources = Fingerprints(), Sources()
        self.theirs = {str(v.name): (node, v) for node in reference.graph for v in node.outputs if v.name}
        self.own = {str(v.name) for node in model.graph for v in node.outputs if v.name}
        self.found: dict[str, tuple[str, str]] = {}
        self.taken: set[str] = set()
        left, right = self._layers(reference, set()), self._layers(model, set())
        self.unique = {
            names[0]: left[digest][0]
            for digest, names in right.items()
            if len(names) == 1 and len(left.get(digest, ())) == 1
        }

    def _layers(self, model: ir.Model, without: set[str]) -> dict[str, list[str]]:
        """Return digest -> what the layers write that have such weights."""
        found: dict[str, list[str]] = defaultdict(list)
        for node in model.graph:
            name = str(node.outputs[0].name or "") if node.outputs else ""
            if name and name not in without and (digest := self.prints.weight(node)):
                found[digest].append(name)
        return found

    def add(self, name: str, twin: str, how: str) -> None:
        """Pair two tensors, unless one of them has its twin already."""
        if name and twin and name not in self.found and twin not in self.taken:
            self.found[name] = (twin, "name" if name == twin else how)
            self.taken.add(twin)

    def by_name(self) -> None:
        """Pair what has the same name, if names mean the same in both."""
        told = [name == twin for name, twin in self.unique.items() if name in self.theirs]
        trusted = 10 * told.count(False) <= len(told)
        held = set(self.unique.values())
        for node in self.model.graph:
            for name in (str(value.name or "") for value in node.outputs):
                plain = name.removesuffix("_quantized")  # what onnxruntime's quantiser calls the codes of a tensor
                if plain != name and plain in self.theirs and plain not in self.own:
                    self.add(name, plain, "name")
                if name not in self.theirs or ((name in self.unique or name in held) and self.unique.get(name) != name):
                    continue
                same = self.theirs[name][0].op_type == node.op_type
                if (trusted and (same or not _NUMBERED.fullmatch(name))) or not _COUNTED.fullmatch(name):
                    self.add(name, name, "name")

    def by_structure(self) -> None:
        """Pair nodes that do the same with twins, level by level."""
        index: dict[Key, list[ir.Node]] = defaultdict(list)
        for node in self.reference.graph:
            key = self.sources.key(node, lambda value: value.name)
            if key is not None:
                index[key].append(node)
        known = dict(self.inputs)
        for name, (twin, _) in self.found.items():
            known[name] = self._canonical(twin)
        readers, missing = self._waiting()
        level = [value for value in _values(self.model) if str(value.name) in known]
        ready = [node for node, values in missing.items() if not values]
        while level or ready:
            for value in level:
                for node in readers.pop(value, ()):
                    missing[node].discard(value)
                    if not missing[node]:
                        ready.append(node)
            level = self._pair(ready, index, known)
            ready = []

    def _waiting(self) -> tuple[dict[ir.Value, list[ir.Node]], dict[ir.Node, set[ir.Value]]]:
        """Return who reads what, copies looked through, and what each node reads."""
        readers: dict[ir.Value, list[ir.Node]] = defaultdict(list)
        missing: dict[ir.Node, set[ir.Value]] = {}
        for node in self.model.graph:
            read = (self.sources.of(value) for value in node.inputs if value is not None)
            missing[node] = {value for value in read if value is not None}
            for value in missing[node]:
                readers[value].append(node)
        return readers, missing

    def _canonical(self, twin: str) -> str:
        """Return the name of what a tensor of the reference is a copy of."""
        source = self.sources.of(self.theirs[twin][1])
        return twin if source is None else str(source.name)

    def _pair(
        self, ready: Sequence[ir.Node], index: Mapping[Key, list[ir.Node]], known: dict[str, str]
    ) -> list[ir.Value]:
        """Pair nodes whose inputs are all known; return the values that are known now and were not."""
        groups: dict[Key, list[ir.Node]] = defaultdict(list)
        for node in ready:
            key = self.sources.key(node, lambda value: known.get(str(value.name)))
            if key is not None and not any(str(value.name) in self.found for value in node.outputs):
                groups[key].append(node)
        fresh = []
        for key, nodes in groups.items():
            free = [n for n in index.get(key, ()) if not any(str(v.name) in self.taken for v in n.outputs)]
            for node, twin in self._told_apart(nodes, free):
                for value, other in zip(node.outputs, twin.outputs, strict=False):
                    self.add(str(value.name or ""), str(other.name or ""), "structure")
                    if str(value.name) in self.found:
                        known[str(value.name)] = self._canonical(self.found[str(value.name)][0])
                        fresh.append(value)
        return fresh

    def _told_apart(self, nodes: list[ir.Node], others: list[ir.Node]) -> list[tuple[ir.Node, ir.Node]]:
        """Return pairs of nodes that read the same: the same constants, the last one left, similar weights."""
        pairs: list[tuple[ir.Node, ir.Node]] = []
        if len(nodes) > 1 or len(others) > 1:
            equal = defaultdict(list)
            for other in others:
                equal[self.prints.whole(other)].append(other)
            pairs += [(node, same.pop(0)) for node in nodes if (same := equal[self.prints.whole(node)])]
            nodes = [node for node in nodes if all(node is not one for one, _ in pairs)]
            others = [other for other in others if all(other is not one for _, one in pairs)]
        if len(nodes) == len(others) == 1:
            return [*pairs, (nodes[0], others[0])]
        closest = sorted(
            ((_likeness(node, other), i, j) for i, node in enumerate(nodes) for j, other in enumerate(others)),
            reverse=True,
        )
        left, right = set(range(len(nodes))), set(range(len(others)))
        for cosine, i, j in closest:
            if cosine >= _ALIKE and i in left and j in right:
                pairs.append((nodes[i], others[j]))
                left.discard(i)
                right.discard(j)
        return pairs

    def leftovers(self) -> None:
        """Pair layers with equal weights in their order, where there are as many in both."""
        left, right = self._layers(self.reference, self.taken), self._layers(self.model, set(self.found))
        for digest, names in right.items():
            twins = left.get(digest, [])
            if len(twins) == len(names):
                for name, twin in zip(names, twins, strict=True):
                    self.add(name, twin, "weights")


def _values(model: ir.Model) -> list[ir.Value]:
    found = dict.fromkeys(model.graph.inputs)
    for node in model.graph:
        found.update(dict.fromkeys(reads(node)))
        found.update(dict.fromkeys(node.outputs))
    return list(found)


def _likeness(node: ir.Node, other: ir.Node) -> float:
    """Return the cosine of two nodes' weights; 0 where they have none of the same shape."""
    one, two = first_weight(node), first_weight(other)
    if one is None or two is None or tuple(one.shape) != tuple(two.shape):
        return 0.0
    a, b = (tensor.numpy().astype(np.float64).ravel() for tensor in (one, two))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm and np.isfinite(norm) else 0.0
