// The strip of a whole network: the size after every stage, and what one cell of a stage sees of the input.

import { element, bringInto, set } from "./board.js";

/** What the cells of one axis see of the input: cell i the elements first + i·jump … + field − 1; where cells differ,
 * starts and ends say it for each. @typedef {{jump: number, field: number, first: number, starts?: number[], ends?: number[]}} Sight */
/** One downsampling stage, rows and columns of it. axes: null where nobody can say what its cells see. marks: findings by severity.
 * @typedef {object} NetworkStage
 * @property {string} name
 * @property {string} what the operation and its window
 * @property {number} rows
 * @property {number} columns
 * @property {string} size
 * @property {string} stride so far
 * @property {string} field
 * @property {[Sight, Sight] | null} axes
 * @property {Record<string, number>} marks
 */
/** picture: what the input might be, as an address; "" for a plain grid. smooth: whether it is a photograph.
 * @typedef {{rows: number, columns: number, size: string, picture: string, smooth: boolean, stages: NetworkStage[]}} Network */

const LARGEST_BOX = 104;
const [LEAST_TAB, MOST_TAB] = [6.75, 13]; // rem
const SIGNS = /** @type {Record<string, string>} */ ({ error: "✕", warning: "▲", info: "●" });
const FURTHEST = 1; // how far around the input is drawn, in inputs
const EDGE_OF_SIGHT = 6;
const ONE_ROW = 28; // pixels, where there is one row alone

/** The stages in a row; one is chosen. */
export class NetworkStrip {
  element = element("div", "strip");
  tabs = element("div", "stages", { role: "tablist", "aria-label": "Downsampling stages, in the order of execution" });
  chosen = -1;

  /** @param {Network} network @param {string} panel the id of what shows the chosen one @param {(number: number) => void} choose */
  constructor(network, panel, choose) {
    this.network = network;
    this.panel = panel;
    const most = Math.max(network.rows, network.columns, ...network.stages.map(({ rows, columns }) => Math.max(rows, columns)));
    this.scale = LARGEST_BOX / most;
    this.tabs.style.cssText = `min-width: ${network.stages.length * LEAST_TAB}rem; max-width: ${network.stages.length * MOST_TAB}rem`;
    this.tabs.append(...network.stages.map((stage, number) => this.tab(stage, number, choose)));
    this.tabs.addEventListener("keydown", (event) => this.key(event, choose));
    const words = element("div", "", {}, element("strong", "", {}, "input"), element("span", "", {}, network.size));
    this.element.append(element("div", "given", {}, this.box(network.rows, network.columns, network.picture), words), this.tabs);
  }

  /** @param {NetworkStage} stage @param {number} number @param {(number: number) => void} choose */
  tab(stage, number, choose) {
    const { name, what, size, stride, field, marks } = stage;
    const found = Object.entries(marks).filter(([, count]) => count);
    const signs = found.map(([severity, count]) => element("span", severity, {}, `${SIGNS[severity]}${count > 1 ? ` ${count}` : ""}`));
    const words = found.map(([severity, count]) => `${count} ${severity}${count > 1 ? "s" : ""}`).join(", ");
    const made = element(
      "button", "", { type: "button", role: "tab", id: this.idOf(number), "aria-controls": this.panel, title: name },
      this.box(stage.rows, stage.columns), element("strong", "", {}, name), element("span", "muted", {}, what), element("span", "", {}, size),
      element("span", "", {}, `stride ${stride}`), element("span", "", {}, `sees ${field}`), this.reach(stage),
      element("span", "signs", { "aria-hidden": "true" }, ...signs), element("span", "spoken", {}, words ? `, ${words}` : ""),
    );
    made.addEventListener("click", () => choose(number));
    return made;
  }

  /** @param {number} number */
  idOf(number) {
    return `${this.panel}-tab-${number}`;
  }

  /** A feature map, all on one scale. @param {number} rows @param {number} columns @param {string} picture */
  box(rows, columns, picture = "") {
    const map = element("i");
    const height = this.network.rows === 1 ? ONE_ROW : rows * this.scale;
    map.style.cssText = `width: ${columns * this.scale}px; height: ${height}px`;
    if (picture) map.append(element("img", "", { src: picture, alt: "" }));
    return element("span", "box", { "aria-hidden": "true" }, map);
  }

  /** How much of the input a cell sees, along the axis on which it sees the larger share. @param {NetworkStage} stage */
  reach({ axes }) {
    const sizes = [this.network.rows, this.network.columns];
    const share = axes ? Math.max(...axes.map(({ field }, axis) => (sizes[axis] > 1 ? field / sizes[axis] : 0))) : 0;
    const bar = element("i");
    bar.style.width = `${Math.min(100, 100 * share)}%`;
    return element("span", share > 1 ? "reach full" : "reach", { "aria-hidden": "true" }, bar);
  }

  /** @param {number} number */
  show(number) {
    if (this.chosen === number) return;
    this.chosen = number;
    [...this.tabs.children].forEach((tab, at) => set(tab, { "aria-selected": String(at === number), tabindex: at === number ? "0" : "-1" }));
    requestAnimationFrame(() => bringInto(this.element, this.tabs.children[number])); // it may not stand in the page yet
  }

  /** @param {KeyboardEvent} event @param {(number: number) => void} choose */
  key(event, choose) {
    const last = this.network.stages.length - 1;
    /** @type {Record<string, number>} */
    const places = { ArrowLeft: this.chosen - 1, ArrowRight: this.chosen + 1, Home: 0, End: last };
    if (!(event.key in places) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const number = Math.max(0, Math.min(last, places[event.key]));
    choose(number);
    /** @type {HTMLElement} */ (this.tabs.children[number]).focus();
  }
}

/** What a cell of an axis sees: [from, to). @param {Sight} sight @param {number} cell @returns {[number, number]} */
export function seenBy({ jump, field, first, starts, ends }, cell) {
  if (starts && ends) return [starts[cell], ends[cell] + 1];
  return [first + cell * jump, first + cell * jump + field];
}

/** What a cell sees, in a sentence. @param {Network} network @param {NetworkStage} stage @param {[number, number]} cell */
export function sightSaid(network, stage, cell) {
  if (!stage.axes) return "What its cells see of the input cannot be said: a step before it is not known, or mixes positions.";
  const sizes = [network.rows, network.columns];
  const spans = stage.axes.map((sight, axis) => seenBy(sight, cell[axis]));
  const inside = spans.map(([from, to], axis) => Math.max(0, Math.min(to, sizes[axis]) - Math.max(from, 0)));
  const [tall, wide] = spans.map(([from, to]) => to - from);
  const outside = 1 - (inside[0] * inside[1]) / (tall * wide);
  const told = (/** @type {number} */ value) => String(value).replace("-", "−");
  const [rows, columns] = spans.map(([from, to]) => `${told(from)} to ${told(to - 1)}`);
  const where = network.rows === 1 ? `elements ${columns}` : `rows ${rows}, columns ${columns}`;
  const padded = outside > 0 ? ` ${outside < 0.01 ? "Less than 1" : Math.round(100 * outside)} % of that lies outside the input, in padding.` : "";
  const cellSaid = network.rows === 1 ? `Cell ${cell[1]} of ${stage.columns}` : `Cell (${cell.join(", ")}) of ${stage.rows}×${stage.columns}`;
  return `${cellSaid} sees ${where}: ${network.rows === 1 ? wide : `${tall}×${wide}`} elements.${padded}`;
}

/** The input, and on it what the chosen cell of the chosen stage sees. */
export class SightView {
  id = `sight-${Math.random().toString(36).slice(2, 10)}`;
  element = element("div", "sight", { role: "grid", tabindex: "0" });
  canvas = /** @type {HTMLCanvasElement} */ (element("canvas", "", { "aria-hidden": "true" }));
  spoken = element("div", "", { role: "gridcell", id: `${this.id}-cell` });
  row = element("div", "spoken", { role: "row" }, this.spoken);
  /** @type {NetworkStage | null} */
  stage = null;
  /** @type {[number, number]} */
  cell = [0, 0];
  waiting = 0;

  /** @param {Network} network @param {(cell: [number, number]) => void} point */
  constructor(network, point) {
    this.network = network;
    this.point = point;
    this.picture = network.picture ? new Image() : null;
    if (this.picture) {
      this.picture.addEventListener("load", () => this.redraw());
      this.picture.src = network.picture;
    }
    if (network.rows === 1) this.element.classList.add("line");
    this.element.append(this.canvas, this.row);
    this.element.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["pointerdown", "pointermove"]) {
      this.element.addEventListener(name, (event) => this.pointed(/** @type {PointerEvent} */ (event)));
    }
    new ResizeObserver(() => this.redraw()).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  /** @param {NetworkStage} stage @param {[number, number]} cell */
  show(stage, cell) {
    this.stage = stage;
    this.cell = cell;
    set(this.element, {
      "aria-label": `The input, and what a cell of ${stage.name} sees of it: ${stage.rows} rows, ${stage.columns} columns of cells`,
      "aria-rowcount": String(stage.rows), "aria-colcount": String(stage.columns), "aria-activedescendant": this.spoken.id,
    });
    set(this.row, { "aria-rowindex": String(cell[0] + 1) });
    set(this.spoken, { "aria-colindex": String(cell[1] + 1) });
    this.spoken.textContent = sightSaid(this.network, stage, cell);
    this.redraw();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.stage && this.element.isConnected) this.draw(this.stage);
    });
  }

  // ---- where things are ----------------------------------------------------------------------------------------

  get sizes() {
    return [this.network.rows, this.network.columns];
  }

  /** From where to where an axis is drawn: the input, and as much around it as cells see. @param {NetworkStage} stage @param {number} axis */
  drawn({ axes, rows, columns }, axis) {
    const size = this.sizes[axis];
    if (!axes) return [0, size];
    const last = [rows, columns][axis] - 1;
    const [from, to] = [seenBy(axes[axis], 0)[0], seenBy(axes[axis], last)[1]];
    return [Math.max(-FURTHEST * size, Math.min(0, from)), Math.min((1 + FURTHEST) * size, Math.max(size, to))];
  }

  /** Pixels per element, and where element (0, 0) is. @param {NetworkStage} stage */
  view(stage) {
    const [down, across] = [this.drawn(stage, 0), this.drawn(stage, 1)];
    const [width, height] = [this.element.clientWidth, this.element.clientHeight];
    const fit = [(height - 2 * EDGE_OF_SIGHT) / (down[1] - down[0]), (width - 2 * EDGE_OF_SIGHT) / (across[1] - across[0])];
    const scale = this.network.rows === 1 ? fit : [Math.min(...fit), Math.min(...fit)]; // one row alone is as high as there is room
    const x = (width - (across[0] + across[1]) * scale[1]) / 2;
    const y = (height - (down[0] + down[1]) * scale[0]) / 2;
    return { scale, x, y, down, across, width, height };
  }

  /** @param {PointerEvent} event */
  pointed(event) {
    const { stage } = this;
    if (!stage?.axes || (event.type === "pointermove" && !(event.buttons & 1))) return;
    const box = this.canvas.getBoundingClientRect();
    const { scale, x, y } = this.view(stage);
    const places = [(event.clientY - box.top - y) / scale[0], (event.clientX - box.left - x) / scale[1]];
    const counts = [stage.rows, stage.columns];
    const cell = stage.axes.map((sight, axis) => nearest(sight, counts[axis], places[axis]));
    this.point([cell[0], cell[1]]);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { stage } = this;
    if (!stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const [row, column] = this.cell;
    const most = [stage.rows - 1, stage.columns - 1];
    /** @type {Record<string, [number, number]>} */
    const steps = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      PageUp: [row - 10, column], PageDown: [row + 10, column], Home: [row, 0], End: [row, most[1]],
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    const [down, across] = steps[event.key].map((value, axis) => Math.max(0, Math.min(most[axis], value)));
    this.point([down, across]);
  }

  // ---- drawing -------------------------------------------------------------------------------------------------

  /** @param {NetworkStage} stage */
  draw(stage) {
    const view = this.view(stage);
    const { width, height, scale, x, y } = view;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(this.element);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
    const input = [x, y, this.network.columns * scale[1], this.network.rows * scale[0]];
    this.drawAround(context, view, colour("muted"));
    this.drawInput(context, input, colour);
    const spans = stage.axes?.map((sight, axis) => seenBy(sight, this.cell[axis]));
    if (stage.axes && spans) {
      const [[top, bottom], [left, right]] = spans;
      const seen = [x + left * scale[1], y + top * scale[0], (right - left) * scale[1], (bottom - top) * scale[0]];
      this.drawSeen(context, input, seen, colour);
      this.drawCentres(context, stage.axes, stage, view, colour);
    }
    context.strokeStyle = colour("ink");
    context.lineWidth = 1;
    context.strokeRect(input[0] - 0.5, input[1] - 0.5, input[2] + 1, input[3] + 1);
  }

  /** The padding that some cell sees, dotted. @param {CanvasRenderingContext2D} context @param {ReturnType<SightView["view"]>} view @param {string} colour */
  drawAround(context, { scale, x, y, down, across }, colour) {
    const gap = 8;
    context.fillStyle = colour;
    context.globalAlpha = 0.45;
    for (let top = y + down[0] * scale[0] + gap / 2; top < y + down[1] * scale[0]; top += gap) {
      for (let left = x + across[0] * scale[1] + gap / 2; left < x + across[1] * scale[1]; left += gap) context.fillRect(left - 0.6, top - 0.6, 1.2, 1.2);
    }
    context.globalAlpha = 1;
  }

  /** @param {CanvasRenderingContext2D} context @param {number[]} box @param {(name: string) => string} colour */
  drawInput(context, [left, top, width, height], colour) {
    context.fillStyle = colour("field");
    context.fillRect(left, top, width, height);
    const { picture } = this;
    if (picture?.complete && picture.naturalWidth) {
      const shrink = Math.min(picture.naturalWidth / width, picture.naturalHeight / height);
      const [across, down] = [width * shrink, height * shrink]; // the picture's middle, in the input's proportions
      context.imageSmoothingEnabled = this.network.smooth;
      context.drawImage(picture, (picture.naturalWidth - across) / 2, (picture.naturalHeight - down) / 2, across, down, left, top, width, height);
      return;
    }
    context.strokeStyle = colour("rule");
    context.lineWidth = 1;
    context.beginPath();
    for (let part = 1; part < 8; part++) {
      context.moveTo(left + (part * width) / 8, top);
      context.lineTo(left + (part * width) / 8, top + height);
      if (this.network.rows < 8) continue;
      context.moveTo(left, top + (part * height) / 8);
      context.lineTo(left + width, top + (part * height) / 8);
    }
    context.stroke();
  }

  /** What is seen stays clear; the rest of the input fades, and what is seen of the padding is hatched. @param {CanvasRenderingContext2D} context @param {number[]} input @param {number[]} seen @param {(name: string) => string} colour */
  drawSeen(context, [left, top, width, height], [from, above, wide, tall], colour) {
    const within = new Path2D();
    within.rect(left, top, width, height);
    const outside = new Path2D(within);
    outside.rect(from, above, wide, tall);
    context.save();
    context.clip(within);
    context.fillStyle = colour("page");
    context.globalAlpha = 0.68;
    context.fill(outside, "evenodd");
    context.restore();
    context.save();
    const seen = new Path2D();
    seen.rect(from, above, wide, tall);
    context.clip(seen);
    context.clip(outside, "evenodd");
    context.fillStyle = colour("mark");
    context.globalAlpha = 0.5;
    context.fill(seen);
    context.globalAlpha = 0.8;
    context.strokeStyle = colour("second");
    context.lineWidth = 1;
    context.beginPath();
    const [end, bottom] = [Math.min(this.element.clientWidth, from + wide), Math.min(this.element.clientHeight, above + tall)];
    const [begin, start] = [Math.max(0, from), Math.max(0, above)];
    for (let at = Math.floor((begin - (bottom - start)) / 7) * 7; at < end; at += 7) {
      context.moveTo(at, bottom);
      context.lineTo(at + bottom - start, start);
    }
    context.stroke();
    context.restore();
    for (const [line, name] of /** @type {[number, string][]} */ ([[5, "page"], [2.5, "second"]])) {
      context.lineWidth = line;
      context.strokeStyle = colour(name);
      context.strokeRect(from, above, wide, tall);
    }
  }

  /** The middle of what each cell sees, where there is room for all of them. @param {CanvasRenderingContext2D} context @param {[Sight, Sight]} axes @param {NetworkStage} stage @param {ReturnType<SightView["view"]>} view @param {(name: string) => string} colour */
  drawCentres(context, axes, { rows, columns }, { scale, x, y }, colour) {
    const middle = (/** @type {number} */ axis, /** @type {number} */ cell) => {
      const [from, to] = seenBy(axes[axis], cell);
      return (axis ? x : y) + ((from + to) / 2) * scale[axis];
    };
    const dot = (/** @type {number} */ row, /** @type {number} */ column, /** @type {number} */ radius, /** @type {string} */ name) => {
      context.beginPath();
      context.arc(middle(1, column), middle(0, row), radius, 0, 7);
      context.fillStyle = colour(name);
      context.strokeStyle = colour("page");
      context.lineWidth = 1;
      context.fill();
      context.stroke();
    };
    const apart = Math.min(...axes.map((sight, axis) => ([rows, columns][axis] > 1 ? sight.jump * scale[axis] : Infinity)));
    if (apart >= 11) for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) dot(row, column, Math.min(2.4, apart / 4), "first");
    dot(this.cell[0], this.cell[1], 4.5, "second");
  }
}

/** The cell whose sight has its middle nearest to a place. @param {Sight} sight @param {number} count @param {number} place */
function nearest(sight, count, place) {
  if (!sight.starts) return Math.max(0, Math.min(count - 1, Math.round((place - sight.first - sight.field / 2) / sight.jump)));
  const away = Array.from({ length: count }, (_, cell) => Math.abs(place - (seenBy(sight, cell)[0] + seenBy(sight, cell)[1]) / 2));
  return away.indexOf(Math.min(...away));
}

/** Cells by name. @type {Record<string, (stage: NetworkStage) => [number, number]>} */
const NAMED_CELLS = {
  "first corner": () => [0, 0],
  centre: (stage) => [Math.floor((stage.rows - 1) / 2), Math.floor((stage.columns - 1) / 2)],
  "last corner": (stage) => [stage.rows - 1, stage.columns - 1],
};

/** Which cell an address means: a name, or such as 3x4; the centre for anything else. @param {string} text */
export const readSeen = (text) => (text in NAMED_CELLS || /^\d{1,9}x\d{1,9}$/.test(text) ? text : "centre");

/** The strip, and what a cell of the chosen stage sees, which can be chosen too. */
export class NetworkView {
  words = element("output", "said", { "aria-live": "polite" });

  /**
   * @param {Network} network @param {string} panel the id of what shows the chosen stage
   * @param {(stage: number) => void} choose @param {(seen: string) => void} look
   */
  constructor(network, panel, choose, look) {
    this.network = network;
    this.strip = new NetworkStrip(network, panel, choose);
    this.sight = new SightView(network, (cell) => look(cell.join("x")));
    this.buttons = Object.keys(NAMED_CELLS).map((name) => {
      const button = /** @type {HTMLButtonElement} */ (element("button", "button", { type: "button" }, name));
      button.addEventListener("click", () => look(name));
      return button;
    });
    const pick = element("div", "pick", { role: "group", "aria-label": "Which cell" }, ...this.buttons);
    this.element = element("div", "sees", {}, pick, this.sight.element, this.words);
  }

  /** @param {number} number @param {string} seen */
  show(number, seen) {
    const stage = this.network.stages[number];
    this.strip.show(number);
    const [row, column] = NAMED_CELLS[seen]?.(stage) ?? seen.split("x").map(Number);
    const cell = /** @type {[number, number]} */ ([Math.min(row, stage.rows - 1), Math.min(column, stage.columns - 1)]);
    for (const button of this.buttons) {
      set(button, { "aria-pressed": String(button.textContent === seen) });
      button.disabled = !stage.axes;
    }
    this.sight.show(stage, cell);
    this.words.textContent = sightSaid(this.network, stage, cell);
  }
}
