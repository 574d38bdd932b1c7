"""JAX to ONNX through jax2onnx: functions, flax.nnx and Equinox modules, with example inputs or their shapes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import version
from types import FunctionType
from typing import Any

from onnxviz.converters.base import Array, Conversion, ConvertOptions, LayerCall, Source, comes_from
from onnxviz.converters.flax_layers import in_scopes, inference_copy, label_nodes, nodes_in_scopes, record_layers
from onnxviz.converters.jax_inputs import EXAMPLE, inputs_of, named_leaves
from onnxviz.converters.naming import name_by_layer, strip_paths
from onnxviz.errors import ConversionError, MissingDependencyError
from onnxviz.graph.model import summary_line
from onnxviz.runtime.quiet import quiet

__all__ = ["JaxConverter"]


class JaxConverter:
    """Converts functions of arrays; layers are known for flax.nnx modules, which are converted as in inference."""

    name = "jax"
    takes = "file.py:function that returns a JAX function, a flax.nnx or an Equinox module"

    def accepts(self, source: Source) -> bool:
        """Say whether the source is a function, or a module of a JAX library."""
        network = source.network
        packages = ("flax", "equinox", "jax", "jaxlib")
        known = (FunctionType, functools.partial)
        return callable(network) and (isinstance(network, known) or any(comes_from(network, p) for p in packages))

    def convert(self, source: Source, options: ConvertOptions) -> Conversion:
        """Convert a function or a module.

        Raises:
            ConversionError: Its inputs are unknown, or jax2onnx cannot convert it.
            MissingDependencyError: JAX or jax2onnx is not installed.
        """
        try:
            import jax
            import jax2onnx
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"{error.name} is not installed", hint="pip install 'onnxviz[jax]'") from error
        if options.weights is not None:
            raise ConversionError("a JAX function brings its weights", hint="load them in the factory")
        network: Any = inference_copy(source.network)
        inputs = inputs_of(source, options)
        example = inputs.example

        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            try:
                with quiet():
                    made = inputs.call(network, [jax.numpy.asarray(feeds[name]) for name in example])
            except Exception as error:
                raise ConversionError(f"{source.label} does not run: {summary_line(error)}", hint=EXAMPLE) from error
            return named_leaves(made, "output")

        outputs, scoped = list(run(example)), in_scopes(network)
        try:
            with quiet(), nodes_in_scopes():
                model = jax2onnx.to_onnx(
                    lambda *flat: inputs.call(scoped, flat), inputs.specs(options), return_mode="ir",
                    model_name=source.factory or type(network).__name__, opset=options.opset or 21,
                    input_names=list(example), output_names=outputs,
                )  # fmt: skip
        except Exception as error:
            raise ConversionError(
                f"jax2onnx cannot convert {source.label}: {summary_line(error)}",
                hint="write a branch that depends on data as jnp.where or lax.cond"
                if "Tracer" in type(error).__name__ or "Concretization" in type(error).__name__
                else "try --static, which fixes all sizes, or express that operation with others",
            ) from error
        layers = label_nodes(model, network)
        name_by_layer(model, layers.get, outputs)
        strip_paths(model, source.folder)

        def record(feeds: Mapping[str, Array]) -> list[LayerCall]:
            return record_layers(network, lambda: run(feeds))

        return Conversion(
            model, f"jax2onnx {version('jax2onnx')}", f"jax {jax.__version__}", lambda feeds: list(run(feeds).values()),
            example, record=record if any(layers.values()) else None,
        )  # fmt: skip
