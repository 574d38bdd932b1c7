"""Which operators the installed onnxruntime knows."""

from __future__ import annotations

from functools import cache

from onnxruntime.capi import onnxruntime_pybind11_state as native

__all__ = ["known_operators"]


@cache
def known_operators() -> frozenset[tuple[str, str]]:
    """Return domain and type of every operator that onnxruntime has a schema for, those of libraries not included.

    A schema is no kernel: whether a provider can run an operator is told only by a session.

    >>> ("com.microsoft", "FusedConv") in known_operators(), ("acme", "Frob") in known_operators()
    (True, False)
    """
    return frozenset((schema.domain, schema.name) for schema in native.get_all_operator_schema())
