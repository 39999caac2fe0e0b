// From a state to what the boards show: numbers fetched or computed, cells marked, sentences made.

import {
  HERE, Fault, backward, change, checkOp, coverage, extent, geometryOf, look, pooled, readers, shifted, work,
} from "./pooling.js";
import { Local, Remote, difference, unpacked } from "./fields.js";
import { said } from "./board.js";
import { read, writeCall, writeOp } from "./state.js";

/** @typedef {import("./pooling.js").Geometry} Geometry */
/** @typedef {import("./pooling.js").Op} Op */
/** @typedef {import("./pooling.js").Shape} Shape */
/** @typedef {import("./pooling.js").Look} Look */
/** @typedef {import("./fields.js").Field} Field */
/** @typedef {import("./fields.js").Packed} Packed */
/** @typedef {import("./fields.js").Ask} Ask */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Cell} Cell */
/** @typedef {import("./frameworks.js").Operation} Operation */
/** @typedef {import("./board.js").Mark} Mark */
/** Planes of one size. data: null where Python keeps them. low, high: of all planes.
 * @typedef {{rows: number, columns: number, dtype: string, low: number, high: number, data: Packed[] | null}} Planes */
/** One thing to look at. call: the pooling it comes with. after: what a model's own pooling made of it.
 * @typedef {Planes & {name: string, channels: string[], picture: boolean, call: string | null, after: Planes | null, note: string}} Item */
/** What a page is opened with. answers: what Python computed beforehand, by question. network: whether Python can say what the whole network is.
 * @typedef {{title: string, credit: string, items: Item[], operations: Operation[], start: string, answers: Record<string, any>, network: boolean}} Source */

const DEFAULT_CALL = "padding=0-0x0-0&dilation=1x1&ceil=0&mode=absent&bins=overlapping";
const KEPT = 48; // grids, geometries and answers remembered; a grid of a megapixel is 8 MB
const MOST_WORK = 4e7; // taps visited in the page; more of them and Python does it

/** Everything that needs numbers; what was computed or fetched is kept. */
export class Numbers {
  /** @param {Source} source @param {Ask | null} ask */
  constructor(source, ask) {
    this.source = source;
    this.asks = ask;
    /** @type {Map<string, any>} */
    this.kept = new Map();
  }

  /** @param {string} name @returns {Operation} */
  operation(name) {
    const found = this.source.operations.find((operation) => operation.name === name);
    if (!found) throw new Fault(`operation must be one of ${this.source.operations.map((o) => o.name).join(", ")}, got ${name}`);
    return found;
  }

  /** @param {State} state */
  item(state) {
    return this.source.items[Math.min(state.item, this.source.items.length - 1)];
  }

  /** Turn a state to another array, with the pooling that it comes with. @param {State} state @param {number} item */
  open(state, item) {
    const { channels, picture, call } = this.source.items[item];
    Object.assign(state, { item, cell: null, place: null, shift: [0, 0] });
    state.channel = picture && channels.length === 3 ? -1 : 0;
    if (call) Object.assign(state, read(`${DEFAULT_CALL}&${call}`, state));
  }

  /** The channels on the screen. @param {State} state */
  channels(state) {
    const { channels } = this.item(state);
    return state.channel < 0 && channels.length >= 3 ? [0, 1, 2] : [Math.max(0, Math.min(state.channel, channels.length - 1))];
  }

  /** @param {State} state @param {Shape} shape */
  geometry(state, shape = state.shape) {
    const { rows, columns } = this.item(state);
    return this.once(`geometry ${rows}x${columns} ${writeCall({ name: "max", parameters: {} }, shape)}`, () => geometryOf([rows, columns], shape));
  }

  /** @template T @param {string} name @param {() => T} make @returns {T} */
  once(name, make) {
    if (!this.kept.has(name)) {
      if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value ?? "");
      this.kept.set(name, make());
    }
    const found = this.kept.get(name);
    this.kept.delete(name);
    this.kept.set(name, found); // the one used last goes last
    return found;
  }

  /** Ask Python; in a saved file its answers are those of the time it was saved. @param {string} kind @param {string} query @returns {Promise<any>} */
  async ask(kind, query) {
    const known = this.source.answers[`${kind}?${query}`];
    if (known) return known;
    if (this.asks) return this.asks(kind, query);
    throw new Fault("only Python has these numbers, and this is a saved file without Python; it knows max, min, mean and sum, and what it was saved with");
  }

  /** @param {string} query @returns {Promise<Field>} */
  remote(query) {
    return this.once(`remote ${query}`, () => {
      const opened = Remote.open((kind, text) => this.ask(kind, text), query);
      opened.catch(() => this.kept.delete(`remote ${query}`));
      return opened;
    });
  }

  /** @returns {Promise<import("./network.js").Network>} */
  network() {
    return this.once("network", () => {
      const asked = this.ask("network", "");
      asked.catch(() => this.kept.delete("network"));
      return asked;
    });
  }

  /** @param {State} state @param {number} channel @param {[number, number]} shift @returns {Promise<Field>} */
  async input(state, channel, shift = [0, 0]) {
    const { data, low, high } = this.item(state);
    if (!data) return this.remote(question(state, channel, "input", "", shift));
    const name = `input ${state.item} ${channel}`;
    const plain = this.once(name, () => new Local(unpacked(data[channel]), [low, high]));
    if (!shift.some(Boolean)) return plain;
    return this.once(`${name} ${shift}`, () => new Local(shifted(plain.grid, ...shift), [low, high]));
  }

  /** @param {State} state @param {number} channel @param {Op} op @param {Shape} shape @param {[number, number]} shift @returns {Promise<Field>} */
  async output(state, channel, op, shape, shift = [0, 0], local = this.local(state, op)) {
    checkOp(op);
    const geometry = this.geometry(state, shape);
    const call = writeCall(op, shape);
    if (!local) return this.remote(question(state, channel, "output", call, shift));
    const { grid } = await this.input(state, channel, shift);
    return this.once(`output ${state.item} ${channel} ${call} ${shift}`, () => new Local(pooled(/** @type {any} */ (grid), geometry, op)));
  }

  /** Whether the page computes it. @param {State} state @param {Op} op */
  local(state, op) {
    return HERE.includes(op.name) && this.item(state).data !== null;
  }

  /** @param {State} state @param {number} channel @returns {Promise<Field>} */
  async gradient(state, channel) {
    const geometry = this.geometry(state);
    const call = writeCall(state.op, state.shape);
    if (!this.local(state, state.op) || work(geometry) > MOST_WORK) return this.remote(question(state, channel, "gradient", call));
    const { grid } = await this.input(state, channel);
    return this.once(`gradient ${state.item} ${channel} ${call}`, () => new Local(backward(/** @type {any} */ (grid), geometry, state.op)));
  }

  /** What a model's own pooling made. @param {State} state @param {number} channel @returns {Promise<Field>} */
  async after(state, channel) {
    const { after } = this.item(state);
    if (!after) return this.output(state, channel, state.op, state.shape);
    if (!after.data) return this.remote(question(state, channel, "after", ""));
    const data = after.data;
    return this.once(`after ${state.item} ${channel}`, () => new Local(unpacked(data[channel]), [after.low, after.high]));
  }

  /** By how much the input and the output change under the shift, as shares. @param {State} state @returns {Promise<{input: number, output: number}>} */
  async change(state) {
    const [channel] = this.channels(state);
    const pairs = await Promise.all([
      this.input(state, channel), this.input(state, channel, state.shift),
      this.output(state, channel, state.op, state.shape), this.output(state, channel, state.op, state.shape, state.shift),
    ]);
    const [a, b, c, d] = pairs.map((field) => field.grid?.values);
    if (a && b && c && d) return { input: change(a, b), output: change(c, d) };
    const query = question(state, channel, "output", writeCall(state.op, state.shape), state.shift);
    return this.once(`change ${query}`, () => this.ask("change", query));
  }

  /** Two outputs and their difference, computed in one place. @param {State} state @param {number} channel @param {[Op, Shape]} first @param {[Op, Shape]} second */
  async two(state, channel, first, second) {
    const local = this.local(state, first[0]) && this.local(state, second[0]);
    const fields = await Promise.all([first, second].map(([op, shape]) => this.output(state, channel, op, shape, [0, 0], local || (!this.asks && this.local(state, op)))));
    const [a, b] = fields;
    const alike = a.rows === b.rows && a.columns === b.columns && Boolean(a.grid) === Boolean(b.grid);
    const name = `difference ${question(state, channel, "output", writeCall(...first))} ${writeCall(...second)}`;
    return { a, b, less: alike ? this.once(name, () => difference(a, b)) : null };
  }

  /** One window with its numbers, NaN those that are still on their way. @param {Cell} cell @param {Op} op @param {Geometry} geometry @param {Field} input @returns {Look} */
  look(cell, op, geometry, input) {
    const at = (/** @type {number} */ row, /** @type {number} */ column) => input.at(row, column) ?? NaN;
    return look(at, input.dtype, geometry, op, cell.row, cell.column);
  }
}

/** @param {State} state @param {number} channel @param {string} what @param {string} call @param {[number, number]} shift */
export function question(state, channel, what, call, shift = [0, 0]) {
  const moved = shift.some(Boolean) ? `&shift=${shift.join("x")}` : "";
  return `item=${state.item}&channel=${channel}&what=${what}${call ? `&${call}` : ""}${moved}`;
}

// ---- marks ------------------------------------------------------------------------------------------------------

/**
 * The cells to ring on a board of the input or the output, for the cell looked at.
 * @param {"input" | "output"} role @param {Cell | null} cell @param {Geometry} geometry @param {Look | null} found
 * @returns {Mark[]}
 */
export function marks(role, cell, geometry, found) {
  if (!cell) return [];
  if (cell.board === role) return [{ row: cell.row, column: cell.column, style: "focus" }];
  if (role === "output") {
    const [rows, columns] = [readers(geometry.axes[0], cell.row), readers(geometry.axes[1], cell.column)];
    if (rows.length * columns.length > 4096) return [];
    return rows.flatMap((row) => columns.map((column) => ({ row, column, style: /** @type {const} */ ("reader") })));
  }
  const [down, across] = [geometry.axes[0].row(cell.row), geometry.axes[1].row(cell.column)];
  if (down.places.length * across.places.length > 4096) return [];
  const winner = found && found.winner >= 0 ? found.taps[found.winner].from : null;
  const won = /** @type {Mark[]} */ (winner ? [{ row: winner[0], column: winner[1], style: "winner" }] : []);
  const places = down.places.flatMap((row) => across.places.map((column) => ({ row, column, style: /** @type {const} */ ("window") })));
  return [...places, ...won];
}

/** Padding around the elements that windows reach or the user declared. @param {Geometry} geometry @returns {[number, number, number, number]} */
export function margin(geometry) {
  const [top, bottom] = reach(geometry, 0);
  const [left, right] = reach(geometry, 1);
  return [top, left, bottom, right];
}

/** @param {Geometry} geometry @param {number} number */
function reach(geometry, number) {
  const axis = geometry.axes[number];
  const end = extent(axis, axis.output - 1)[1];
  const most = 3 * axis.size; // padding far wider than the input would leave no room for it
  return [Math.min(most, Math.max(axis.low, -extent(axis, 0)[0])), Math.min(most, Math.max(axis.high, end - axis.size))];
}

/** @param {Geometry} geometry @returns {[boolean[], boolean[]]} rows and columns that no window reads */
export function unread(geometry) {
  const [rows, columns] = geometry.axes.map((axis) => Array.from(coverage(axis), (count) => count === 0));
  return [rows, columns];
}

/** @param {Geometry} geometry @returns {[{from: number, to: number}[], {from: number, to: number}[]]} */
export function brackets(geometry) {
  const [rows, columns] = geometry.axes.map((axis) =>
    axis.output > 512 ? [] : Array.from({ length: axis.output }, (_, cell) => extent(axis, cell)).map(([from, to]) => ({ from, to })),
  );
  return [rows, columns];
}

// ---- sentences --------------------------------------------------------------------------------------------------

/** @param {number} number @param {string} one @param {string} many */
export const plural = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** What the geometry does, in short facts. @param {Geometry} geometry @param {[number, number]} sizes @returns {[string, string][]} */
export function facts(geometry, sizes) {
  const read = geometry.axes.map(coverage);
  const never = read.map((counts) => counts.filter((count) => count === 0).length);
  const [most, least] = [read.map((counts) => Math.max(...counts)), read.map((counts) => Math.min(...counts))];
  const times = least[0] * least[1] === most[0] * most[1] ? `${most[0] * most[1]}×` : `${least[0] * least[1]}× to ${most[0] * most[1]}×`;
  const [top, left, bottom, right] = margin(geometry);
  const windows = geometry.axes.map((axis) => (axis.uneven ? widths(axis) : String(axis.window)));
  return [
    ["size", `${sizes.join("×")} → ${geometry.rows}×${geometry.columns}`],
    ["numbers kept", `${said((100 * geometry.rows * geometry.columns) / (sizes[0] * sizes[1]), 3)} %`],
    ["a window", windows.join("×")],
    ["times read", times],
    ["never read", never[0] + never[1] === 0 ? "none" : [never[0] && plural(never[0], "row"), never[1] && plural(never[1], "column")].filter(Boolean).join(", ")],
    ["padding", top + left + bottom + right === 0 ? "none" : `${top}+${bottom} × ${left}+${right}`],
  ];
}

/** @param {import("./pooling.js").Axis} axis */
function widths(axis) {
  const taps = Array.from({ length: axis.output }, (_, cell) => axis.row(cell).places.length);
  const [low, high] = [Math.min(...taps), Math.max(...taps)];
  return low === high ? String(low) : `${low}…${high}`;
}

const SHOWN = 16;

/** The parts of a formula; the winner is to stand out. @typedef {{text: string, winner?: boolean}} Part */

/**
 * How one output cell comes about, with its numbers.
 * @param {Op} op @param {Look} found @param {Operation} about @param {number | undefined} result
 * @returns {Part[]}
 */
export function formula(op, found, about, result) {
  const present = found.taps.flatMap((tap, number) => (tap.value === null ? [] : [{ value: tap.value, number }]));
  const sign = op.name === "mean" || op.name === "sum" ? " + " : ", ";
  const parts = present.slice(0, SHOWN).flatMap(({ value, number }, place) => [
    ...(place ? [{ text: sign }] : []),
    { text: said(value), winner: number === found.winner },
  ]);
  const late = present.slice(SHOWN).find(({ number }) => number === found.winner);
  if (late) parts.push({ text: ", …, " }, { text: said(late.value), winner: true });
  if (present.length > SHOWN) parts.push({ text: `${sign}… ${present.length - SHOWN - (late ? 1 : 0)} more` });
  const end = ` = ${result === undefined ? "…" : said(result)}`;
  const absent = found.taps.length - present.length;
  /** @type {string[]} */
  const notes = [];
  if (absent) notes.push(`${absent} of ${plural(found.taps.length, "tap")} absent`);
  if (found.ties > 1) notes.push(`${found.ties} are equal, the ${Number.isNaN(found.result) ? "last NaN" : "first"} wins`);
  const note = { text: notes.length ? `  (${notes.join("; ")})` : "" };
  if (!present.length) return [{ text: `${writeOp(op)} of nothing${end}` }, note];
  if (op.name === "mean") return [{ text: "(" }, ...parts, { text: `) / ${said(found.divisor)}${end}` }, note];
  if (op.name === "sum") return [...parts, { text: end }, note];
  if (HERE.includes(op.name)) return [{ text: `${op.name}(` }, ...parts, { text: `)${end}` }, note];
  return [{ text: `${writeOp(op)} of (` }, ...parts, { text: `)${end}` }, ...(about.formula ? [{ text: `  ${about.formula}` }] : []), note];
}

/** @param {Geometry} geometry @param {Cell} cell */
export function whoReads(geometry, cell) {
  const [rows, columns] = [readers(geometry.axes[0], cell.row), readers(geometry.axes[1], cell.column)];
  const count = rows.length * columns.length;
  if (!count) return "no window reads it";
  const named = rows.flatMap((row) => columns.map((column) => `(${row}, ${column})`)).slice(0, 6);
  return `read by ${plural(count, "window")}: ${named.join(" ")}${count > named.length ? " …" : ""}`;
}
