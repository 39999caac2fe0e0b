// What is on the screen, and its spelling in an address: `#view=windows&op=max&window=2x2`.
// `state.py` reads the same spelling; tests/test_explorer_parity.py holds them together.

import { Fault } from "./pooling.js";

/** @typedef {import("./pooling.js").Shape} Shape */
/** @typedef {import("./pooling.js").Op} Op */
/** A cell of one of the grids. @typedef {{board: "input" | "output", row: number, column: number}} Cell */
/**
 * @typedef {object} State
 * @property {string} view
 * @property {number} item which of the source's arrays
 * @property {number} channel −1: all, as a colour picture
 * @property {Op} op
 * @property {Op} other the operation it is compared with
 * @property {Shape} shape
 * @property {Cell | null} cell
 * @property {[number, number]} shift down, right
 * @property {string} framework
 * @property {string} theme
 * @property {number} stage of the network
 * @property {string} seen which cell of that stage: a name, or such as 3x4
 * @property {[number, number, number] | null} place centre row, centre column (shares of the grid) and zoom; null: all of it
 */

export const VIEWS = ["windows", "coverage", "frameworks", "backward", "compare", "shift", "maps", "network", "code"];
export const THEMES = ["auto", "light", "dark"];

/** @returns {State} */
export function initial() {
  return {
    view: "windows",
    item: 0,
    channel: 0,
    op: { name: "max", parameters: {} },
    other: { name: "mean", parameters: {} },
    shape: {
      kind: "window",
      window: [2, 2],
      stride: null,
      padding: [[0, 0], [0, 0]],
      dilation: [1, 1],
      ceil: false,
      paddingMode: "absent",
      output: [7, 7],
      bins: "overlapping",
    },
    cell: null,
    shift: [0, 0],
    framework: "pytorch",
    theme: "auto",
    stage: 0,
    seen: "centre",
    place: null,
  };
}

/** @param {Op} op */
export function writeOp(op) {
  const given = Object.entries(op.parameters).filter(([, value]) => value !== null && value !== undefined);
  return given.length ? `${op.name}(${given.map(([name, value]) => `${name}:${value}`).join(",")})` : op.name;
}

/** @param {string} text @returns {Op} */
export function readOp(text) {
  const found = /^(\w+)(?:\((.*)\))?$/.exec(text);
  if (!found) throw new Fault(`op must be a name such as max or lp(p:3), got ${text}`);
  /** @type {Record<string, any>} */
  const parameters = {};
  for (const part of (found[2] ?? "").split(",").filter(Boolean)) {
    const [name, value] = part.split(":");
    parameters[name] = readValue(value ?? "");
  }
  return { name: found[1], parameters };
}

/** @param {string} text */
function readValue(text) {
  if (text === "true" || text === "false") return text === "true";
  return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
}

/** The geometry alone, and the operation: what Python needs for an answer. @param {Op} op @param {Shape} shape */
export function writeCall(op, shape) {
  /** @type {string[][]} */
  const parts = [["op", writeOp(op)]];
  if (shape.kind === "global") parts.push(["global", "1"]);
  else if (shape.kind === "adaptive") {
    parts.push(["adaptive", shape.output.join("x")]);
    if (shape.bins !== "overlapping") parts.push(["bins", shape.bins]);
  } else {
    parts.push(["window", shape.window.join("x")]);
    if (shape.stride) parts.push(["stride", shape.stride.join("x")]);
    if (typeof shape.padding === "string") parts.push(["padding", shape.padding]);
    else if (shape.padding.flat().some(Boolean)) parts.push(["padding", shape.padding.map((pair) => pair.join("-")).join("x")]);
    if (shape.dilation.some((gap) => gap !== 1)) parts.push(["dilation", shape.dilation.join("x")]);
    if (shape.ceil) parts.push(["ceil", "1"]);
    if (shape.paddingMode !== "absent") parts.push(["mode", shape.paddingMode]);
  }
  return parts.map((pair) => pair.join("=")).join("&");
}

/** @param {State} state */
export function write(state) {
  const parts = [`view=${state.view}`, `item=${state.item}`, `channel=${state.channel}`, writeCall(state.op, state.shape)];
  if (state.view === "compare") parts.push(`other=${writeOp(state.other)}`);
  if (state.view === "frameworks") parts.push(`framework=${state.framework}`);
  if (state.view === "network") parts.push(`stage=${state.stage}`, `seen=${encodeURIComponent(state.seen)}`);
  if (state.shift.some(Boolean)) parts.push(`shift=${state.shift.join("x")}`);
  if (state.cell) parts.push(`cell=${state.cell.board}x${state.cell.row}x${state.cell.column}`);
  if (state.place) parts.push(`place=${state.place.map((value) => Number(value.toFixed(6))).join("x")}`);
  if (state.theme !== "auto") parts.push(`theme=${state.theme}`);
  return parts.join("&");
}

/**
 * The state that a text describes; what it does not name is as at the start, what it misspells is left out.
 * @param {string} text @param {State} start @returns {State}
 */
export function read(text, start = initial()) {
  const given = new Map(text.replace(/^#/, "").split("&").filter(Boolean).map(pair));
  const state = structuredClone(start);
  for (const [name, value] of given) {
    try {
      READERS[name]?.(state, value);
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault;
    }
  }
  return state;
}

/** @param {string} text @returns {[string, string]} */
function pair(text) {
  const at = text.indexOf("=");
  const decoded = decoder(text.slice(at + 1));
  return [text.slice(0, at), decoded];
}

/** @param {string} text */
function decoder(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @param {string} text @param {number} least @returns {number[]} */
function integers(text, least) {
  const found = text.split("x").map(Number);
  if (found.some((value) => !Number.isSafeInteger(value) || value < least)) throw new Fault(text);
  return found;
}

/** @param {string} text @param {number} least @returns {[number, number]} */
function two(text, least) {
  const [first, second, ...more] = integers(text, least);
  if (second === undefined || more.length) throw new Fault(text);
  return [first, second];
}

/** @param {string} text @param {string[]} allowed */
function oneOf(text, allowed) {
  if (!allowed.includes(text)) throw new Fault(text);
  return text;
}

/** @type {Record<string, (state: State, text: string) => void>} */
const READERS = {
  view: (state, text) => (state.view = oneOf(text, VIEWS)),
  item: (state, text) => ([state.item] = integers(text, 0)),
  channel: (state, text) => ([state.channel] = integers(text, -1)),
  op: (state, text) => (state.op = readOp(text)),
  other: (state, text) => (state.other = readOp(text)),
  global: (state) => (state.shape.kind = "global"),
  adaptive: (state, text) => {
    state.shape.output = two(text, 1);
    state.shape.kind = "adaptive";
  },
  bins: (state, text) => (state.shape.bins = oneOf(text, ["overlapping", "disjoint"])),
  window: (state, text) => {
    state.shape.window = two(text, 1);
    state.shape.kind = "window";
    state.shape.stride = null;
  },
  stride: (state, text) => (state.shape.stride = two(text, 1)),
  padding: (state, text) => (state.shape.padding = readPadding(text)),
  dilation: (state, text) => (state.shape.dilation = two(text, 1)),
  ceil: (state, text) => (state.shape.ceil = text === "1"),
  mode: (state, text) => (state.shape.paddingMode = oneOf(text, ["absent", "circular", "reflect", "replicate"])),
  framework: (state, text) => (state.framework = oneOf(text, ["poolwise", "pytorch", "keras", "jax", "onnx"])),
  stage: (state, text) => ([state.stage] = integers(text, 0)),
  seen: (state, text) => (state.seen = text),
  shift: (state, text) => {
    const found = text.split("x").map(Number);
    if (found.length === 2 && found.every(Number.isSafeInteger)) state.shift = [found[0], found[1]];
  },
  cell: (state, text) => {
    const [board, ...where] = text.split("x");
    const [row, column] = two(where.join("x"), 0);
    state.cell = { board: /** @type {"input" | "output"} */ (oneOf(board, ["input", "output"])), row, column };
  },
  place: (state, text) => {
    const found = text.split("x").map(Number);
    if (found.length === 3 && found.every(Number.isFinite) && found[2] > 0) state.place = [found[0], found[1], found[2]];
  },
  theme: (state, text) => (state.theme = oneOf(text, THEMES)),
};

/** @param {string} text @returns {Shape["padding"]} */
export function readPadding(text) {
  if (["same", "same_lower", "valid"].includes(text)) return text;
  const axes = text.split("x").map((axis) => axis.split("-").map(Number));
  const sound = axes.length === 2 && axes.every((axis) => axis.length === 2 && axis.every((n) => Number.isSafeInteger(n) && n >= 0));
  if (!sound) throw new Fault(text);
  return [[axes[0][0], axes[0][1]], [axes[1][0], axes[1][1]]];
}
