"""Getting at a fitted scikit-learn estimator: alive, or in a pickle, a joblib or a skops file."""

from __future__ import annotations

import bz2
import io
import lzma
import re
import warnings
import zlib
from pathlib import Path
from typing import Any

from onnxviz.converters.base import ConvertOptions, Source, comes_from
from onnxviz.converters.pickles import pickled_globals
from onnxviz.errors import ConversionError, MissingDependencyError, TrustError, listed
from onnxviz.graph.model import summary_line

__all__ = ["SUFFIXES", "estimator_of", "imports_of_joblib"]

SUFFIXES = (".joblib", ".pkl", ".pickle", ".skops")
_LIMIT = 64 << 20  # bytes of a pickle that are searched, after decompression
_USUAL = ("sklearn", "numpy", "scipy", "joblib", "pandas", "copyreg", "collections")
_PAIR = re.compile(rb"\x8c.([A-Za-z_][\w.]{0,200})\x94?\x8c.([A-Za-z_][\w.]{0,200})\x94?\x93", re.DOTALL)


def estimator_of(source: Source, options: ConvertOptions) -> tuple[Any, tuple[str, ...]]:
    """Return the fitted estimator of a source, and what the user should know about it.

    Raises:
        ConversionError: The file cannot be opened or holds something else, or the estimator is not fitted.
        TrustError: The file is a pickle, or names types that skops does not know, and ``options.trust`` is not set.
        MissingDependencyError: skops, or a package that the estimator needs, is not installed.
    """
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    estimator: Any = source.network
    notes: tuple[str, ...] = ()
    if estimator is None:
        assert source.path is not None
        opened = _skops if source.path.suffix.lower() == ".skops" else _pickled
        estimator, notes = opened(source.path, trust=options.trust)
    if not comes_from(estimator, "sklearn") or not hasattr(estimator, "get_params"):
        raise ConversionError(
            f"{source.label} holds a {type(estimator).__name__}, not an estimator", hint="save the fitted pipeline"
        )
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as error:
        raise ConversionError(
            f"{source.label} is a {type(estimator).__name__} that is not fitted: there is nothing to convert yet",
            hint="call fit first, in the factory or before saving",
        ) from error
    return estimator, notes


def imports_of_joblib(path: Path) -> list[str]:
    """Return what opening a pickle or joblib file would import, the unusual first; nothing is unpickled.

    joblib lays arrays bare between the opcodes. Behind the first of them the bytes are searched for what looks like an
    import, so the list may lack some of a file that was made to mislead.

    >>> import joblib, tempfile
    >>> from fractions import Fraction
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     imports_of_joblib(Path(joblib.dump(Fraction(1, 2), Path(folder, "half.joblib"), compress=3)[0]))
    ['fractions.Fraction']
    """
    with path.open("rb") as file:
        data = _plain(file.read(_LIMIT))
    pairs = (b".".join(pair).decode() for pair in _PAIR.findall(data))
    names = dict.fromkeys([*pickled_globals(io.BytesIO(data)), *pairs])
    return sorted(names, key=lambda name: name.partition(".")[0] in _USUAL)


def _plain(data: bytes) -> bytes:
    """Decompress what joblib compressed; anything else is returned as it is."""
    try:
        if data[:2] == b"\x1f\x8b" or data[:1] == b"\x78":
            return zlib.decompressobj(wbits=47).decompress(data, _LIMIT)  # 47: gzip or zlib
        if data[:3] == b"BZh":
            return bz2.BZ2Decompressor().decompress(data, _LIMIT)
        if data[:5] in (b"\xfd7zXZ", b"\x5d\x00\x00\x80\x00"):
            return lzma.LZMADecompressor().decompress(data, _LIMIT)
    except (zlib.error, OSError, lzma.LZMAError):
        return data
    return data


def _pickled(path: Path, *, trust: bool) -> tuple[object, tuple[str, ...]]:
    if not trust:
        names = imports_of_joblib(path)
        raise TrustError(
            f"{path} is a pickle, which can run any code when it is opened"
            + (f": it imports {listed(names)}" if names else ""),
            hint="add --trust if you know where it comes from, or save it with skops",
        )
    import joblib

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = _opened(path, joblib.load, path)
    old = [getattr(entry.message, "original_sklearn_version", None) for entry in caught]
    versions = dict.fromkeys(version for version in old if version)
    return estimator, tuple(f"it was saved with scikit-learn {version}: check its predictions" for version in versions)


def _skops(path: Path, *, trust: bool) -> tuple[object, tuple[str, ...]]:
    try:
        from skops import io as skops_io
    except ModuleNotFoundError as error:
        raise MissingDependencyError("skops is not installed", hint="pip install skops") from error
    unknown = _opened(path, skops_io.get_untrusted_types, file=path)
    if unknown and not trust:
        raise TrustError(
            f"{path} would import {', '.join(unknown)}, which skops does not know as harmless",
            hint="add --trust if you know where it comes from",
        )
    return _opened(path, skops_io.load, path, trusted=unknown), ()


def _opened(path: Path, function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{path} needs {error.name}, which is not installed",
            hint="install it, or convert where the model was trained",
        ) from error
    except Exception as error:
        raise ConversionError(f"{path} cannot be opened: {summary_line(error)}", hint="save it again") from error
