"""Attention in numbers: against numpy, torch and hand-made cases; each oracle sees a planted error."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxviz.analysis.attention import AttentionMaps, LayerAttention, choose_layers
from onnxviz.analysis.head_distance import head_distances, jensen_shannon
from onnxviz.analysis.rollout import rollout
from onnxviz.analysis.tokens import TokenBlock, Tokens, token_layout
from onnxviz.api import attention_weights
from onnxviz.errors import InputError, SelectionError
from onnxviz.graph.token_streams import Join, TokenStream

RNG = np.random.default_rng(3)
IMAGE = TokenStream(planes=("conv",), inputs=("x",))
TEXT = TokenStream(inputs=("ids",), tokens=("ids",))
LEARNED = TokenStream()


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def random_layer(
    heads: int = 3, queries: int = 6, keys: int = 6, order: int = 0, kind: str = "self", sides: Tokens | None = None
) -> LayerAttention:
    weights = softmax(2 * RNG.normal(size=(heads, queries, keys))).astype(np.float32)
    q, k = (sides or token_layout(TEXT, n, {}) for n in (queries, keys))
    return LayerAttention(f"l{order}", "w", kind, order, tuple(range(heads)), weights, q, k, 0.0, 0)  # type: ignore[arg-type]


def of(weights: np.ndarray) -> LayerAttention:
    text = [token_layout(TEXT, n, {}) for n in weights.shape[1:]]
    return LayerAttention("l", "w", "self", 0, tuple(range(len(weights))), weights.astype(np.float32), *text, 0.0, 0)


def test_mean_entropy_and_mass_are_numpys() -> None:
    layer = random_layer()
    w = layer.weights.astype(np.float64)
    np.testing.assert_allclose(layer.mean().sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(layer.entropy(), -(w * np.log2(w)).sum(axis=-1), rtol=1e-6)
    np.testing.assert_allclose(layer.received(), w.mean(axis=1), rtol=1e-6)
    nats = -(w * np.log(w)).sum(axis=-1)
    assert not np.allclose(layer.entropy(), nats)  # the oracle tells bits from nats


def test_entropy_runs_from_0_to_the_number_of_bits() -> None:
    layer = of(np.stack([np.eye(4), np.full((4, 4), 0.25)]))
    np.testing.assert_allclose(layer.entropy(), [[0] * 4, [2] * 4])


def test_rows_masked_as_a_whole_are_left_out_of_means() -> None:
    weights = np.array([[[0.5, 0.5], [np.nan, np.nan], [0, 0]]])
    layer = of(weights)
    assert np.isnan(layer.entropy()[0, 1:]).all()
    np.testing.assert_allclose(layer.received(), [[0.5, 0.5]])
    np.testing.assert_allclose(layer.block_mass(), [[[1.0]]])


def test_a_row_that_one_head_lacks_is_the_mean_of_the_others() -> None:
    layer = of(np.array([[[0, 0], [0.5, 0.5]], [[0.2, 0.8], [np.nan, np.nan]]]))
    np.testing.assert_allclose(layer.mean(), [[0.2, 0.8], [0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(layer.mean_look(0), [0.2, 0.8], rtol=1e-6)


def test_padded_queries_take_no_part_in_the_mean_over_all() -> None:
    layer = of(np.array([[[0.25, 0.75], [0, 0], [0, 0], [np.nan, np.nan]]]))
    np.testing.assert_allclose(layer.looks(None), [[0.25, 0.75]])
    np.testing.assert_allclose(layer.mean_look(None).sum(), 1)
    np.testing.assert_allclose(layer.looks(1), [[0, 0]])


def test_rows_of_nan_and_rows_of_zeros_are_told_apart() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 3, 3] q, float[1, 1, 3, 1] keep) => (float[1, 1, 3, 3] y) {
          s = MatMul(q, q) m = Softmax<axis = -1>(s) n = IsNaN(m) w = Where(n, keep, m) y = MatMul(w, q) }"""
    )
    q = np.full((1, 1, 3, 3), np.nan, np.float32)
    keep = np.array([0, np.nan, np.nan], np.float32).reshape(1, 1, 3, 1)
    (layer,) = attention_weights(model, {"q": q, "keep": keep}).layers
    assert (layer.empty, layer.broken) == (1, 2)
    assert layer.note == (
        "2 rows are NaN: masked as a whole, or a fault of the numbers · 1 row is masked as a whole (zeros)"
    )


def test_a_sink_is_a_key_that_most_attention_goes_to() -> None:
    weights = np.full((2, 8, 8), 0.4 / 7)
    weights[0, :, 2] = 0.6
    weights[1] = 1 / 8
    np.testing.assert_array_equal(of(weights).sinks(), [0, 0, 0.5, 0, 0, 0, 0, 0])


def test_under_a_causal_mask_a_key_is_measured_by_those_who_may_see_it() -> None:
    weights = np.tril(np.ones((1, 4, 4)))
    weights /= weights.sum(axis=-1, keepdims=True)
    received = of(weights).received()[0]
    np.testing.assert_allclose(received[3], 0.25)  # seen by one query alone: not a quarter of that
    np.testing.assert_allclose(received[0], (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_mass_of_blocks_sums_to_one_and_is_numpys() -> None:
    blocks = (TokenBlock("image", "image", 0, 4, (2, 2)), TokenBlock("text", "text", 4, 6))
    layer = random_layer(sides=Tokens(blocks, tuple("abcdef")))
    mass = layer.block_mass()
    assert mass.shape == (3, 2, 2)
    np.testing.assert_allclose(mass.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(mass[:, 1, 0], layer.weights[:, 4:, :4].sum(axis=-1).mean(axis=-1), rtol=1e-6)


def test_rollout_by_hand() -> None:
    first, second = random_layer(order=0), random_layer(order=1)
    eye = np.eye(6)
    a, b = (0.5 * layer.weights.astype(np.float64).mean(axis=0) + 0.5 * eye for layer in (first, second))
    rolled = rollout([first, second]).matrix
    np.testing.assert_allclose(rolled, b @ a, rtol=1e-6)
    np.testing.assert_allclose(rolled.sum(axis=-1), 1, rtol=1e-6)
    assert not np.allclose(rolled, a @ b)  # the order of the layers shows
    np.testing.assert_allclose(
        rollout([first], residual=0).matrix, first.weights.mean(axis=0, dtype=np.float64), rtol=1e-6
    )


def test_rollout_follows_one_stream_and_says_what_it_left_out() -> None:
    text, cross, again = random_layer(), random_layer(kind="cross", keys=9, order=1), random_layer(order=2)
    rolled = rollout([text, cross, again])
    assert rolled.layers == ("layer 0", "layer 2")
    assert rolled.note.startswith("1 of 3 layers left out")


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([random_layer(kind="cross", keys=9)], "all is cross-attention"),
        ([random_layer(queries=9)], "queries and keys differ in number"),
    ],
)
def test_rollout_without_a_stream_is_refused(layers: list[LayerAttention], why: str) -> None:
    with pytest.raises(SelectionError, match=why):
        rollout(layers)


def test_rollout_leaves_out_another_tower_of_as_many_tokens() -> None:
    from dataclasses import replace

    def at(order: int, *after: int) -> LayerAttention:
        return replace(random_layer(order=order), after=after)

    encoder, decoder = [at(0), at(1, 0)], [at(2), at(3, 2), at(4, 3)]
    rolled = rollout([*encoder, *decoder])
    assert rolled.layers == ("layer 2", "layer 3", "layer 4")
    assert rolled.note == "2 of 5 layers left out (cross-attention or other tokens)"
    np.testing.assert_allclose(rolled.matrix, rollout(decoder).matrix)


def test_rollout_of_an_encoder_and_a_decoder_of_equal_length() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Both(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.both = nn.Embedding(20, 16), nn.Transformer(16, 2, 2, 2, 32, batch_first=True)

        def forward(self, a: object, b: object) -> object:
            return self.both(self.words(a), self.words(b))

    ids = torch.arange(7)[None]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Both().eval(), (ids, ids + 3), file, input_names=["a", "b"], dynamo=False, opset_version=17)
    maps = attention_weights(ir.from_proto(onnx.load_from_string(file.getvalue())))
    assert [layer.kind for layer in maps.layers] == ["self", "self", "self", "cross", "self", "cross"]
    assert rollout(maps.layers).layers == ("layer 2", "layer 4")
    assert rollout(maps.layers[:2]).layers == ("layer 0", "layer 1")


def test_a_residual_is_a_share() -> None:
    with pytest.raises(InputError, match=r"a residual of 1 is no share"):
        rollout([random_layer()], residual=1)


def test_distance_between_heads_is_scipys() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    layer = random_layer(heads=2)
    p, q = layer.weights.astype(np.float64)
    expected = np.mean([distance.jensenshannon(a, b, base=2) ** 2 for a, b in zip(p, q, strict=True)])
    assert jensen_shannon(p, q) == pytest.approx(expected)
    distances = head_distances([layer]).matrix
    np.testing.assert_allclose(distances, [[0, expected], [expected, 0]], atol=1e-6)
    with pytest.raises(AssertionError):  # Kullback-Leibler would not be symmetric, nor this
        np.testing.assert_allclose(distances[0, 1], (p * np.log2(p / q)).sum(axis=-1).mean(), rtol=1e-3)


def test_heads_over_other_tokens_are_not_compared() -> None:
    distances = head_distances([random_layer(heads=1), random_layer(heads=1, queries=4, keys=4, order=1)])
    assert np.isnan(distances.matrix[0, 1])
    with pytest.raises(SelectionError, match="there is one head"):
        head_distances([random_layer(heads=1)])


def test_heads_and_layers_that_are_not_there() -> None:
    maps = AttentionMaps("m", (random_layer(), random_layer(heads=5, order=1)), None)
    assert [layer.order for layer in choose_layers(maps, None, 4).layers] == [1]
    assert [layer.order for layer in choose_layers(maps, "-1", None).layers] == [1]
    with pytest.raises(SelectionError, match=r"layer 1 has no head 7; it has 5, 0 to 4"):
        choose_layers(maps, None, 7)
    with pytest.raises(SelectionError, match=r"no attention layer '2'; there are 2, 0 to 1"):
        choose_layers(maps, "2", None)


def blocks(tokens: Tokens) -> list[tuple[str, int, tuple[int, int] | None]]:
    return [(block.name, len(block), block.grid) for block in tokens.blocks]


def test_a_grid_is_the_planes_and_never_a_square_root() -> None:
    assert blocks(token_layout(IMAGE, 36, {"conv": (1, 8, 4, 9)})) == [("image", 36, (4, 9))]
    assert blocks(token_layout(IMAGE, 36, {"conv": (1, 8, 14, 14)})) == [("tokens", 36, None)]  # 6 × 6 by chance
    assert blocks(token_layout(IMAGE, 36, {"conv": (1, 8, 36)})) == [("signal", 36, None)]
    assert blocks(token_layout(IMAGE, 36, {"conv": (1, 8, 4, 9)}, samples_only=False)) == [("signal", 36, None)]


def test_joined_tokens_are_told_apart_by_counting() -> None:
    shapes = {"cls": (1, 1, 8), "patches": (1, 12, 8), "conv": (1, 8, 3, 4), "words": (1, 5, 8), "channels": (1, 18, 4)}
    parts = (("cls", LEARNED), ("patches", IMAGE), ("words", TEXT))
    wrong = Join("c", 1, (("channels", IMAGE), ("cls", LEARNED)))
    stream = TokenStream((wrong, Join("j", 1, parts)), ("conv",), ("x", "ids"), ("ids",))
    tokens = token_layout(stream, 18, shapes)
    assert blocks(tokens) == [("CLS", 1, None), ("image", 12, (3, 4)), ("text", 5, None)]
    assert tokens.labels[:3] == ("CLS", "0,0", "0,1")
    assert tokens.special == (0,)
    assert not tokens.note


def test_registers_between_cls_and_patches() -> None:
    shapes = {"cls": (1, 1, 8), "reg": (1, 4, 8), "patches": (1, 12, 8), "conv": (1, 8, 3, 4)}
    parts = (("cls", IMAGE), ("reg", LEARNED), ("patches", IMAGE))  # CLS is cut off a sequence that has patches too
    tokens = token_layout(TokenStream((Join("j", 1, parts),), ("conv",), ("x",)), 17, shapes)
    assert blocks(tokens) == [("CLS", 1, None), ("registers", 4, None), ("image", 12, (3, 4))]
    assert tokens.special == (0, 1, 2, 3, 4)


def test_tokens_in_front_that_no_join_accounts_for_are_noted() -> None:
    tokens = token_layout(IMAGE, 14, {"conv": (1, 8, 3, 4)})
    assert blocks(tokens) == [("registers", 2, None), ("image", 12, (3, 4))]
    assert tokens.note == "2 of 14 tokens taken as CLS or registers, in front of 3 × 4 patches"


def test_queries_by_name_place_and_number() -> None:
    tokens = token_layout(IMAGE, 13, {"conv": (1, 8, 3, 4)})
    assert [tokens.find(q) for q in ("cls", "CLS", "0", "2,3", "2, 3", "12")] == [0, 0, 0, 12, 12, 12]
    with pytest.raises(InputError, match=r"no query is named '²'"):
        tokens.find("²")
    with pytest.raises(InputError, match=r"no query is named '3,0'; give an index from 0 to 12, ROW,COLUMN up to 2,3"):
        tokens.find("3,0")


def test_a_vision_transformers_tokens(models: Path) -> None:
    maps = attention_weights(models / "vit_digits.onnx", str(models / "samples/digit_3.png"))
    assert len(maps.layers) == 2
    for layer in maps.layers:
        assert layer.weights.shape == (4, 50, 50)
        assert blocks(layer.keys) == [("CLS", 1, None), ("image", 49, (7, 7))]
        np.testing.assert_allclose(layer.weights.sum(axis=-1), 1, atol=1e-5)
        assert layer.error < 1e-5
    assert maps.picture is not None


def test_two_inputs_and_words(models: Path) -> None:
    feeds = [str(models / "samples/digit_3.png"), f"tokens={models / 'samples/questions/larger_than_5.npy'}"]
    maps = attention_weights(
        models / "picture_question.onnx", feeds, tokens=str(models / "picture_question_tokens.txt")
    )
    text, cross = maps.layers[:2]
    assert text.queries.labels == ("[CLS]", "is", "it", "larger", "than", "5", "?")
    assert cross.weights.shape == (4, 7, 49)
    assert cross.keys.image is not None
    assert cross.keys.image.grid == (7, 7)
    assert text.queries.special == (0,)
    with pytest.raises(InputError, match=r"the list has 2 words and the text has 7 tokens"):
        attention_weights(models / "picture_question.onnx", feeds, tokens="a,b")


HEADS = """<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]>
    g (float[2, 5, 8] q, float[2, 7, 8] k) => (float[2, 5, 8] y) { y = %s(q, k, k) }"""


@pytest.mark.parametrize(
    "op", ["Attention<q_num_heads = 2, kv_num_heads = 2>", "com.microsoft.MultiHeadAttention<num_heads = 2>"]
)
def test_weights_of_single_operators_are_torchs(op: str) -> None:
    torch = pytest.importorskip("torch")
    q, k = (RNG.normal(size=(2, n, 8)).astype(np.float32) for n in (5, 7))
    layer = attention_weights(ir.from_onnx_text(HEADS % op), {"q": q, "k": k}, sample=1).layers[0]
    split = [torch.tensor(x).reshape(2, -1, 2, 4).transpose(1, 2) for x in (q, k)]
    expected = torch.softmax(split[0] @ split[1].transpose(-1, -2) / 4**0.5, dim=-1).numpy()
    np.testing.assert_allclose(layer.weights, expected[1], atol=1e-6)
    assert layer.kind == "cross"
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(layer.weights, expected[0], atol=1e-6)  # the other sample is another one


def test_packed_weights_of_a_fused_operator() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[1, 5, 8] x) => (float[1, 5, 8] y)
        <float[8, 24] w = {0}, float[24] b = {0}> { y = com.microsoft.Attention<num_heads = 2>(x, w, b) }"""
    )
    w, b = RNG.normal(size=(8, 24)).astype(np.float32), RNG.normal(size=24).astype(np.float32)
    for name, array in (("w", w), ("b", b)):
        model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
        model.graph.initializers[name].shape = ir.Shape(array.shape)
    x = RNG.normal(size=(1, 5, 8)).astype(np.float32)
    q, k, _ = np.split(x[0] @ w + b, 3, axis=-1)
    heads = [softmax(q[:, h] @ k[:, h].T / 2) for h in (slice(0, 4), slice(4, 8))]
    (layer,) = attention_weights(model, {"x": x}).layers
    np.testing.assert_allclose(layer.weights, heads, atol=1e-5)
    assert layer.kind == "self"


def test_heads_merged_into_the_batch_are_parted() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2, 3, 5, 4] x) => (float[6, 5, 4] y)
        <int64[3] flat = {6, 5, 4}> { r = Reshape(x, flat) t = Transpose<perm = [0, 2, 1]>(r) s = MatMul(r, t)
          w = Softmax<axis = 2>(s) y = MatMul(w, r) }"""
    )
    x = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
    (layer,) = attention_weights(model, {"x": x}, sample=1).layers
    np.testing.assert_allclose(layer.weights, softmax(x[1] @ x[1].transpose(0, 2, 1)), atol=1e-5)


UNBATCHED = """<ir_version: 8, opset_import: ["": 17]> g (float[%d, 8] x) => (float[%d, %d, %d] y)
    <int64[3] parts = {%d, %d, %d}> { r = Reshape(x, parts) q = Transpose<perm = [1, 0, 2]>(r)
      k = Transpose<perm = [1, 2, 0]>(r) s = MatMul(q, k) w = Softmax<axis = -1>(s) y = MatMul(w, q) }"""


@pytest.mark.parametrize(("tokens", "heads"), [(4, 4), (4, 2), (2, 4), (6, 2)])
def test_heads_of_a_sequence_without_a_batch(tokens: int, heads: int) -> None:
    d = 8 // heads
    model = ir.from_onnx_text(UNBATCHED % (tokens, heads, tokens, d, tokens, heads, d))
    (layer,) = attention_weights(model, {"x": RNG.normal(size=(tokens, 8)).astype(np.float32)}).layers
    assert layer.weights.shape == (heads, tokens, tokens)
    assert layer.note == ""


def test_heads_over_one_picture_without_a_batch() -> None:
    """Three heads, three colours: the plane that the patches come from has the batch, the picture has none."""
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[3, 4, 6] picture) => (float[3, 6, 2] y)
        <float[6, 3, 2, 2] w = {0}, int64[1] first = {0}, int64[3] flat = {3, 2, 6}> {
          one = Unsqueeze(picture, first) conv = Conv<strides = [2, 2]>(one, w) k = Reshape(conv, flat)
          q = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, k) a = Softmax<axis = -1>(s) y = MatMul(a, q) }"""
    )
    model.graph.initializers["w"].const_value = ir.Tensor(RNG.normal(size=(6, 3, 2, 2)).astype(np.float32), name="w")
    model.graph.initializers["w"].shape = ir.Shape((6, 3, 2, 2))
    (layer,) = attention_weights(model, {"picture": RNG.normal(size=(3, 4, 6)).astype(np.float32)}).layers
    assert layer.weights.shape == (3, 6, 6)
    assert layer.keys.image is not None


def test_heads_that_are_parted_by_the_batch_are_told() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2, 5, 4] x) => (float[2, 5, 4] y) {
          t = Transpose<perm = [0, 2, 1]>(x) s = MatMul(x, t) w = Softmax<axis = 2>(s) y = MatMul(w, x) }"""
    )
    (layer,) = attention_weights(model, {"x": RNG.normal(size=(2, 5, 4)).astype(np.float32)}).layers
    assert layer.note == "2 samples of 1 head, parted by the batch that was fed"


def test_windows_of_a_sample_are_counted_within_it() -> None:
    """Shifted windows: the batch is the outer part of the first axis."""
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2, 4, 3, 5, 4] x) => (float[8, 3, 5, 4] y)
        <int64[4] flat = {8, 3, 5, 4}> { r = Reshape(x, flat) t = Transpose<perm = [0, 1, 3, 2]>(r) s = MatMul(r, t)
          w = Softmax<axis = -1>(s) y = MatMul(w, r) }"""
    )
    x = RNG.normal(size=(2, 4, 3, 5, 4)).astype(np.float32)
    (layer,) = attention_weights(model, {"x": x}, sample=1, window=2).layers
    np.testing.assert_allclose(layer.weights, softmax(x[1, 2] @ x[1, 2].transpose(0, 2, 1)), atol=1e-5)
    assert layer.note == "window 2 of 4 of sample 1"
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(layer.weights, softmax(x[0, 2] @ x[0, 2].transpose(0, 2, 1)), atol=1e-5)
    with pytest.raises(SelectionError, match=r"there is no window 4; attention has 4 windows a sample"):
        attention_weights(model, {"x": x}, window=4)
    with pytest.raises(SelectionError, match=r"there is no sample 2; 2 were fed"):
        attention_weights(model, {"x": x}, sample=2)


def test_a_layer_that_is_asked_for_is_captured_alone(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxviz.runtime.capture as module

    asked: list[list[str]] = []
    real = module.capture

    def spy(model: ir.Model, inputs: object, tensors: list[str], **options: object) -> object:
        asked.append(list(tensors))
        return real(model, inputs, tensors, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "capture", spy)
    both = attention_weights(models / "vit_digits.onnx")
    (second,) = attention_weights(models / "vit_digits.onnx", layer=-1).layers
    assert second.order == 1
    np.testing.assert_array_equal(second.weights, both.layers[1].weights)
    weights = [layer.tensor for layer in both.layers]
    assert set(weights) <= set(asked[0])
    assert weights[0] not in asked[1]


@pytest.mark.parametrize("layer", ["--1", "²", "-", "1.5"])
def test_a_layer_that_is_no_number_is_a_name(models: Path, layer: str) -> None:
    with pytest.raises(SelectionError, match=r"there is no attention layer"):
        attention_weights(models / "vit_digits.onnx", layer=layer)


def test_a_layer_that_keeps_its_weights_is_named_when_asked_for() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[1, 5, 8] x) => (float[1, 5, 8] y)
        <float[8, 24] w = {0}> {
          [rotary] a = com.microsoft.MultiHeadAttention<num_heads = 2>(x, x, x, , , , , , , n)
          [plain] y = com.microsoft.MultiHeadAttention<num_heads = 2>(a, a, a)
        }""".replace("x) => ", "x, int32[1] n) => ").replace("<float[8, 24] w = {0}> ", "")
    )
    with pytest.raises(
        SelectionError, match=r"attention layer 0: .*'rotary' keeps its weights: it has a cache of beams"
    ):
        attention_weights(model, layer=0)


def test_random_numbers_and_samples_are_told(models: Path) -> None:
    maps = attention_weights(models / "vit_digits.onnx")
    assert maps.notes == ("random numbers for image",)
    with pytest.raises(SelectionError, match=r"there is no sample 1; 1 were fed"):
        attention_weights(models / "vit_digits.onnx", sample=1)


def test_the_numbers_behind_the_pictures() -> None:
    arrays = AttentionMaps("m", (random_layer(order=4),), None).arrays()
    assert arrays["layer4.weights"].shape == (3, 6, 6)
    assert arrays["layer4.block_mass"].shape == (3, 1, 1)
    assert arrays["layer4.key_labels"].tolist() == list("012345")


def test_a_sequence_of_picture_and_text_is_parted_by_the_graph() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3, 4, 6] picture, int64[n, 5] ids) => (float[n, 12, 4] y)
        <float[4, 3, 2, 2] w = {0}, int64[3] flat = {0, 4, -1}, float[9, 4] table = {0}, float[1, 1, 4] cls = {0}>
        {
          conv = Conv<strides = [2, 2]>(picture, w)
          rows = Reshape(conv, flat) patches = Transpose<perm = [0, 2, 1]>(rows)
          words = Gather(table, ids)
          x = Concat<axis = 1>(cls, patches, words)
          t = Transpose<perm = [0, 2, 1]>(x) s = MatMul(x, t) a = Softmax(s) y = MatMul(a, x)
        }"""
    )
    for name, shape in {"w": (4, 3, 2, 2), "table": (9, 4), "cls": (1, 1, 4)}.items():
        array = RNG.normal(size=shape).astype(np.float32)
        model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
        model.graph.initializers[name].shape = ir.Shape(shape)
    feeds = {"picture": RNG.normal(size=(1, 3, 4, 6)).astype(np.float32), "ids": np.array([[1, 2, 3, 4, 5]])}
    (layer,) = attention_weights(model, feeds, tokens="a,cat,on,a,mat").layers
    assert blocks(layer.keys) == [("CLS", 1, None), ("image", 6, (2, 3)), ("text", 5, None)]
    assert layer.keys.labels[6:9] == ("1,2", "a", "cat")
    mass = layer.block_mass()[0]
    np.testing.assert_allclose(mass[2, 1], layer.weights[0, 7:, 1:7].sum(axis=-1).mean(), rtol=1e-5)  # text to image
    assert layer.kind == "self"
