"""t-SNE and UMAP: maps that keep neighbours, made by scikit-learn and umap-learn."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.threads import one_thread
from onnxviz.errors import InputError, MissingDependencyError

__all__ = ["default_perplexities", "tsne", "umap"]

Doubles = npt.NDArray[np.float64]
_PERPLEXITIES = (5.0, 30.0, 50.0)
_FEWEST = 7  # points for a perplexity of 2


def _umap_class() -> Any:
    """Import UMAP without the TensorFlow that it would load for a variant that is not used here."""
    unused = "tensorflow" not in sys.modules
    if unused:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    try:
        from umap import UMAP
    except ModuleNotFoundError as error:
        raise _missing("UMAP", "umap-learn", "umap") from error
    finally:
        if unused:
            del sys.modules["tensorflow"]
    return UMAP


def _missing(what: str, package: str, extra: str) -> MissingDependencyError:
    return MissingDependencyError(f"{what} needs {package}", hint=f"pip install 'onnxviz[{extra}]'")


def default_perplexities(count: int) -> tuple[float, ...]:
    """Return three perplexities that so many points allow: 5, 30 and 50, or smaller ones; fewer for few points.

    >>> default_perplexities(300), default_perplexities(40), default_perplexities(5)
    ((5.0, 30.0, 50.0), (5.0, 10.0, 12.0), ())
    """
    most = (count - 1) // 3
    if count < _FEWEST:
        return ()
    if most >= _PERPLEXITIES[-1]:
        return _PERPLEXITIES
    return tuple(sorted({float(max(min(5, most), round(most * share))) for share in (0.15, 0.75, 0.95)}))


def tsne(scores: Doubles, perplexity: float, seed: int = 0) -> Doubles:
    """Return a t-SNE map of points, started from their first two principal components, as ``(n, 2)``.

    van der Maaten and Hinton 2008 (JMLR 9), with the approximation of Barnes and Hut, the learning rate n / 48 and
    early exaggeration 12 (Belkina et al. 2019); scikit-learn on one thread. The same seed gives the same bits.

    Args:
        scores: ``(n, k)`` principal components, the largest first.
        perplexity: Effective number of neighbours; at least 1 and at most (n - 1) / 3.
        seed: Of the random numbers.

    Raises:
        InputError: There are too few points, or they vary along one direction alone.
        MissingDependencyError: scikit-learn is not installed.
    """
    count = len(scores)
    if scores.shape[1] < 2:
        raise InputError("the points lie on a line", hint="the PCA shows all there is")
    if count < _FEWEST:
        raise InputError(f"t-SNE needs at least {_FEWEST} points, and there are {count}", hint="give more inputs")
    if not 1 <= perplexity <= (count - 1) / 3:
        raise InputError(
            f"a perplexity of {perplexity:g} does not fit {count} points",
            hint=f"it may be from 1 to {(count - 1) // 3}, a third of their number",
        )
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError as error:
        raise _missing("t-SNE", "scikit-learn", "projection") from error
    start = (scores[:, :2] / scores[:, 0].std() * 1e-4).astype(np.float32)
    with one_thread():
        made = TSNE(
            2, perplexity=perplexity, init=start, learning_rate="auto", early_exaggeration=12.0, random_state=seed,
            n_jobs=1,
        ).fit_transform(scores / scores[:, 0].std())  # fmt: skip
    return np.asarray(made, np.float64)


def umap(scores: Doubles, neighbors: int, seed: int = 0) -> Doubles:
    """Return a UMAP map of points, started from their first two principal components, as ``(n, 2)``.

    McInnes, Healy and Melville 2018 (arXiv 1802.03426); umap-learn, ``min_dist`` 0.1, on one thread. The same seed
    gives the same bits.

    Args:
        scores: ``(n, k)`` principal components, the largest first.
        neighbors: Size of the neighbourhood; at least 2 and below n.
        seed: Of the random numbers.

    Raises:
        InputError: There are too few points, or they vary along one direction alone.
        MissingDependencyError: umap-learn is not installed.
    """
    count = len(scores)
    if scores.shape[1] < 2:
        raise InputError("the points lie on a line", hint="the PCA shows all there is")
    if count < 5:
        raise InputError(f"UMAP needs at least 5 points, and there are {count}", hint="give more inputs")
    if not 2 <= neighbors < count:
        raise InputError(f"{neighbors} neighbours do not fit {count} points", hint=f"give 2 to {count - 1}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and of optional parts of umap-learn: nothing a user can act on
        UMAP = _umap_class()  # noqa: N806 - a class
        start = (10 * scores[:, :2] / np.abs(scores[:, 0]).max()).astype(np.float32)
        with one_thread():
            made = UMAP(n_neighbors=neighbors, min_dist=0.1, init=start, random_state=seed, n_jobs=1).fit_transform(
                scores / scores[:, 0].std()
            )
    return np.asarray(made, np.float64)
