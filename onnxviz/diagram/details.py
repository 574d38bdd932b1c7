"""What a block says about its node, in the short forms that engineers use: ``3×3 · stride 2``, ``W 64×3×7×7``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import onnx
import onnx_ir as ir

from onnxviz.diagram.text import ellipsize
from onnxviz.graph.constants import constant_tensor, is_parameter
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.shapes import dtype_name, symbolic_shape

__all__ = [
    "attribute_text",
    "body_text",
    "count_text",
    "dims_text",
    "input_name",
    "settings",
    "shape_text",
    "typed",
    "weights_text",
]

_SIGNS = {"Add": "+", "Sub": "−", "Mul": "×", "Div": "÷", "Pow": "^", "Equal": "=", "Greater": ">", "Less": "<"}
_QUIET = {
    *("epsilon", "momentum", "training_mode", "spatial", "is_test", "transA", "transB", "ceil_mode", "storage_order"),
    *("count_include_pad", "coordinate_transformation_mode", "cubic_coeff_a", "nearest_mode", "exclude_outside"),
    *("allowzero", "keepdims", "saturate", "ratio", "seed", "consumed_inputs", "layout", "stash_type"),
    *("extrapolation_value", "noop_with_empty_axes"),
}
_GEOMETRY = {"kernel_shape", "strides", "pads", "dilations", "group", "auto_pad", "output_padding", "output_shape"}
_LISTED = 16  # elements of an attribute shown at length
_SMALL = 6  # elements of a constant that are written out
_INFERRED = re.compile(r"unk__\d+")  # onnx's names for sizes that it could not infer
_EXPRESSION = re.compile(r"floor\(|m(?:ax|in)\(|\w\*\w| [+-] ")
_NAMES = re.compile(r"[^\s+*/(),]{3,}")
_ROUNDED_UP = re.compile(r"\((.{1,300}) \+ (\d{1,9})\)/(\d{1,9})")
_UNBOUNDED = 2**31 - 1


def count_text(number: int) -> str:
    """Return a count as people write it.

    >>> [count_text(n) for n in (0, 950, 61_706, 25_557_032)]
    ['0', '950', '61.7k', '25.6M']
    """
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g}{unit}" if number / factor < 999.5 else f"{number / factor:.0f}{unit}"
    return str(number)


def dims_text(dims: Sequence[object], longest: int = 14) -> str:
    """Return dimensions joined by ``×``: sizes, names of symbolic ones, ``?`` for unknown ones.

    Args:
        dims: Sizes, names, expressions as :func:`onnxviz.graph.shapes.infer_shapes` writes them, None.
        longest: Most characters of a name, also within an expression.

    >>> dims_text(["batch", 3, None]), dims_text(["N", "floor((H + 1)/2)", "past + 1"])
    ('batch×3×?', 'N×⌈H/2⌉×(past+1)')
    """
    return _dims_text(tuple(dims[:9]), longest)


@lru_cache(maxsize=4096)
def _dims_text(dims: tuple[object, ...], longest: int) -> str:
    shown = [_dim(dim, longest) for dim in dims[:8]] + (["…"] if len(dims) > 8 else [])
    return "×".join(shown) if shown else "scalar"


def _dim(dim: object, longest: int) -> str:
    text = str(dim)
    if dim is None or _INFERRED.fullmatch(text):
        return "?"
    if isinstance(dim, int) or not _EXPRESSION.search(text):
        return ellipsize(text, longest)
    named = _NAMES.sub(lambda name: ellipsize(name[0], longest), text[:2000])
    written = _rounding(named).replace(" + ", "+").replace(" - ", "−").replace("*", "·")
    if re.search(r"[+−]", re.sub(r"⌈[^⌉]*⌉|⌊[^⌋]*⌋|\([^()]*\)", "", written)):
        written = f"({written})"
    return ellipsize(written, 4 * longest)


def _rounding(text: str) -> str:
    """Return an expression with brackets for rounding: ``⌊H/2⌋``, and ``⌈H/2⌉`` for ``floor((H + 1)/2)``."""
    start = text.find("floor(")
    end, depth = start + 6, 1
    while start >= 0 and end < len(text) and depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    if start < 0 or depth:
        return text
    inner = text[start + 6 : end - 1]
    up = _ROUNDED_UP.fullmatch(inner)
    if up is not None and int(up[2]) == int(up[3]) - 1:
        above = _rounding(up[1])
        shown = f"⌈({above})/{up[3]}⌉" if re.search(r" [+-] ", above) else f"⌈{above}/{up[3]}⌉"
    else:
        shown = f"⌊{_rounding(inner)}⌋"
    return f"{text[:start]}{shown}{_rounding(text[end:])}"


def shape_text(value: ir.Value, *, usual: str | None = "float32") -> str:
    """Return a value's shape, after its element type unless that is the ``usual`` one; empty where nothing is known."""
    return typed(dtype_name(value), symbolic_shape(value), usual=usual)


def typed(dtype: str | None, dims: Sequence[object] | None, *, usual: str | None, longest: int = 14) -> str:
    """Return a shape after its element type, unless that is the ``usual`` one; empty where nothing is known.

    >>> typed("float32", [1, 3], usual="float32"), typed("int64", None, usual="float32")
    ('1×3', 'int64 ?')
    """
    known = "?" if dims is None else dims_text(dims, longest)
    if dtype is None or dtype == usual:
        return "" if known == "?" and (usual or dtype is None) else known
    return f"{dtype} {known}"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, int) else ellipsize(str(value), 16)


def _list(values: Sequence[object]) -> str:
    """Return one number where all are the same, else all of them.

    >>> _list([2, 2]), _list([1, 2])
    ('2', '1,2')
    """
    if len(set(values)) == 1:
        return _short(values[0])
    return ",".join(_short(v) for v in values[:8]) + ("…" if len(values) > 8 else "")


def _raw(node: ir.Node, name: str) -> object:
    attribute = node.attributes.get(name)
    return None if attribute is None or attribute.is_ref() else attribute.value


def _ints(node: ir.Node, name: str) -> list[int]:
    value = _raw(node, name)
    return list(value) if isinstance(value, (list, tuple)) and all(isinstance(v, int) for v in value) else []


def _small_values(tensor: ir.TensorProtocol | None) -> list[int | float | bool | str] | None:
    """Return the elements of a small constant that lies in the file itself; None for all others."""
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.size > _SMALL or tensor.nbytes > 4096:
        return None
    try:
        return list(tensor.numpy().reshape(-1).tolist())
    except (ValueError, TypeError, AttributeError, NotImplementedError, OverflowError):
        return None  # a damaged tensor: its shape is shown instead


@lru_cache(maxsize=2048)
def _schema(op_type: str, domain: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, max(1, min(version, 2**30)), domain)
    except onnx.defs.SchemaError:
        return None


def _schema_of(node: ir.Node) -> onnx.defs.OpSchema | None:
    version = node.version
    if version is None and node.graph is not None:
        version = node.graph.opset_imports.get(node.domain)
    return _schema(node.op_type, node.domain, version or onnx.defs.onnx_opset_version())


def input_name(node: ir.Node, index: int) -> str:
    """Return what the operator calls its input."""
    schema = _schema_of(node)
    if schema is None or not schema.inputs:
        return "constant"
    formal = schema.inputs[min(index, len(schema.inputs) - 1)]
    return "constant" if formal.option == onnx.defs.OpSchema.FormalParameterOption.Variadic else formal.name


def settings(node: ir.Node) -> list[str]:
    """Return what is special about a node, most telling first, such as ``["3×3", "stride 2", "pad 1"]``."""
    maker = _MAKERS.get(node.op_type)
    found = maker(node) if maker else []
    if kind_of(node) in ("conv", "pool") and not maker:
        found = _window(node)
    return found + _other_attributes(node) + _small_constants(node)


def _window(node: ir.Node) -> list[str]:
    kernel, strides, pads = _ints(node, "kernel_shape"), _ints(node, "strides"), _ints(node, "pads")
    weight = constant_tensor(node.inputs[1]) if len(node.inputs) > 1 and kind_of(node) == "conv" else None
    if not kernel and weight is not None and len(weight.shape) > 2:
        kernel = [d for d in weight.shape[2:] if isinstance(d, int)]
    found = [dims_text(kernel)] if kernel else []
    if any(s != 1 for s in strides):
        found.append(f"stride {_list(strides)}")
    auto = _raw(node, "auto_pad")
    if any(pads):
        half = len(pads) // 2
        found.append(f"pad {_list(pads[:half] if pads[:half] == pads[half:] else pads)}")
    elif isinstance(auto, str) and auto.startswith("SAME"):
        found.append("same")
    dilations, group = _ints(node, "dilations"), _raw(node, "group")
    if any(d != 1 for d in dilations):
        found.append(f"dilation {_list(dilations)}")
    if isinstance(group, int) and group > 1:
        depthwise = (
            weight is not None and len(weight.shape) > 1 and weight.shape[1] == 1 and "Transpose" not in node.op_type
        )
        found.append("depthwise" if depthwise and weight is not None and weight.shape[0] == group else f"group {group}")
    return found


def _operand(node: ir.Node) -> list[str]:
    """Return sign and constant of an elementwise operation: ``× 0.125``, ``+ 64``, ``1 −``."""
    sign = _SIGNS[node.op_type]
    for index, value in enumerate(node.inputs[:2]):
        tensor = constant_tensor(value)
        if tensor is None:
            continue
        values = _small_values(tensor)
        what = _short(values[0]) if values and len(values) == 1 else f"[{dims_text(list(tensor.shape))}]"
        return [f"{what} {sign}" if index == 0 else f"{sign} {what}"]
    return []


def _slice(node: ir.Node) -> list[str]:
    parts = [_ints(node, "starts"), _ints(node, "ends"), _ints(node, "axes"), []]
    for at, value in enumerate(node.inputs[1:5]):
        parts[at] = [v for v in _small_values(constant_tensor(value)) or [] if isinstance(v, int)]
    starts, ends, axes, steps = parts
    found = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=False)):
        until = "" if abs(end) >= _UNBOUNDED else str(end)
        step = f":{steps[i]}" if i < len(steps) and steps[i] != 1 else ""
        found.append(f"axis {axes[i] if i < len(axes) else i} [{start or ''}:{until}{step}]")
    return found


def _cast(node: ir.Node) -> list[str]:
    to = _raw(node, "to")
    try:
        return [f"to {ir.DataType(to).name.lower()}"] if isinstance(to, int) else []
    except ValueError:
        return [f"to {to}"]


def _transpose(node: ir.Node) -> list[str]:
    perm = _ints(node, "perm")
    return ["perm " + " ".join(map(str, perm))] if perm else []


_MAKERS: dict[str, Callable[[ir.Node], list[str]]] = {
    **dict.fromkeys(_SIGNS, _operand),
    "Slice": _slice,
    "Cast": _cast,
    "Transpose": _transpose,
}


def _other_attributes(node: ir.Node) -> list[str]:
    """Return attributes that no maker covers and that differ from the operator's defaults."""
    schema = _schema_of(node)
    found = []
    for name, attribute in node.attributes.items():
        if name in _QUIET or name in _GEOMETRY or (node.op_type in ("Slice", "Cast", "Transpose") and name != "mode"):
            continue
        if attribute.is_ref():
            found.append(f"{name} = {ellipsize(str(attribute.ref_attr_name), 16)}")
            continue
        text = attribute_text(attribute, brief=True)
        if text and not (schema and name in schema.attributes and _is_default(attribute, schema.attributes[name])):
            found.append(f"{ellipsize(name, 18)} {text}")
    return found


def _is_default(attribute: ir.Attr, formal: onnx.defs.OpSchema.Attribute) -> bool:
    if not formal.default_value.type:
        return False
    default: object = onnx.helper.get_attribute_value(formal.default_value)
    if isinstance(default, bytes):
        default = default.decode(errors="replace")
    value = attribute.value
    return value == default or (isinstance(value, (list, tuple)) and list(value) == default)


def attribute_text(attribute: ir.Attr, *, brief: bool = False) -> str:
    """Return an attribute's value on one line; empty for graphs and, when ``brief``, for tensors and long lists."""
    value = attribute.value
    if isinstance(value, (list, tuple)):
        if any(not isinstance(v, (int, float, str)) for v in value) or (brief and len(value) > 8):
            return ""
        if brief:
            return _list(value) if value else "[]"
        return f"[{', '.join(map(_short, value[:_LISTED]))}{', …' if len(value) > _LISTED else ''}]"
    if isinstance(value, (int, float, str)):
        # Attributes are float32: what str() of the float64 adds was never in the file.
        return ellipsize(_short(value) if brief else f"{value:.7g}" if isinstance(value, float) else str(value), 80)
    if attribute.type == ir.AttributeType.TENSOR and not brief and isinstance(value, ir.TensorProtocol):
        return f"tensor {dims_text(list(value.shape))}"
    return ""


def _small_constants(node: ir.Node) -> list[str]:
    """Return shapes, axes, scales and the like that come as small constant inputs."""
    if node.op_type in _SIGNS or node.op_type == "Slice":
        return []
    found = []
    for index, value in enumerate(node.inputs):
        tensor = constant_tensor(value)
        if tensor is None or (is_parameter(tensor) and tensor.size > 1 and not _is_setting(node)):
            continue
        values = _small_values(tensor)
        if values:
            text = _short(values[0]) if len(values) == 1 else "[" + ",".join(_short(v) for v in values) + "]"
            found.append(f"{input_name(node, index)} {text}")
    return found if len(found) <= 3 else []  # the many scales of a quantised operator say little


def _is_setting(node: ir.Node) -> bool:
    return node.op_type in ("Resize", "Upsample")


def weights_text(node: ir.Node) -> list[str]:
    """Return the shapes of a node's constant inputs that are tensors, ``["W 64×3×7×7", "b 64"]``."""
    if node.op_type in _SIGNS:
        return []
    named: list[tuple[str, str]] = []
    for index, value in enumerate(node.inputs):
        tensor = constant_tensor(value)
        if tensor is None or (tensor.size <= 1 and _small_values(tensor)):
            continue
        if not is_parameter(tensor) and tensor.size <= _SMALL:
            continue
        name = input_name(node, index)
        if kind_of(node) in ("conv", "linear") and not node.op_type.startswith(("Q", "MatMulN")):
            name = "W" if len(tensor.shape) > 1 else "b"
        named.append((name, dims_text(list(tensor.shape))))
    shapes: dict[str, list[str]] = {}
    for name, shape in named:
        shapes.setdefault(shape, []).append(name)
    return [f"{', '.join(names)} {shape}" for shape, names in shapes.items()]


def body_text(node: ir.Node) -> list[str]:
    """Return what the bodies of If, Loop and Scan hold, ``["then: 3 nodes", "else: 5 nodes"]``."""
    found = []
    for name, attribute in node.attributes.items():
        if attribute.is_ref() or attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            continue
        graphs = [attribute.value] if attribute.type == ir.AttributeType.GRAPH else list(attribute.value)
        label = {"then_branch": "then", "else_branch": "else"}.get(name, name)
        for graph in graphs:
            nodes = graph.num_nodes()
            found.append(f"{ellipsize(label, 16)}: {nodes} node{'s' if nodes != 1 else ''}")
    return found
