"""Side paths that only weigh a map: squeeze-and-excitation and the like are told at the map, not drawn."""

from __future__ import annotations

from onnxviz.diagram.volume_stages import Stage

__all__ = ["GATE", "without_gates"]

#: What is told of a map whose channels are weighed.
GATE = "× gate (SE)"


def without_gates(stages: list[Stage]) -> list[Stage]:
    """Fold side paths of vectors that scale or shift the map that they come from: squeeze-and-excitation and the like.

    Such a path starts at one map, holds vectors alone, and ends where it meets the same map again.
    """
    readers: dict[Stage, list[Stage]] = {stage: [] for stage in stages}
    for stage in stages:
        for source in stage.sources:
            readers[source].append(stage)
    into: dict[Stage, Stage] = {}
    for join in stages:
        main = next((s for s in join.sources if not s.extent.is_vector), None) if join.sign else None
        if main is None or join.extent.spatial != main.extent.spatial:
            continue
        path = _side_path(join, main, into)
        if path is None or any(r is not join and r not in path for stage in path for r in readers[stage]):
            continue
        home = into.get(main, main)
        if join.sign == "×" and any(stage.kind in ("conv", "linear") for stage in path):
            home.notes.append(GATE)
        for stage in (*sorted(path, key=stages.index), join):
            home.folded += stage.nodes
            home.done += stage.done
            into[stage] = home
    kept = [stage for stage in stages if stage not in into]
    for stage in kept:
        stage.sources = {into.get(source, source): value for source, value in reversed(stage.sources.items())}
        stage.sources = dict(reversed(stage.sources.items()))
    return kept


def _side_path(join: Stage, main: Stage, into: dict[Stage, Stage]) -> set[Stage] | None:
    """Return the vectors between a map and the join that meets it again; None where anything else takes part."""
    pending = [source for source in join.sources if source is not main]
    home = into.get(main, main)
    path: set[Stage] = set()
    while pending:
        stage = pending.pop()
        if stage is main or into.get(stage, stage) is home or stage in path:
            continue
        if not stage.extent.is_vector or stage.role != "node" or not stage.sources or len(path) > 16:
            return None
        path.add(stage)
        pending += stage.sources
    return path or None
