"""LSTM, GRU and RNN against the same cells written step by step in PyTorch, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnxviz.errors import GradientError
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.registry import Table, standard_table
from onnxviz.graph.model import from_proto, to_proto

torch = pytest.importorskip("torch")

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
INPUTS = ["X", "W", "R", "B", "L", "H0", "C0", "P"]
BOTH = {"direction": "bidirectional"}
Arrays = dict[str, np.ndarray]


def build(
    op: str, feeds: Arrays, outputs: list[str], *, symbolic: bool = False, opset: int = 18, **attributes: Any
) -> onnx.ModelProto:
    """Return a model of one node on (T, N, I)."""
    names = [name if name in feeds else "" for name in INPUTS]
    while not names[-1]:
        names.pop()
    all_outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    made = [name if name in outputs else "" for name in all_outputs]
    node = helper.make_node(op, names, made, **attributes)
    infos = []
    for name, array in feeds.items():
        sizes = [f"{name}_{axis}" for axis in range(array.ndim)] if symbolic else list(array.shape)
        infos.append(
            helper.make_tensor_value_info(name, TensorProto.INT32 if name == "L" else TensorProto.FLOAT, sizes)
        )
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * (4 if n == "Y" else 3)) for n in outputs]
    graph = helper.make_graph([node], "g", infos, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def activation(name: str, alpha: float, beta: float, z: Any) -> Any:
    f = torch.nn.functional
    return {
        "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Relu": torch.relu, "Softsign": f.softsign,
        "Softplus": f.softplus, "Affine": lambda z: alpha * z + beta, "LeakyRelu": lambda z: f.leaky_relu(z, alpha),
        "ThresholdedRelu": lambda z: torch.where(z >= alpha, z, 0.0), "Elu": lambda z: f.elu(z, alpha),
        "ScaledTanh": lambda z: alpha * torch.tanh(beta * z),
        "HardSigmoid": lambda z: torch.clamp(alpha * z + beta, 0, 1),
    }[name](z)  # fmt: skip


class Reference:
    """The operators, step by step."""

    def __init__(self, op: str, attributes: dict[str, Any]) -> None:
        self.op, self.attributes = op, attributes
        self.names = attributes.get("activations") or DEFAULTS[op] * 2
        self.alpha = attributes.get("activation_alpha") or [0.01] * 6
        self.beta = attributes.get("activation_beta") or [0.0] * 6

    def act(self, place: int, z: Any) -> Any:
        clip = self.attributes.get("clip", 0)
        return activation(
            self.names[place], self.alpha[place], self.beta[place], torch.clamp(z, -clip, clip) if clip else z
        )

    def step(self, t: dict[str, Any], x: Any, h: Any, c: Any, d: int) -> tuple[Any, Any]:
        w, r, base = t["W"][d], t["R"][d], d * len(DEFAULTS[self.op])
        wb, rb = t["B"][d].chunk(2) if "B" in t else (0, 0)
        if self.op == "RNN":
            return self.act(base, x @ w.T + wb + h @ r.T + rb), c
        if self.op == "LSTM":
            i, o, f, g = (x @ w.T + wb + h @ r.T + rb).chunk(4, -1)
            pi, po, pf = t["P"][d].chunk(3) if "P" in t else (0, 0, 0)
            i = self.act(base, i + pi * c)
            f = 1 - i if self.attributes.get("input_forget") else self.act(base, f + pf * c)
            c = f * c + i * self.act(base + 1, g)
            name = self.names[base + 2]  # what the cell passes is not clipped
            return self.act(base, o + po * c) * activation(name, self.alpha[base + 2], self.beta[base + 2], c), c
        xz, xr, xn = (x @ w.T + wb).chunk(3, -1)
        hz, hr, hn = (h @ r.T + rb).chunk(3, -1)
        z, reset = self.act(base, xz + hz), self.act(base, xr + hr)
        if not self.attributes.get("linear_before_reset"):
            rn, bias = r.chunk(3)[2], rb.chunk(3)[2] if "B" in t else 0
            return (1 - z) * self.act(base + 1, xn + (reset * h) @ rn.T + bias) + z * h, c
        return (1 - z) * self.act(base + 1, xn + reset * hn) + z * h, c

    def run(self, t: dict[str, Any]) -> dict[str, Any]:
        steps, batch = t["X"].shape[:2]
        ways, hidden = t["R"].shape[0], t["R"].shape[2]
        lengths = t["L"] if "L" in t else [steps] * batch
        found: dict[str, list[Any]] = {"Y": [], "Y_h": [], "Y_c": []}
        for d in range(ways):
            backward = d == 1 or self.attributes.get("direction") == "reverse"
            zero = torch.zeros(batch, hidden, dtype=torch.float64)
            h, c = (t[name][d] if name in t else zero for name in ("H0", "C0"))
            rows = [zero] * steps
            for step in range(steps)[:: -1 if backward else 1]:
                on = torch.tensor([[step < int(n)] for n in lengths])
                h1, c1 = self.step(t, t["X"][step], h, c, d)
                h, c, rows[step] = torch.where(on, h1, h), torch.where(on, c1, c), torch.where(on, h1, 0)
            for name, value in (("Y", torch.stack(rows)), ("Y_h", h), ("Y_c", c)):
                found[name].append(value)
        return {name: torch.stack(values, 1 if name == "Y" else 0) for name, values in found.items()}


def make_feeds(op: str, ways: int = 1, steps: int = 5, *, lengths: Any = None, peepholes: bool = False) -> Arrays:
    rng = np.random.default_rng(5)
    batch, size, hidden, gates = 3, 4, 3, GATES[op]
    shapes = {"X": (steps, batch, size), "W": (ways, gates * hidden, size), "R": (ways, gates * hidden, hidden)}
    shapes |= {"B": (ways, 2 * gates * hidden), "H0": (ways, batch, hidden)}
    shapes |= {"C0": (ways, batch, hidden)} if op == "LSTM" else {}
    shapes |= {"P": (ways, 3 * hidden)} if peepholes else {}
    feeds = {name: (0.7 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    return feeds if lengths is None else {**feeds, "L": np.array(lengths, np.int32)}


def worst(op: str, feeds: Arrays, outputs: list[str], table: Table | None = None, **options: Any) -> float:
    """Return the largest relative difference (L2) of any gradient, the outputs one by one."""
    attributes = {name: value for name, value in options.items() if name not in ("symbolic", "opset")}
    model = build(op, feeds, outputs, hidden_size=feeds["R"].shape[2], **options)
    floats = [name for name in feeds if name != "L"]
    errors = []
    for of in outputs:
        made = gradient_model(from_proto(model), of, floats, table=table)
        proto = to_proto(made.model)
        onnx.checker.check_model(proto, full_check=True)
        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        tensors = {n: torch.tensor(a, dtype=torch.float64, requires_grad=n != "L") for n, a in feeds.items()}
        wanted = Reference(op, attributes).run(tensors)[of]
        seed = np.random.default_rng(9).normal(size=wanted.shape).astype(np.float32)
        (wanted * torch.tensor(seed)).sum().backward()
        results = session.run([of, *made.gradients.values()], {**feeds, str(made.seed): seed})
        np.testing.assert_allclose(results[0], wanted.detach().numpy(), atol=1e-5)
        for name, found in zip(floats, results[1:], strict=True):
            true = tensors[name].grad
            true = np.zeros_like(feeds[name]) if true is None else true.numpy()
            assert found.shape == true.shape
            errors.append(float(np.linalg.norm(found - true) / max(np.linalg.norm(true), 1e-3)))
    return max(errors)


CASES: list[tuple[str, dict[str, Any]]] = [
    *[(op, extra) for op in GATES for extra in (
        {}, {"direction": "reverse"}, {**BOTH, "ways": 2}, {"steps": 1}, {"lengths": [3, 5, 1]},
        {"lengths": [3, 2, 4], "direction": "reverse"}, {"lengths": [4, 1, 2], "ways": 2, **BOTH}, {"clip": 0.6},
        {"symbolic": True}, {"symbolic": True, "ways": 2, "lengths": [5, 2, 3], **BOTH},
    )],
    *[("GRU", {"linear_before_reset": 1, **extra}) for extra in (
        {}, {"direction": "reverse"}, {**BOTH, "ways": 2}, {"lengths": [3, 5, 1]}, {"clip": 0.5},
    )],
    *[("LSTM", {"peepholes": True, **extra}) for extra in (
        {}, {"direction": "reverse"}, {**BOTH, "ways": 2}, {"lengths": [3, 5, 1]}, {"clip": 0.5}, {"input_forget": 1},
    )],
    ("LSTM", {"input_forget": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "options"), CASES, ids=lambda part: part if isinstance(part, str) else str(part))
def test_against_pytorch(op: str, options: dict[str, Any]) -> None:
    options = dict(options)
    given = {name: options.pop(name) for name in ("ways", "steps", "lengths", "peepholes") if name in options}
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    assert worst(op, make_feeds(op, **given), outputs, **options) < 1e-5


@pytest.mark.parametrize("name", ["Relu", "Sigmoid", "Softsign", "Softplus", "LeakyRelu", "Affine", "ThresholdedRelu",
                                  "ScaledTanh", "HardSigmoid", "Elu"])  # fmt: skip
@pytest.mark.parametrize("op", GATES)
def test_activations(op: str, name: str) -> None:
    count, numbers = len(DEFAULTS[op]), {}
    if name in ("LeakyRelu", "Affine", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"):
        numbers["activation_alpha"] = [0.3, 0.45, 0.6][:count]
    if name in ("Affine", "ScaledTanh", "HardSigmoid"):
        numbers["activation_beta"] = [0.4, 0.5, 0.7][:count]
    assert worst(op, make_feeds(op, steps=3), ["Y"], activations=[name] * count, **numbers) < 1e-5


@pytest.mark.parametrize("opset", [7, 13, 14, 21, 22, 26])
@pytest.mark.parametrize("op", GATES)
def test_every_version(op: str, opset: int) -> None:
    assert worst(op, make_feeds(op), ["Y"], opset=opset) < 1e-5


def test_without_the_optional_inputs() -> None:
    for op in GATES:
        feeds = {name: array for name, array in make_feeds(op).items() if name in "XWR"}
        for symbolic in (False, True):
            assert worst(op, feeds, ["Y_h"], symbolic=symbolic) < 1e-5


def test_an_error_of_a_thousandth_is_caught() -> None:
    row = standard_table().rows["", "LSTM"][0].rule

    def off(s: Any, *dys: Any) -> Any:
        grads = row(s, *dys)
        return (s.ops.Mul(grads[0], s.ops.scalar(1.001, s[0])), *grads[1:])

    table = standard_table().changed({("", "LSTM"): off})
    assert 9e-4 < worst("LSTM", make_feeds("LSTM"), ["Y"], table) < 1.1e-3


def test_what_is_refused() -> None:
    model = build("RNN", make_feeds("RNN"), ["Y"], hidden_size=3, activations=["ScaledTanh"])
    with pytest.raises(GradientError, match="RNN-14 at 'Y': scaledtanh has no activation_alpha"):
        gradient_model(from_proto(model), "Y")


def test_samples_first() -> None:
    """onnxruntime does not run layout = 1, so the forward node is written with Transposes around layout = 0 there."""
    feeds = make_feeds("LSTM", 2)
    turned = {name: array.swapaxes(0, 1) if name in ("X", "H0", "C0") else array for name, array in feeds.items()}
    found = []
    for arrays, layout in ((feeds, 0), (turned, 1)):
        model = build("LSTM", arrays, ["Y", "Y_h"], hidden_size=3, layout=layout, **BOTH)
        made = gradient_model(from_proto(model), "Y")
        proto = to_proto(made.model)
        onnx.checker.check_model(proto, full_check=True)
        seed = np.random.default_rng(1).normal(size=(5, 2, 3, 3)).astype(np.float32)
        entering = seed.transpose(2, 0, 1, 3) if layout else seed
        session = ort.InferenceSession(time_first(proto).SerializeToString(), providers=["CPUExecutionProvider"])
        results = session.run(list(made.gradients.values()), {**arrays, "Y.grad": np.ascontiguousarray(entering)})
        found.append(dict(zip(made.gradients, results, strict=True)))
    for name, expected in found[0].items():
        true = expected.swapaxes(0, 1) if name in ("X", "H0", "C0") else expected
        np.testing.assert_allclose(found[1][name], true, rtol=1e-5, atol=1e-6)


def time_first(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose first node, of layout = 1, has layout = 0 between Transposes."""
    node = next(node for node in proto.graph.node if node.op_type == "LSTM")
    layout = next(a for a in node.attribute if a.name == "layout")
    if not layout.i:
        return proto
    layout.i, before, after = 0, [], []
    for place in (0, 5, 6):
        before.append(helper.make_node("Transpose", [node.input[place]], [f"turned_{place}"], perm=[1, 0, 2]))
        node.input[place] = f"turned_{place}"
    for place, perm in enumerate(([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])[: len(node.output)]):
        after.append(helper.make_node("Transpose", [f"first_{place}"], [node.output[place]], perm=perm))
        node.output[place] = f"first_{place}"
    nodes = list(proto.graph.node)
    at = nodes.index(node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes[:at], *before, node, *after, *nodes[at + 1 :]])
    return proto


@pytest.mark.parametrize(("op", "options"), [
    ("RNN", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {}), ("LSTM", {"direction": "reverse"}),
])  # fmt: skip
def test_the_gradient_of_a_gradient(op: str, options: dict[str, Any]) -> None:
    feeds = make_feeds(op)
    once = gradient_model(from_proto(build(op, feeds, ["Y"], hidden_size=3, **options)), "Y", ["X"])
    twice = gradient_model(once.model, "X.grad", ["X", "R"])
    rng = np.random.default_rng(2)
    seed, v = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 1, 3, 3), feeds["X"].shape))
    session = ort.InferenceSession(to_proto(twice.model).SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(list(twice.gradients.values()), {**feeds, "Y.grad": seed, str(twice.seed): v})
    tensors = {n: torch.tensor(a, dtype=torch.float64, requires_grad=True) for n, a in feeds.items()}
    y = Reference(op, options).run(tensors)["Y"]
    (first,) = torch.autograd.grad((y * torch.tensor(seed)).sum(), tensors["X"], create_graph=True)
    true = torch.autograd.grad((first * torch.tensor(v)).sum(), [tensors["X"], tensors["R"]])
    for mine, other in zip(found, true, strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-3, atol=2e-5)
