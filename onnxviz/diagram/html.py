"""What one-file pages share: written whole, with a policy that allows their own scripts and styles alone."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import jinja2

from onnxviz.errors import OutputError
from onnxviz.graph.files import atomic_write

__all__ = ["content_hash", "page_environment", "save_page"]


def save_page(html: str, path: str | os.PathLike[str], what: str) -> None:
    """Write a page, whole or not at all.

    Args:
        html: The page.
        path: A name that ends in ``.html``.
        what: What the page is, for the error: ``"a report"``.

    Raises:
        OutputError: The ending is another, or the folder cannot be written.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"cannot write {what} as {Path(path).name!r}", hint="end the name in .html")
    atomic_write(path, html)


def content_hash(text: str) -> str:
    """Return the SHA-256 of a script or style as a Content-Security-Policy has it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def page_environment(package: str) -> jinja2.Environment:
    """Return what renders the templates of a package: everything is escaped, and a missing value is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
