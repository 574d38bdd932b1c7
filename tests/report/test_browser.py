"""The page in a real browser: what it draws, what it says of a value, where its links go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from tests.report.conftest import Example

pytestmark = pytest.mark.browser

# Copies a canvas before it is read: reading it back would change how the browser keeps it.
READ = """(canvas, x, y) => {
  const copy = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, Math.floor(x), Math.floor(y), 1, 1, 0, 0, 1, 1);
  return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


class Page:
    """A page of the browser, and everything it complained about."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1280, hash: str = "") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.messages.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{path.as_uri()}{hash}")
        self.page.wait_for_selector(".onnxviz-graph[data-ready], .onnxviz-graph .graph-error")

    def __call__(self, script: str) -> Any:
        return self.page.evaluate(script)

    def drawn(self, identity: str) -> None:
        """Scroll to a layer and wait until its picture is there."""
        self(f"document.getElementById('{identity}').scrollIntoView()")
        # The page's policy forbids the polling that playwright would do in it.
        for _ in range(100):
            self.page.wait_for_timeout(50)
            if self(f"document.querySelector('#{identity} canvas').width") > 0:
                break
        self.page.wait_for_timeout(100)

    def pixel(self, identity: str, tile: int, x: int, y: int) -> list[int]:
        """Return the colour in the middle of a value's square."""
        return self(
            f"""(() => {{
              const canvas = document.querySelector('#{identity} canvas'), at = canvas.layout;
              const size = JSON.parse(document.getElementById('data').textContent).atlases['{identity}'].tile;
              const px = 1 + ({tile} % at.columns) * at.stepX + ({x} + 0.5) * at.cellW / size[0];
              const py = 1 + Math.floor({tile} / at.columns) * at.stepY + ({y} + 0.5) * at.cellH / size[1];
              return ({READ})(canvas, px, py);
            }})()"""
        )

    def point(self, identity: str, tile: int, x: int, y: int) -> str:
        """Move the mouse to a value and return what the page says of it."""
        left, top = self(
            f"""(() => {{
              const canvas = document.querySelector('#{identity} canvas'), at = canvas.layout;
              const box = canvas.getBoundingClientRect();
              const size = JSON.parse(document.getElementById('data').textContent).atlases['{identity}'].tile;
              return [box.left + 1 + ({tile} % at.columns) * at.stepX + ({x} + 0.5) * at.cellW / size[0],
                      box.top + 1 + Math.floor({tile} / at.columns) * at.stepY + ({y} + 0.5) * at.cellH / size[1]];
            }})()"""
        )
        self.page.mouse.move(left, top)
        return self.probe()

    def probe(self) -> str:
        return self("document.getElementById('probe').textContent")

    def visible(self, selector: str) -> bool:
        """Whether an element lies, at least in part, in the window below the header."""
        box = self(
            f"(({{top, bottom}}) => [top, bottom])(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        return bool(box[1] > 50 and box[0] < 900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, example: Example, hostile: Example) -> Path:
    path = tmp_path_factory.mktemp("pages")
    example.report.save(path / "page.html")
    hostile.report.save(path / "hostile.html")
    return path


@pytest.fixture(scope="module")
def page(browser: Any, folder: Path) -> Iterator[Page]:
    opened = Page(browser, folder / "page.html")
    yield opened
    assert opened.messages == []


def layer_id(page: Page, name: str) -> str:
    return str(page(f"[...document.querySelectorAll('.layer')].find(e => e.dataset.find.startsWith('{name} ')).id"))


def number(text: str) -> float:
    return float(text.split()[-1].replace("−", "-"))


def near(color: list[int], colormap: str, position: float) -> bool:
    """Whether a colour is that of a position (0 … 1) in a colour map, give or take one of its 256 entries."""
    entry = round(float(np.clip(position, 0, 1)) * 255)
    entries = np.clip(np.arange(entry - 1, entry + 2), 0, 255)
    return color in matplotlib.colormaps[colormap](entries, bytes=True)[:, :3].tolist()


VALUES = [(0, 0, 0), (1, 3, 2), (0, 5, 5), (1, 0, 4)]


@pytest.mark.parametrize(("name", "colormap"), [("c", "RdBu_r"), ("r", "viridis")])
def test_maps_have_the_colours_of_their_values(page: Page, example: Example, name: str, colormap: str) -> None:
    identity = layer_id(page, name)
    page.drawn(identity)
    array = example.captured[name].array[0]
    top = float(np.abs(array).max())  # fewer than 200 values: nothing is clipped
    order = np.argsort(-np.square(array).mean(axis=(1, 2)), kind="stable")
    for tile, x, y in VALUES:
        value = float(array[order[tile], y, x])
        position = (value + top) / (2 * top) if colormap == "RdBu_r" else value / top
        assert near(page.pixel(identity, tile, x, y), colormap, position)
        assert not near(page.pixel(identity, tile, x, y), colormap, (position + 0.2) % 1)  # would notice other colours


def test_one_scale_for_each_channel(page: Page, example: Example) -> None:
    identity = layer_id(page, "r")
    page.page.select_option("#scale", "tile")
    page.drawn(identity)
    array = example.captured["r"].array[0]
    order = np.argsort(-np.square(array).mean(axis=(1, 2)), kind="stable")
    for tile, x, y in VALUES:
        channel = array[order[tile]]
        assert near(page.pixel(identity, tile, x, y), "viridis", float(channel[y, x] / channel.max()))
    assert page(f"document.querySelector('#{identity} canvas.key').hidden")
    page.page.select_option("#scale", "shared")
    page.drawn(identity)
    assert not page(f"document.querySelector('#{identity} canvas.key').hidden")


def test_the_pointer_reads_values(page: Page, example: Example) -> None:
    identity = layer_id(page, "c")
    page.drawn(identity)
    array = example.captured["c"].array[0]
    order = np.argsort(-np.square(array).mean(axis=(1, 2)), kind="stable")
    for tile, x, y in VALUES:
        text = page.point(identity, tile, x, y)
        assert text.startswith(f"channel {order[tile]} [{y}, {x}] = ")
        assert number(text) == pytest.approx(float(array[order[tile], y, x]), abs=float(np.ptp(array)) / 254)


def test_the_pointer_reads_vectors_and_weights(page: Page, example: Example) -> None:
    identity = layer_id(page, "y")
    page.drawn(identity)
    text = page.point(identity, 0, 2, 0)
    assert text.startswith("value 2 = ")
    assert number(text) == pytest.approx(float(example.captured["y"].array[0, 2]), abs=0.1)
    page.drawn("weights-2")
    text = page.point("weights-2", 0, 4, 1)
    matrix = example.model.graph.initializers["fw"].const_value.numpy()
    assert text.startswith("output 1, input 4 = ")
    assert number(text) == pytest.approx(float(matrix[4, 1]), abs=float(np.ptp(matrix)) / 254)


def test_the_arrow_keys_read_values(page: Page, example: Example) -> None:
    identity = layer_id(page, "c")
    page.drawn(identity)
    page(f"document.querySelector('#{identity} canvas').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.page.keyboard.press(key)
    array = example.captured["c"].array[0]
    best = int(np.argmax(np.square(array).mean(axis=(1, 2))))
    assert page.probe().startswith(f"channel {best} [1, 1] = ")
    assert number(page.probe()) == pytest.approx(float(array[best, 1, 1]), abs=float(np.ptp(array)) / 254)


def test_the_slider_makes_maps_larger(page: Page) -> None:
    identity = layer_id(page, "c")
    page.drawn(identity)
    small = page(f"document.querySelector('#{identity} canvas').clientHeight")
    page.page.fill("#zoom", "8")
    page.drawn(identity)
    assert page(f"document.querySelector('#{identity} canvas').clientHeight") > small + 60
    assert page("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    page.page.fill("#zoom", "3")


def test_search_and_links_past_it(page: Page) -> None:
    shown = "[...document.querySelectorAll('#features .layer')].filter(e => !e.hidden).map(e => e.dataset.find)"
    page.page.fill("#find-layer", "RELU")
    assert page(shown) == ["r Relu"]
    assert page("document.getElementById('found-layers').textContent") == "1 of 4"
    identity = layer_id(page, "c")
    page(f"location.hash = '{identity}'")
    page.page.wait_for_timeout(100)
    assert len(page(shown)) == 4  # a link shows its layer whatever was searched for
    page.page.fill("#find-tensor", "no such tensor")
    assert page("[...document.querySelectorAll('#tensor-table tbody tr')].every(e => e.hidden)")
    page.page.fill("#find-tensor", "")


def test_sorting_by_mouse_and_keyboard(page: Page, example: Example) -> None:
    names = "[...document.querySelectorAll('#tensor-table tbody tr')].map(e => e.cells[0].textContent)"
    by_max = sorted(example.captured, key=lambda name: -float(example.captured[name].array.max()))
    page.page.click("#tensor-table th:has-text('max') button")
    assert page(names)[0] == by_max[0]
    page.page.click("#tensor-table th:has-text('max') button")
    assert page(names)[-1] == by_max[0]
    page.page.focus("#tensor-table th:has-text('tensor') button")
    page.page.keyboard.press("Enter")
    assert page(names) == sorted(example.captured)
    assert page("document.querySelector('#tensor-table th').getAttribute('aria-sort')") == "ascending"


def click_block(page: Page, identity: str) -> None:
    """Click a block of the graph, wherever it stands, and then the link to what it made."""
    page("document.querySelector('#architecture').scrollIntoView()")
    left, top = page(
        f"""(() => {{
          const viewer = document.querySelector('.onnxviz-graph').viewer, box = viewer.canvas.getBoundingClientRect();
          const element = viewer.graph.byId.get({identity!r});
          viewer.select(element, true); viewer.select(-1); // brings it into view
          const [x, y, w, h] = viewer.graph.rect(element), {{ view }} = viewer;
          return [box.left + (x + w / 2 - view.x) * view.scale, box.top + (y + h / 2 - view.y) * view.scale];
        }})()"""
    )
    page.page.mouse.click(left, top)
    page.page.click(".graph-values")
    page.page.wait_for_timeout(150)


def test_a_click_on_a_block_shows_its_layer_and_back(page: Page) -> None:
    identity = layer_id(page, "p")
    click_block(page, "node-p")
    assert page("location.hash") == f"#{identity}"
    assert page.visible(f"#{identity} h3")
    page.page.click(f"#{identity} .links a:has-text('block')")
    page.page.wait_for_timeout(150)
    assert page("location.hash") == "#node-p"
    assert page.visible(".onnxviz-graph")
    assert page("document.querySelector('.graph-panel h2').textContent") == "MaxPool"
    click_block(page, "node-f")
    assert page("document.querySelector(':target').cells[0].textContent") == "f"
    assert page.visible("tr:target")


def test_a_link_to_a_channel(browser: Any, folder: Path, page: Page) -> None:
    identity = layer_id(page, "c")
    opened = Page(browser, folder / "page.html", hash=f"#{identity}/c1")
    opened.drawn(identity)
    tile = opened(f"JSON.parse(document.getElementById('data').textContent).atlases['{identity}'].labels.indexOf('1')")
    assert opened.visible(f"#{identity} h3")
    marked = opened(
        f"""(() => {{
          const canvas = document.querySelector('#{identity} canvas'), at = canvas.layout;
          const px = 2 + ({tile} % at.columns) * at.stepX, py = Math.floor({tile} / at.columns) * at.stepY + at.cellH / 2;
          return ({READ})(canvas, px, py);
        }})()"""
    )
    assert marked == [0xD9, 0x48, 0x0F]
    opened.page.locator(f"#{identity} canvas").first.click(position={"x": 20, "y": 20})
    assert opened("location.hash").startswith(f"#{identity}/c")
    assert opened.messages == []
    opened.page.close()


def test_values_that_are_not_finite_are_hatched(browser: Any, tmp_path: Path) -> None:
    import onnx_ir as ir

    from onnxviz.report.page import build_report
    from onnxviz.runtime.capture import capture

    text = "g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) {y = Relu(x)}"
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    array = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    array[0, 0, 1, 1] = np.nan
    build_report(model, capture(model, {"x": array}, providers="cpu")).save(tmp_path / "nan.html")
    opened = Page(browser, tmp_path / "nan.html")
    opened.drawn("features-0")
    assert opened.pixel("features-0", 0, 1, 1) in ([60, 60, 60], [255, 200, 60])
    assert near(opened.pixel("features-0", 0, 3, 3), "viridis", 1.0)
    assert opened.point("features-0", 0, 1, 1) == "channel 0 [1, 1] = not finite"
    opened.page.close()


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("name", ["page", "hostile"])
def test_no_page_complains_asks_the_network_or_is_too_wide(browser: Any, folder: Path, name: str, width: int) -> None:
    opened = Page(browser, folder / f"{name}.html", width=width)
    opened.page.wait_for_timeout(200)
    assert opened("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    opened("document.getElementById('tensors').scrollIntoView()")
    opened.page.wait_for_timeout(200)
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    opened.page.close()


def test_an_added_script_does_not_run(browser: Any, folder: Path, example: Example, tmp_path: Path) -> None:
    path = tmp_path / "changed.html"
    path.write_text(
        example.report.html.replace("</main>", "<script>window.added = 1</script></main>"), encoding="utf-8"
    )
    opened = Page(browser, path)
    assert opened("window.added") is None
    assert any("Content Security Policy" in message for message in opened.messages)
    opened.page.close()


def test_a_print_holds_all_pictures(browser: Any, folder: Path) -> None:
    opened = Page(browser, folder / "page.html")
    opened.page.wait_for_timeout(300)
    opened("window.dispatchEvent(new Event('beforeprint'))")
    assert opened("[...document.querySelectorAll('canvas[data-atlas]')].every(c => c.width > 0)")
    opened.page.close()


@pytest.mark.corpus
def test_the_page_of_a_trained_classifier(browser: Any, corpus: Path, tmp_path: Path) -> None:
    from onnxviz import api

    path = tmp_path / "squeeze.html"
    report = api.report(
        corpus / "models" / "classifier" / "SqueezeNet_fp32.onnx",
        corpus / "images" / "ort_goldfish.jpg",
        path,
        labels=corpus / "labels" / "imagenet1000_clsidx_to_labels.txt",
        preprocessing=api.preprocessing("keras-caffe"),
        providers="cpu",
    )
    assert "goldfish" in report.answer
    opened = Page(browser, path)
    assert "goldfish" in opened("document.querySelector('.best').textContent")
    count = opened("document.querySelectorAll('#features .layer').length")
    assert count > 50
    opened.drawn(f"features-{count // 2}")
    click_block(opened, "node-softmaxout_1")
    assert opened("document.querySelector(':target code').textContent") == "softmaxout_1"
    assert opened.messages == []
    opened.page.close()


@pytest.fixture(scope="module")
def vit(browser: Any, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from onnxviz import api

    path = tmp_path_factory.mktemp("vit") / "vit.html"
    api.report(models / "vit_digits.onnx", models / "samples" / "digit_3.png", path, providers="cpu")
    opened = Page(browser, path)
    yield opened
    assert opened.messages == []
    opened.page.close()


def colours(page: Page, identity: str, tile: int) -> list[list[int]]:
    """Return the colours of a tile's squares, 7 by 7."""
    return [page.pixel(identity, tile, x, y) for y in range(7) for x in range(7)]


def test_attention_lies_over_the_picture_where_that_is_asked(vit: Page) -> None:
    vit.drawn("attention-1-0")
    plain = colours(vit, "attention-1-0", 1)
    assert not [c for c in plain if max(c) - min(c) < 6]  # viridis has no grey
    vit.page.click("input[data-over]")
    vit.page.wait_for_timeout(200)
    assert [c for c in colours(vit, "attention-1-0", 1) if max(c) - min(c) < 6]  # the picture, where no one looks
    assert vit("document.querySelector('[data-key=\"attention-1-0\"]').hidden")
    vit.page.click("input[data-over]")
    vit.page.wait_for_timeout(200)
    assert colours(vit, "attention-1-0", 1) == plain


def test_any_slider_moves_all(vit: Page) -> None:
    vit.page.fill("#attention input[data-zoom]", "5")
    values = vit("[...document.querySelectorAll('input[data-zoom]')].map((e) => e.value)")
    assert len(values) > 3
    assert set(values) == {"5"}
    vit.page.fill("#attention input[data-zoom]", "3")


def test_a_block_leads_to_its_views(page: Page) -> None:
    page("document.querySelector('#architecture').scrollIntoView()")
    page(
        """(() => { const { viewer } = document.querySelector('.onnxviz-graph');
        viewer.select(viewer.graph.byId.get('node-r'), true); })()"""
    )
    page.page.click(".graph-view:has-text('activation')")
    page.page.wait_for_timeout(150)
    assert page("location.hash") == "#activations-0"
    assert page.visible("#activations-0 h3")


def test_survivors_are_dotted(page: Page) -> None:
    page.drawn("pooling-0-0")
    dots = [
        page.pixel("pooling-0-0", 0, m % 6, m // 6)
        for m in page("JSON.parse(document.getElementById('data').textContent).atlases['pooling-0-0'].marks[0]")
        if m >= 0
    ]
    assert dots
    assert all(color == [0xFF, 0x7A, 0x45] for color in dots)
    others = page("JSON.parse(document.getElementById('data').textContent).atlases['pooling-0-0'].marks[0]")
    kept = {m if m >= 0 else -1 - m for m in others}
    lost = next(i for i in range(36) if i not in kept)
    assert page.pixel("pooling-0-0", 0, lost % 6, lost // 6) != [0xFF, 0x7A, 0x45]


def test_a_link_to_a_head(browser: Any, vit: Page) -> None:
    vit.drawn("attention-1-0")
    left, top = vit(
        """(() => { const canvas = document.querySelector('#attention-1-0 canvas'), box = canvas.getBoundingClientRect();
        return [box.left + canvas.layout.stepX * 2 + 20, box.top + 20]; })()"""
    )
    vit.page.mouse.click(left, top)
    assert vit("decodeURIComponent(location.hash)") == "#attention-1-0/chead 1"
    opened = Page(browser, Path(vit.page.url.split("#")[0].removeprefix("file://")), hash="#attention-1-0/chead%201")
    opened.drawn("attention-1-0")
    assert opened.visible("#attention-1-0 canvas")
    marked = opened(
        f"""(() => {{
          const canvas = document.querySelector('#attention-1-0 canvas'), at = canvas.layout;
          return ({READ})(canvas, 2 + 2 * at.stepX, at.cellH / 2);
        }})()"""
    )
    assert marked == [0xD9, 0x48, 0x0F]
    opened.page.close()


def test_dark_colours_follow_the_browser(browser: Any, folder: Path) -> None:
    opened = browser.new_page(color_scheme="dark")
    opened.goto((folder / "page.html").as_uri())
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.evaluate(background) == "rgb(20, 23, 27)"
    assert opened.evaluate("document.querySelector('.onnxviz-graph').dataset.theme") == "dark"
    opened.emulate_media(color_scheme="light")
    opened.wait_for_timeout(200)
    assert opened.evaluate(background) == "rgb(255, 255, 255)"
    assert opened.evaluate("document.querySelector('.onnxviz-graph').dataset.theme") == "light"
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.evaluate(background) == "rgb(255, 255, 255)"
    opened.close()
