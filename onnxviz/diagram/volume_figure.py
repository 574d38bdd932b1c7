"""From units to a finished figure: boxes, labels, lines, frames, the legend, and the same as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnxviz.diagram.details import shape_text
from onnxviz.diagram.header import header_groups
from onnxviz.diagram.names import Names
from onnxviz.diagram.palette import INK, LINE, MUTED
from onnxviz.diagram.result import Architecture
from onnxviz.diagram.scene import Group, Item, Path, Rect, Scene, Text
from onnxviz.diagram.text import ellipsize, text_width
from onnxviz.diagram.volume_boxes import ROUNDED, Box, arrow_items, dot_item, sign_items, volume_items, window_items
from onnxviz.diagram.volume_captions import caption_lines, field_text, stage_tooltip, unit_label
from onnxviz.diagram.volume_exchange import layout_of, network_of
from onnxviz.diagram.volume_joints import joints
from onnxviz.diagram.volume_lanes import make_plan
from onnxviz.diagram.volume_layout import Cell, place_units
from onnxviz.diagram.volume_routes import Route, Tracks, route_links
from onnxviz.diagram.volume_scale import Cuboid, make_scales
from onnxviz.diagram.volume_stages import Stage
from onnxviz.diagram.volume_units import Block, Unit
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.receptive_field import ReceptiveField

__all__ = ["Figure"]

Point = tuple[float, float]
_PAD = 24.0
_LEAST_WIDTH = 520.0
_TOGETHER = 3.0  # px between boxes that stand together
_LINE_HEIGHT = 11.5
_LABEL_GAP = 5.0
_TERMINAL = 26.0  # px of an output's height
_CAPTION = 9.0


class Figure:
    """Lays a figure out, then turns it into a scene."""

    def __init__(self, units: list[Unit], blocks: Sequence[Block], fields: Mapping[str, ReceptiveField]) -> None:
        self.units, self.blocks, self.fields = units, list(blocks), fields
        self.stages = [stage for unit in units for stage in unit.stages]
        boxes = [stage for stage in self.stages if not stage.sign and stage.role != "output"]
        inputs = [stage.extent for stage in self.stages if stage.role == "input"]
        self.scales = make_scales(self.stages, inputs, len(boxes))
        self.unit_of = {stage: at for at, unit in enumerate(units) for stage in unit.stages}
        self.edges = [(self.unit_of[source], at) for at, unit in enumerate(units) for source in unit.first.sources]
        told = self._ends_of_sizes()
        self.labels = [
            unit_label(unit, self.scales, field_text(self._field(unit.last)) if at in told else "")
            for at, unit in enumerate(units)
        ]
        self.sizes = {stage: self._size(at, stage) for stage, at in self.unit_of.items()}
        self.cells = [self._cell(at) for at in range(len(units))]
        frames = [cell.block for cell in self.cells]
        self.plan = make_plan(len(units), self.edges, [self._weight(unit) for unit in units], frames)
        signs = frozenset(at for at, unit in enumerate(units) if unit.first.sign)
        tracks = Tracks(self.plan, signs)
        columns = frozenset(self.plan.column[s] for s, t in self.edges if self._reads_window(s, t))
        self.placement = place_units(self.cells, self.plan, tracks.counts(), columns)
        self.boxes = {stage: self._box(at, stage) for stage, at in self.unit_of.items()}
        ports = [(self.boxes[unit.first].entry, self.boxes[unit.last].exit) for unit in units]
        self.routes = route_links(self.plan, self.placement, tracks, ports)

    def _ends_of_sizes(self) -> set[int]:
        """Return the units that tell a receptive field: the last ones with a label of each size of a map."""
        read: dict[int, list[int]] = {}
        for source, target in self.edges:
            read.setdefault(source, []).append(target)
        found = set()
        for at, unit in enumerate(self.units):
            extent = unit.last.extent
            behind = [u.last.extent.spatial for t in read.get(at, []) if (u := self.units[t]).first.role != "output"]
            if unit.first.role == "node" and not extent.is_vector and any(s != extent.spatial for s in behind or [()]):
                found.add(self._labelled(at))
        return found

    def _labelled(self, at: int) -> int:
        """Return the unit that tells the field of another: signs have no label, so one before it that sees as much."""
        field = field_text(self._field(self.units[at].last))
        while self.units[at].first.sign:
            near = [s for s, t in self.edges if t == at and field_text(self._field(self.units[s].last)) == field]
            near = [s for s in near if self.units[s].first.role == "node"]
            if not near:
                return at
            at = max(near)
        return at

    def _field(self, stage: Stage) -> ReceptiveField | None:
        """Return the receptive field in the last of equal blocks."""
        return self.fields.get(str(stage.last_value.name))

    def _tells_fields(self) -> bool:
        return any(text.text.startswith("RF ") and text.fill == MUTED for texts in self.labels for text in texts)

    def tooltip(self, stage: Stage) -> str:
        """Return everything that is known of a volume."""
        return stage_tooltip(stage, self.fields.get(str(stage.value.name)), self._field(stage))

    def _weight(self, unit: Unit) -> float:
        rows, columns = self.scales.positions(unit.last)
        size: float = rows * columns * self.scales.sizes.channels[unit.last] ** 0.5
        return len(unit.stages) + 1.0 - 1.0 / (1.0 + size)  # the longer way first, then that of the larger map

    def _size(self, at: int, stage: Stage) -> Cuboid:
        if stage.role == "output":
            return Cuboid(max((text.width for text in self.labels[at]), default=0.0) + 8.0, _TERMINAL)
        return self.scales.cuboid(stage)

    def _cell(self, at: int) -> Cell:
        unit = self.units[at]
        sizes = [self.sizes[stage] for stage in unit.stages]
        front = sum(size.thick for size in sizes) + _TOGETHER * (len(sizes) - 1)
        high = max((size.height + size.up) / 2 for size in sizes)
        labels = [] if unit.first.role == "output" else self.labels[at]
        half = max((text.width / 2 for text in labels), default=0.0)
        below = high + (_LABEL_GAP + _LINE_HEIGHT * len(labels) if labels else 0.0)
        rows = self.scales.positions(unit.last)[0]
        flat = unit.first.sign or unit.first.role == "output" or unit.last.extent.is_vector
        return Cell(
            max(front / 2, half), max(front / 2 + max(size.right for size in sizes), half), high, high, below,
            0.0 if flat else rows, self.blocks.index(unit.block) if unit.block is not None else -1,
        )  # fmt: skip

    def _box(self, at: int, stage: Stage) -> Box:
        unit, size = self.units[at], self.sizes[stage]
        before = unit.stages[: unit.stages.index(stage)]
        front = sum(self.sizes[s].thick for s in unit.stages) + _TOGETHER * (len(unit.stages) - 1)
        x = self.placement.x[at] - front / 2 + sum(self.sizes[s].thick + _TOGETHER for s in before)
        return Box(x, self.placement.y[at] + (size.up - size.height) / 2, size)

    def _reads_window(self, source: int, target: int) -> bool:
        """Whether the window of a unit can be drawn on the one before: they are neighbours and it is wider than one."""
        reader, read = self.units[target].first, self.units[source].last
        fits = (
            len(reader.kernel) in (2, 3) and max(reader.kernel) > 1 and len(read.extent.spatial) == len(reader.kernel)
        )
        plain = reader.work.startswith(("conv", "dw conv", "max pool", "avg pool", "Lp pool"))
        alone = sum(s == source for s, _ in self.edges) == 1
        return fits and plain and alone and not read.sign and not read.extent.is_vector and read.extent.known

    def _windows(self, route: Route) -> list[Item]:
        """Return the window that a line stands for, where its two ends are neighbours on one height."""
        source, target = route.link.source, route.link.target
        straight = len(route.pieces) == 1 and len(route.pieces[0]) == 2
        if (
            not straight
            or not self._reads_window(source, target)
            or self.plan.column[target] - self.plan.column[source] > 1
        ):
            return []
        read, reader = self.units[source].last, self.units[target].first
        sides, sizes = self.scales.sides, self.scales.positions(read)
        window = zip(reader.kernel[-2:], sizes, strict=True)
        tall, deep = (sides.window(part, whole) / sides.px(whole) for part, whole in window)
        return window_items(self.boxes[read], route.pieces[0][1], (tall, deep))

    def finish(self, title: str, line: str) -> Architecture:
        """Return the figure with its header, and its scales told below."""
        wide = max(self.placement.width, _LEAST_WIDTH)
        kinds = [s.kind for s in self.stages if s.role == "node" and not s.sign]
        kinds += [kind for s in self.stages for n in s.folded if (kind := kind_of(n)) in ("norm", "activation")]
        header, below = header_groups(title, line, kinds, _PAD, _PAD, wide)
        around = 22.0 if len(self.placement.axes) > 1 else 0.0
        dx, dy = _PAD + around + (wide - self.placement.width) / 2, below + _PAD
        names = Names()
        edges, windows = self._edge_groups(names, dx, dy)
        volumes = self._volume_groups(names, dx, dy)
        groups = [*header, *self._frame_groups(dx, dy), *edges, *volumes, *windows, *self._label_groups(dx, dy)]
        bottom = dy + self.placement.height + 1.5 * _PAD
        caption = self._caption(bottom, wide)
        groups.append(caption)
        lines = sum(isinstance(item, Text) for item in caption.items)
        scene = Scene(wide + 2 * (_PAD + around), bottom + lines * (_CAPTION + 4.0) + _PAD / 2, title, tuple(groups))
        boxes = {group.id: group for group in volumes}
        ids = {stage: group.id for stage, group in zip(self.stages, volumes, strict=True)}
        layout = layout_of(self)
        return Architecture(scene, layout, lambda: network_of(self, scene, ids, boxes, dx, dy))

    def _caption(self, bottom: float, wide: float) -> Group:
        lines = caption_lines(self.units, self.blocks, self.scales, wide, self._tells_fields())
        items = [Text(_PAD, bottom + (_CAPTION + 4.0) * at, text, _CAPTION, MUTED) for at, text in enumerate(lines)]
        return Group("diagram-scale", "legend", "", tuple(items))

    def _volume_groups(self, names: Names, dx: float, dy: float) -> list[Group]:
        groups = []
        for stage in self.stages:
            placed = self.boxes[stage]
            box = Box(placed.x + dx, placed.y + dy, placed.size)
            if stage.role == "output":
                items = self._terminal_items(stage, box)
            else:
                items = (
                    sign_items(stage, box)
                    if stage.sign
                    else volume_items(stage, box, guessed=stage in self.scales.sizes.guessed)
                )
            identity = names.take(stage.role, stage.value.name or (stage.node.name if stage.node is not None else None))
            kind = stage.kind if stage.role == "node" else ""
            groups.append(Group(identity, stage.role, self.tooltip(stage), tuple(items), box.front, kind))
        return groups

    def _terminal_items(self, stage: Stage, box: Box) -> list[Item]:
        texts = self.labels[self.unit_of[stage]]
        middle = box.x + box.size.thick / 2
        return [
            Text(middle, box.y + 10.5 + _LINE_HEIGHT * at, text.text, text.size, text.fill, text.bold, "middle")
            for at, text in enumerate(texts)
        ]

    def _label_groups(self, dx: float, dy: float) -> list[Group]:
        groups = []
        for at, (unit, texts, cell) in enumerate(zip(self.units, self.labels, self.cells, strict=True)):
            if unit.first.role == "output" or not texts:
                continue
            top = self.placement.y[at] + cell.box_below + _LABEL_GAP + dy
            x = self.placement.x[at] + dx
            items = [
                Text(x, top + _LINE_HEIGHT * (row + 0.75), text.text, text.size, text.fill, text.bold, "middle")
                for row, text in enumerate(texts)
            ]
            groups.append(Group(f"label-{at}", "label", "", tuple(items)))
        return groups

    def _edge_groups(self, names: Names, dx: float, dy: float) -> tuple[list[Group], list[Group]]:
        """Return the lines, which lie below the boxes, and the windows, which lie on them."""
        groups: list[Group] = []
        windows: list[Group] = []
        marked: set[Point] = set()
        dots = joints(self.routes, ROUNDED)
        for number, route in enumerate(self.routes):
            value = self.units[route.link.target].first.sources[self._read(route)]
            items = tuple(_moved(item, dx, dy) for item in self._windows(route))
            tooltip = " ".join(filter(None, (ellipsize(value.name or "", 80), shape_text(value))))
            identity = names.take("edge", value.name)
            if items:
                windows.append(Group(identity, "edge", tooltip, items))
                continue
            drawn: list[Item] = []
            for at, piece in enumerate(route.pieces):
                drawn += arrow_items([(x + dx, y + dy) for x, y in piece], head=at == len(route.pieces) - 1)
                end = piece[-1] if at == 0 else piece[0]
                if route.mark and end not in marked:  # lines of one source may leave a row at one place
                    marked.add(end)
                    drawn += _mark_items(route.mark, end[0] + dx, end[1] + dy, 1 if at == 0 else -1)
            drawn += [dot_item((x + dx, y + dy)) for x, y in dots.get(number, ())]
            groups.append(Group(identity, "edge", tooltip, tuple(drawn)))
        return groups, windows

    def _read(self, route: Route) -> Stage:
        target = self.units[route.link.target].first
        return next(s for s in target.sources if self.unit_of[s] == route.link.source)

    def _frame_groups(self, dx: float, dy: float) -> list[Group]:
        """Return a dashed frame around each block that stands several times in a row, with their number."""
        groups = []
        for number, block in enumerate(self.blocks):
            units = sorted({self.unit_of[stage] for stage in block.stages})
            for row in sorted({self.placement.row[unit] for unit in units}):
                frame = self._frame([u for u in units if self.placement.row[u] == row])
                x, y = frame.x + dx, frame.y + dy
                items: tuple[Item, ...] = (
                    Rect(x, y, frame.width, frame.height, "#f6f7f9", LINE, 0.9, 6.0, dashed=True),
                    Text(x + frame.width - 5.0, y + 11.5, f"×{block.times}", 11.0, INK, True, "end"),
                )
                groups.append(Group(f"block-{number + 1}-{row + 1}", "label", f"{block.times} such blocks", items))
        return groups

    def _frame(self, units: list[int]) -> Rect:
        plan, place = self.plan, self.placement
        left = min(place.x[u] - self.cells[u].left for u in units) - 6.0
        right = max(place.x[u] + self.cells[u].right for u in units) + 6.0
        top = min(place.y[u] - self.cells[u].above for u in units)
        bottom = max(place.y[u] + self.cells[u].below for u in units)
        mine = set(units)
        for link in plan.links:
            if link.target in mine and link.lane is not None:
                y = place.axes[place.row[link.target]] + place.lane_y.get(link.lane, 0.0)
                top, bottom = min(top, y), max(bottom, y)
        return Rect(left, top - 14.0, right - left, bottom - top + 18.0)


def _mark_items(mark: str, x: float, y: float, side: int) -> list[Item]:
    wide = max(text_width(mark, 9.0) + 6.0, 12.0)
    left = x if side > 0 else x - wide
    return [
        Rect(left, y - 6.0, wide, 12.0, "#ffffff", LINE, 0.9, 6.0),
        Text(left + wide / 2, y + 3.0, mark, 9.0, INK, anchor="middle"),
    ]


def _moved(item: Item, dx: float, dy: float) -> Item:
    return replace(item, points=tuple((x + dx, y + dy) for x, y in item.points)) if isinstance(item, Path) else item
