"""scikit-learn to ONNX through skl2onnx: fitted estimators and pipelines, alive, from a factory or from a file."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxviz.converters.base import Array, Conversion, ConvertOptions, LayerCall, Source, comes_from
from onnxviz.converters.naming import name_by_layer
from onnxviz.converters.sklearn_files import SUFFIXES, estimator_of
from onnxviz.converters.sklearn_inputs import inputs_of
from onnxviz.converters.sklearn_steps import (
    convert_steps,
    label_nodes,
    like_output,
    methods_of,
    record_steps,
    run_outputs,
    steps_of,
)
from onnxviz.errors import ConversionError, MissingDependencyError
from onnxviz.graph.model import from_proto, summary_line
from onnxviz.runtime.quiet import quiet

__all__ = ["SklearnConverter"]

_ROWS = "return rows that it knows beside it from the factory: (estimator, rows)"
_TREES = "trees compare in float32: a row within rounding of a threshold may take the other branch"


class SklearnConverter:
    """Converts fitted estimators: a classifier gives ``label`` and ``probabilities`` (or ``scores``), as tensors."""

    name = "sklearn"
    takes = "file.py:function that returns a fitted estimator, .joblib, .pkl, .pickle, .skops"

    def accepts(self, source: Source) -> bool:
        """Say whether the source is a scikit-learn object or has the ending of a file of one."""
        if source.network is not None:
            return comes_from(source.network, "sklearn")
        return source.path is not None and source.path.suffix.lower() in SUFFIXES

    def convert(self, source: Source, options: ConvertOptions) -> Conversion:
        """Convert an estimator or a pipeline.

        Raises:
            ConversionError: It is not fitted, skl2onnx cannot convert a step, or an option does not apply to it.
            TrustError: The file is a pickle and ``options.trust`` is not set.
            MissingDependencyError: scikit-learn or skl2onnx is not installed.
        """
        try:
            import sklearn
            from skl2onnx import __version__, common
        except ModuleNotFoundError as error:
            pip = "pip install 'onnxviz[sklearn]'"
            raise MissingDependencyError(f"{error.name} is not installed", hint=pip) from error
        if options.weights is not None or options.dynamic:
            raise ConversionError("a fitted estimator brings its weights, and only its batch axis can be open")
        estimator, notes = estimator_of(source, options)
        steps, inputs = steps_of(estimator), inputs_of(estimator, source, options)
        example, methods = inputs.example, methods_of(estimator)
        batch = next(map(len, example.values())) if options.static else None

        def run(feeds: Mapping[str, Array]) -> list[object]:
            try:
                with quiet():
                    return [getattr(estimator, method)(inputs.table(feeds)) for method in methods]
            except ValueError as error:
                raise ConversionError(f"{source.label} refuses an input: {summary_line(error)}", hint=_ROWS) from error

        run(example)
        kinds = common.data_types
        tensor = {"f": kinds.FloatTensorType, "i": kinds.Int64TensorType, "O": kinds.StringTensorType}
        proto, owners = convert_steps(
            estimator, steps, name=type(estimator).__name__,
            initial_types=[(n, tensor[a.dtype.kind]([batch, a.shape[1]])) for n, a in example.items()],
            target_opset={"": options.opset or 21, "ai.onnx.ml": 3},
        )  # fmt: skip
        outputs = (model := from_proto(proto)).graph.outputs
        name_by_layer(model, label_nodes(model, owners, steps).get, list(methods.values())[: len(outputs)])
        for value, name in zip(model.graph.inputs, example, strict=True):
            value.name = name  # skl2onnx replaces what is no letter
        given = run_outputs(model, example)

        def reference(feeds: Mapping[str, Array]) -> list[Array]:
            return [like_output(made, like, steps) for made, like in zip(run(feeds), given, strict=False)]

        def record(feeds: Mapping[str, Array]) -> list[LayerCall]:
            predict = getattr(estimator, next(iter(methods)))
            return record_steps(steps, lambda: predict(inputs.table(feeds)), reference(feeds))

        for value, array in zip([*model.graph.inputs, *outputs], [*example.values(), *given], strict=True):
            value.shape = ir.Shape([batch or "batch", *array.shape[1:]])
        trees = (_TREES,) if any(node.op_type.startswith("TreeEnsemble") for node in model.graph) else ()
        return Conversion(
            model, f"skl2onnx {__version__}", f"scikit-learn {sklearn.__version__}", reference, example,
            (*notes, *trees), record,
        )  # fmt: skip
