"""Is what `capture` gives what onnxruntime computes? On every case of ONNX's backend tests, and on a folder of models.

``python benchmarks/conformance.py backend`` runs the node tests that the installed onnx package makes;
``python benchmarks/conformance.py corpus FOLDER`` runs the ``.onnx`` files under a folder. The models run in another
process, each with a time limit, so that a crash of the runtime is one line of the table.

What is compared is semantic capture against a session of the whole graph with ``ORT_DISABLE_ALL`` in which every tensor
of the main graph is an output, made here from the protobuf without onnxviz. Values must have the same bits. Exit code 1
if anything differs without a reason.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort

from onnxviz.errors import OnnxvizError
from onnxviz.runtime.isolated import Worker

TIMEOUT = 120.0
RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "Dropout",
}
HALF = "float16 or bfloat16 on the CPU: a whole session keeps float32 between nodes"
Outcome = tuple[str, str]


def mark_all(proto: onnx.ModelProto, folder: str, feeds: dict[str, Any]) -> dict[str, Any]:
    """Run a model with every tensor of its main graph as an output."""
    marked = onnx.inliner.inline_local_functions(proto) if proto.functions else proto
    marked.graph.name = marked.graph.name or "graph"
    present = {o.name for o in marked.graph.output}
    for node in marked.graph.node:
        for name in node.output:
            if name and name not in present:
                marked.graph.output.append(onnx.ValueInfoProto(name=name))
                present.add(name)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if folder:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    session = ort.InferenceSession(marked.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def same_bits(one: Any, other: Any) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype == object:
        return bool((one == other).all())
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def compared(proto: onnx.ModelProto, captured: Any, expected: dict[str, Any]) -> Outcome:
    """Compare a capture with what a whole session gave, and give the reason for what differs."""
    fed = {i.name for i in proto.graph.input} | {i.name for i in proto.graph.initializer}
    differ, absent, unkept = [], [], 0
    for name, value in expected.items():
        if name in fed:
            continue
        if name in captured:
            if isinstance(value, np.ndarray) and not same_bits(value, captured[name].array):
                differ.append(name)
        elif name in captured.not_captured:
            unkept += 1
        else:
            absent.append(name)
    if absent:
        return "UNEXPLAINED", f"missing: {', '.join(absent[:3])}"
    if differ:
        ops = {node.op_type for node in proto.graph.node} | {n.op_type for f in proto.functions for n in f.node}
        if any(note.startswith("float16") for note in captured.notes):
            return "differs: float16", HALF
        if ops & RANDOM:
            return "differs: random", f"draws random numbers: {', '.join(sorted(ops & RANDOM))}"
        return "UNEXPLAINED", f"other bits: {', '.join(differ[:3])}"
    return ("same bits; a sequence or optional listed", f"{unkept} listed") if unkept else ("same bits", "")


def whole(run: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
    try:
        return run(), ""
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no class
        return None, str(error).splitlines()[0][:120]


def one_file(path: str) -> Outcome:
    """Compare one model of a folder."""
    from onnxviz.graph.io import open_model
    from onnxviz.runtime.capture import capture
    from onnxviz.runtime.inputs import load_inputs

    try:
        model = open_model(path)
        inputs = load_inputs(model)
    except OnnxvizError as error:
        return "not opened", str(error)[:120]
    proto = onnx.load(path, load_external_data=False)
    expected, why = whole(
        lambda: mark_all(onnx.load(path, load_external_data=False), str(Path(path).parent), inputs.feeds)
    )
    try:
        captured = capture(model, inputs, providers="cpu")
    except OnnxvizError as error:
        return ("onnxruntime refuses it", why) if expected is None else ("UNEXPLAINED", str(error)[:160])
    if expected is None:
        return "captured, though a whole session refuses it", why
    return compared(proto, captured, expected)


def backend_cases() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases

    warnings.simplefilter("ignore")  # the cases divide by zero on purpose
    return sorted(collect_testcases(None), key=lambda case: case.name)


_cases: list[Any] = []


def one_case(index: int) -> Outcome:
    """Compare one backend test, and its outputs with those that it expects."""
    from onnxviz.graph.model import from_proto
    from onnxviz.runtime.capture import capture
    from onnxviz.runtime.inputs import Inputs

    if not _cases:
        _cases.extend(backend_cases())
    case = _cases[index]
    given, wanted = case.data_sets[0]
    feeds = {i.name: plain(v) for i, v in zip(case.model.graph.input, given, strict=False)}
    feeds = {name: value for name, value in feeds.items() if value is not None}
    copy = onnx.ModelProto()
    copy.CopyFrom(case.model)
    expected, why = whole(lambda: mark_all(copy, "", feeds))
    fresh = onnx.ModelProto()
    fresh.CopyFrom(case.model)
    try:
        captured = capture(from_proto(fresh), Inputs(feeds, ()), providers="cpu")
    except OnnxvizError as error:
        return ("onnxruntime refuses it", why) if expected is None else ("UNEXPLAINED", str(error)[:160])
    outcome = ("same bits", "")
    if expected is not None:
        outcome = compared(case.model, captured, expected)
    if outcome[0] == "UNEXPLAINED":
        return outcome
    off = [
        output.name
        for output, want in zip(case.model.graph.output, wanted, strict=False)
        if output.name in captured and not close(captured[output.name].array, plain(want), case)
    ]
    if not off:
        return outcome if expected is not None else ("as expected; a whole session takes no such feed", why)
    if expected is None:
        return "UNEXPLAINED", f"not as expected: {off[0]}"
    return "same bits; onnxruntime itself is not as ONNX expects", off[0]


def plain(value: Any) -> Any:
    """Return what a test feeds as an array (or a list of them)."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value if value is None else np.asarray(value)


def close(got: Any, want: Any, case: Any) -> bool:
    if not isinstance(want, np.ndarray) or got.shape != want.shape:
        return isinstance(want, list) or want is None
    if got.dtype.kind in "OUS" or want.dtype.kind in "OUS":
        return bool((got.astype(str) == want.astype(str)).all())
    tolerance = {"rtol": max(case.rtol or 0, 1e-3), "atol": max(case.atol or 0, 1e-5), "equal_nan": True}
    return np.allclose(got.astype(np.float64), want.astype(np.float64), **tolerance)


def sweep(names: list[str], call: Callable[[Any], Outcome], arguments: list[Any]) -> int:
    counts: Counter[str] = Counter()
    with Worker(timeout=TIMEOUT) as worker:
        for name, argument in zip(names, arguments, strict=True):
            try:
                verdict, detail = worker.call(call, argument)
            except OnnxvizError as error:
                verdict, detail = "the runtime crashed or took too long", str(error)
            counts[verdict] += 1
            if verdict not in ("same bits", "onnxruntime refuses it", "not opened"):
                print(f"{name}: {verdict}: {detail}", flush=True)
    print()
    for verdict, count in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"{count:6} {verdict}")
    print(f"{sum(counts.values()):6} in all")
    return int(counts["UNEXPLAINED"] > 0)


def main(arguments: list[str]) -> int:
    # The child finds this module by its name.
    import conformance

    if arguments[:1] == ["backend"]:
        names = [case.name for case in backend_cases()]
        return sweep(names, conformance.one_case, list(range(len(names))))
    if arguments[:1] == ["corpus"] and len(arguments) == 2:
        files = sorted(Path(arguments[1]).rglob("*.onnx"))
        return sweep(
            [p.relative_to(arguments[1]).as_posix() for p in files], conformance.one_file, [str(p) for p in files]
        )
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
