"""Words of token ids, from a token list or a tokenizer file; read as text and JSON, nothing is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxviz.errors import InputError

__all__ = ["read_vocabulary", "words_of"]

_MOST_BYTES = 256 << 20


def read_vocabulary(path: str | os.PathLike[str]) -> dict[int, str]:
    """Return id -> token, from a text file with a token a line (ids from 0), or from ``tokenizer.json`` or vocab JSON.

    Of a tokenizer file only ``model.vocab`` and ``added_tokens`` are read.

    Raises:
        InputError: The file is missing, too large, or holds no vocabulary.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "tokens.txt"
    >>> _ = file.write_text("[PAD]\\ncat\\n")
    >>> read_vocabulary(file)
    {0: '[PAD]', 1: 'cat'}
    """
    file = Path(path)
    hint = "give a text file with a token a line, a tokenizer.json, or a list: a,cat,sat"
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InputError(f"{file} is larger than a vocabulary", hint=hint)
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the tokens cannot be read: {file}: {reason}", hint=hint) from error
    if file.suffix.lower() != ".json":
        if not text:
            raise InputError(f"{file} holds no tokens", hint=hint)
        lines = text.removesuffix("\n").split("\n")  # not splitlines: U+2028, U+0085 and the like are tokens
        return {i: line.removesuffix("\r") for i, line in enumerate(lines)}
    try:
        vocabulary = _of_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is no JSON", hint=hint) from error
    if not vocabulary:
        raise InputError(f"{file} holds no vocabulary", hint="a tokenizer.json has it under model.vocab")
    return vocabulary


def _of_json(data: Any) -> dict[int, str]:
    model = data.get("model") if isinstance(data, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else data
    found: dict[int, str] = {}
    if isinstance(vocab, Mapping):
        found = {i: str(token) for token, i in vocab.items() if _is_id(i)}
    elif isinstance(vocab, list):  # Unigram: [token, score]
        found = {i: str(entry[0] if isinstance(entry, list) and entry else entry) for i, entry in enumerate(vocab)}
    added = data.get("added_tokens") if isinstance(data, dict) else None
    for entry in added if isinstance(added, list) else []:
        if isinstance(entry, dict) and _is_id(entry.get("id")):
            found[entry["id"]] = str(entry.get("content", ""))
    return found


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def words_of(tokens: str, feeds: Mapping[str, Any], ids: Sequence[str], sample: int, count: int | None) -> list[str]:
    """Return the word of each text token of a sample.

    Args:
        tokens: A file (see :func:`read_vocabulary`), or a comma list with a word a token.
        feeds: What the model was fed.
        ids: Inputs that hold token ids, the nearest to the attention first.
        sample: Which sample.
        count: Number of text tokens; None where the model has no text.

    Raises:
        InputError: The words do not match the tokens in number, or an id is not in the vocabulary.

    >>> words_of("a,cat", {}, (), 0, 2)
    ['a', 'cat']
    """
    if count is None:
        raise InputError("the model has no text tokens that --tokens could name", hint="leave out --tokens")
    if not (_exists(tokens) or tokens.lower().endswith((".json", ".txt"))):
        return _counted([word.strip() for word in tokens.split(",")], count, "the list")
    vocabulary = read_vocabulary(tokens)
    given = next((np.asarray(feeds[name]) for name in ids if name in feeds and np.ndim(feeds[name]) in (1, 2)), None)
    if given is None:
        return _counted([vocabulary[i] for i in sorted(vocabulary)], count, tokens)
    row = [int(i) for i in (given if given.ndim == 1 else given[sample])]
    unknown = next((i for i in row if i not in vocabulary), None)
    if unknown is not None:
        raise InputError(
            f"token id {unknown} is not in {tokens}, which holds {len(vocabulary)}",
            hint="give the vocabulary that the model was trained with",
        )
    return [vocabulary[i] for i in row]


def _exists(tokens: str) -> bool:
    try:
        return Path(tokens).exists()
    except OSError:  # a list may be longer than a name can be
        return False


def _counted(words: list[str], count: int, where: str) -> list[str]:
    if len(words) != count:
        raise InputError(
            f"{where} has {len(words)} words and the text has {count} tokens",
            hint="give a word a token, or a vocabulary file for the ids",
        )
    return words
