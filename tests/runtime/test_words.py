"""Words of token ids: lists, token files, tokenizer files, and what is none of these."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxviz.errors import InputError
from onnxviz.runtime.words import read_vocabulary, words_of

FEEDS = {"ids": np.array([[2, 0], [1, 1]])}


@pytest.mark.parametrize(
    "data",
    [
        {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "[CLS]"}]},
        {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.5], ["[CLS]", 0.0]]}},
        {"a": 0, "b": 1, "[CLS]": 2},
        ["a", "b", "[CLS]"],
    ],
)
def test_tokenizer_files(tmp_path: Path, data: object) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(data))
    assert words_of(str(file), FEEDS, ("ids",), 0, 2) == ["[CLS]", "a"]
    assert words_of(str(file), FEEDS, ("ids",), 1, 2) == ["b", "b"]


def test_a_token_a_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens.txt"
    file.write_text("a\nb\n[CLS]\n")
    assert words_of(str(file), FEEDS, ("ids",), 0, 2) == ["[CLS]", "a"]
    assert words_of(str(file), {}, (), 0, 3) == ["a", "b", "[CLS]"]  # no ids: the lines are the words


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.json", b"{", "is no JSON"),
        ("t.json", b"{}", "holds no vocabulary"),
        ("t.json", b"[" * 100_000, "is no JSON"),
        ("t.json", b'{"model": "x"}', "holds no vocabulary"),
        ("t.txt", b"", "holds no tokens"),
        ("t.txt", b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_files_that_hold_no_vocabulary(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=why):
        read_vocabulary(file)


def test_tokens_that_do_not_match(tmp_path: Path) -> None:
    file = tmp_path / "tokens.txt"
    file.write_text("a\nb\n")
    with pytest.raises(InputError, match=r"token id 2 is not in .*tokens.txt, which holds 2"):
        words_of(str(file), FEEDS, ("ids",), 0, 2)
    with pytest.raises(InputError, match=r"cannot be read: .*none.txt"):
        words_of(str(tmp_path / "none.txt"), FEEDS, ("ids",), 0, 2)
    with pytest.raises(InputError, match="no text tokens"):
        words_of("a,b", {}, (), 0, None)
    with pytest.raises(InputError, match=r"has 1 words and the text has 2 tokens"):
        words_of("x" * 5000, {}, (), 0, 2)


def test_only_line_feeds_part_tokens(tmp_path: Path) -> None:
    """Vocabularies of Chinese hold U+2028 as a token; a shift would give every later id another's word."""
    file = tmp_path / "vocab.txt"
    file.write_bytes("\ufeff[PAD]\r\n\u2028\n\x85\n\x0b\ncat\n".encode())
    assert read_vocabulary(file) == {0: "[PAD]", 1: "\u2028", 2: "\x85", 3: "\x0b", 4: "cat"}


def test_odd_entries_of_a_tokenizer_are_no_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text('{"model": {"vocab": {"a": true, "b": 2}}, "added_tokens": 5}')
    assert read_vocabulary(file) == {2: "b"}
