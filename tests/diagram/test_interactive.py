"""The interactive page, driven in Chromium: what it draws, opens, finds, traces and says."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from onnxviz import api
from onnxviz.diagram.architecture import architecture
from onnxviz.diagram.interactive import GraphPage, interactive, interactive_diff
from onnxviz.errors import OutputError, SelectionError
from onnxviz.graph.io import open_model
from tests.report.conftest import HOSTILE

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[n, 1, 8, 8] x) => (float[n, 2, 6, 6] y) <float[2, 1, 3, 3] w = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, float[2, 2, 1, 1] k = {1, 2, 3, 4}> {
  c = Conv<kernel_shape = [3, 3]>(x, w)
  r = Relu(c)
  p = Conv(r, k)
  s = Add(p, c)
  y = Sigmoid(s)
}"""
SCOPES = {"c": "/enc/one/Conv", "r": "/enc/one/Relu", "p": "/enc/two/Conv", "s": "/enc/two/Add", "y": "/head/Sigmoid"}


def make_model(names: dict[str, str] = SCOPES) -> ir.Model:
    model = ir.from_onnx_text(TEXT)
    for node in model.graph:
        node.name = names.get(str(node.outputs[0].name), node.name)
    return model


def parts(html: str) -> tuple[dict[str, Any], list[Any]]:
    found = []
    for name in ("graph-data", "graph-details"):
        start = html.index(">", html.index(f'id="{name}"')) + 1
        found.append(json.loads(zlib.decompress(base64.b64decode(html[start : html.index("<", start)]))))
    return found[0], found[1]


class Tab:
    """A page in the browser and all that it complained about."""

    def __init__(self, browser: Any, page: GraphPage, path: Path, hash: str = "") -> None:
        page.save(path)
        self.tab = browser.new_page(viewport={"width": 1280, "height": 860})
        self.messages: list[str] = []
        self.tab.on("console", lambda message: self.messages.append(message.text))
        self.tab.on("pageerror", lambda error: self.messages.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.messages.append("a dialog"), dialog.dismiss()))
        self.tab.goto(path.as_uri() + hash)
        self.tab.wait_for_selector(".onnxviz-graph[data-ready]", timeout=60_000)

    def __call__(self, script: str) -> Any:
        return self.tab.evaluate(
            f"(() => {{ const viewer = document.querySelector('.onnxviz-graph').viewer; {script} }})()"
        )

    def place(self, identity: str) -> tuple[float, float]:
        """Return where the middle of a block's heading is on the screen."""
        x, y = self(
            f"""const box = viewer.canvas.getBoundingClientRect(), {{ view, graph }} = viewer;
            const [x, y, w, h] = graph.rect(graph.byId.get({identity!r}));
            return [box.left + (x + w / 2 - view.x) * view.scale, box.top + (y + 10 - view.y) * view.scale];"""
        )
        return x, y

    def shown(self) -> set[str]:
        """Return the ids of what stands open before the reader."""
        return set(self("return viewer.graph.boxes.id.filter((_, k) => viewer.graph.rect(k));"))

    def selected(self) -> str | None:
        return self("return viewer.graph.boxes.id[viewer.state.selected] ?? null;")

    def panel(self) -> str:
        return str(self("return viewer.panel.hidden ? '' : viewer.panel.innerText;"))


Opener = Callable[..., Tab]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Any:
    tabs: list[Tab] = []

    def open_tab(page: GraphPage, hash: str = "") -> Tab:
        tabs.append(Tab(browser, page, tmp_path / f"page{len(tabs)}.html", hash))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        assert tab.messages == []
        tab.tab.close()


#: Boxes of a level that overlap, that leave it, or that a line runs through, for every level that is open.
FAULTS = """
  const bad = [], near = 0.6;
  const check = (level, name) => {
    for (const row of level.rows) {
      let right = -Infinity;
      for (const i of row) {
        const left = level.cx[i] - level.bw[i] / 2;
        if (i < level.count && left < right - near) bad.push(`${name}: boxes overlap`);
        right = Math.max(right, left + level.bw[i]);
      }
    }
    for (let i = 0; i < level.count; i++) {
      const r = level.rank[i], [x, y, w, h] = [level.cx[i], level.cy[i], level.bw[i] / 2, level.bh[i] / 2];
      if (y - h < level.top[r] - near || y + h > level.bottom[r] + near) bad.push(`${name}: a box leaves its row`);
      if (x - w < -near || x + w > level.width + near) bad.push(`${name}: a box leaves its group`);
    }
    level.s.forEach((source, e) => {
      for (let k = level.first[e]; k < level.first[e + 1]; k++)
        for (const i of level.rows[level.rank[source] + 1 + k - level.first[e]])
          if (i < level.count && Math.abs(level.mx[k] - level.cx[i]) < level.bw[i] / 2 - near) bad.push(`${name}: a line runs through a box`);
    });
    for (const [i, inner] of level.open) check(inner, `${name}/${i}`);
  };
  check(viewer.graph.root, "");
  return bad;
"""


@pytest.mark.browser
def test_a_click_tells_everything_about_a_node(opened: Opener) -> None:
    tab = opened(interactive(make_model(), weights={"k": "1 … 4 · mean 2.5"}))
    tab.tab.mouse.click(*tab.place("node-p"))
    assert tab.selected() == "node-p"
    assert tab.tab.evaluate("location.hash") == "#node-p"
    said = tab.panel()
    for part in ("Conv", "/enc/two/Conv", "parameters", "float32 n×2×6×6", "float32 2×2×1×1", "1 … 4 · mean 2.5"):
        assert part in said, part
    crumbs = tab("return viewer.crumbs.innerText;").replace("\n", "")
    assert crumbs.replace(" ", "") == "g›enc›two›Conv"
    tab.tab.click(".graph-panel li button")  # its input leads to what makes it
    assert tab.selected() == "node-r"
    tab.tab.keyboard.press("Escape")
    assert tab.panel() == ""


@pytest.mark.browser
def test_groups_open_and_close_and_stay_in_place(opened: Opener) -> None:
    tab = opened(interactive(make_model(), depth=1))
    assert "group-enc" in tab.shown()
    assert "node-c" not in tab.shown()
    before = tab.place("group-enc")
    tab.tab.mouse.dblclick(*before)
    inside = {name.split("-")[1] for name in tab.shown() if name.startswith("group-")}
    assert inside == {"enc", "enc_one", "enc_two"}  # open, with its own groups closed in it
    assert tab.place("group-enc") == pytest.approx(before, abs=1)
    assert tab(FAULTS) == []
    tab("viewer.all(true);")
    assert {"node-c", "node-r", "node-p", "node-s"} <= tab.shown()
    assert tab(FAULTS) == []
    tab("viewer.all(false);")
    assert tab.shown() == {"input-x", "group-enc", "node-y", "output-y"}
    tab.tab.focus(".graph-stage canvas")
    tab.tab.keyboard.press("e")
    assert "node-p" in tab.shown()


@pytest.mark.browser
def test_an_overlap_is_noticed(opened: Opener) -> None:
    tab = opened(interactive(make_model()))
    assert tab(FAULTS) == []
    tab("const level = viewer.graph.root; level.cx[1] = -500;")
    assert tab(FAULTS) != []


@pytest.mark.browser
@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("op:conv", {"node-c", "node-p"}),
        ("/enc/two", {"node-p", "node-s"}),
        ("shape:2x1x3x3", {"node-c"}),
        ("attr:kernel_shape", {"node-c"}),
        ("sigmoid", {"node-y"}),
        ("op:conv shape:6×6 two", {"node-p"}),
        ("nothing like it", set()),
    ],
)
def test_search_by_name_operator_attribute_and_shape(opened: Opener, query: str, wanted: set[str]) -> None:
    tab = opened(interactive(make_model(), depth=1))
    tab.tab.focus(".graph-stage canvas")
    tab.tab.keyboard.press("/")
    tab.tab.keyboard.type(query)
    hits = set(tab("return viewer.hits.map((k) => viewer.graph.boxes.id[k]);"))
    assert {hit for hit in hits if hit.startswith("node")} == wanted
    if wanted:
        tab.tab.keyboard.press("Enter")
        assert tab.selected() in hits
        assert tab.selected() in tab.shown()  # closed groups opened for it


@pytest.mark.browser
def test_ancestors_and_descendants(opened: Opener) -> None:
    tab = opened(interactive(make_model()), "#node-r")
    assert tab.selected() == "node-r"
    ids = "return viewer.graph.boxes.id.filter((_, k) => viewer.state.traced[k] && !viewer.graph.levels.has(k));"
    tab.tab.focus(".graph-stage canvas")
    tab.tab.keyboard.press("a")
    assert set(tab(ids)) == {"input-x", "node-c", "node-r"}
    tab.tab.keyboard.press("d")
    assert set(tab(ids)) == {"node-r", "node-p", "node-s", "node-y", "output-y"}
    tab.tab.keyboard.press("Escape")
    assert tab("return viewer.state.traced;") is None


@pytest.mark.browser
def test_keys_walk_zoom_and_fit(opened: Opener) -> None:
    tab = opened(interactive(make_model({})), "#node-c")
    tab.tab.focus(".graph-stage canvas")
    tab.tab.keyboard.press("ArrowDown")
    assert tab.selected() in ("node-r", "node-s")
    tab.tab.keyboard.press("ArrowUp")
    assert tab.selected() == "node-c"
    scale = tab("return viewer.view.scale;")
    tab.tab.keyboard.press("+")
    assert tab("return viewer.view.scale;") == pytest.approx(1.3 * scale)
    tab.tab.keyboard.press("0")
    left, top, right, bottom = tab(
        """const { view, graph, canvas } = viewer;
        return [view.x, view.y, view.x + canvas.clientWidth / view.scale - graph.root.width,
                view.y + canvas.clientHeight / view.scale - graph.root.height];"""
    )
    assert left <= 0 <= right + 1
    assert top <= 0 <= bottom + 1


@pytest.mark.browser
def test_wheel_and_minimap_move_the_view(opened: Opener) -> None:
    tab = opened(interactive(make_model()))
    before = tab("return viewer.view.y;")
    tab.tab.mouse.move(640, 500)
    tab.tab.mouse.wheel(0, 100)
    tab.tab.wait_for_timeout(100)
    assert tab("return viewer.view.y;") > before
    box = tab.tab.locator(".graph-map").bounding_box()
    tab.tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] - 2)
    middle = tab("return viewer.view.y + viewer.canvas.clientHeight / viewer.view.scale / 2;")
    assert middle == pytest.approx(tab("return viewer.graph.root.height;"), rel=0.05)


@pytest.mark.browser
def test_the_picture_has_the_colours_of_the_kinds_in_every_theme(opened: Opener) -> None:
    tab = opened(interactive(make_model()))
    for theme in ("light", "dark", "print"):
        tab(f"viewer.theme({theme!r}); viewer.draw();")
        x, y = tab.place("node-p")
        pixel = tab(
            f"""const box = viewer.canvas.getBoundingClientRect(), ratio = window.devicePixelRatio;
            const copy = new OffscreenCanvas(1, 1).getContext('2d');
            copy.drawImage(viewer.canvas, ({x} - box.left) * ratio, ({y} - box.top - 7) * ratio, 1, 1, 0, 0, 1, 1);
            return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3);"""
        )
        wanted = tab(
            "return viewer.painter.colour(viewer.graph.kinds[viewer.graph.boxes.kind[viewer.graph.byId.get('node-p')]][1]);"
        )
        assert pixel == [int(wanted[k : k + 2], 16) for k in (1, 3, 5)], theme


@pytest.mark.browser
def test_hostile_names_are_text(opened: Opener) -> None:
    model = make_model()
    for node, name in zip(model.graph, HOSTILE, strict=False):
        node.name = f"/{HOSTILE[0]}/{name}"
        node.outputs[0].name = name
    model.graph.name = HOSTILE[0]
    tab = opened(interactive(model, title=HOSTILE[1]))
    tab("viewer.all(true); for (let k = 0; k < viewer.graph.count; k++) viewer.select(k, true);")
    tab("viewer.search.value = 'script'; viewer.find(); viewer.take(0);")
    assert tab("return document.querySelectorAll('img, script[src]').length;") == 0
    assert tab("return [...document.querySelectorAll('bdi')].some((name) => name.textContent.includes('<script>'));")
    # A planted error: text that a viewer writes as HTML would be seen.
    assert (
        tab("const d = document.createElement('div'); d.innerHTML = '<b>x</b>'; return d.querySelectorAll('b').length;")
        == 1
    )


@pytest.mark.browser
def test_bodies_open(opened: Opener) -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool p) => (float[2] y) {
        y = If (p) <then_branch = t () => (float[2] t1) {t0 = Abs(x) t1 = Relu(t0)},
                    else_branch = e () => (float[2] e1) {e0 = Neg(x) e1 = Exp(e0)}>
    }""")
    tab = opened(interactive(model))
    tab("viewer.all(true);")
    assert {"node-t0", "node-t1", "node-e0", "output-t1"} <= tab.shown()
    assert tab(FAULTS) == []


@pytest.mark.browser
def test_a_difference_is_coloured(opened: Opener) -> None:
    after = make_model()
    node = after.graph[1]
    node.op_type = "LeakyRelu"
    page, diff = interactive_diff(make_model(), after)
    assert diff.changes
    tab = opened(page)
    assert "changed 1" in tab("return document.querySelector('.graph-legend').textContent;")
    assert "~ LeakyRelu" in tab("return viewer.graph.boxes.head;")


@pytest.mark.browser
@pytest.mark.corpus
@pytest.mark.parametrize("name", [
    "detector/blazeface_front_128", "generated/hf_clip_vision_mini_dynamo", "generated/jit_script_loop_if_legacy_op16",
    "light_zoo/light_inception_v2", "adversarial/topo_self_loop", "adversarial/str_unicode_names",
    "adversarial/nest_if_20", "adversarial/big_outputs_20k", "generated/deep_1000_blocks_legacy_op14",
])  # fmt: skip
def test_models_of_the_corpus_are_drawn_without_faults(opened: Opener, corpus: Path, name: str) -> None:
    tab = opened(interactive(open_model(corpus / "models" / f"{name}.onnx")))
    assert tab(FAULTS) == []
    tab("viewer.all(false);")
    assert tab(FAULTS) == []
    tab("viewer.all(true); viewer.fit(); viewer.select(0, true); viewer.trace(true);")
    assert tab(FAULTS) == []


def test_ids_are_those_of_the_svg() -> None:
    data, _ = parts(interactive(make_model()).html)
    boxes = {name for name, _ in architecture(make_model()).scene.boxes()}
    assert boxes <= set(data["boxes"]["id"])
    folded = {name for name, _ in architecture(make_model(), depth=1).scene.boxes()}
    assert folded <= set(data["boxes"]["id"])


def test_depth_fold_and_flat() -> None:
    def closed(**options: Any) -> set[str]:
        data, _ = parts(interactive(make_model(), **options).html)
        return {data["boxes"]["id"][k].split("-")[1] for k in data["closed"]}

    assert closed() == set()
    assert closed(depth=1) == {"enc", "enc_one", "enc_two"}
    assert closed(depth=2) == {"enc_one", "enc_two"}
    assert closed(fold=["enc/two"]) == {"enc_two"}
    flat, _ = parts(interactive(make_model(), depth=9).html)
    assert len(flat["levels"]) == 1
    with pytest.raises(SelectionError):
        interactive(make_model(), fold=["nowhere"])


def test_same_input_same_bytes() -> None:
    assert interactive(make_model()).html == interactive(make_model()).html


@pytest.mark.browser
def test_an_empty_graph_has_a_page(opened: Opener) -> None:
    page = interactive(ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g () => () {}'))
    assert page.blocks == 0
    tab = opened(page)
    tab("viewer.fit(); viewer.all(true); viewer.search.value = 'x'; viewer.find();")
    assert tab("return viewer.root.querySelector('.graph-error');") is None


@pytest.mark.browser
def test_names_that_nothing_produces_are_marked(opened: Opener, tmp_path: Path) -> None:
    made = onnx.helper.make_node("Add", ["x", "nowhere"], ["a"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "a", "never")]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([made], "g", values[:1], values[1:])), tmp_path / "m.onnx")
    tab = opened(interactive(open_model(tmp_path / "m.onnx")))
    assert {"missing-nowhere", "missing-never", "output-never", "node-a"} <= tab.shown()


def test_save_needs_the_ending(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"end the name in \.html"):
        interactive(make_model()).save(tmp_path / "page.svg")


def test_the_verb_writes_the_page(tmp_path: Path) -> None:
    page = api.graph(make_model(), tmp_path / "page.html")
    assert isinstance(page, GraphPage)
    _, details = parts((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert any("1 … 4" in row[2] for element in details for row in element[7])


@pytest.mark.browser
def test_arrows_lead_into_open_groups_and_out_of_them(opened: Opener) -> None:
    tab = opened(interactive(make_model()), "#input-x")
    tab.tab.focus(".graph-stage canvas")
    seen = []
    for _ in range(8):
        tab.tab.keyboard.press("ArrowDown")
        seen.append(tab.selected())
        if seen[-1] == "output-y":
            break
    assert seen[0] == "node-c"
    assert seen[-2:] == ["node-y", "output-y"]
    assert all(name.startswith(("node", "output")) for name in seen)


@pytest.mark.browser
def test_keys_work_before_anything_is_clicked(opened: Opener) -> None:
    tab = opened(interactive(make_model()))
    tab.tab.keyboard.press("/")
    assert tab.tab.evaluate("document.activeElement.type") == "search"


@pytest.mark.browser
def test_a_narrow_window_shows_the_block_that_was_tapped(opened: Opener) -> None:
    tab = opened(interactive(make_model()))
    tab.tab.set_viewport_size({"width": 400, "height": 700})
    tab.tab.wait_for_timeout(150)
    tab("viewer.fit();")
    tab.tab.mouse.click(*tab.place("node-s"))
    assert tab.selected() == "node-s"
    _, y = tab.place("node-s")
    assert y < tab.tab.locator(".graph-panel").bounding_box()["y"]


@pytest.mark.browser
def test_sizes_are_found_however_they_are_written(opened: Opener) -> None:
    model = make_model()
    model.graph.inputs[0].shape = ir.Shape(["max_len", 1, 8, 8])
    tab = opened(interactive(model))
    for query in ("shape:max_len", "shape:2x1x3x3", "shape:2×1×3×3", "shape:2,1,3"):
        assert tab(f"viewer.search.value = {query!r}; viewer.find(); return viewer.hits.length;") > 0, query


@pytest.mark.corpus
def test_a_function_that_calls_itself_is_drawn_as_it_stands(corpus: Path) -> None:
    model = open_model(corpus / "models" / "adversarial" / "fn_recursive.onnx")
    assert interactive(model).blocks == len(architecture(model, depth=3).network.nodes)
