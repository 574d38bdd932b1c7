"use strict";
// Draws what is in view, in as much detail as can be seen.
window.OnnxvizPainter = (() => {
  const { HEAD, lowest } = window.OnnxvizLayout;
  const FONT = "'DejaVu Sans', Verdana, Arial, sans-serif";
  const HEADING = 11, BODY = 9.5, LABEL = 9, HEADER = 20, LINE = 13, PADDING = 8, GLYPH = 9, INDENT = PADDING + GLYPH + 6;
  const NODE = 0, GROUP = 1, CONSTANT = 4, MISSING = 5; // roles
  const SYMBOLIC = 1, OBSERVED = 2; // kinds of shapes

  class Painter {
    constructor(graph, canvas) {
      this.graph = graph;
      this.canvas = canvas;
      this.context = canvas.getContext("2d", { alpha: false });
      this.glyphs = graph.kinds.map(([, , , path]) => new Path2D(path));
      this.pictures = new Map(); // of thumbnails, by address
    }

    colour(index) { return this.palette[index]; }
    paper(name) { return this.palette[this.graph.paper[name]]; }

    fill(element) {
      const { boxes, kinds } = this.graph, own = boxes.fill.length ? boxes.fill[element] : -1;
      return this.colour(boxes.role[element] < 2 && own >= 0 ? own : kinds[boxes.kind[element]][1]);
    }

    // view: x and y of the world at the canvas's corner, and the scale; state: theme, selected, hover, traced, found.
    draw(view, state) {
      const { context: c, canvas, graph } = this, ratio = window.devicePixelRatio || 1;
      const wide = canvas.clientWidth, high = canvas.clientHeight;
      if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
        canvas.width = Math.round(wide * ratio); canvas.height = Math.round(high * ratio);
      }
      this.palette = graph.colours[state.theme];
      this.state = state; this.scale = view.scale;
      this.box = [view.x, view.y, view.x + wide / view.scale, view.y + high / view.scale];
      this.ratio = ratio; this.view = view;
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
      c.fillStyle = this.paper("paper"); c.fillRect(0, 0, wide, high);
      c.direction = "ltr"; c.textBaseline = "alphabetic"; c.lineJoin = "round";
      this.level(graph.root);
    }

    // Points of a level, in screen px relative to its corner: far from the world's corner floats of a canvas are too coarse.
    level(level) {
      const { context: c, scale, view, ratio } = this;
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
      const dx = (level.ox - view.x) * scale, dy = (level.oy - view.y) * scale;
      const at = { x: (x) => dx + x * scale, y: (y) => dy + y * scale };
      const [left, top, right, bottom] = this.box;
      const seen = { x0: left - level.ox, y0: top - level.oy, x1: right - level.ox, y1: bottom - level.oy };
      this.wires(level, at, seen);
      let last = -1;
      for (let r = Math.max(0, lowest(level.bottom, seen.y0) - 1); r < level.top.length && level.top[r] <= seen.y1; r++) {
        const high = (level.bottom[r] - level.top[r]) * scale, row = level.rows[r];
        if (high < 0.7 && Math.floor(at.y(level.top[r])) === last) continue;
        last = Math.floor(at.y(level.top[r]));
        let column = -2;
        const first = lowest({ length: row.length }, seen.x0 - 200, (k) => level.cx[row[k]] + level.bw[row[k]] / 2);
        for (let k = first; k < row.length; k++) {
          const i = row[k], x = level.cx[i] - level.bw[i] / 2;
          if (x > seen.x1 + 200) break;
          const px = at.x(x), wide = level.bw[i] * scale;
          if (wide < 0.7 && Math.floor(px) === column) continue;
          column = Math.floor(px);
          const y = at.y(level.cy[i] - level.bh[i] / 2), inner = level.open.get(i);
          this.stubs(level, i, at);
          if (i >= level.count) continue;
          const element = level.members[i];
          c.globalAlpha = this.dimmed(element) ? 0.25 : 1;
          if (inner) this.frame(level, i, px, y, inner); else this.block(element, px, y, wide, level.bh[i] * scale);
          c.globalAlpha = 1;
        }
      }
      c.globalAlpha = 1;
    }

    dimmed(element) { return this.state.traced && !this.state.traced[element]; }

    wires(level, at, seen) {
      const { context: c, scale, state } = this, plain = new Path2D(), dashed = new Path2D(), marked = new Path2D(), keyed = new Path2D();
      const heads = [new Path2D(), new Path2D(), new Path2D()], traced = state.traced, chosen = state.selected;
      const member = (i) => i < level.count ? level.members[i] : -1;
      for (let i = 0; i < level.s.length; i++) {
        if (level.f[i] & 1 || level.most[i] < seen.x0 || level.least[i] > seen.x1) continue;
        const a = level.s[i], b = level.t[i];
        const y0 = level.cy[a] + level.bh[a] / 2, y1 = level.cy[b] - level.bh[b] / 2;
        if (y1 < seen.y0 || y0 > seen.y1 || (y1 - y0) * scale < 1) continue;
        const from = member(a), to = member(b);
        const near = chosen >= 0 && (from === chosen || to === chosen);
        const along = traced && (from < 0 || traced[from]) && (to < 0 || traced[to]);
        const strong = near || along, key = level.f[i] & 8;
        const line = strong ? marked : key ? keyed : level.f[i] & 4 ? dashed : plain;
        this.course(line, level, i, at, y0, y1, seen);
        if (scale > 0.3 && b < level.count && !level.open.has(b)) {
          const x = at.x(level.to[i]), y = at.y(y1), k = Math.min(scale, 1.6), head = heads[strong ? 1 : key ? 2 : 0];
          head.moveTo(x - 3 * k, y - 6 * k); head.lineTo(x + 3 * k, y - 6 * k); head.lineTo(x, y); head.closePath();
        }
      }
      c.globalAlpha = traced ? 0.3 : 1;
      c.lineWidth = Math.max(0.5, Math.min(1.6, 1.1 * scale)); c.strokeStyle = c.fillStyle = this.paper("line");
      c.stroke(plain); c.fill(heads[0]);
      c.setLineDash([4 * scale, 3 * scale]); c.stroke(dashed); c.setLineDash([]);
      c.lineWidth = Math.max(1.5, 3 * scale); c.strokeStyle = c.fillStyle = this.paper("key");
      c.stroke(keyed); c.fill(heads[2]);
      c.globalAlpha = 1;
      c.lineWidth = Math.max(1.2, 1.8 * scale); c.strokeStyle = c.fillStyle = this.paper("trace");
      c.stroke(marked); c.fill(heads[1]);
      if (scale < 0.5) return;
      c.textAlign = "left";
      for (const [i, [label, kind]] of level.labels) {
        const a = level.s[i], x = at.x(level.from[i]) + 4 * scale, sheet = a < level.count && this.graph.boxes.role[level.members[a]] === GROUP && !level.open.has(a) ? 2.5 : 0;
        const y = at.y(level.cy[a] + level.bh[a] / 2) + (10.5 + sheet) * scale;
        if (level.cy[a] > seen.y1 || level.cy[a] + level.bh[a] < seen.y0) continue;
        this.shape(label, kind, x, y, LABEL);
      }
    }

    // A shape: slanted where it depends on open dimensions, after an open eye where a run showed it.
    shape(text, kind, x, y, size, most) {
      const { context: c, scale } = this;
      c.font = `${kind === SYMBOLIC ? "italic " : ""}${size * scale}px ${FONT}`;
      c.fillStyle = this.paper(kind === SYMBOLIC ? "symbolic" : kind === OBSERVED ? "observed" : "muted");
      if (kind === OBSERVED) {
        const left = c.textAlign === "center" ? x - c.measureText(text).width / 2 - 6 * scale : x, middle = y - 0.36 * size * scale;
        c.strokeStyle = this.paper("observed"); c.lineWidth = scale;
        c.beginPath(); c.ellipse(left + 4.5 * scale, middle, 4.5 * scale, 2.9 * scale, 0, 0, 2 * Math.PI); c.stroke();
        c.beginPath(); c.arc(left + 4.5 * scale, middle, 1.2 * scale, 0, 2 * Math.PI); c.fill();
        x += (c.textAlign === "center" ? 6 : 12) * scale;
      }
      if (most) c.fillText(text, x, y, most); else c.fillText(text, x, y);
    }

    // The pictures of a tensor at a block's lower end.
    strip([pictures, caption, high], x, y, w, h) {
      const { context: c, scale } = this;
      c.imageSmoothingEnabled = false;
      for (const [left, up, wide, tall, address] of pictures) {
        let picture = this.pictures.get(address);
        if (!picture) { this.pictures.set(address, picture = new Image()); picture.onload = () => this.later(); picture.src = address; }
        if (picture.complete && picture.naturalWidth) c.drawImage(picture, x + w / 2 + left * scale, y + h + up * scale, wide * scale, tall * scale);
      }
      if (!caption || scale < 0.5) return;
      c.font = `${8 * scale}px ${FONT}`; c.textAlign = "center"; c.fillStyle = this.paper("muted");
      c.fillText(caption, x + w / 2, y + h - 8 * scale);
    }

    // Vertical within ranks, an S-curve between them; straight where nobody sees the difference.
    course(line, level, i, at, y0, y1, seen) {
      const coarse = this.scale < 0.2, first = level.first[i], count = level.first[i + 1] - first, rank = level.rank[level.s[i]];
      let x = at.x(level.from[i]), y = level.bottom[rank];
      let k = 0;
      if (count > 40 && y < seen.y0) { // skip what lies above the view
        k = Math.max(0, Math.min(count, lowest(level.bottom, seen.y0) - rank - 2));
        if (k > 0) { x = at.x(level.mx[first + k - 1]); y = level.bottom[rank + k]; }
      }
      line.moveTo(x, k ? at.y(y) : at.y(y0));
      const step = (next, top, bottom) => {
        const from = at.y(y), to = at.y(top);
        if (Math.abs(next - x) < 0.3 || coarse) { line.lineTo(x, from); line.lineTo(next, to); }
        else { line.lineTo(x, from); const mid = (from + to) / 2; line.bezierCurveTo(x, mid, next, mid, next, to); }
        x = next; y = bottom;
      };
      for (; k < count; k++) {
        if (level.top[rank + 1 + k] > seen.y1 + 200) { line.lineTo(x, at.y(level.top[rank + 1 + k])); return; }
        step(at.x(level.mx[first + k]), level.top[rank + 1 + k], level.bottom[rank + 1 + k]);
      }
      step(at.x(level.to[i]), level.top[level.rank[level.t[i]]], y1);
      line.lineTo(x, at.y(y1));
    }

    // The labelled ends of lines that are not drawn.
    stubs(level, i, at) {
      const { context: c, scale } = this, into = level.into.get(i), out = level.out.get(i);
      if (scale < 0.45 || !(into || out)) return;
      const middle = at.y(level.cy[i]), left = at.x(level.cx[i] - level.bw[i] / 2), right = at.x(level.cx[i] + level.bw[i] / 2);
      c.font = `${LABEL * scale}px ${FONT}`; c.strokeStyle = this.paper("line"); c.lineWidth = 1.1 * scale;
      const rows = (names, draw) => names.forEach((name, k) => draw(name, middle + (k - (names.length - 1) / 2) * 12 * scale));
      const arrow = (x, y) => { // its tip
        c.beginPath(); c.moveTo(x - 14 * scale, y); c.lineTo(x, y);
        c.moveTo(x - 4 * scale, y - 3 * scale); c.lineTo(x, y); c.lineTo(x - 4 * scale, y + 3 * scale); c.stroke();
      };
      c.fillStyle = this.paper("ink");
      if (into) rows(into, (name, y) => { arrow(left, y); c.textAlign = "right"; c.fillText(name, left - 17 * scale, y + 3.2 * scale); });
      if (out) rows(out, (name, y) => { arrow(right + 14 * scale, y); c.textAlign = "left"; c.fillText(name, right + 17 * scale, y + 3.2 * scale); });
    }

    round(x, y, w, h, r) { this.context.beginPath(); this.context.roundRect(x, y, w, h, Math.min(r, w / 2, h / 2)); }

    outline(element, stroke) {
      const { context: c, state } = this;
      if (element >= 0 && (element === state.selected || element === state.hover || state.found.has(element))) {
        c.lineWidth = element === state.hover && element !== state.selected ? 1.6 : 2.6;
        c.strokeStyle = this.paper(element === state.hover && element !== state.selected ? "ink" : "mark");
      } else { c.lineWidth = Math.min(1, this.scale * 1.2); c.strokeStyle = stroke; }
      c.stroke();
    }

    block(element, x, y, w, h) {
      const { context: c, graph, scale } = this, boxes = graph.boxes, role = boxes.role[element];
      const node = role === NODE || role === GROUP, [, , stroke] = graph.kinds[boxes.kind[element]];
      const terminal = role === MISSING ? "missing" : role === CONSTANT ? "constant" : "terminal";
      c.fillStyle = node ? this.fill(element) : this.paper(terminal);
      if (h < 4) {
        c.fillRect(x, y, Math.max(w, 1), Math.max(h, 1));
        if (element === this.state.selected || this.state.found.has(element)) { c.fillStyle = this.paper("mark"); c.fillRect(x - 2, y - 2, Math.max(w, 1) + 4, Math.max(h, 1) + 4); }
        return;
      }
      if (role === GROUP) { // a second sheet behind it
        this.round(x + 3 * scale, y + 3 * scale, w, h, 4 * scale); c.fill(); this.outline(-1, this.colour(stroke));
        c.fillStyle = this.fill(element);
      }
      this.round(x, y, w, h, node ? 4 * scale : Math.min(h / 2, 17 * scale));
      c.fill();
      const lines = boxes.lines[element], strip = boxes.strip[element];
      if (node && (lines.length || strip) && scale > 0.25) {
        c.fillStyle = this.paper("lower"); c.beginPath();
        c.roundRect(x, y + HEADER * scale, w, h - HEADER * scale, [0, 0, 4 * scale, 4 * scale]); c.fill();
        this.round(x, y, w, h, 4 * scale);
      }
      this.outline(element, node ? this.colour(stroke) : this.paper(role === MISSING ? "warning" : "terminalLine"));
      if (strip) this.strip(strip, x, y, w, h);
      if (HEADING * scale < 4) return;
      const ink = this.paper(role === MISSING ? "warning" : "ink"), text = (at, size, bold, align, px, py, most) => {
        c.font = `${bold ? "bold " : ""}${size * scale}px ${FONT}`; c.textAlign = align; c.fillText(at, px, py, Math.max(most, 1));
      };
      c.fillStyle = ink;
      if (!node) {
        text(boxes.head[element], HEADING, true, "center", x + w / 2, y + 14 * scale, w - 8 * scale);
        if (role === MISSING) { c.fillStyle = this.paper("warning"); text(boxes.note[element], BODY, false, "center", x + w / 2, y + 27 * scale, w - 8 * scale); }
        else this.shape(boxes.note[element], boxes.shape[element] || 0, x + w / 2, y + 27 * scale, BODY, w - 8 * scale);
        return;
      }
      this.sign(element, x, y, false);
      c.fillStyle = ink;
      text(boxes.head[element], HEADING, true, "left", x + INDENT * scale, y + 14 * scale, w - (INDENT + 4) * scale);
      if (boxes.note[element]) text(boxes.note[element], BODY, false, "right", x + w - PADDING * scale, y + 14 * scale, w / 2);
      lines.forEach((line, k) => text(line, BODY, false, "left", x + PADDING * scale, y + (HEADER + LINE * (k + 1) - 2) * scale, w - 8 * scale));
    }

    // The glyph of a kind, or the plus and minus that open and close.
    sign(element, x, y, open) {
      const { context: c, graph, scale } = this, size = GLYPH * scale;
      const left = x + PADDING * scale, top = y + (HEADER - GLYPH) / 2 * scale;
      c.strokeStyle = this.paper("ink"); c.lineWidth = 0.9 * scale;
      if (graph.levels.has(element)) {
        c.strokeRect(left, top, size, size); c.beginPath();
        c.moveTo(left + size * 0.22, top + size / 2); c.lineTo(left + size * 0.78, top + size / 2);
        if (!open) { c.moveTo(left + size / 2, top + size * 0.22); c.lineTo(left + size / 2, top + size * 0.78); }
        c.stroke();
        return;
      }
      c.save(); c.translate(left, top); c.scale(size, size); c.lineWidth = 0.9 / GLYPH;
      c.stroke(this.glyphs[graph.boxes.kind[element]]); c.restore();
    }

    frame(level, i, x, y, inner) {
      const { context: c, graph, scale } = this, element = level.members[i], boxes = graph.boxes;
      const w = level.bw[i] * scale, h = level.bh[i] * scale, stroke = graph.kinds[boxes.kind[element]][2];
      c.fillStyle = this.paper("frame");
      this.round(x, y, w, h, 6 * scale); c.fill();
      this.outline(element, this.colour(stroke));
      this.through(inner);
      if (HEADING * scale >= 4) {
        c.font = `bold ${HEADING * scale}px ${FONT}`; c.textAlign = "left";
        const most = w - INDENT * scale - 8, wide = Math.min(c.measureText(boxes.head[element]).width, most);
        c.fillStyle = this.paper("frame"); // lines pass behind the heading
        c.fillRect(x + 4 * scale, y + 3 * scale, wide + INDENT * scale, 16 * scale);
        this.sign(element, x, y, true);
        c.fillStyle = this.paper("ink"); c.fillText(boxes.head[element], x + INDENT * scale, y + 14 * scale, Math.max(most, 1));
      }
      c.globalAlpha = 1;
      this.level(inner);
    }

    // Lines go on from the frame's border to where they are used inside, and from inside to the border.
    through(inner) {
      const { context: c, scale, view } = this, x = (v) => (inner.ox + v - view.x) * scale, y = (v) => (inner.oy + v - view.y) * scale;
      if (!inner.keyed) inner.keyed = new Set(Array.from(inner.f).flatMap((flag, k) => flag & 8 ? [inner.s[k], inner.t[k]] : []));
      const plain = new Path2D(), keyed = new Path2D(), line = (i) => inner.keyed.has(i) ? keyed : plain;
      const draw = (i, from, to) => { line(i).moveTo(x(inner.cx[i]), y(from)); line(i).lineTo(x(inner.cx[i]), y(to)); };
      for (const i of inner.gate.values()) draw(i, -HEAD, inner.cy[i]);
      for (const i of inner.leave.values()) draw(i, inner.cy[i], inner.height + 14);
      c.strokeStyle = this.paper("line"); c.lineWidth = Math.max(0.5, Math.min(1.6, 1.1 * scale)); c.stroke(plain);
      c.strokeStyle = this.paper("key"); c.lineWidth = Math.max(1.5, 3 * scale); c.stroke(keyed);
    }
  }
  return Painter;
})();
