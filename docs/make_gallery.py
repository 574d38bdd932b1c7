"""Run the commands of the gallery page, in its order: ``python docs/make_gallery.py`` or ``make gallery``."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

__all__ = ["commands"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gallery.md"


def commands(text: str) -> list[list[str]]:
    """Return the commands of a page's ``sh`` blocks, split as a shell splits them.

    >>> commands("```sh\\nonnxviz doctor\\n```")
    [['onnxviz', 'doctor']]
    """
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.S | re.M)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]


def main() -> int:
    """Run every command in the checkout; stop at the first that cannot."""
    for words in commands(PAGE.read_text(encoding="utf-8")):
        print(shlex.join(words), flush=True)
        program = [sys.executable] if words[0] == "python" else [sys.executable, "-m", words[0]]
        done = subprocess.run([*program, *words[1:]], cwd=ROOT, check=False)
        if done.returncode > 1:  # 1 is a picture of what was found
            return done.returncode
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
