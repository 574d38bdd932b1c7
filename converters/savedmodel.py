"""TensorFlow SavedModels to ONNX, through tf2onnx."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.converters.base import Array, Conversion, ConvertOptions, Source, seeded
from onnxviz.converters.cleanup import clean
from onnxviz.converters.keras_tensorflow import OPSET, captured_constants, finish_tensorflow_graph
from onnxviz.converters.naming import name_by_layer, name_weights, strip_paths
from onnxviz.errors import ConversionError, MissingDependencyError, TrustError
from onnxviz.graph.model import from_proto, summary_line
from onnxviz.graph.provenance import Provenance, set_provenance
from onnxviz.runtime.quiet import quiet

__all__ = ["SavedModelConverter"]


class SavedModelConverter:
    """Converts the ``serving_default`` signature of a TensorFlow SavedModel, or its only one."""

    name = "savedmodel"
    takes = "the folder of a TensorFlow SavedModel"

    def accepts(self, source: Source) -> bool:
        """Say whether the source is a folder with a ``saved_model.pb``."""
        return source.network is None and source.path is not None and (source.path / "saved_model.pb").is_file()

    def convert(self, source: Source, options: ConvertOptions) -> Conversion:
        """Convert a SavedModel.

        Raises:
            ConversionError: It cannot be loaded, has no signature, or tf2onnx cannot convert it.
            TrustError: ``options.trust`` is not set.
            MissingDependencyError: TensorFlow or tf2onnx is not installed.
        """
        assert source.path is not None
        if not options.trust:
            raise TrustError(
                f"{source.path} is a TensorFlow program: its operators can read and write files",
                hint="add --trust if you know where it comes from",
            )
        missing = [name for name in ("tensorflow", "tf2onnx", "keras") if find_spec(name) is None]
        if missing:
            raise MissingDependencyError(
                f"converting SavedModels needs {' and '.join(missing)}", hint="pip install 'onnxviz[tensorflow]'"
            )
        if options.weights is not None or options.keep_batchnorm:
            raise ConversionError("a SavedModel is finished: --weights and --keep-batchnorm do not apply to it")
        signature = _signature(source)
        shapes = _shapes(signature, options, source.label)
        rng = np.random.default_rng(options.seed)
        example = {
            name: seeded([n if axis or options.static else max(n, 2) for axis, n in enumerate(shape)], dtype, rng)
            for name, (shape, _, dtype) in shapes.items()
        }
        converted = _export(signature, {name: spec for name, (_, spec, _) in shapes.items()}, options, source.label)
        outputs = [str(value.name) for value in converted.graph.outputs]
        converted, notes = clean(converted, [example])
        name_by_layer(converted, _layer_of, outputs)
        name_weights(converted, _layer_of)
        strip_paths(converted, source.folder)
        converted.graph.name = source.path.resolve().name

        def reference(feeds: Mapping[str, Array]) -> list[Array]:
            return _run(signature, feeds, outputs)

        import tensorflow as tf

        return Conversion(converted, "tf2onnx (SavedModel)", f"tensorflow {tf.__version__}", reference, example, notes)


def _signature(source: Source) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet():
            import tensorflow as tf

            loaded = tf.saved_model.load(str(source.path))
    except Exception as error:
        raise ConversionError(f"TensorFlow cannot open {source.path}: {summary_line(error)}") from error
    signatures = dict(loaded.signatures)
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if name is None or (name != "serving_default" and len(signatures) > 1):
        listed = ", ".join(signatures) or "none"
        raise ConversionError(
            f"{source.path} has no signature serving_default; it has {listed}", hint="save it with model.export()"
        )
    signature = signatures[name]
    signature._onnxviz_keeps = loaded  # variables live only as long as what was loaded
    return signature


def _shapes(
    signature: Any, options: ConvertOptions, label: str
) -> dict[str, tuple[tuple[int, ...], tuple[int | str | None, ...], Any]]:
    """Return for each input the shape to try it on, its declared shape with names of open axes, and its dtype."""
    # A signature's inputs have no order of their own: that of their names is the same each time.
    specs: dict[str, Any] = dict(sorted(signature.structured_input_signature[1].items()))
    given = options.input_shapes
    if given and len(given) != len(specs):
        raise ConversionError(f"{label} has {len(specs)} inputs ({', '.join(specs)}), {len(given)} shapes were given")
    if unknown := [name for name in options.dynamic if name not in specs]:
        raise ConversionError(
            f"{label} has no input {unknown[0]!r} to leave open", hint=f"its inputs are {', '.join(specs)}"
        )
    found = {}
    for index, (name, spec) in enumerate(specs.items()):
        declared = None if spec.shape.rank is None else list(spec.shape)
        shape = given[index] if given else declared
        if shape is None or (declared is not None and len(shape) != len(declared)):
            raise ConversionError(f"the shape of input {name!r} of {label} is {declared}", hint="give --input-shape")
        axes = declared or [None] * len(shape)
        tried = [1 if n is None and axis == 0 else n for axis, n in enumerate(shape)]
        if any(n is None for n in tried):
            raise ConversionError(
                f"input {name!r} of {label} has axes of unknown size: {axes}", hint="give --input-shape"
            )
        asked = options.dynamic.get(name, {})
        open_axes = {axis % len(axes): size for axis, size in asked.items() if -len(axes) <= axis < len(axes)}
        if axes and axes[0] is None and not options.static:
            open_axes.setdefault(0, "batch")
        labelled = [open_axes.get(axis) if n is None else n for axis, n in enumerate(axes)]
        kept = tuple(tried[axis] if n is None else n for axis, n in enumerate(labelled))
        found[name] = (tuple(int(n) for n in tried), kept, spec.dtype.as_numpy_dtype)
    return found


def _export(
    signature: Any, shapes: Mapping[str, tuple[int | str | None, ...]], options: ConvertOptions, label: str
) -> ir.Model:
    import tensorflow as tf
    import tf2onnx
    from keras.src.export.tf2onnx_lib import patch_tf2onnx  # for numpy 2

    declared = signature.structured_input_signature[1]
    specs = [
        tf.TensorSpec([n if isinstance(n, int) else None for n in shape], declared[name].dtype, name=name)
        for name, shape in shapes.items()
    ]
    function = tf.function(lambda *flat: signature(**dict(zip(shapes, flat, strict=True))), input_signature=specs)
    try:
        with quiet():
            patch_tf2onnx()
            captured = captured_constants(function.get_concrete_function())
            proto, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=options.opset or OPSET)
        converted = from_proto(proto)
    except Exception as error:
        raise ConversionError(f"tf2onnx cannot convert {label}: {summary_line(error)}") from error
    finish_tensorflow_graph(converted, captured, _layer_of)
    for node in converted.graph:
        layer = _scope(node.name or "")
        set_provenance(node, Provenance(layer))
    name_by_layer(converted, _layer_of, [str(value.name) for value in converted.graph.outputs])
    for value in converted.graph.inputs:
        value.shape = ir.Shape(list(shapes[str(value.name)]))
    return converted


def _scope(name: str) -> str:
    """Return the layer's path in a scope such as ``StatefulPartitionedCall/net_1/conv_1/BiasAdd``: ``"conv"``.

    >>> _scope("StatefulPartitionedCall/net_1/backbone_1/conv_1/BiasAdd"), _scope("Transpose__55")
    ('backbone/conv', '')
    """
    parts = [part for part in name.split("/") if not re.fullmatch(r"(Stateful)?PartitionedCall(_\d+)?", part)]
    if len(parts) < 3:
        return "/".join(parts[:-1])
    counter = (re.search(r"_\d+$", parts[0]) or re.search("$", "")).group()  # type: ignore[union-attr]
    return "/".join(part.removesuffix(counter) for part in parts[1:-1])


def _layer_of(node: ir.Node) -> str | None:
    return node.metadata_props.get("onnxviz.layer") or None


def _run(signature: Any, feeds: Mapping[str, Array], outputs: list[str]) -> list[Array]:
    import tensorflow as tf

    with quiet():
        results = signature(**{name: tf.constant(array) for name, array in feeds.items()})
    by_name = {str(name): value.numpy() for name, value in results.items()}
    return [by_name[name] for name in outputs]
