"""What onnxruntime says when it refuses or fails, in one line with the way out."""

from __future__ import annotations

import re

import onnxruntime as ort

from onnxviz.errors import ExecutionError, InputError

__all__ = ["explain_failure", "explain_refusal", "message"]


def message(error: BaseException) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)).strip()
    text = _without_signatures(text)
    nodes = re.split(r"Non-zero status code returned while running (\w+) node. Name:'([^']*)' Status Message: ", text)
    if len(nodes) > 1:  # the innermost node says what happened
        text = f"{nodes[-3]} node {nodes[-2]!r}: {_without_signatures(nodes[-1])}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:500] if lines else type(error).__name__


def _without_signatures(text: str) -> str:
    """Take off where in onnxruntime's sources a message comes from: ``file.cc:1 type space::function(arguments)``."""
    text = re.sub(r"/\S*onnxruntime_src/\S+ (?=\S)", "", text)
    opening = re.match(r"(?:[\w:<>*&, ]+ )?(?:\w+::)+~?\w+\(", text)
    if opening is None:
        return text
    depth = 1
    for position in range(opening.end(), len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            rest = re.sub(r"^\s*(?:const)?\s*(?:\[with [^\]]*\])?", "", text[position + 1 :])
            return rest.strip() or text
    return text


def explain_refusal(error: BaseException) -> ExecutionError:
    text = str(error)
    if custom := re.search(r"Fatal error: (\S+) is not a registered function/op", text):
        name = re.sub(r"\(-?\d+\)$", "", custom[1])
        return ExecutionError(
            f"onnxruntime {ort.__version__} has no kernel for the custom operator {name}",
            hint="give the library that has it with --op-library FILE",
        )
    if absent := re.search(r"Could not find an implementation for (\S+) node with name '([^']*)'", text):
        return ExecutionError(
            f"onnxruntime {ort.__version__} has no kernel for {absent[1]} with these types (node {absent[2]!r})",
            hint="export for another opset or data type",
        )
    if newer := re.search(r"Opset (\d+) is under development.*is till opset (\d+)", text, re.DOTALL):
        return ExecutionError(
            f"the model needs opset {newer[1]}, newer than the {newer[2]} that onnxruntime {ort.__version__} runs",
            hint=f"upgrade onnxruntime, or export for opset {newer[2]}",
        )
    if newer := re.search(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", text):
        return ExecutionError(
            f"the model has IR version {newer[1]}, newer than the {newer[2]} that onnxruntime {ort.__version__} runs",
            hint="upgrade onnxruntime, or export with an older onnx",
        )
    return ExecutionError(f"onnxruntime {ort.__version__} refuses the model: {message(error)}")


def explain_failure(error: BaseException) -> InputError | ExecutionError:
    text = message(error)
    if re.match(
        r"(Unexpected input data type|Got invalid dimensions|Invalid rank|Required inputs|Invalid Feed)",
        text,
    ):
        return InputError(f"the inputs do not fit the model: {text}")
    return ExecutionError(f"onnxruntime failed while running the model: {text}")
