"""Checks of what runtimes demand: G07, G08."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx

from onnxviz.checks.finding import Problem, every_node, place_of
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import counted, listed


@check(
    "G07",
    "error",
    "opset or IR version newer than the target",
    needs=Need.PROTO,
    what="Compares the opsets and the IR version of the file with those that came with `--target-opset`; without it, "
    "with the newest that the installed onnx knows.",
    why="A runtime refuses a model of an opset or IR version that is newer than itself.",
    remedy="Export for the target's opset, or convert with onnx.version_converter; or upgrade the runtime.",
    false_positives="Some runtimes accept a newer opset as long as no operator of it changed since.",
)
def versions(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield versions that the target does not know."""
    target = subject.options.target_opset or onnx.defs.onnx_opset_version()
    rows = [row for row in onnx.helper.VERSION_TABLE if row[2] <= target]
    newest_ir = max((row[1] for row in rows), default=3)
    known = {"": target, "ai.onnx": target, "ai.onnx.ml": max((row[3] for row in rows), default=1)}
    for opset in subject.proto.opset_import:
        limit = known.get(opset.domain)
        if limit is not None and opset.version > limit:
            domain = opset.domain or "ai.onnx"
            changed = _changed_since(subject.proto, opset.domain, opset.version, limit)
            message = f"it needs opset {opset.version} of {domain}, and the target knows {limit}"
            message += f"; {listed(changed)} changed since" if changed else "; none of its operators changed since"
            evidence = {"domain": domain, "opset": opset.version, "target_opset": limit, "changed": changed}
            yield Problem(message, [], evidence, key=f"opset {domain}")
    if subject.proto.ir_version > newest_ir:
        evidence = {"ir_version": subject.proto.ir_version, "target_ir_version": newest_ir, "target_opset": target}
        message = f"it has IR version {subject.proto.ir_version}, and that of opset {target} is {newest_ir}"
        remedy = f"Set ir_version to {newest_ir}: the opset alone says what operators mean; or upgrade the runtime."
        yield Problem(message, [], evidence, remedy=remedy, key="ir_version")
    yield {"target_opset": target, "target_ir_version": newest_ir}


def _changed_since(proto: onnx.ModelProto, domain: str, version: int, limit: int) -> list[str]:
    """Return the operators of a model whose definition is newer than a version of their domain."""
    domain = "" if domain == "ai.onnx" else domain
    newest = onnx.defs.onnx_opset_version() if not domain else version
    kinds = {node.op_type for node in proto.graph.node if (node.domain or "ai.onnx") == (domain or "ai.onnx")}
    changed = []
    for kind in sorted(kinds):
        try:
            if onnx.defs.get_schema(kind, min(version, newest), domain).since_version > limit:
                changed.append(kind)
        except onnx.defs.SchemaError:
            changed.append(kind)
    return changed


@check(
    "G08",
    "error",
    "operator that nothing defines",
    needs=Need.MODEL,
    what="Looks up each operator outside the standard domains among onnx's schemas, the model's own functions and "
    "what the installed onnxruntime knows.",
    why="A runtime without the library that brings the operator cannot load the model.",
    remedy="Name the library with `--op-library`, ship it with the model, or export without the operator.",
    false_positives="A runtime other than onnxruntime may know the operator. With `--op-library` every custom "
    "operator counts as defined.",
)
def custom_operators(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield each unknown operator once."""
    from onnxviz.runtime.operators import known_operators

    model = subject.model
    custom = Counter((n.domain, n.op_type) for n in every_node(model) if n.domain not in ("", "ai.onnx"))
    yield {"custom_operators": len(custom)}
    if subject.options.op_library is not None or not custom:
        return
    own = {(function.domain, function.name) for function in model.functions.values()}
    runtime = known_operators()
    for (domain, kind), count in sorted(custom.items()):
        if (domain, kind) in own or (domain, kind) in runtime or onnx.defs.has(kind, domain):
            continue
        example = next(n for n in every_node(model) if (n.domain, n.op_type) == (domain, kind))
        message = (
            f"nothing defines the operator {domain}:{kind}, which {counted(count, 'node')} use{'s' * (count == 1)}"
        )
        yield Problem(
            message, [place_of(example)], {"domain": domain, "op_type": kind, "nodes": count}, key=f"{domain}:{kind}"
        )
