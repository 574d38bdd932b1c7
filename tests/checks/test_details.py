"""What each check says of harder cases than its fixture, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from onnxviz.checks.external import machine_paths_in, user_of
from onnxviz.checks.finding import Finding
from onnxviz.checks.run import run_checks
from onnxviz.checks.subject import Options, Subject
from tests.checks.cases.files import outside
from tests.checks.cases.given import file, net

_IF = (
    "If(c) <then_branch = a () => (float[2] p) {{{} p = Neg(x)}}, else_branch = b () => (float[2] q) {{q = Abs(x)}}>"
)  # fmt: skip
_IFS = "bool c, float[2] x"
_EYE = "float[2, 2] w = {1, 0, 0, 1}"
_MANY = ", ".join(str(number % 7) for number in range(256))


def called(body: str) -> str:
    """Return a model of one call of a function with input ``a`` and output ``c``."""
    return net("[k] y = l.F(x)", head=', "l": 1') + f'<opset_import: ["": 17], domain: "l"> F (a) => (c) {{ {body} }}'


def found(id: str, text: str, **options: object) -> list[str]:
    subject = Subject(ir.from_onnx_text(text), Options(**options))  # type: ignore[arg-type]
    result = run_checks(subject, only=[id])
    assert not result.unchecked, result.unchecked
    return [finding.line() for finding in result.findings if finding.verdict == "fail"]


SAYS = [
    ("G03", net("y = Relu(x)"), "1 of 1 nodes have no name"),
    ("G03", net(f"[a] h = Abs(x) [i] y = {_IF.format('[a] z = Exp(x)')}", _IFS), "node 'a': 2 nodes"),
    ("G04", net(f"[i] y = {_IF.format('[lost] z = Exp(x)')}", _IFS), "node 'lost': no output depends on it"),
    ("G04", net("[a] y = Relu(x)", "float[2] x, float[2] z"), "tensor 'z': nothing that counts reads this input"),
    ("G04", net("[a] y = Relu(x)", weights="float[2] w = {1, 2}"), "tensor 'w': nothing that counts reads this weight"),
    ("G04", net("[a] y = Relu(x)") + '<opset_import: ["": 17], domain: "l"> F (a) => (c) { c = Relu(a) }', "1 of 1 functions"),
    ("G07", net("y = Relu(x)", opset=19).replace("ir_version: 8", "ir_version: 13"), "needs opset 19", {"target_opset": 18}),
    ("G09", net("y = Gemm(x, w, b)", "float[1, 2] x", "float[1, 2] y", f"{_EYE}, float[3] b = {{1, 2, 3}}"), "'b' has shape [3]"),
    ("G09", net("y = Gemm(x, w, b)", "float[3, 2] x", "float[3, 2] y", f"{_EYE}, float[2, 1] b = {{1, 2}}"), "[2, 1] where [3, 2]"),
    ("G10", net("y = Dropout(x, r, t)", "float[2] x, bool t", weights="float r = {0.5}"), "whether it drops is computed: 't'"),
    ("G10", net("y = Dropout(x)", opset=6), "it drops: training mode"),
    ("G11", net("[a] t = Transpose<perm = [1, 2, 0]>(x) [b] y = Transpose<perm = [1, 2, 0]>(t)", "float[2, 3, 4] x",
                "float[4, 2, 3] y"), "they make one, perm [2, 0, 1]"),
    ("G11", net("[a] y = Transpose<perm = [0, 1]>(x)", "float[2, 3] x", "float[2, 3] y"), "it moves nothing"),
    ("G12", net("[a] y = Cast<to = 1>(x)"), "it casts FLOAT to FLOAT"),
    ("G13", net("[a] y = Exp(x)", "double[2] x", "double[2] y"), "an input is float64"),
    ("G14", net("y = Softmax<axis = -9223372036854775808>(x)"), "its axis is -9223372036854775808"),
    ("D04", net("y = Reshape(x, s)", "float[2, 2] x, int64[2] s", "float[n, m] y"), "computed from data: 's'"),
    ("D04", net("n = NonZero(x) s = Shape(n) h = ConstantOfShape(s) y = Neg(h)", outputs="float[1, n] y"), "is as its data says"),
    ("N02", net("y = Log(x)"), "the logarithm of a negative number is NaN"),
    ("N02", net("s = Sigmoid(x) y = Log(s)"), "the logarithm of 0 is -Inf"),
    ("N02", net("y = Exp(x)"), "the exponential of more than 88.72 is infinite"),
    ("N02", net("e = Exp(x) a = Add(e, o) y = Log(a)", weights="float o = {1}"), "the exponential"),
    ("N02", net("y = Sqrt(x)"), "the root of a negative number"),
    ("N02", net("y = Pow(x, p)", weights="float p = {0.5}"), "a negative number to a broken power"),
    ("N02", net("r = Relu(x) y = Pow(r, p)", weights="float p = {-1}"), "0 to a negative power"),
    ("N02", net("y = Acos(x)"), "Acos is defined from -1 to 1"),
    ("N02", net("y = Reciprocal(x)"), "the reciprocal of 0"),
    ("N02", net("y = Div(x, z)", weights="float[2] z = {0, 1}"), "the divisor may be 0"),
    ("N02", net("y = LayerNormalization<epsilon = 0.0>(x, s)", weights="float[2] s = {1, 1}"), "without an epsilon"),
    ("N02", net("m = ReduceMax<axes = [0]>(x) s = Sub(x, m) e = Exp(s) t = ReduceSum(e, a) y = Div(x, t)", "float[2, 2] x",
                "float[2, 2] y", weights="int64[1] a = {1}"), "the divisor may be 0"),
    ("N04", net("y = MatMul(x, w)", "float[1, 2] x", "float[1, 2] y", "float[2, 2] w = {1, inf, 3, 4}"), "are infinite"),
    ("N04", net("y = MatMul(x, w)", "float[1, 2] x", "float[1, 2] y", "float[2, 2] w = {1, 3e12, 3, 4}"), "as large as 3e+12"),
    ("N02", net("y = Mod<fmod = 1>(x, x)"), "the divisor may be 0"),
    ("Q02", net("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", weights="float s = {1e-40}, uint8 z = {0}"), "subnormal"),
    ("Q02", net("q, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, w) y = Cast<to = 1>(i)", "float[1, 16] x", "float[1, 16] y",
                f"int8[16, 16] w = {{{', '.join(str((127, -127, 3, 4)[i % 4]) for i in range(256))}}}"), "of its codes are at the ends"),
    ("G03", called("[a] h = Relu(a) [a] c = Neg(h)"), "node 'a': 2 nodes"),
    ("G04", called("[lost] h = Exp(a) [b] c = Neg(a)"), "node 'lost': no output depends on it"),
    ("G05", net(f"v = Constant<value = float[256] {{{_MANY}}}>() h = Add(x, w) y = Mul(h, v)", "float[256] x", "float[256] y",
                f"float[256] w = {{{_MANY}}}"), "tensor 'w', tensor 'v': 2 weights hold the same 1,024 bytes"),
    ("G09", net("y = LayerNormalization(x, w, b)", "float[n, 2] x", "float[n, 2] y", "float[2] w = {1, 1}, float[3] b = {1, 2, 3}"),
     "'b' has shape [3] where [n, 2] is needed"),
    ("G09", net("y = GroupNormalization<num_groups = 2>(x, s, s)", "float[1, 4, 2] x", "float[1, 4, 2] y", "float[2] s = {1, 1}",
                opset=21), "'s' has shape [2] where [4] is needed"),
    ("G10", called("r = Constant<value_float = 0.5>() t = Constant<value = bool {1}>() c = Dropout(a, r, t)"), "it drops"),
    ("G11", net("[a] t = Transpose<perm = [0, 2, 1]>(x) u = Mul(k, t) v = Add(u, k) [b] y = Transpose<perm = [0, 2, 1]>(v)",
                "float[2, 3, 4] x", "float[2, 3, 4] y", "float k = {2}"), "two transposes around Mul, Add: they cancel"),
    ("G11", net("[a] t = Transpose(x) [b] y = Transpose(t)", "float[2, 3] x", "float[2, 3] y"), "they cancel"),
    ("G12", net("[a] y = CastLike(x, k)", weights="float k = {2}"), "it casts FLOAT to FLOAT"),
    ("G13", net("m = ArgMax<keepdims = 0>(d) y = Cast<to = 1>(m)", outputs="float[1] y", weights="double[2, 1] d = {1, 2}"),
     "1 nodes compute in float64: 1 ArgMax"),
    ("G14", called("k = Constant<value_int = 9223372036854775806>() h = Cast<to = 7>(a) e = Add(h, k) c = Cast<to = 1>(e)"),
     "it holds 9223372036854775806"),
    ("G14", net("h = ConstantOfShape<value = int64[1] {4294967296}>(s) y = Add(x, h)", "int64[2] x", "int64[2] y", "int64[1] s = {2}"),
     "its value is 4294967296"),
    ("Q02", net("y = DequantizeLinear<axis = 0>(x, s, z)", "uint8[2] x", weights="float[3] s = {1, 1, 1}, uint8[3] z = {0, 0, 0}"),
     "3 scales for 2 channels"),
]  # fmt: skip


@pytest.mark.parametrize("case", SAYS, ids=lambda case: f"{case[0]} {case[2]}")
def test_it_says_so(case: tuple[object, ...]) -> None:
    id, text, says, *options = case
    lines = found(str(id), str(text), **(options[0] if options else {}))  # type: ignore[arg-type]
    assert any(str(says) in line for line in lines), lines


SILENT = [
    ("G04", net(f"[h] h = Exp(x) [i] y = {_IF.format('[z] z = Exp(h)').replace('Neg(x)', 'Neg(z)')}", _IFS)),
    ("G05", net("h = Add(x, a) y = Add(h, b)", weights="float[2] a = {1, 2}, float[2] b = {1, 2}")),
    ("G06", net("a = Shape(x) b = Shape(x) y = Sub(a, b)", outputs="int64[1] y")),
    ("G06", net("a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b)")),
    ("G09", net("y = Gemm(x, w, b)", "float[3, 2] x", "float[3, 2] y", f"{_EYE}, float b = {{1}}")),
    ("G09", net("y = acme.Gemm(x, w, b)", "float[1, 2] x", "float[1, 2] y", f"{_EYE}, float[3] b = {{1, 2, 3}}", head=', "acme": 1')),
    ("G09", net("y = BatchNormalization<spatial = 0>(x, s, s, s, s)", "float[1, 2, 2] x", "float[1, 2, 2] y",
                "float[2, 2] s = {1, 1, 1, 1}", opset=8)),
    ("G09", net("y = GroupNormalization<num_groups = 2>(x, s, s)", "float[1, 4, 2] x", "float[1, 4, 2] y", "float[2] s = {1, 1}",
                opset=18)),
    ("G09", net("y = GroupNormalization<num_groups = 2>(x, s, s)", "float[1, 4, 2] x", "float[1, 4, 2] y",
                "float[4] s = {1, 1, 1, 1}", opset=18)),
    ("G09", net("y = LayerNormalization(x, s)", "float[1, 4, 2] x", "float[1, 4, 2] y", "float[4, 1] s = {1, 1, 1, 1}")),
    ("G10", net("y = Dropout(x, r, t)", weights="float r = {0}, bool t = {1}")),
    ("G10", net("y = Dropout<ratio = 0.0>(x)", opset=6)),
    ("G10", net("[k] y = l.F(x, t)", weights="bool t = {0}", head=', "l": 1') + '<opset_import: ["": 17], domain: "l"> '
     "F (a, t) => (c) { r = Constant<value_float = 0.5>() c = Dropout(a, r, t) }"),
    ("G11", net("[a] t = Transpose<perm = [1, 0]>(x) u = Mul(t, k) [b] y = Transpose<perm = [1, 0]>(u)", "float[2, 3] x",
                "float[2, 3] y", "float[1, 2] k = {2, 3}")),
    ("G13", net("k = Cast<to = 1>(d) y = Add(x, k)", weights="double d = {1}")),
    ("G14", net("y = Loop(m, c, x) <body = b (int64 i, bool d, float[2] p) => (bool e, float[2] q) {e = Identity(d) q = Neg(p)}>",
                weights="int64 m = {9223372036854775807}, bool c = {0}")),
    ("G10", net("y = Dropout(x)", opset=11)),
    ("G11", net("[a] t = Transpose<perm = [1, 0]>(x) [b] y = Softmax(t)", "float[2, 3] x", "float[3, 2] y")),
    ("G12", net("h = Cast<to = 10>(x) y = Cast<to = 1>(h)")),
    ("G14", net("y = Slice(x, s, e)", weights="int64[1] s = {0}, int64[1] e = {9223372036854775807}")),
    ("D04", net("s = Shape(x) d = Mul(s, t) y = Reshape(x, d)", "float[n] x", "float[m] y", "int64[1] t = {1}")),
    ("N02", net("n = Neg(x) e = Exp(n) a = Add(e, o) y = Div(o, a)", weights="float o = {1}")),
    ("N02", net("m = ReduceMean<axes = [1]>(x) d = Sub(x, m) s = Mul(d, d) v = ReduceMean<axes = [1]>(s) a = Add(v, e) "
                "q = Sqrt(a) y = Div(d, q)", "float[2, 2] x", "float[2, 2] y", weights="float e = {1e-5}")),
    ("N02", net("m = ReduceMax<axes = [1]>(x) s = Sub(x, m) e = Exp(s) t = ReduceSum(e, a) y = Div(e, t)", "float[2, 2] x",
                "float[2, 2] y", weights="int64[1] a = {1}")),
    ("N02", net("c = Equal(x, z) d = Where(c, o, x) y = Div(x, d)", weights="float z = {0}, float o = {1}")),
    ("N02", net("y = Div(x, z)", "int64[2] x, int64[2] z", "int64[2] y")),
    ("N02", net("y = Pow(x, p)", weights="float p = {2}")),
    ("N02", net("n = ReduceL2<keepdims = 1>(w) d = Div(w, n) y = Mul(x, d)", weights="float[2] w = {3, 4}")),
    ("N04", net("y = Clip(x, a, b)", weights="float a = {-3.4e38}, float b = {3.4e38}")),
]  # fmt: skip


@pytest.mark.parametrize("case", SILENT, ids=lambda case: f"{case[0]} {case[1][50:90]}")
def test_it_is_silent(case: tuple[str, str]) -> None:
    assert found(*case) == []


def test_a_size_is_told_where_it_first_depends_on_data() -> None:
    text = net(
        "[n] n = NonZero(x) s = Shape(n) h = ConstantOfShape(s) e = Expand(h, s) y = Neg(e)", outputs="float[1, n] y"
    )
    assert found("D04", text) == ["node 'n': the size of what NonZero gives is as its data says"]


def test_infinite_masks_are_information() -> None:
    text = net("y = Where(c, x, m)", _IFS, weights="float m = {-inf}")
    (finding,) = run_checks(Subject(ir.from_onnx_text(text)), only=["N04"]).findings
    assert (finding.verdict, finding.severity) == ("fail", "info")


def test_with_a_library_every_custom_operator_counts_as_defined(tmp_path: Path) -> None:
    text = net("y = acme.Frob(x)", head=', "acme": 1')
    assert found("G08", text)
    assert found("G08", text, op_library=tmp_path / "frob.so") == []
    assert found("G08", net("y = com.microsoft.FastGelu(x)", head=', "com.microsoft": 1')) == []


class TestFiles:
    ADD = net("y = Add(x, w)", weights="float[2] w = {1, 2}")

    def findings(self, path: Path, id: str) -> list[Finding]:
        return [f for f in run_checks(Subject(path), only=[id]).findings if f.verdict == "fail"]

    def saved(self, folder: Path, location: str, data: str, **sizes: int) -> Path:
        model = file(self.ADD, outside(location, data, **sizes))(folder).model
        assert isinstance(model, Path)
        return model

    @pytest.mark.parametrize("location", ["/etc/passwd", "C:\\w.bin", "http://host/w.bin", "..", "a/../../w.bin"])
    def test_names_that_lead_out(self, tmp_path: Path, location: str) -> None:
        path = self.saved(tmp_path, location, "w.bin")
        assert [f.where[0].name for f in self.findings(path, "X01")] == ["w"]
        assert self.findings(path, "X02") == [], "X01 tells"

    def test_a_link_out_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "secret").write_bytes(b"\0" * 8)
        path = self.saved(tmp_path / "model", "w.bin", "other.bin")
        (tmp_path / "model/w.bin").symlink_to(tmp_path / "secret")
        assert "is a link out of" in self.findings(path, "X01")[0].message

    def test_a_hard_link_elsewhere_is_a_warning(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        path = self.saved(tmp_path / "model", "w.bin", "w.bin")
        os.link(tmp_path / "model/w.bin", tmp_path / "model/twin.bin")
        assert self.findings(path, "X01") == [], "its other name is in the folder"
        os.link(tmp_path / "model/w.bin", tmp_path / "elsewhere.bin")
        (finding,) = self.findings(path, "X01")
        assert (finding.severity, finding.evidence["links"]) == ("warning", 3)

    def test_data_that_is_not_there(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path, "w.bin", "other.bin")
        assert "there is no file 'w.bin'" in self.findings(path, "X02")[0].message
        long = self.saved(tmp_path, "w" * 5000, "other.bin")
        assert "there is no file" in self.findings(long, "X02")[0].message

    def test_a_length_that_its_shape_does_not_fill(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path, "w.bin", "w.bin", length=16)
        (tmp_path / "w.bin").write_bytes(b"\0" * 16)
        assert "its length is 16 bytes and its shape needs 8" in self.findings(path, "X02")[0].message

    def test_data_of_functions(self, tmp_path: Path) -> None:
        proto = onnx.parser.parse_model(called("w = Constant<value = float[2] {1, 2}>() c = Add(a, w)"))
        tensor = proto.functions[0].node[0].attribute[0].t
        tensor.ClearField("float_data")
        tensor.name, tensor.data_location = "w", onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add(key="location", value="gone.bin")
        path = tmp_path / "net.onnx"
        path.write_bytes(proto.SerializeToString())
        assert "there is no file 'gone.bin'" in self.findings(path, "X02")[0].message
        entry.value = "../gone.bin"
        path.write_bytes(proto.SerializeToString())
        assert "outside the model's folder" in self.findings(path, "X01")[0].message

    def test_a_length_that_its_shape_passes(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path, "w.bin", "w.bin", length=4)
        assert "its length is 4 bytes and its shape needs 8" in self.findings(path, "X02")[0].message

    def test_tensors_that_overlap(self, tmp_path: Path) -> None:
        proto = onnx.parser.parse_model(
            net("h = Add(x, w) y = Add(h, v)", weights="float[2] w = {1, 2}, float[2] v = {1, 2}")
        )
        (tmp_path / "w.bin").write_bytes(b"\0" * 16)
        for tensor, offset in zip(proto.graph.initializer, (0, 4), strict=True):
            tensor.ClearField("float_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", "w.bin"), ("offset", str(offset)), ("length", "8")):
                tensor.external_data.add(key=key, value=value)
        path = tmp_path / "net.onnx"
        path.write_bytes(proto.SerializeToString())
        assert "overlap" in self.findings(path, "X02")[0].message
        proto.graph.initializer[1].external_data[1].value = "0"
        path.write_bytes(proto.SerializeToString())
        assert self.findings(path, "X02") == [], "all of a range is one weight"

    def test_behind_a_missing_shape_there_may_be_more(self, tmp_path: Path) -> None:
        proto = onnx.parser.parse_model(net("[a] y = Relu(x, x)"))
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
        messages = [f.message for f in self.findings(tmp_path / "m.onnx", "G01")]
        assert "have no shape" in messages[0]
        assert "input size 2" in messages[1]

    def test_large_weights_are_no_breach(self, tmp_path: Path) -> None:
        """Weights of large files are left in the file; the checker must not take them for missing."""
        import numpy as np

        array = np.zeros((2048, 2304), np.float32)  # 18 MB: beyond what is read at once
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
            [onnx.helper.make_tensor_value_info("x", 1, [1, 2048])],
            [onnx.ValueInfoProto(name="y", type=onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=1)))],
            [onnx.numpy_helper.from_array(array, "w")],
        )  # fmt: skip
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        assert [f.message for f in self.findings(tmp_path / "m.onnx", "G01")] == [
            "1 of the model's inputs and outputs have no shape"
        ]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ('File "/home/ann/a b/net.py", line 3', ["/home/ann/a"]), ("C:\\Users\\ann\\net.py:3", ["C:\\Users\\ann\\net.py"]),
        ("/model/layers.0/attn", []), ("https://host/home/x", []), ("see /home", []), ("a/home/b", []), ("", []),
        ("/Users/ann/n.py(3) /tmp/x.py", ["/Users/ann/n.py", "/tmp/x.py"]),
    ],
)  # fmt: skip
def test_paths_in_texts(text: str, paths: list[str]) -> None:
    assert machine_paths_in(text) == paths


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("C:/Users/Ann/m.py", "Ann"),
        ("file:///home/ann/m.py", "ann"),
        ("/nfs/home/ann/m.pt", "ann"),
        ("/gpfs/a/m.pt", ""),
    ],
)
def test_paths_of_other_systems(text: str, user: str) -> None:
    (path,) = machine_paths_in(text)
    assert user_of(path) == user


def test_users() -> None:
    assert [user_of(p) for p in ("/home/ann/x", "/Users/bob/x", "C:\\Users\\eve\\x", "/home/runner/x", "/tmp/x")] == [
        "ann", "bob", "eve", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "nodes",
    [
        [("Relu", "a", "a"), ("Neg", "a", "y")],
        [("Relu", "b", "a"), ("Identity", "a", "b"), ("Transpose", "b", "y")],
        [("Transpose", "b", "a"), ("Transpose", "a", "b"), ("Cast", "b", "y")],
        [("Cast", "b", "a"), ("Cast", "a", "b"), ("Sqrt", "b", "y")],
    ],
)
def test_circles_end(nodes: list[tuple[str, str, str]]) -> None:
    attributes = {"Transpose": {"perm": [0]}, "Cast": {"to": 11}}
    made = [onnx.helper.make_node(op, [x], [y], **attributes.get(op, {})) for op, x, y in nodes]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(made, "g", [value("x", 1, [2])], [value("y", 1, [2])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    from onnxviz.graph.model import from_proto

    result = run_checks(Subject(from_proto(model), Options(static=True)))
    assert [f for f in result.findings if f.cause == "crashed"] == []
    assert result.exit_code() == 1, "G01 tells"
