// A sheet of vector strokes on a canvas: pen with pressure, eraser, undo, redo, keyboard. Units: SIDE a side, x right, y down.
// A stroke is an array of points [x, y, pressure]; finished strokes never change, so that history can share them.

export const SIDE = 1000;
const PEN = 7;          // width at full pressure of a mouse, units
const ERASER = 28;      // radius, units
const STEP = 24, SMALL_STEP = 4;  // of the arrow keys
const HISTORY = 300;
const MAX_POINTS = 18000; // the server takes 20,000
const SPACING = 1.5;    // units; nearer points add nothing

export class Board {
  constructor(canvas, cursor, onChange) {
    this.canvas = canvas;
    this.cursor = cursor;
    this.onChange = onChange;
    this.tool = "pen";
    this.reset();
    this.keys = { x: SIDE / 2, y: SIDE / 2 };
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.end(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.lift(); this.cursor.hidden = true; });
    new ResizeObserver(() => this.fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  // ---- state ----
  reset() {
    this.history = [[]];
    this.at = 0;
    this.live = null;     // the stroke being drawn, or the strokes as erased so far
    this.pointer = null;
    this.byKeys = false;
    if (this.context) { this.paint(); this.onChange(false); }
  }
  get strokes() {
    const held = this.history[this.at];
    if (!this.live) return held;
    return this.live.erased ?? [...held, this.live.points];
  }
  get empty() { return this.strokes.length === 0; }
  get canUndo() { return this.at > 0; }
  get canRedo() { return this.at < this.history.length - 1; }
  get points() { return this.strokes.reduce((sum, stroke) => sum + stroke.length, 0); }

  commit(strokes) {
    this.history = [...this.history.slice(0, this.at + 1), strokes].slice(-HISTORY);
    this.at = this.history.length - 1;
    this.paint();
    this.onChange(false);
  }
  undo() { this.lift(); if (this.canUndo) this.to(this.at - 1); }
  redo() { this.lift(); if (this.canRedo) this.to(this.at + 1); }
  to(place) { this.at = place; this.paint(); this.onChange(false); }
  clear() { this.lift(); if (!this.empty) this.commit([]); }

  // ---- pointers ----
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const pressure = event.pointerType === "mouse" || !event.pressure ? 0.5 : event.pressure;
    const unit = (value, from, size) => Math.min(SIDE, Math.max(0, ((value - from) / size) * SIDE));
    return [unit(event.clientX, box.left, box.width), unit(event.clientY, box.top, box.height), pressure];
  }
  begin(event) {
    if (this.pointer !== null || (event.pointerType === "mouse" && event.button > 0)) return; // one pen at a time: palms wait
    this.lift();
    this.cursor.hidden = true;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.start(this.tool === "eraser" || (event.buttons & 32) !== 0, this.point(event));
  }
  go(event) {
    if (event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.move(this.point(one));
    this.onChange(true);
  }
  end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.finish();
  }

  // ---- strokes ----
  start(erasing, point) {
    this.live = erasing ? { erased: this.history[this.at] } : { points: [] };
    this.move(point);
  }
  move(point) {
    if (this.live.erased) {
      const way = dense([this.live.last ?? point, point]); // a quick eraser jumps
      this.live.last = point;
      const left = way.reduce((strokes, at) => strokes.flatMap((stroke) => without(stroke, at)), this.live.erased);
      if (left.length !== this.live.erased.length || left.some((stroke, i) => stroke !== this.live.erased[i])) {
        this.live.erased = left;
        this.paint();
      }
      return;
    }
    const points = this.live.points, last = points[points.length - 1];
    if (last && Math.hypot(point[0] - last[0], point[1] - last[1]) < SPACING) return;
    if (this.points >= MAX_POINTS) return;
    points.push(point.map((value) => Math.round(value * 100) / 100));
    this.segment(last ?? point, point);
  }
  finish() {
    const live = this.live;
    this.live = null;
    this.byKeys = false;
    this.cursor.classList.remove("down");
    if (!live) return;
    const held = this.history[this.at];
    if (live.erased) {
      if (live.erased !== held) this.commit(live.erased); else this.onChange(false);
    } else {
      const dot = live.points.length === 1 ? [[live.points[0][0] + 1, live.points[0][1], live.points[0][2]]] : [];
      this.commit([...held, [...live.points, ...dot]]);
    }
  }
  lift() { if (this.byKeys) this.finish(); }

  // ---- keyboard ----
  key(event) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey || this.pointer !== null) return;
    const way = ways[event.key];
    if (way) {
      const step = event.shiftKey ? SMALL_STEP : STEP;
      const clip = (value) => Math.min(SIDE, Math.max(0, value));
      this.keys = { x: clip(this.keys.x + way[0] * step), y: clip(this.keys.y + way[1] * step) };
      if (this.byKeys) { this.move([this.keys.x, this.keys.y, 0.5]); this.onChange(true); }
    } else if (event.key === " " || event.key === "Enter") {
      if (this.byKeys) {
        this.finish();
      } else {
        this.byKeys = true;
        this.cursor.classList.add("down");
        this.start(this.tool === "eraser", [this.keys.x, this.keys.y, 0.5]);
      }
    } else if (event.key === "Escape") {
      this.lift();
    } else {
      return;
    }
    event.preventDefault();
    this.cursor.hidden = false;
    this.cursor.style.left = `${(this.keys.x / SIDE) * 100}%`;
    this.cursor.style.top = `${(this.keys.y / SIDE) * 100}%`;
  }

  // ---- pixels ----
  fit() {
    const ratio = window.devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    this.canvas.width = Math.max(1, Math.round(box.width * ratio));
    this.canvas.height = Math.max(1, Math.round(box.height * ratio));
    this.context = this.canvas.getContext("2d");
    this.paint();
  }
  paint() {
    if (!this.context) return;
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.context.setTransform(this.canvas.width / SIDE, 0, 0, this.canvas.height / SIDE, 0, 0);
    this.context.lineCap = "round";
    this.context.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--ink");
    for (const stroke of this.strokes) stroke.forEach((point, i) => this.segment(stroke[Math.max(0, i - 1)], point));
  }
  segment(from, to) {
    if (!this.context) return;
    this.context.lineWidth = width((from[2] + to[2]) / 2);
    this.context.beginPath();
    this.context.moveTo(from[0], from[1]);
    this.context.lineTo(to[0], to[1]);
    this.context.stroke();
  }

  svg() {
    const lines = this.strokes.map((stroke) => {
      const mean = stroke.reduce((sum, point) => sum + point[2], 0) / stroke.length;
      const points = stroke.map(([x, y]) => `${round(x)},${round(y)}`).join(" ");
      return `<polyline points="${points}" stroke-width="${round(width(mean))}"/>`;
    });
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${SIDE} ${SIDE}" width="${SIDE}" height="${SIDE}">\n` +
      `<g fill="none" stroke="#000" stroke-linecap="round" stroke-linejoin="round">\n${lines.join("\n")}\n</g>\n</svg>\n`;
  }
}

const round = (value) => Math.round(value * 10) / 10;
const width = (pressure) => PEN * (0.4 + 1.2 * pressure);

// What the eraser at a point leaves of a stroke: pieces of two points or more; the stroke itself where it does not touch it.
function without(stroke, [x, y]) {
  const near = (a, b) => distance(x, y, a, b) <= ERASER;
  if (!stroke.some((point, i) => near(stroke[Math.max(0, i - 1)], point))) return [stroke];
  const pieces = [[]];
  for (const point of dense(stroke)) {
    if (Math.hypot(point[0] - x, point[1] - y) <= ERASER) pieces.push([]);
    else pieces[pieces.length - 1].push(point);
  }
  return pieces.filter((piece) => piece.length > 1);
}

function dense(stroke) {
  const points = [stroke[0]];
  for (let i = 1; i < stroke.length; i++) {
    const [a, b] = [stroke[i - 1], stroke[i]];
    const parts = Math.ceil(Math.hypot(b[0] - a[0], b[1] - a[1]) / (ERASER / 3)) || 1;
    for (let part = 1; part <= parts; part++) points.push(a.map((value, axis) => value + ((b[axis] - value) * part) / parts));
  }
  return points;
}

function distance(x, y, a, b) {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const along = Math.min(1, Math.max(0, ((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - a[0] - along * dx, y - a[1] - along * dy);
}
