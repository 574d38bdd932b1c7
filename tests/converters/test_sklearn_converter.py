"""scikit-learn pipelines to ONNX: outputs and steps agree, files need trust, and the example of the docs runs."""

from __future__ import annotations

import os
import pickle
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")

import joblib
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from onnxviz.analysis.comparison import compare
from onnxviz.converters import convert, measure_parity, registry
from onnxviz.converters.base import Conversion, ConvertOptions, Source
from onnxviz.converters.sklearn import SklearnConverter
from onnxviz.converters.sklearn_files import imports_of_joblib
from onnxviz.errors import ConversionError, MissingDependencyError, ParityError, TrustError
from onnxviz.graph.model import to_proto
from onnxviz.graph.provenance import provenance_of
from onnxviz.runtime.session import run_model

ROOT = Path(__file__).resolve().parents[2]
DIGITS, DIGIT = load_digits(return_X_y=True)
DIABETES, PROGRESS = load_diabetes(return_X_y=True)


def conversion_of(estimator: Any, example: Any = None, **options: Any) -> Conversion:
    source = Source(type(estimator).__name__, network=estimator, example_inputs=example)
    return SklearnConverter().convert(source, ConvertOptions(**options))


def rows_of(x: np.ndarray) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"input": rng.permutation(x)[:n].astype(np.float32)} for n in (1, 2, 5)]


@pytest.fixture(scope="module")
def logistic() -> Pipeline:
    steps = [("scale", StandardScaler()), ("clf", LogisticRegression(max_iter=300))]
    return Pipeline(steps).fit(DIGITS, DIGIT)


@pytest.mark.parametrize(
    ("estimator", "x", "y", "outputs", "steps"),
    [
        (RandomForestClassifier(8, random_state=0), DIGITS, DIGIT, "label probabilities", "randomforestclassifier"),
        (make_pipeline(PCA(8), SVC()), DIGITS, DIGIT, "label scores", "pca svc"),
        (make_pipeline(PCA(8), SVC()), DIGITS, DIGIT > 4, "label scores", "pca svc"),
        (make_pipeline(StandardScaler(), LinearSVC()), DIGITS, DIGIT > 4, "label scores", "standardscaler linearsvc"),
        (GradientBoostingRegressor(random_state=0), DIABETES, PROGRESS, "prediction", "gradientboostingregressor"),
        (KMeans(4, n_init=1, random_state=0), DIGITS, None, "label distances", "kmeans"),
        (HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=8), DIGITS, DIGIT, "label probabilities", "histgradientboostingclassifier"),
        (IsolationForest(n_estimators=3, random_state=0), DIABETES, None, "label scores", "isolationforest"),
        (make_pipeline(StandardScaler(), PCA(3)), DIGITS, None, "transformed", "standardscaler pca"),
        (
            make_pipeline(FeatureUnion([("a", PCA(3)), ("b", make_pipeline(StandardScaler(), PCA(2)))]), Ridge()),
            DIABETES, PROGRESS, "prediction", "featureunion/a featureunion/b/standardscaler featureunion/b/pca featureunion ridge",
        ),
        (
            GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=2),
            DIABETES, PROGRESS > 140, "label probabilities", "gridsearchcv/best_estimator_/standardscaler gridsearchcv",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseEstimator) else "",
)  # fmt: skip
def test_estimators_agree_in_outputs_and_steps(estimator, x, y, outputs, steps):
    conversion = conversion_of(estimator.fit(x, y))
    parity = measure_parity(conversion, rows_of(x))
    assert parity.passed, str(parity)
    assert parity.batches == (1, 2, 5)
    assert [output.name for output in parity.outputs] == outputs.split()
    assert not parity.constant
    assert [value.shape[0] for value in conversion.model.graph.inputs] == ["batch"]
    assert all(value.shape[0] == "batch" for value in conversion.model.graph.outputs)
    (layers,) = parity.layers
    assert layers.first is None
    assert list(dict.fromkeys(error.layer for error in layers.layers)) == steps.split()
    assert {provenance_of(node).layer.split("/")[0] for node in conversion.model.graph} <= {
        step.split("/")[0] for step in steps.split()
    }
    assert bool(conversion.notes) == any("Tree" in node.op_type for node in conversion.model.graph)


def test_a_live_pipeline_by_the_front_door(logistic):
    result = convert(logistic)
    assert result.converter == "sklearn"
    assert result.parity is not None
    assert result.parity.passed
    assert [node.name for node in result.model.graph] == ["scale", "clf/LinearClassifier", "clf/Normalizer"]
    assert str(provenance_of(result.model.graph[0])) == "scale (StandardScaler)"
    assert provenance_of(result.model.graph[0]).class_name == "sklearn.preprocessing.StandardScaler"
    assert result.model.metadata_props["onnxviz.framework"].startswith("scikit-learn 1.")
    assert result.exporter.startswith("skl2onnx")


def test_the_estimator_stays_as_it_was_and_conversion_is_repeatable(logistic):
    before = pickle.dumps(logistic)
    first, second = (to_proto(convert(logistic).model).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert pickle.dumps(logistic) == before


@pytest.mark.parametrize(("node", "attribute", "step"), [(0, "scale", "scale"), (1, "coefficients", "clf")])
def test_a_changed_coefficient_is_caught_and_located(logistic, node, attribute, step):
    conversion = conversion_of(logistic)
    target = conversion.model.graph[node]
    values = np.array(target.attributes[attribute].as_floats())
    values[20 if step == "scale" else np.abs(values).argmax()] *= 1.01
    target.attributes[attribute] = ir.AttrFloat32s(attribute, values.tolist())
    feeds = rows_of(DIGITS)
    parity = measure_parity(conversion, feeds)
    assert str(parity.layers[0].first).startswith(f"{step} ")
    assert not parity.passed
    got = run_model(conversion.model, feeds[2])["probabilities"]
    assert compare("probabilities", conversion.reference(feeds[2])[1], got).problem is not None


def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.empty((60, 4), dtype=object)
    x[:, 0], x[:, 2] = rng.normal(40, 9, 60), rng.normal(0, 5, 60)
    x[:, 1], x[:, 3] = rng.choice(["oslo", "rome", 'a "b" </script>'], 60), rng.choice([1, 5, 9], 60)
    return x, np.where(x[:, 0] + 3 * (x[:, 1] == "rome") > 40, "yes", "no")


def prepared(columns: tuple[Any, ...] = (0, 1, 2, 3)) -> Pipeline:
    a, city, b, kind = columns
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    prep = ColumnTransformer(
        [
            ("num", numbers, [a, b]),
            ("city", OneHotEncoder(handle_unknown="ignore"), [city]),
            ("kind", OrdinalEncoder(), [kind]),
        ]
    )
    return Pipeline([("prep", prep), ("clf", LogisticRegression())])


def test_string_columns_become_an_input_each():
    x, y = table()
    conversion = conversion_of(prepared().fit(x, y))
    assert [(v.name, v.dtype.name) for v in conversion.model.graph.inputs] == [
        ("x0", "FLOAT"), ("x1", "STRING"), ("x2", "FLOAT"), ("x3", "INT64"),
    ]  # fmt: skip
    for n in (1, 2, 5):
        feeds = {f"x{i}": x[:n, i : i + 1].astype((np.float32, object, np.float32, np.int64)[i]) for i in range(4)}
        label, probabilities = conversion.reference(feeds)
        got = run_model(conversion.model, feeds)
        assert compare("label", label, got["label"]).problem is None
        assert compare("probabilities", probabilities, got["probabilities"]).problem is None
        calls = {call.layer: call for call in conversion.record(feeds)}
        assert list(calls) == [
            "prep/num/simpleimputer", "prep/num/standardscaler", "prep/city", "prep/kind", "prep", "clf",
        ]  # fmt: skip
        assert calls["prep"].outputs[0].shape == (n, 6)
        assert len(calls["clf"].outputs) == 2
    joined = [node for node in conversion.model.graph if provenance_of(node).layer == "prep"]
    assert [node.op_type for node in joined] == ["Concat"]


def test_strings_go_through_the_whole_conversion():
    """Columns of text in, labels of text out: both are drawn and compared like numbers."""
    x, y = table()
    result = convert(prepared().fit(x, y))
    assert result.parity is not None
    assert result.parity.passed
    assert result.parity.layers[0].passed
    assert {output.name for output in result.parity.outputs} == {"label", "probabilities"}


def test_columns_of_a_dataframe():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    x, y = table()
    names = ["age", "home town", "fare <x>", "kind"]
    frame = pandas.DataFrame({n: x[:, i].astype((float, object, float, int)[i]) for i, n in enumerate(names)})
    conversion = conversion_of(prepared(tuple(names)).fit(frame, y), example=frame[:7])
    assert [v.name for v in conversion.model.graph.inputs] == names
    got = run_model(conversion.model, conversion.example)
    assert len(got["label"]) == 7
    for name, expected in zip(("label", "probabilities"), conversion.reference(conversion.example), strict=True):
        assert compare(name, expected, got[name]).problem is None


def test_texts():
    texts = ["the cat sat", "a dog ran", "cats and dogs", "the sun is out"] * 3
    model = make_pipeline(TfidfVectorizer(lowercase=False), LogisticRegression()).fit(texts, [0, 1, 0, 2] * 3)
    conversion = conversion_of(model)
    feeds = {"input": np.array([[text] for text in texts[:5]], dtype=object)}
    got = run_model(conversion.model, feeds)
    assert compare("probabilities", conversion.reference(feeds)[1], got["probabilities"]).problem is None


def test_static_opset_and_rows_beside_it(logistic):
    assert list(conversion_of(logistic, static=True, input_shapes=((3, 64),)).model.graph.inputs[0].shape) == [3, 64]
    assert convert(logistic, static=True, opset=18).model.opset_imports[""] == 18
    example = conversion_of(logistic, example=DIGITS[:3]).example["input"]
    np.testing.assert_array_equal(example, DIGITS[:3].astype(np.float32))


class Doubler(TransformerMixin, BaseEstimator):
    """A step of the user's own, which skl2onnx knows nothing of."""

    def fit(self, x: Any, y: Any = None) -> Doubler:
        self.n_features_in_ = x.shape[1]
        return self

    def transform(self, x: Any) -> Any:
        return x * 2


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: Pipeline([("scale", StandardScaler()), ("clf", SVC())]), {}, "Pipeline that is not fitted.*call fit"),
        (lambda: LogisticRegression(), {}, "not fitted"),
        (lambda: DBSCAN().fit(DIABETES), {}, "no predict, no transform"),
        (
            lambda: Pipeline([("twice", Doubler()), ("clf", Ridge())]).fit(DIABETES, PROGRESS), {},
            r"cannot convert the step 'twice' \(Doubler\).*update_registered_converter",
        ),
        (lambda: Ridge().fit(DIABETES, PROGRESS), {"input_shapes": ((1, 7),)}, "rows of 10 features, not 1,7"),
        (lambda: Ridge().fit(DIABETES, PROGRESS), {"dynamic": {"input": {1: "n"}}}, "only its batch axis"),
        (lambda: Ridge().fit(DIABETES, PROGRESS), {"weights": Path("w.npz")}, "brings its weights"),
        (
            lambda: OrdinalEncoder().fit(DIABETES[:5]), {},
            r"OrdinalEncoder refuses an input: Found unknown categories.*\(estimator, rows\)",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_said(make, options, message):
    with pytest.raises(ConversionError, match=message) as caught:
        conversion_of(make(), **options)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_with_the_command(monkeypatch, logistic):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(MissingDependencyError, match=r"skl2onnx is not installed; pip install 'onnxviz\[sklearn\]'"):
        convert(logistic)


@pytest.mark.parametrize(("ending", "compress"), [(".joblib", 0), (".pkl", 3), (".pickle", ("bz2", 3))])
def test_a_pickle_needs_trust_and_says_what_it_imports(logistic, tmp_path, ending, compress):
    path = tmp_path / f"model{ending}"
    joblib.dump(logistic, path, compress=compress)
    with pytest.raises(TrustError, match=r"is a pickle.*sklearn\.pipeline\.Pipeline.*--trust"):
        convert(path)
    names = imports_of_joblib(path)
    assert {"sklearn.pipeline.Pipeline", "sklearn.preprocessing._data.StandardScaler"} <= set(names)
    result = convert(path, trust=True)
    assert result.parity is not None
    assert result.parity.passed
    assert str(tmp_path).encode() not in to_proto(result.model).SerializeToString()


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_what_a_malicious_pickle_would_run_comes_first_and_is_not_run(logistic, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps([logistic.named_steps["scale"], Evil(tmp_path / "ran")]))
    with pytest.raises(TrustError, match=r"it imports (posix|nt)\.system, "):
        convert(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(pickle.dumps({"a": 1}), "holds a dict, not an estimator"), (b"\x80\x04nonsense", "cannot be opened")],
)
def test_files_that_hold_no_estimator(tmp_path, content, message):
    (tmp_path / "model.pkl").write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        convert(tmp_path / "model.pkl", trust=True)


def test_skops_opens_without_trust(logistic, tmp_path):
    io = pytest.importorskip("skops.io", reason="skops is not installed")
    io.dump(logistic, tmp_path / "model.skops")
    assert convert(tmp_path / "model.skops").parity.passed
    io.dump(Pipeline([("twice", Doubler()), ("clf", Ridge())]).fit(DIABETES, PROGRESS), tmp_path / "own.skops")
    with pytest.raises(TrustError, match="Doubler"):
        convert(tmp_path / "own.skops")


def test_skops_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "skops", None)
    (tmp_path / "model.skops").write_bytes(b"PK")
    with pytest.raises(MissingDependencyError, match="pip install skops"):
        convert(tmp_path / "model.skops")


@pytest.fixture
def npz(monkeypatch, tmp_path) -> Path:
    """The converter of the docs, installed, and a file for it."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "new-converter.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "npz_converter.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "npz_converter", raising=False)
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [EntryPoint("npz", "npz_converter:NpzConverter", group)]
    )
    rng = np.random.default_rng(0)
    shapes = {"w0": (4, 8), "b0": (8,), "w1": (8, 3), "b1": (3,)}
    np.savez(tmp_path / "net.npz", **{name: rng.normal(size=shape) for name, shape in shapes.items()})
    return tmp_path / "net.npz"


def test_the_converter_of_the_docs_works(npz):
    result = convert(npz)
    assert result.converter == "npz"
    assert result.parity is not None
    assert result.parity.batches == (1, 2, 5)
    assert [error.layer for error in result.parity.layers[0].layers] == ["dense0", "dense1"]
    np.savez(npz, w0=np.zeros((2, 2)))
    with pytest.raises(ConversionError, match="no weights w0, b0"):
        convert(npz)


def test_an_error_planted_in_the_converter_of_the_docs_is_located(npz):
    code = npz.with_name("npz_converter.py")
    code.write_text(
        code.read_text("utf-8").replace("h = np.tanh(h @ w + b)", "h = np.tanh(h @ w + b * (1 + number))"), "utf-8"
    )
    with pytest.raises(ParityError, match=r"the first layer that differs is dense1 \(Dense\)"):
        convert(npz)


@pytest.mark.parametrize("name", ["sklearn", "jax"])
def test_a_converter_is_under_100_lines(name):
    assert len((ROOT / "converters" / f"{name}.py").read_text("utf-8").splitlines()) < 100
