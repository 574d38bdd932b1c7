"""What becomes a volume of its own, how large it is, and what is told of the rest."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxviz.diagram.scene import Path as Stroke
from onnxviz.diagram.volume_changes import change_of
from onnxviz.diagram.volume_extents import Extent
from onnxviz.diagram.volume_gates import GATE
from onnxviz.diagram.volume_labels import Naming
from onnxviz.diagram.volumes import volumes
from onnxviz.errors import InputError
from tests.diagram.test_volumes import CONV, POOL, boxes_of, by_id, inception, lenet, model_of, resnet, words
from tests.diagram.volume_geometry import faults


def chain(kinds: str) -> ir.Model:
    """Residual blocks of a convolution each: ``r`` with Relu, ``s`` with SiLU."""
    lines = [f"t0 = Conv<{CONV}>(x, w0)"]
    for at, kind in enumerate(kinds):
        lines.append(f"a{at} = Conv<{CONV}>(t{at}, w) b{at} = Conv<{CONV}>(a{at}, w)")
        lines.append(f"c{at} = Relu(b{at})" if kind == "r" else f"g{at} = Sigmoid(b{at}) c{at} = Mul(b{at}, g{at})")
        lines.append(f"t{at + 1} = Add(c{at}, t{at})")
    body = f"(float[1, 3, 16, 16] x) => (float[1, 8, 16, 16] t{len(kinds)}) {{" + "\n".join(lines) + "}"
    return model_of(body, w0=(8, 3, 3, 3), w=(8, 8, 3, 3))


def test_a_frame_tells_the_receptive_field_of_its_last_block() -> None:
    drawn = volumes(chain("r" * 8))
    assert "×8" in words(drawn)
    assert "RF 35" in words(drawn)  # 1 + 2 · 17 convolutions; the first block sees 7
    assert "RF 7" not in words(drawn)
    tooltip = by_id(drawn)["node-b0"].tooltip
    assert "receptive field 7×7" in tooltip
    assert "in the last block: receptive field 35×35" in tooltip


def test_blocks_of_different_activations_or_weights_are_not_equal() -> None:
    assert {"×6", "×12"} & set(words(volumes(chain("r" * 6 + "s" * 6)))) == {"×6"}
    lines = ["p0 = Conv(x, v)"]
    weights = {"v": (512, 256, 1, 1)}
    for at in range(6):
        weights |= {f"d{at}": (512, 1, 3, 3), f"v{at}": (512, 512, 1, 1)}
        lines.append(f"q{at} = Conv<{CONV}, group = 512>(p{at}, d{at}) r{at} = Relu(q{at})")
        lines.append(f"s{at} = Conv(r{at}, v{at}) p{at + 1} = Relu(s{at})")
    lines += [f"m{at + 1} = {POOL}(m{at})" if at else f"m1 = {POOL}(p6)" for at in range(2)]
    lines += [f"n{at + 1} = Conv<{CONV}, group = 512>({f'n{at}' if at else 'm2'}, d0)" for at in range(6)]
    body = "(float[1, 256, 16, 16] x) => (float[1, 512, 4, 4] n6) {" + "\n".join(lines) + "}"
    drawn = volumes(model_of(body, **weights))
    assert "×6" in words(drawn)
    assert "node-s0" in boxes_of(drawn)  # [depthwise, pointwise] six times, not the first pointwise with them
    assert faults(drawn.scene) == []


def test_sizes_that_nobody_knows_follow_their_source_and_are_marked() -> None:
    model = model_of(
        f"""(float[1, 3, 32, 32] x, int64[4] s) => (float[A, B, C, D] y) {{
          a = Conv<{CONV}>(x, w) r = Reshape(a, s) b = Conv<{CONV}>(r, v) y = {POOL}(b)
        }}""",
        w=(8, 3, 3, 3), v=(8, 8, 3, 3),
    )  # fmt: skip
    drawn = volumes(model)
    boxes = boxes_of(drawn)
    assert boxes["node-b"].height == boxes["node-a"].height
    assert boxes["node-y"].height == pytest.approx(boxes["node-a"].height / 2)
    dashes = {name: any(getattr(i, "dashed", False) for i in by_id(drawn)[name].items) for name in boxes}
    assert [name for name, dashed in dashes.items() if dashed] == ["node-b", "node-y"]
    told = " ".join(words(drawn))
    assert "Dashed outline: a size that the model leaves open, drawn like its source's." in told
    assert "rows and columns of a map (32)" in told


@pytest.mark.parametrize(
    ("direction", "ways", "work"), [("forward", 1, "LSTM"), ("bidirectional", 2, "bidirectional LSTM")]
)
def test_recurrent_layers_give_steps_and_the_features_of_both_directions(direction: str, ways: int, work: str) -> None:
    model = model_of(
        f"""(float[1, 64, 26] x) => (float[26, 1, 37] y) {{
          i = Transpose<perm = [2, 0, 1]>(x) h = LSTM<hidden_size = 128, direction = "{direction}">(i, w, r) t = Transpose<perm = [0, 2, 1, 3]>(h)
          s = Constant<value_ints = [26, 1, {128 * ways}]>() f = Reshape(t, s) y = MatMul(f, o)
        }}""",
        w=(ways, 512, 64), r=(ways, 512, 128), o=(128 * ways, 37),
    )  # fmt: skip
    told = words(volumes(model))
    assert {f"26×{128 * ways}", work, "26×37", "linear"} <= set(told)


def test_rearrangements_that_change_the_size_have_a_box() -> None:
    model = model_of(
        """(float[1, 9, 8, 8] x) => (float[1, 1, 24, 24] y) {
          a = Conv(x, w)
          s = Constant<value_ints = [1, 1, 3, 3, 8, 8]>() u = Reshape(a, s) v = Transpose<perm = [0, 1, 4, 2, 5, 3]>(u)
          t = Constant<value_ints = [1, 1, 24, 24]>() z = Reshape(v, t) y = Conv(z, k)
        }""",
        w=(9, 9, 1, 1), k=(1, 1, 1, 1),
    )  # fmt: skip
    drawn = volumes(model)
    assert {"1@24×24", "pixel shuffle ×3"} <= set(words(drawn))
    assert "node-z" in boxes_of(drawn)


@pytest.mark.parametrize(
    ("op", "before", "after", "expected"),
    [
        ("Reshape", (64, (6, 6)), (64, (12, 12)), "upsample ×2"),
        ("Expand", (64, (6, 8)), (64, (12, 24)), "upsample"),
        ("Concat", (3, (64, 64)), (12, (32, 32)), "space to depth"),
        ("Pad", (8, (24, 18)), (8, (25, 19)), "pad"),
        ("Pad", (8, (24, 18)), (8, (None, None)), "pad"),
        ("Slice", (8, (24, 18)), (8, (20, 16)), "crop"),
        ("Transpose", (3, (8, 6)), (8, (6, 3)), ""),
        ("Reshape", (64, (1, 1)), (16, (2, 2)), ""),
        ("Reshape", (64, (None, 8)), (64, (16, 16)), ""),
    ],
)
def test_changes_have_names(
    op: str, before: tuple[int, tuple[int, ...]], after: tuple[int, tuple[int, ...]], expected: str
) -> None:
    assert change_of(op, Extent(*before), Extent(*after), Naming()) == expected


def test_squeeze_and_excitation_is_told() -> None:
    model = model_of(
        """(float[1, 8, 16, 16] x) => (float[1, 8, 16, 16] y) {
          a = Conv(x, w) g = GlobalAveragePool(a) s = Conv(g, w) t = Sigmoid(s) y = Mul(a, t)
        }""",
        w=(8, 8, 1, 1),
    )
    told = words(volumes(model))
    assert GATE in told
    assert any("squeeze-and-excitation" in text for text in told)


def test_scales_of_a_quantisation_at_run_time_are_no_sources() -> None:
    model = model_of(
        """(float[1, 8, 16, 16] x) => (float[1, 8, 16, 16] y) {
          q, s, z = DynamicQuantizeLinear(x) w = QuantizeLinear(v, e) c = ConvInteger(q, w, z) f = Cast<to = 1>(c)
          k = Mul(s, e) m = Mul(f, k) y = Relu(m)
        }""",
        e=(1,), v=(8, 8, 1, 1),
    )  # fmt: skip
    drawn = volumes(model)
    assert list(boxes_of(drawn)) == ["input-x", "node-c", "output-y"]


def test_windows_reach_over_their_dilation() -> None:
    def window(dilation: int) -> float:
        body = f"(float[1, 1, 64, 64] x) => (float[1, 8, A, B] y) {{ y = Conv<dilations = [{dilation}, {dilation}]>(x, w) }}"
        drawn = volumes(model_of(body, w=(8, 1, 3, 3)))
        edge = next(group for group in drawn.scene.groups if group.role == "edge" and len(group.items) > 2)
        ys = [y for _, y in edge.items[0].points]  # type: ignore[union-attr]
        return max(ys) - min(ys)

    assert window(8) / window(4) == pytest.approx(17 / 9)


def test_sums_hand_their_receptive_field_to_the_box_before() -> None:
    drawn = volumes(model_of(
        f"""(float[1, 8, 16, 16] x) => (float[1, 8, 8, 8] y) {{
          a = Conv<{CONV}>(x, w) b = Conv<{CONV}>(a, w) s = Add(b, x) y = {POOL}(s)
        }}""",
        w=(8, 8, 3, 3),
    ))  # fmt: skip
    assert "RF 5" in words(drawn)


def test_fields_of_vectors_and_of_several_inputs() -> None:
    one = volumes(model_of(
        "(float[1, 8, 1, 1] z) => (float[1, 4, 3, 3] y) { y = ConvTranspose(z, w) }", w=(8, 4, 3, 3)
    ))  # fmt: skip
    assert not any("RF" in text for text in words(one))
    two = volumes(model_of(
        f"""(float[1, 3, 16, 16] l, float[1, 3, 16, 16] r) => (float[1, 8, 16, 16] y) {{
          a = Conv<{CONV}>(l, w) p = {POOL}(a) b = Conv<{CONV}>(r, w) q = {POOL}(b) s = Concat<axis = 1>(p, q)
          y = Resize(s, , k)
        }}""",
        w=(4, 3, 3, 3), k=(4,),
    ))  # fmt: skip
    assert words(two).count("RF 3") == 2
    assert "of the input that is seen" in " ".join(words(two))


def test_what_joins_in_another_way_is_named() -> None:
    drawn = volumes(model_of(
        f"(float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {{ a = Conv<{CONV}>(x, w) b = Conv<{CONV}>(x, v) y = Max(a, b) }}",
        w=(4, 3, 3, 3), v=(4, 3, 3, 3),
    ))  # fmt: skip
    assert "Max" in words(drawn)


def test_branches_stand_in_the_models_order_from_top_to_bottom() -> None:
    branches = [(f"b{at} = Conv<{CONV}, dilations = [{at}, {at}]>(x, w)", f"b{at}") for at in range(1, 6)]
    body = "(float[1, 8, 28, 28] x) => (float[1, 40, A, B] y) {" + " ".join(line for line, _ in branches)
    drawn = volumes(model_of(body + "y = Concat<axis = 1>(b1, b2, b3, b4, b5) }", w=(8, 8, 3, 3)))
    tops = [boxes_of(drawn)[f"node-{name}"].y for _, name in branches]
    assert tops == sorted(tops)
    assert faults(drawn.scene) == []


def test_lines_that_part_or_meet_have_a_dot_and_crossings_have_none() -> None:
    def dots(model: ir.Model) -> int:
        return sum(
            isinstance(item, Stroke) and item.codes.count("C") == 12 and group.role == "edge"
            for group in volumes(model).scene.groups
            for item in group.items
        )

    assert dots(resnet(1)) == 1  # the shortcut leaves; it ends on the sum from above
    assert dots(inception()) == 4  # three ways part, three meet
    assert dots(lenet()) == 0


def test_figures_too_high_to_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxviz.diagram.volumes._MOST_HEIGHT", 100.0)
    with pytest.raises(InputError, match="px high") as caught:
        volumes(resnet(1))
    assert caught.value.hint == "use --style graph"


def test_tooltips_say_a_setting_once() -> None:
    body = "(float[1, 3, 8, 8] x) => (float[1, 4, 4, 4] y) { y = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w) }"
    lines = by_id(volumes(model_of(body, w=(4, 3, 3, 3))))["node-y"].tooltip.split("\n")
    assert sum("stride 2" in line for line in lines) == 1
    assert "pad" in "\n".join(lines)


def test_a_legend_tells_sides_and_no_roots_of_token_counts() -> None:
    model = model_of(
        """(float[1, 3, 32, 32] x) => (float[1, 50, 4] y) {
          a = Conv<kernel_shape = [4, 4], strides = [4, 4]>(x, w) s = Constant<value_ints = [1, 16, 50]>()
          r = Reshape(a, s) t = Transpose<perm = [0, 2, 1]>(r) y = MatMul(t, v)
        }""",
        w=(8, 3, 4, 4), v=(16, 4),
    )  # fmt: skip
    told = " ".join(words(volumes(model)))
    assert "rows and columns of a map (∝ size, 8 to 32)" in told
    assert "Tokens and lists: as high as a square map with as many positions." in told
