// One grid on the screen: a canvas that draws what is visible of it, and an ARIA grid that says the cell in focus.

import { inkOn, paint, paintColour } from "./colour.js";

/** @typedef {import("./fields.js").Field} Field */
/** @typedef {import("./fields.js").Piece} Piece */
/** @typedef {import("./colour.js").PaletteName} PaletteName */
/** A cell with a ring around it. style: "window" thin, "winner" thick, "reader" dashed.
 * @typedef {{row: number, column: number, style: "window" | "winner" | "reader" | "focus"}} Mark */
/** A window along one side: from where to where. @typedef {{from: number, to: number}} Bracket */
/** What a board shows.
 * @typedef {object} Picture
 * @property {string} label what it is, said to those who do not see it
 * @property {Field[]} fields one, or red, green and blue
 * @property {PaletteName} palette
 * @property {[number, number]} range
 * @property {[number, number, number, number]} margin padding around the elements: top, left, bottom, right
 * @property {[boolean[], boolean[]]} unread rows and columns that no window reads
 * @property {boolean} ruled whether there is room for the windows along the sides (beside such a board, all have it)
 * @property {[Bracket[], Bracket[]]} brackets the windows along both axes
 * @property {Mark[]} marks
 * @property {{row: number, column: number} | null} focus
 * @property {(row: number, column: number) => string} say a cell in words
 */
/** What a board tells.
 * @typedef {object} Listener
 * @property {(row: number, column: number) => void} point a cell under the pointer or the arrow keys
 * @property {() => void} leave Escape: no cell any more
 * @property {(place: Place) => void} move
 */
/** centre row and column, and pixels per cell, as shares of the grid: boards of different sizes can share it.
 * @typedef {{row: number, column: number, zoom: number}} Place */

export const WHOLE = /** @type {Place} */ ({ row: 0.5, column: 0.5, zoom: 1 });
const RULER = 22;
const EDGE = 6;
const LARGEST_CELL = 72;

export class Board {
  /** @param {HTMLElement} parent @param {Listener} listener */
  constructor(parent, listener) {
    this.listener = listener;
    this.id = `board-${Math.random().toString(36).slice(2, 10)}`;
    /** @type {Picture | null} */
    this.picture = null;
    this.place = WHOLE;
    this.element = element("div", "board", { role: "grid", tabindex: "0" });
    this.canvas = /** @type {HTMLCanvasElement} */ (element("canvas", "", { "aria-hidden": "true" }));
    const row = element("div", "spoken", { role: "row" });
    this.spoken = element("div", "", { role: "gridcell", id: `${this.id}-cell` });
    row.append(this.spoken);
    this.row = row;
    this.element.append(this.canvas, row);
    parent.append(this.element);
    /** @type {Map<string, {canvas: HTMLCanvasElement, values: Float64Array, look: string}>} */
    this.bitmaps = new Map();
    this.waiting = 0;
    this.listen();
    this.observer = new ResizeObserver(() => this.redraw());
    this.observer.observe(this.element);
  }

  remove() {
    this.observer.disconnect();
    cancelAnimationFrame(this.waiting);
    this.element.remove();
  }

  /** @param {Picture} picture @param {Place} place */
  show(picture, place) {
    this.picture = picture;
    this.place = place;
    const { rows, columns } = picture.fields[0];
    set(this.element, { "aria-label": picture.label, "aria-rowcount": String(rows), "aria-colcount": String(columns) });
    const { row, column } = picture.focus ?? { row: 0, column: 0 };
    set(this.row, { "aria-rowindex": String(row + 1) });
    set(this.spoken, { "aria-colindex": String(column + 1) });
    this.spoken.textContent = picture.say(row, column);
    if (picture.focus) set(this.element, { "aria-activedescendant": this.spoken.id });
    else this.element.removeAttribute("aria-activedescendant");
    this.redraw();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.picture && this.element.isConnected) this.draw(this.picture);
    });
  }

  // ---- where things are ----------------------------------------------------------------------------------------

  /** Pixels per cell, and where element (0, 0) begins. */
  get view() {
    const picture = /** @type {Picture} */ (this.picture);
    const { rows, columns } = picture.fields[0];
    const [top, left, bottom, right] = picture.margin;
    const ruler = this.ruler;
    const width = this.element.clientWidth - ruler - 2 * EDGE;
    const height = this.element.clientHeight - ruler - 2 * EDGE;
    const fit = Math.min(width / (columns + left + right), height / (rows + top + bottom), LARGEST_CELL);
    const cell = Math.max(fit * this.place.zoom, 1e-3);
    const centre = [this.place.row * (rows + top + bottom) - top, this.place.column * (columns + left + right) - left];
    return { cell, x: ruler + EDGE + width / 2 - centre[1] * cell, y: ruler + EDGE + height / 2 - centre[0] * cell, ruler, fit };
  }

  get ruler() {
    return this.picture?.ruled ? RULER : 0;
  }

  /** @param {number} clientX @param {number} clientY @returns {[number, number] | null} the cell under a point */
  cellAt(clientX, clientY) {
    const picture = /** @type {Picture} */ (this.picture);
    const box = this.canvas.getBoundingClientRect();
    const { cell, x, y } = this.view;
    const [row, column] = [Math.floor((clientY - box.top - y) / cell), Math.floor((clientX - box.left - x) / cell)];
    const { rows, columns } = picture.fields[0];
    return row >= 0 && column >= 0 && row < rows && column < columns ? [row, column] : null;
  }

  /** The middle of a cell, in the page. @param {number} row @param {number} column */
  middleOf(row, column) {
    const box = this.canvas.getBoundingClientRect();
    const { cell, x, y } = this.view;
    return { x: box.left + x + (column + 0.5) * cell, y: box.top + y + (row + 0.5) * cell };
  }

  // ---- drawing -------------------------------------------------------------------------------------------------

  /** @param {Picture} picture */
  draw(picture) {
    const [width, height] = [this.element.clientWidth, this.element.clientHeight];
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const view = this.view;
    const colours = coloursOf(this.element);
    context.save();
    context.beginPath();
    context.rect(view.ruler, view.ruler, width - view.ruler, height - view.ruler);
    context.clip();
    this.drawPadding(context, picture, view, colours);
    this.drawPieces(context, picture, view, width, height);
    this.drawUnread(context, picture, view, colours);
    this.drawLines(context, picture, view, width, height);
    this.drawMarks(context, picture, view, colours);
    context.restore();
    if (view.ruler) this.drawBrackets(context, picture, view, colours, width, height);
  }

  /** @typedef {{cell: number, x: number, y: number, ruler: number, fit: number}} View */
  /** @typedef {{ink: string, muted: string, rule: string, page: string, card: string, first: string, second: string}} Colours */

  /** The padding: dotted, one dot per absent element where there is room. @param {CanvasRenderingContext2D} context @param {Picture} picture @param {View} view @param {Colours} colours */
  drawPadding(context, picture, { cell, x, y }, colours) {
    const [top, left, bottom, right] = picture.margin;
    if (top + left + bottom + right === 0) return;
    const { rows, columns } = picture.fields[0];
    const box = [x - left * cell, y - top * cell, (columns + left + right) * cell, (rows + top + bottom) * cell];
    context.fillStyle = colours.card;
    context.fillRect(box[0], box[1], box[2], box[3]);
    context.fillStyle = colours.muted;
    if (cell < 5) context.globalAlpha = 0.25;
    if (cell < 5) context.fillRect(box[0], box[1], box[2], box[3]);
    else {
      for (let row = -top; row < rows + bottom; row++) {
        for (let column = -left; column < columns + right; column++) {
          if (row >= 0 && row < rows && column >= 0 && column < columns) {
            column = columns - 1;
            continue;
          }
          const radius = Math.max(0.7, Math.min(2.5, cell / 12));
          context.beginPath();
          context.arc(x + (column + 0.5) * cell, y + (row + 0.5) * cell, radius, 0, 7);
          context.fill();
        }
      }
    }
    context.globalAlpha = 1;
    context.strokeStyle = colours.rule;
    context.strokeRect(box[0] + 0.5, box[1] + 0.5, box[2] - 1, box[3] - 1);
  }

  /** @param {CanvasRenderingContext2D} context @param {Picture} picture @param {View} view @param {number} width @param {number} height */
  drawPieces(context, picture, { cell, x, y }, width, height) {
    const level = Math.max(0, Math.floor(Math.log2(1 / (cell * (window.devicePixelRatio || 1)))));
    const visible = [-y / cell, -x / cell, (height - y) / cell, (width - x) / cell];
    const [first, ...others] = picture.fields.map((field) =>
      field.pieces(level, visible[0], visible[1], visible[2], visible[3], () => this.redraw()),
    );
    context.imageSmoothingEnabled = cell < 1;
    for (const piece of first) {
      const planes = [piece, ...others.map((pieces) => pieces.find((other) => same(other, piece)))];
      if (planes.includes(undefined)) continue;
      const bitmap = this.bitmap(/** @type {Piece[]} */ (planes), picture);
      const scale = cell * 2 ** piece.level;
      const [left, top] = [x + piece.left * cell, y + piece.top * cell];
      const { rows, columns } = picture.fields[0];
      const right = Math.min(x + columns * cell, left + piece.columns * scale);
      const bottom = Math.min(y + rows * cell, top + piece.rows * scale);
      context.drawImage(bitmap, 0, 0, (right - left) / scale, (bottom - top) / scale, left, top, right - left, bottom - top);
    }
  }

  /** A piece's picture, kept while its numbers are the same. @param {Piece[]} planes @param {Picture} picture */
  bitmap(planes, picture) {
    const [{ level, top, left, rows, columns, values }] = planes;
    const look = `${picture.palette} ${picture.range} ${planes.length}`;
    const name = `${level}/${top}/${left}`;
    const known = this.bitmaps.get(name);
    if (known && known.values === values && known.look === look) return known.canvas;
    const canvas = known?.canvas ?? document.createElement("canvas");
    if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const image = context.createImageData(columns, rows);
    const pixels = new Uint32Array(image.data.buffer);
    if (planes.length === 3) paintColour(planes.map((piece) => piece.values), picture.range, pixels);
    else paint(values, picture.range, picture.palette, pixels);
    context.putImageData(image, 0, 0);
    if (this.bitmaps.size > 400) this.bitmaps.clear();
    this.bitmaps.set(name, { canvas, values, look });
    return canvas;
  }

  /** Rows and columns that no window reads: hatched. @param {CanvasRenderingContext2D} context @param {Picture} picture @param {View} view @param {Colours} colours */
  drawUnread(context, picture, { cell, x, y }, colours) {
    const { rows, columns } = picture.fields[0];
    const strips = [
      ...runs(picture.unread[0]).map(([from, to]) => [x, y + from * cell, columns * cell, (to - from) * cell]),
      ...runs(picture.unread[1]).map(([from, to]) => [x + from * cell, y, (to - from) * cell, rows * cell]),
    ];
    for (const [left, top, width, height] of strips) {
      context.save();
      context.beginPath();
      context.rect(left, top, width, height);
      context.clip();
      context.fillStyle = colours.page;
      context.globalAlpha = 0.55;
      context.fillRect(left, top, width, height);
      context.globalAlpha = 1;
      context.strokeStyle = colours.second;
      context.lineWidth = 1.5;
      context.beginPath();
      const [begin, end] = [Math.max(0, left) - height, Math.min(this.element.clientWidth, left + width)];
      for (let at = Math.floor(begin / 7) * 7; at < end; at += 7) {
        context.moveTo(at, top + height);
        context.lineTo(at + height, top);
      }
      context.stroke();
      context.restore();
    }
  }

  /** Lines between cells and numbers in them, where they fit. @param {CanvasRenderingContext2D} context @param {Picture} picture @param {View} view @param {number} width @param {number} height */
  drawLines(context, picture, { cell, x, y }, width, height) {
    if (cell < 7) return;
    const { rows, columns } = picture.fields[0];
    const [top, bottom] = [Math.max(0, Math.floor(-y / cell)), Math.min(rows, Math.ceil((height - y) / cell))];
    const [left, right] = [Math.max(0, Math.floor(-x / cell)), Math.min(columns, Math.ceil((width - x) / cell))];
    context.strokeStyle = "rgba(128, 128, 128, 0.35)";
    context.lineWidth = 1;
    context.beginPath();
    for (let row = top; row <= bottom; row++) {
      context.moveTo(x + left * cell, Math.round(y + row * cell) + 0.5);
      context.lineTo(x + right * cell, Math.round(y + row * cell) + 0.5);
    }
    for (let column = left; column <= right; column++) {
      context.moveTo(Math.round(x + column * cell) + 0.5, y + top * cell);
      context.lineTo(Math.round(x + column * cell) + 0.5, y + bottom * cell);
    }
    context.stroke();
    if (cell < 26 || picture.fields.length > 1) return;
    context.font = `${Math.min(15, Math.max(9, cell * 0.28))}px ${getComputedStyle(this.element).fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) {
        const value = picture.fields[0].at(row, column);
        if (value === undefined) continue;
        context.fillStyle = inkOn(value, picture.range, picture.palette);
        context.fillText(short(value, cell), x + (column + 0.5) * cell, y + (row + 0.5) * cell, cell - 4);
      }
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {Picture} picture @param {View} view @param {Colours} colours */
  drawMarks(context, picture, { cell, x, y }, colours) {
    const widths = { window: 1.5, reader: 1.5, winner: 3, focus: 3 };
    const order = ["window", "reader", "winner", "focus"];
    const marks = [...picture.marks].sort((a, b) => order.indexOf(a.style) - order.indexOf(b.style));
    for (const { row, column, style } of marks) {
      const size = Math.max(cell, 4);
      const [left, top] = [x + (column + 0.5) * cell - size / 2, y + (row + 0.5) * cell - size / 2];
      const inset = widths[style] / 2;
      context.lineWidth = widths[style] + 2;
      context.strokeStyle = colours.page;
      context.strokeRect(left + inset, top + inset, size - 2 * inset, size - 2 * inset);
      context.lineWidth = widths[style];
      context.strokeStyle = style === "winner" || style === "focus" ? colours.second : colours.first;
      context.setLineDash(style === "reader" ? [4, 3] : []);
      context.strokeRect(left + inset, top + inset, size - 2 * inset, size - 2 * inset);
      context.setLineDash([]);
    }
  }

  /** The windows along the top and the left side, in lanes so that overlapping ones stay apart. @param {CanvasRenderingContext2D} context @param {Picture} picture @param {View} view @param {Colours} colours @param {number} width @param {number} height */
  drawBrackets(context, picture, { cell, x, y, ruler }, colours, width, height) {
    const origins = [y, x];
    const ends = [height, width];
    picture.brackets.forEach((side, axis) => {
      context.save();
      context.beginPath();
      if (axis) context.rect(ruler, 0, width - ruler, ruler);
      else context.rect(0, ruler, ruler, height - ruler);
      context.clip();
      side.forEach(({ from, to }, number) => {
        const [begin, end] = [origins[axis] + from * cell + 1.5, origins[axis] + to * cell - 1.5];
        if (end < ruler || begin > ends[axis] || end - begin < 2) return;
        const lane = ruler - 5 - (number % 3) * 6;
        context.strokeStyle = number === this.lit(axis) ? colours.second : colours.muted;
        context.lineWidth = number === this.lit(axis) ? 3 : 1.5;
        context.beginPath();
        if (axis) {
          context.moveTo(begin, lane);
          context.lineTo(end, lane);
        } else {
          context.moveTo(lane, begin);
          context.lineTo(lane, end);
        }
        context.stroke();
      });
      context.restore();
    });
  }

  /** Which bracket of an axis is the one looked at. @param {number} axis */
  lit(axis) {
    return this.litCell ? this.litCell[axis] : -1;
  }

  /** @type {[number, number] | null} the output cell looked at */
  litCell = null;

  // ---- pointer and keys ----------------------------------------------------------------------------------------

  listen() {
    /** @type {{x: number, y: number, place: Place, moved: boolean} | null} */
    let drag = null;
    const { element: grid } = this;
    grid.addEventListener("pointermove", (event) => {
      if (!this.picture) return;
      if (drag && this.place.zoom > 1) {
        const { cell } = this.view;
        const [rows, columns] = this.extent;
        drag.moved ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 3;
        const row = drag.place.row - (event.clientY - drag.y) / cell / rows;
        this.move({ row, column: drag.place.column - (event.clientX - drag.x) / cell / columns, zoom: this.place.zoom });
        return;
      }
      const cell = this.cellAt(event.clientX, event.clientY);
      if (cell) this.listener.point(...cell);
    });
    grid.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      drag = { x: event.clientX, y: event.clientY, place: this.place, moved: false };
      grid.setPointerCapture(event.pointerId);
      const cell = this.cellAt(event.clientX, event.clientY);
      if (cell) this.listener.point(...cell);
    });
    for (const end of ["pointerup", "pointercancel"]) grid.addEventListener(end, () => (drag = null));
    grid.addEventListener("dblclick", (event) => this.zoomAt(event.clientX, event.clientY, event.shiftKey ? 0.5 : 2));
    grid.addEventListener(
      "wheel",
      (event) => {
        if (this.place.zoom === 1 && event.deltaY > 0) return; // the page scrolls on
        event.preventDefault();
        this.zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY / 300));
      },
      { passive: false },
    );
    grid.addEventListener("keydown", (event) => this.key(event));
  }

  /** Rows and columns with the padding. @returns {[number, number]} */
  get extent() {
    const picture = /** @type {Picture} */ (this.picture);
    const [top, left, bottom, right] = picture.margin;
    return [picture.fields[0].rows + top + bottom, picture.fields[0].columns + left + right];
  }

  /** @param {number} clientX @param {number} clientY @param {number} factor */
  zoomAt(clientX, clientY, factor) {
    if (!this.picture) return;
    const box = this.canvas.getBoundingClientRect();
    const before = this.view;
    const [rows, columns] = this.extent;
    const zoom = this.place.zoom * factor;
    const held = Math.max(1, Math.min(zoom, Math.max(1, LARGEST_CELL / before.fit)));
    const share = 1 - this.place.zoom / held;
    const { ruler } = before;
    const off = [clientY - box.top - (ruler + this.element.clientHeight) / 2, clientX - box.left - (ruler + this.element.clientWidth) / 2];
    const row = this.place.row + (off[0] / before.cell / rows) * share;
    this.move({ row, column: this.place.column + (off[1] / before.cell / columns) * share, zoom: held });
  }

  /** @param {Place} place */
  move(place) {
    const kept = (/** @type {number} */ value) => Math.min(1 - 0.5 / place.zoom, Math.max(0.5 / place.zoom, value));
    const told = (/** @type {number} */ value) => Number(value.toFixed(6)); // as an address says it
    this.listener.move({ row: told(kept(place.row)), column: told(kept(place.column)), zoom: told(place.zoom) });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const picture = this.picture;
    if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const { rows, columns } = picture.fields[0];
    const { row, column } = picture.focus ?? { row: 0, column: -1 };
    /** @type {Record<string, [number, number]>} */
    const steps = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      PageUp: [row - 10, column], PageDown: [row + 10, column], Home: [row, 0], End: [row, columns - 1],
    };
    const box = this.canvas.getBoundingClientRect();
    const middle = /** @type {[number, number]} */ ([box.left + box.width / 2, box.top + box.height / 2]);
    if (steps[event.key]) {
      const kept = (/** @type {number} */ value, /** @type {number} */ size) => Math.max(0, Math.min(size - 1, value));
      this.listener.point(kept(steps[event.key][0], rows), kept(steps[event.key][1], columns));
      this.follow(kept(steps[event.key][0], rows), kept(steps[event.key][1], columns));
    } else if (event.key === "+" || event.key === "=") this.zoomAt(...middle, 1.5);
    else if (event.key === "-") this.zoomAt(...middle, 1 / 1.5);
    else if (event.key === "0") this.move(WHOLE);
    else if (event.key === "Escape") this.listener.leave();
    else return;
    event.preventDefault();
  }

  /** Bring a cell into sight. @param {number} row @param {number} column */
  follow(row, column) {
    if (this.place.zoom === 1) return;
    const picture = /** @type {Picture} */ (this.picture);
    const [rows, columns] = this.extent;
    const centre = [(row + 0.5 + picture.margin[0]) / rows, (column + 0.5 + picture.margin[1]) / columns];
    const half = 0.5 / this.place.zoom;
    const near = (/** @type {number} */ now, /** @type {number} */ wanted) => Math.max(wanted - half * 0.8, Math.min(wanted + half * 0.8, now));
    this.move({ row: near(this.place.row, centre[0]), column: near(this.place.column, centre[1]), zoom: this.place.zoom });
  }
}

/** @param {Piece} a @param {Piece} b */
const same = (a, b) => a.level === b.level && a.top === b.top && a.left === b.left;

/** Where a list is true: [from, to) each. @param {boolean[]} flags @returns {[number, number][]} */
function runs(flags) {
  /** @type {[number, number][]} */
  const found = [];
  flags.forEach((flag, at) => {
    const last = found[found.length - 1];
    if (flag && last && last[1] === at) last[1] = at + 1;
    else if (flag) found.push([at, at + 1]);
  });
  return found;
}

/** The page's own colours. @param {HTMLElement} where */
function coloursOf(where) {
  const style = getComputedStyle(where);
  const names = ["ink", "muted", "rule", "page", "card", "first", "second"];
  return /** @type {Colours} */ (Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])));
}

/** A number as short as a cell needs it. @param {number} value @param {number} cell */
function short(value, cell) {
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  if (size >= 100 && size < 1e5) return said(Math.round(value));
  return said(value, cell < 40 ? 2 : 3);
}

/** A number for people. @param {number} value @param {number} digits */
export function said(value, digits = 4) {
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value).replace("-", "−");
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(digits - 1).replace("-", "−");
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

/** @param {string} tag @param {string} name @param {Record<string, string>} attributes @param {(Node | string)[]} children */
export function element(tag, name = "", attributes = {}, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  set(made, attributes);
  made.append(...children);
  return made;
}

/** @param {Element} target @param {Record<string, string>} attributes */
export function set(target, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") /** @type {HTMLElement} */ (target).style.cssText = value; // an attribute would need a looser policy
    else if (target.getAttribute(name) !== value) target.setAttribute(name, value);
  }
}

/** Bring one of a row's children into sight; the page around the row stays where it is. @param {HTMLElement} row @param {Element} child */
export function bringInto(row, child) {
  const [outer, inner] = [row.getBoundingClientRect(), child.getBoundingClientRect()];
  row.scrollLeft += Math.min(0, inner.left - outer.left) + Math.max(0, inner.right - outer.right);
}
