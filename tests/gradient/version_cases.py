"""The node tests of onnx know only the newest version of an operator; here they are written in the older ones."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from tests.gradient.numeric import NEWEST
from tests.gradient.own_cases import FUSED_QUANTISED, OTHER_DOMAINS, OWN, QUANTISED
from tests.gradient.reference_ops import reference

FIRST = 7  # the lowest opset that onnxruntime runs
MOST = 3  # cases an operator and version
Schema = Any

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
#: Operator -> place of an input -> the attribute that it was in older versions, and whether that is a list.
MOVED: dict[str, dict[int, tuple[str, type]]] = {
    **{f"Reduce{name}": {1: ("axes", list)} for name in _REDUCTIONS},
    "Squeeze": {1: ("axes", list)},
    "Unsqueeze": {1: ("axes", list)},
    "Split": {1: ("split", list)},
    "Pad": {1: ("pads", list), 2: ("value", float)},
    "Slice": {1: ("starts", list), 2: ("ends", list), 3: ("axes", list)},
    "Clip": {1: ("min", float), 2: ("max", float)},
    "TopK": {1: ("k", int)},
    "Dropout": {1: ("ratio", float)},
    "Upsample": {1: ("scales", list)},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """A model, what it is fed, and what is looked at.

    Attributes:
        name: Of the case.
        model: The model.
        data_sets: As a test case of onnx has them: what goes in, what should come out.
        op: Domain, operator and version that the case is of; those of the first node without.
        options: Of the gradient.
        expected: Input -> the gradient that a seed of ones gives it, where differences cannot measure it.
    """

    name: str
    model: onnx.ModelProto
    data_sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    op: tuple[str, str, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, np.ndarray] = field(default_factory=dict)


@cache
def versions(op_type: str, domain: str = "") -> list[int]:
    """Return the versions of an operator that a model of opset 7 or later can have."""
    found = sorted(
        {s.since_version for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == (domain, op_type)}
    )
    return [v for i, v in enumerate(found) if i + 1 == len(found) or found[i + 1] > FIRST]


def last_opset(op_type: str, version: int) -> int:
    """Return the last opset in which a version of an operator is the one in force, and that onnxruntime runs."""
    later = [v for v in versions(op_type) if v > version]
    last = later[0] - 1 if later else onnx.defs.onnx_opset_version()
    return min(last, NEWEST) if version <= NEWEST else last


def older_cases(cases: Sequence[Any]) -> Iterator[Case]:
    """Yield up to three cases for each version that is not the newest: node tests, written in that version."""
    made: Counter[tuple[str, int]] = Counter()
    for case in cases:
        op_type = case.model.graph.node[0].op_type
        opset = opset_of(case.model)
        own = onnx.defs.get_schema(op_type, opset, "").since_version
        known = versions(op_type)
        wanted = [v for v in known if v < own or (v == own and v > NEWEST)]
        for version in wanted:
            if made[op_type, version] < MOST and (lower := lowered(case, version)) is not None:
                made[op_type, version] += 1
                yield lower


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model imports."""
    return int(next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")))


def lowered(case: Any, version: int) -> Case | None:
    """Return a case in an older version of its operator; None where that cannot say the same."""
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    node = model.graph.node[0]
    newer = onnx.defs.get_schema(node.op_type, opset_of(model), "")
    older = onnx.defs.get_schema(node.op_type, last_opset(node.op_type, version), "")
    given = {v.name: array for v, array in zip(model.graph.input, map(_array, case.data_sets[0][0]), strict=True)}
    if version < opset_of(model):
        _set_opset(model, last_opset(node.op_type, version))
    if not (_move_inputs(node, older, given) and _drop_attributes(node, newer, older)):
        return None
    for value in [v for v in model.graph.input if v.name not in node.input]:
        model.graph.input.remove(value)
    kept = [given[v.name] for v in model.graph.input]
    name = f"{case.name}_in_version_{version}"
    made = Case(name, model, [(kept, case.data_sets[0][1])], ("", node.op_type, version))
    return made if runs(model, dict(zip([v.name for v in model.graph.input], kept, strict=True))) else None


def _array(given: Any) -> Any:
    return numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else given


def _set_opset(model: onnx.ModelProto, opset: int) -> None:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    model.ir_version = min(model.ir_version, 8 if opset < 19 else 10)


def _move_inputs(node: onnx.NodeProto, older: Schema, given: Mapping[str, Any]) -> bool:
    """Turn inputs into the attributes that they once were."""
    for place, (attribute, kind) in sorted(MOVED.get(node.op_type, {}).items(), reverse=True):
        if attribute not in older.attributes or place >= len(node.input) or len(older.inputs) > place:
            continue
        name = node.input[place]
        if name:
            array = np.asarray(given[name])
            if not array.size:
                return False
            number = array.tolist() if kind is list else kind(array.reshape(-1)[0])
            node.attribute.append(helper.make_attribute(attribute, number))
        if any(node.input[place + 1 :]):
            return False
        del node.input[place:]
    while node.input and not node.input[-1]:
        node.input.pop()
    variadic = bool(older.inputs) and older.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    return variadic or len(node.input) <= len(older.inputs)


def _drop_attributes(node: onnx.NodeProto, newer: Schema, older: Schema) -> bool:
    """Leave out attributes that an older version does not have, where they say what it does anyway."""
    for attribute in [a for a in node.attribute if a.name not in older.attributes]:
        default = newer.attributes[attribute.name].default_value if attribute.name in newer.attributes else None
        same = default is not None and default.name and _said(attribute) == _said(default)
        if not same and attribute.name != "num_outputs":
            return False
        node.attribute.remove(attribute)
    return True


def _said(attribute: onnx.AttributeProto) -> Any:
    return helper.get_attribute_value(attribute)


def runs(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> bool:
    """Whether the checker takes a model and something runs it."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"]).run(
            None, dict(feeds)
        )
    except Exception:  # noqa: BLE001 - many kinds; the reference evaluator may know it
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                reference(model).run(None, dict(feeds))
        except Exception:  # noqa: BLE001 - then there is nothing to compare with
            return False
    return True


def own_cases() -> Iterator[Case]:
    """Yield the cases that onnx has none for: a text for every version of its operator that takes it."""
    rng = np.random.default_rng(11)
    for own in OWN:
        known = [v for v in versions(own.op_type) if own.since <= v <= own.until]
        for version in known:
            opset = own.opset or last_opset(own.op_type, version)
            made = _parsed(own.op_type, own.text, version, opset, {**own.feeds}, rng)
            yield replace(made, expected=own.expected) if version > NEWEST else made
    for op_type, text, feeds, expected in QUANTISED:
        for version in versions(op_type):
            if version >= 10:
                made = _parsed(op_type, text, version, last_opset(op_type, version), dict(feeds), rng)
                yield replace(made, options={"straight_through": True}, expected=expected)
    for op_type, text, feeds, expected in FUSED_QUANTISED:
        made = _parsed(op_type, text, 1, 18, dict(feeds), rng, "com.microsoft")
        yield replace(made, options={"straight_through": True}, expected=expected)
    for domain, texts in OTHER_DOMAINS.items():
        for name, text in texts.items():
            yield _parsed(name.split()[0].rstrip(","), text, 1, 26 if "preview" in domain else 18, {}, rng, domain)


def _parsed(
    op_type: str, text: str, version: int, opset: int, feeds: dict[str, Any], rng: np.random.Generator, domain: str = ""
) -> Case:
    imports = f'"": {opset}' + (f', "{domain}": 1' if domain else "")
    model = onnx.parser.parse_model(f"<ir_version: {8 if opset < 19 else 10}, opset_import: [{imports}]> g {text}")
    given = []
    for value in model.graph.input:
        sizes = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
        made = rng.normal(size=sizes).astype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        given.append(feeds.get(value.name, made))
    label = re.sub(r"\W+", "_", f"own_{op_type}_{version}")
    return Case(label, model, [(given, [])], (domain, op_type, version))
