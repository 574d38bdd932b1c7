"use strict";
// Where everything stands. Levels come laid out with their groups closed; opening a group stretches the level around it:
// x by a map that grows at least as fast as x, so that what stood apart stands apart, and y by rows. No layout is done here.
window.OnnxvizLayout = (() => {
  const HEAD = 26, PAD = 14, AROUND = 16, CHARACTER = 7.2; // px of a frame, and of a letter in its heading

  class Level {
    constructor(data, graph) {
      this.graph = graph;
      this.owner = data.owner;
      this.members = Int32Array.from(data.members);
      this.count = this.members.length; // boxes from here on are entries, then exits
      this.entries = data.entries;
      this.border = data.border;
      this.rank = Int32Array.from(data.rank);
      for (const key of ["x", "y", "w", "b", "e", "m"]) this[key] = Float64Array.from(data[key]);
      for (const key of ["s", "t", "v", "f"]) this[key] = Int32Array.from(data[key]);
      this.bands = Float64Array.from(data.bands);
      this.size = data.size;
      this.into = new Map(data.into); this.out = new Map(data.out);
      this.labels = new Map(data.labels);
      this.h = Float64Array.from(this.rank, (_, i) => i < this.count ? graph.boxes.h[this.members[i]] : 0);
      const ranks = this.bands.length / 2, all = this.rank.length;
      this.rows = Array.from({ length: ranks }, () => []);
      for (let i = 0; i < all; i++) this.rows[this.rank[i]].push(i);
      for (const row of this.rows) row.sort((i, j) => this.x[i] - this.x[j]);
      this.position = new Map(); // element -> box
      this.members.forEach((element, i) => this.position.set(element, i));
      this.gate = new Map(); // tensor -> box of its entry; and below of its exit
      this.leave = new Map();
      this.border.forEach((tensor, i) => (i < this.entries ? this.gate : this.leave).set(tensor, this.count + i));
      this.first = new Int32Array(this.s.length + 1); // where the course of each wire starts in m
      for (let i = 0; i < this.s.length; i++) {
        const between = this.f[i] & 1 ? 0 : Math.max(0, this.rank[this.t[i]] - this.rank[this.s[i]] - 1);
        this.first[i + 1] = this.first[i] + between;
      }
      for (const key of ["cx", "cy", "bw", "bh"]) this[key] = new Float64Array(all);
      this.top = new Float64Array(ranks); this.bottom = new Float64Array(ranks);
      this.mx = new Float64Array(this.m.length);
      for (const key of ["from", "to", "least", "most"]) this[key] = new Float64Array(this.s.length);
      this.open = new Map(); // box -> the level in it
      this.ox = this.oy = 0;
    }

    // Give every box its place, from the sizes of what is open in it.
    settle() {
      this.open.clear();
      for (let i = 0; i < this.count; i++) {
        const inner = this.graph.opened(this.members[i]);
        if (inner) { inner.settle(); this.open.set(i, inner); }
      }
      const stretch = this.stretched(), ranks = this.rows.length;
      for (let i = 0; i < this.rank.length; i++) {
        const inner = this.open.get(i);
        if (inner) {
          this.cx[i] = (stretch(this.x[i] - this.w[i] / 2) + stretch(this.x[i] + this.w[i] / 2)) / 2;
          [this.bw[i], this.bh[i]] = this.frame(i, inner);
        } else { this.cx[i] = stretch(this.x[i]); this.bw[i] = this.w[i]; this.bh[i] = this.h[i]; }
      }
      let y = 0;
      for (let r = 0; r < ranks; r++) {
        let high = this.bands[2 * r + 1] - this.bands[2 * r];
        if (this.open.size) for (const i of this.rows[r]) if (this.open.has(i)) high = Math.max(high, this.bh[i] + AROUND);
        if (r) y += this.bands[2 * r] - this.bands[2 * r - 1];
        this.top[r] = y; this.bottom[r] = y += high;
      }
      for (let i = 0; i < this.rank.length; i++) {
        const r = this.rank[i];
        this.cy[i] = (this.top[r] + this.bottom[r]) / 2 + (this.open.has(i) ? 0 : this.y[i]);
      }
      for (let k = 0; k < this.m.length; k++) this.mx[k] = stretch(this.m[k]);
      this.width = stretch(this.size[0]); this.height = y;
      this.courses();
    }

    // Where wires start and arrive, and how far left and right they reach.
    courses() {
      for (let i = 0; i < this.s.length; i++) {
        const a = this.s[i], b = this.t[i], out = this.open.get(a), into = this.open.get(b);
        this.from[i] = this.cx[a] + this.b[i]; this.to[i] = this.cx[b] + this.e[i];
        if (out && out.leave.has(this.v[i])) this.from[i] = this.cx[a] - out.width / 2 + out.cx[out.leave.get(this.v[i])];
        if (into && into.gate.has(this.v[i])) this.to[i] = this.cx[b] - into.width / 2 + into.cx[into.gate.get(this.v[i])];
        let least = Math.min(this.from[i], this.to[i]), most = Math.max(this.from[i], this.to[i]);
        for (let k = this.first[i]; k < this.first[i + 1]; k++) { least = Math.min(least, this.mx[k]); most = Math.max(most, this.mx[k]); }
        this.least[i] = least; this.most[i] = most;
      }
    }

    frame(i, inner) {
      const heading = this.graph.boxes.head[this.members[i]].length * CHARACTER + 60;
      return [Math.max(inner.width + 2 * PAD, heading, this.w[i]), inner.height + HEAD + PAD];
    }

    // The map of x: it stands still where nothing is open, and every open box finds its width.
    stretched() {
      const wanted = new Map();
      for (const [i, inner] of this.open) {
        const left = this.x[i] - this.w[i] / 2, right = this.x[i] + this.w[i] / 2, need = this.frame(i, inner)[0];
        const key = `${left} ${right}`, before = wanted.get(key);
        if (!before || before[2] < need) wanted.set(key, [left, right, need]);
      }
      if (!wanted.size) return (x) => x;
      const spans = [...wanted.values()], knots = [...new Set(spans.flatMap(([l, r]) => [l, r]))].sort((a, b) => a - b);
      const values = [knots[0]], slopes = [];
      for (let k = 0; k + 1 < knots.length; k++) {
        let slope = 1;
        for (const [l, r, need] of spans) if (l <= knots[k] && knots[k + 1] <= r) slope = Math.max(slope, need / (r - l));
        slopes.push(slope); values.push(values[k] + slope * (knots[k + 1] - knots[k]));
      }
      const last = knots.length - 1;
      return (x) => {
        if (x <= knots[0]) return x;
        if (x >= knots[last]) return values[last] + x - knots[last];
        let low = 0, high = last;
        while (high - low > 1) { const mid = (low + high) >> 1; if (knots[mid] <= x) low = mid; else high = mid; }
        return values[low] + slopes[low] * (x - knots[low]);
      };
    }

    // Set the level and what is open in it at a place of the world.
    place(ox, oy) {
      this.ox = ox; this.oy = oy;
      for (const [i, inner] of this.open)
        inner.place(ox + this.cx[i] - inner.width / 2, oy + this.cy[i] - this.bh[i] / 2 + HEAD);
    }
  }

  class Graph {
    constructor(data) {
      Object.assign(this, data);
      const boxes = data.boxes, count = boxes.id.length;
      this.closed = new Set(data.closed);
      this.byId = new Map(boxes.id.map((id, element) => [id, element]));
      this.levels = new Map(data.levels.map((level) => [level.owner, new Level(level, this)]));
      this.root = this.levels.get(-1);
      this.count = count;
      this.lay();
    }
    opened(element) { return this.closed.has(element) ? undefined : this.levels.get(element); }
    lay() { this.root.settle(); this.root.place(0, 0); }
    home(element) { return this.levels.get(this.boxes.parent[element]); }
    // Left, top, width and height in the world; null where a closed group hides the element.
    rect(element) {
      for (let up = this.boxes.parent[element]; up >= 0; up = this.boxes.parent[up]) if (this.closed.has(up)) return null;
      const level = this.home(element), i = level.position.get(element);
      return [level.ox + level.cx[i] - level.bw[i] / 2, level.oy + level.cy[i] - level.bh[i] / 2, level.bw[i], level.bh[i]];
    }
    // The element itself, or the outermost closed group around it.
    visible(element) {
      let shown = element;
      for (let up = this.boxes.parent[element]; up >= 0; up = this.boxes.parent[up]) if (this.closed.has(up)) shown = up;
      return shown;
    }
    path(element) {
      const found = [];
      for (let up = element; up >= 0; up = this.boxes.parent[up]) found.unshift(up);
      return found;
    }
    reveal(element) {
      let changed = false;
      for (let up = this.boxes.parent[element]; up >= 0; up = this.boxes.parent[up]) changed = this.closed.delete(up) || changed;
      if (changed) this.lay();
    }
    toggle(element, open = this.closed.has(element)) {
      if (!this.levels.has(element) || element < 0) return;
      if (open) this.closed.delete(element); else this.closed.add(element);
      this.lay();
    }
    all(open) {
      this.closed = new Set(open ? [] : [...this.levels.keys()].filter((owner) => owner >= 0));
      this.lay();
    }
    // The box at a point of the world: its element, and whether the point lies on its sign or an open frame's heading.
    at(x, y, level = this.root) {
      const px = x - level.ox, py = y - level.oy, r = lowest(level.bottom, py);
      if (r >= level.top.length || level.top[r] > py) return null;
      const row = level.rows[r], first = lowest({ length: row.length }, px, (k) => level.cx[row[k]] + level.bw[row[k]] / 2);
      for (let k = first; k < row.length; k++) {
        const i = row[k], left = px - level.cx[i] + level.bw[i] / 2, down = py - level.cy[i] + level.bh[i] / 2;
        if (left < 0) return null;
        if (i >= level.count || left > level.bw[i] || down < 0 || down > level.bh[i]) continue;
        const element = level.members[i], inner = level.open.get(i);
        const found = { element, open: Boolean(inner), sign: left < 24 && down < 22 && this.levels.has(element) };
        return inner && down >= HEAD ? this.at(x, y, inner) || found : found;
      }
      return null;
    }
    // Everything that leads to an element, or that it leads to; groups stand for what they hold.
    trace(element, forward) {
      if (!this.next) {
        const [sources, targets] = this.flow;
        this.next = neighbours(this.count, sources, targets); this.before = neighbours(this.count, targets, sources);
      }
      const [starts, ends] = forward ? this.next : this.before, seen = new Uint8Array(this.count), pending = this.within(element);
      for (const v of pending) seen[v] = 1;
      while (pending.length) {
        const v = pending.pop();
        for (let k = starts[v]; k < starts[v + 1]; k++) if (!seen[ends[k]]) { seen[ends[k]] = 1; pending.push(ends[k]); }
      }
      for (let v = this.count - 1; v >= 0; v--) // a group with something of it is part of it; groups come after their nodes
        if (seen[v]) for (let up = this.boxes.parent[v]; up >= 0 && !seen[up]; up = this.boxes.parent[up]) seen[up] = 1;
      return seen;
    }
    within(element) {
      const level = this.levels.get(element);
      return level ? [element, ...[...level.members].flatMap((member) => this.within(member))] : [element];
    }
  }

  function neighbours(count, from, to) {
    const starts = new Int32Array(count + 1), ends = new Int32Array(from.length);
    for (const v of from) starts[v + 1]++;
    for (let v = 0; v < count; v++) starts[v + 1] += starts[v];
    const at = starts.slice();
    for (let k = 0; k < from.length; k++) ends[at[from[k]]++] = to[k];
    return [starts, ends];
  }

  // The first index whose value is at least x.
  function lowest(values, x, read = (k) => values[k]) {
    let low = 0, high = values.length;
    while (low < high) { const mid = (low + high) >> 1; if (read(mid) < x) low = mid + 1; else high = mid; }
    return low;
  }

  return { Graph, HEAD, lowest };
})();
