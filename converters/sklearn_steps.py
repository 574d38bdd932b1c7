"""The steps of a scikit-learn pipeline: what each gives in a run, and which nodes of the ONNX graph are whose."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir

from onnxviz.converters.base import Array, LayerCall
from onnxviz.converters.recording import Recorder
from onnxviz.errors import ConversionError, ExecutionError
from onnxviz.graph.model import summary_line
from onnxviz.graph.provenance import Provenance, set_provenance
from onnxviz.runtime.quiet import quiet
from onnxviz.runtime.session import run_model

_SECOND = {"predict_proba": "probabilities", "decision_function": "scores", "transform": "distances"}

__all__ = ["convert_steps", "label_nodes", "like_output", "methods_of", "record_steps", "run_outputs", "steps_of"]


def steps_of(estimator: Any) -> dict[str, Any]:
    """Return every step by its path, in the order of execution: a step before those inside it.

    A lone estimator is a step named as ``make_pipeline`` would name it.

    >>> from sklearn.pipeline import Pipeline, make_pipeline
    >>> from sklearn.preprocessing import Normalizer, StandardScaler
    >>> list(steps_of(Pipeline([("prep", make_pipeline(Normalizer())), ("scale", StandardScaler())])))
    ['prep', 'prep/normalizer', 'scale']
    >>> list(steps_of(Normalizer()))
    ['normalizer']
    """
    if hasattr(estimator, "steps"):
        return _inside(estimator, "")
    name = type(estimator).__name__.lower()
    return {name: estimator, **_inside(estimator, f"{name}/")}


def _inside(estimator: Any, prefix: str) -> dict[str, Any]:
    attributes = ("steps", "transformers_", "transformer_list")  # Pipeline, ColumnTransformer, FeatureUnion
    entries = next((getattr(estimator, name) for name in attributes if hasattr(estimator, name)), ())
    if hasattr(estimator, "best_estimator_"):
        entries = [("best_estimator_", estimator.best_estimator_)]
    found: dict[str, Any] = {}
    for name, step, *_ in entries:
        if hasattr(step, "get_params"):  # not "drop" or "passthrough"
            found |= {f"{prefix}{name}": step, **_inside(step, f"{prefix}{name}/")}
    return found


def class_name(step: Any) -> str:
    """Return a step's class as one imports it: ``"sklearn.decomposition.PCA"``."""
    public = [part for part in type(step).__module__.split(".") if not part.startswith("_")]
    return ".".join([*public, type(step).__qualname__])


def convert_steps(estimator: Any, steps: dict[str, Any], **arguments: Any) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Run ``skl2onnx.to_onnx`` and note which step each node is written for.

    Args:
        estimator: What is converted.
        steps: Its steps by path.
        arguments: Further arguments of ``to_onnx``.

    Returns:
        The model, and the path of a step by node name; nodes that join steps are not in it.

    Raises:
        ConversionError: skl2onnx cannot convert a step.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common._container import ModelComponentContainer
    from skl2onnx.common._topology import Topology

    paths = {id(step): path for path, step in steps.items()}
    owners: dict[str, str] = {}
    inner: dict[str, str] = {}  # operators that a step's converter declares, such as the members of an ensemble
    last = [""]
    convert_one, infer_one = Topology.call_converter, Topology.call_shape_calculator
    add_node = ModelComponentContainer.add_node

    def path_of(operator: Any) -> str:
        last[0] = paths.get(id(operator.raw_operator)) or inner.get(operator.onnx_name, "")
        return last[0]

    def converting(topology: Any, operator: Any, container: Any, verbose: int = 0) -> None:
        path, scope = path_of(operator), topology.scopes[0]
        before, declared = len(container.nodes), set(scope.operators)
        convert_one(topology, operator, container, verbose=verbose)
        owners.update({node.name: path for node in container.nodes[before:] if path})
        inner.update({name: path for name in scope.operators if name not in declared})

    def inferring(topology: Any, operator: Any) -> None:
        path_of(operator)
        infer_one(topology, operator)

    def adding(container: Any, *args: Any, **attributes: Any) -> Any:
        return add_node(container, *args, **{name: _plain(value) for name, value in attributes.items()})

    try:
        with (
            quiet(),
            mock.patch.object(ModelComponentContainer, "add_node", adding),
            mock.patch.object(Topology, "call_converter", converting),
            mock.patch.object(Topology, "call_shape_calculator", inferring),
        ):
            return to_onnx(estimator, options=_without_zipmap(steps), **arguments), owners
    except Exception as error:
        named = (path for path, step in steps.items() if str(type(step)) in str(error))
        path = next(named, last[0])
        what = f"the step {path!r} ({type(steps[path]).__name__})" if path else f"{type(estimator).__name__}"
        raise ConversionError(
            f"skl2onnx cannot convert {what}: {summary_line(error)}",
            hint="do that step outside of the model, or register a converter for it with "
            "skl2onnx.update_registered_converter in the file of the factory",
        ) from error


def _plain(value: Any) -> Any:
    """Turn a list's bools into integers: HistGradientBoosting's converter writes them, and protobuf refuses them."""
    return [int(x) if isinstance(x, (bool, np.bool_)) else x for x in value] if isinstance(value, list) else value


def _without_zipmap(steps: dict[str, Any]) -> dict[int, dict[str, bool]]:
    """Ask every classifier that would give its probabilities as maps to give them as a tensor."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter
    from sklearn.base import is_classifier

    classifiers = [step for step in steps.values() if is_classifier(step) and not hasattr(step, "steps")]
    aliases = {id(step): sklearn_operator_name_map.get(type(step)) for step in classifiers}
    allowed = {key: get_converter(alias).get_allowed_options() or () for key, alias in aliases.items() if alias}
    return {key: {"zipmap": False} if "zipmap" in names else {} for key, names in allowed.items()}


def label_nodes(model: ir.Model, owners: dict[str, str], steps: dict[str, Any]) -> dict[ir.Node, str]:
    """Write on every node which step it came from, in place, and return that.

    What joins the outputs of several steps is what holds them, as a ColumnTransformer does; what selects columns for a
    step is the step's.
    """
    layers = {node: owners.get(node.name or "", "") for node in model.graph}
    for node, layer in layers.items():
        before = [f"/{posixpath.dirname(layers[other])}" for other in node.predecessors() if layers[other]]
        if not layer and before:
            layers[node] = posixpath.commonpath(before)[1:]
    for node, layer in reversed(layers.items()):
        if not layer:
            layers[node] = next((layers[other] for other in node.successors() if layers[other]), "")
    for node, layer in layers.items():
        set_provenance(node, Provenance(layer, class_name(steps[layer]) if layer in steps else ""))
    return layers


def record_steps(steps: dict[str, Any], run: Callable[[], object], outputs: list[Array]) -> list[LayerCall]:
    """Run an estimator once and return what each of its steps gave.

    Args:
        steps: Its steps by path.
        run: Runs it.
        outputs: What the last step gave, which may be more than one array.
    """
    import joblib

    recorder = Recorder(_to_array)
    final = [path for path in steps if "/" not in path][-1]
    watched = {path: step for path, step in steps.items() if path != final and hasattr(step, "transform")}

    def watch(path: str, step: Any) -> None:
        transform = step.transform

        def watching(x: Any, *args: Any, **kwargs: Any) -> Any:
            result = transform(x, *args, **kwargs)
            recorder.add(path, class_name(step), [x], [result])
            return result

        step.transform = watching

    try:
        for path, step in watched.items():
            watch(path, step)
        with joblib.parallel_config(backend="sequential"), quiet():
            run()
    finally:
        for step in watched.values():
            vars(step).pop("transform", None)
    reads = (len(recorder.calls) - 1,) if recorder.calls else ()
    return [*recorder.calls, LayerCall(final, class_name(steps[final]), tuple(outputs), reads)]


def methods_of(estimator: Any) -> dict[str, str]:
    """Return the methods whose results the ONNX outputs hold, in order, and what the outputs are called.

    Raises:
        ConversionError: The estimator can neither predict nor transform, as DBSCAN.

    >>> from sklearn.linear_model import LogisticRegression, Ridge
    >>> methods_of(LogisticRegression()), methods_of(Ridge())
    ({'predict': 'label', 'predict_proba': 'probabilities'}, {'predict': 'prediction'})
    """
    from sklearn.base import is_regressor

    if not hasattr(estimator, "predict"):
        if not hasattr(estimator, "transform"):
            raise ConversionError(f"{type(estimator).__name__} has no way to see new rows: no predict, no transform")
        return {"transform": "transformed"}
    second = next((name for name in _SECOND if hasattr(estimator, name)), None)
    if is_regressor(estimator) or second is None:
        return {"predict": "prediction"}
    return {"predict": "label", second: _SECOND[second]}


def run_outputs(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a converted model and return its outputs in order.

    Raises:
        ConversionError: onnxruntime cannot run it, or an output is no tensor.
    """
    try:
        made = run_model(model, feeds)
    except ExecutionError as error:
        raise ConversionError(f"onnxruntime cannot run what skl2onnx wrote: {error.message}") from error
    arrays = [made[str(value.name)] for value in model.graph.outputs]
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise ConversionError("skl2onnx writes a list of arrays for several targets", hint="convert one at a time")
    return arrays


def like_output(result: Any, given: Array, steps: dict[str, Any]) -> Array:
    """Bring what an estimator returned into the dtype and layout that the ONNX model has given.

    The score ``(n,)`` of two classes is ``(n, 1)`` in ONNX or ``(n, 2)``: for LIBSVM the score and its negative, for
    linear classifiers one for each class.
    """
    array = _dense(result).astype(given.dtype)
    if array.ndim == 1 and given.ndim == 2:
        sign = 1 if hasattr(list(steps.values())[-1], "dual_coef_") else -1
        return np.stack([sign * array, -sign * array], axis=1) if given.shape[1] == 2 else array[:, None]
    return array


def _to_array(result: Any) -> Array:
    """Return what a step gave in a dtype that ONNX has."""
    array = _dense(result)
    return array.astype({"f": np.float32, "i": np.int64, "u": np.int64, "b": np.int64}.get(array.dtype.kind, object))


def _dense(result: Any) -> Array:
    return np.asarray(result.toarray() if hasattr(result, "toarray") else result)
