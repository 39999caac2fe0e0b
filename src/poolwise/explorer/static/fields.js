// Numbers on a grid, wherever they are: in the page, or behind it in Python, piece by piece.

import { Fault } from "./pooling.js";

/** @typedef {import("./pooling.js").Grid} Grid */
/** An array as Python writes it. dtype: what it is; wire: what its bytes are.
 * @typedef {{rows: number, columns: number, dtype: string, wire: string, data: string}} Packed */
/** What Python says of a grid that it keeps. @typedef {{rows: number, columns: number, dtype: string, low: number, high: number}} Facts */
/** Asks Python. @typedef {(kind: string, query: string) => Promise<any>} Ask */
/** A piece of a grid, reduced 2^level times. @typedef {{level: number, top: number, left: number, rows: number, columns: number, values: Float64Array}} Piece */
/**
 * @typedef {object} Field
 * @property {number} rows
 * @property {number} columns
 * @property {string} dtype
 * @property {[number, number]} range smallest and largest finite number
 * @property {Grid | null} grid all of it, where it is in the page
 * @property {(row: number, column: number) => number | undefined} at undefined: not here yet
 * @property {(level: number, top: number, left: number, bottom: number, right: number, arrived: () => void) => Piece[]} pieces
 */

const WIRES = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
  int32: Int32Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array,
};
export const TILE = 256;

/** @param {Packed} packed @returns {Grid} */
export function unpacked(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const kind = WIRES[/** @type {keyof typeof WIRES} */ (packed.wire)];
  const values = Float64Array.from(new kind(bytes.buffer));
  return { rows: packed.rows, columns: packed.columns, dtype: packed.dtype, values };
}

/** @param {Float64Array} values @returns {[number, number]} */
export function rangeOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low && value > -Infinity) low = value;
    if (value > high && value < Infinity) high = value;
  }
  return low <= high ? [low, high] : [0, 0];
}

/** A grid that is in the page. @implements {Field} */
export class Local {
  /** @param {Grid} grid @param {[number, number] | null} range where it is known */
  constructor(grid, range = null) {
    this.grid = grid;
    this.rows = grid.rows;
    this.columns = grid.columns;
    this.dtype = grid.dtype;
    this.known = range;
  }

  /** @returns {[number, number]} */
  get range() {
    this.known ??= rangeOf(this.grid.values);
    return this.known;
  }

  /** @param {number} row @param {number} column */
  at(row, column) {
    return this.grid.values[row * this.columns + column];
  }

  /** @returns {Piece[]} */
  pieces() {
    return [{ level: 0, top: 0, left: 0, rows: this.rows, columns: this.columns, values: this.grid.values }];
  }
}

/** A grid that Python keeps; its tiles come when they are looked at. @implements {Field} */
export class Remote {
  /** @param {Ask} ask @param {string} query @param {Facts} facts */
  constructor(ask, query, facts) {
    this.ask = ask;
    this.query = query;
    this.rows = facts.rows;
    this.columns = facts.columns;
    this.dtype = facts.dtype;
    /** @type {[number, number]} */
    this.range = [facts.low, facts.high];
    /** @type {Grid | null} */
    this.grid = null;
    /** @type {Map<string, Piece | null>} null: asked for */
    this.tiles = new Map();
    /** @type {Set<() => void>} */
    this.waiting = new Set();
  }

  /** @param {Ask} ask @param {string} query @returns {Promise<Remote>} */
  static async open(ask, query) {
    return new Remote(ask, query, await ask("field", query));
  }

  /** @param {number} row @param {number} column */
  at(row, column) {
    const tile = this.tiles.get(`0/${Math.floor(row / TILE)}/${Math.floor(column / TILE)}`);
    return tile ? tile.values[(row - tile.top) * tile.columns + column - tile.left] : undefined;
  }

  /** The tiles of a region that are here; the others are asked for, and `arrived` is called when one comes.
   * @param {number} level @param {number} top @param {number} left @param {number} bottom @param {number} right
   * @param {() => void} arrived @returns {Piece[]} */
  pieces(level, top, left, bottom, right, arrived) {
    const found = [];
    const side = TILE * 2 ** level;
    const last = [Math.ceil(this.rows / side), Math.ceil(this.columns / side)];
    for (let row = Math.max(0, Math.floor(top / side)); row < Math.min(last[0], Math.ceil(bottom / side)); row++) {
      for (let column = Math.max(0, Math.floor(left / side)); column < Math.min(last[1], Math.ceil(right / side)); column++) {
        const tile = this.tile(level, row, column, arrived) ?? this.coarser(level, row, column);
        if (tile) found.push(tile);
      }
    }
    return found;
  }

  /** A tile above this one that is here already. @param {number} level @param {number} row @param {number} column */
  coarser(level, row, column) {
    for (let up = level + 1; up < level + 8; up++) {
      const tile = this.tiles.get(`${up}/${row >> (up - level)}/${column >> (up - level)}`);
      if (tile) return tile;
    }
    return null;
  }

  /** @param {number} level @param {number} row @param {number} column @param {() => void} arrived */
  tile(level, row, column, arrived) {
    const name = `${level}/${row}/${column}`;
    const known = this.tiles.get(name);
    if (known) return known;
    this.waiting.add(arrived);
    if (known === undefined) {
      this.tiles.set(name, null);
      this.ask("tile", `${this.query}&level=${level}&row=${row}&column=${column}`).then(
        (packed) => {
          const { rows, columns, values } = unpacked(packed);
          this.tiles.set(name, { level, top: row * TILE * 2 ** level, left: column * TILE * 2 ** level, rows, columns, values });
          const waiting = [...this.waiting];
          this.waiting.clear();
          for (const tell of waiting) tell();
        },
        () => this.tiles.delete(name),
      );
    }
    return null;
  }

  /** Once the elements of a region are here. @param {number} top @param {number} left @param {number} bottom @param {number} right @returns {Promise<void>} */
  ready(top, left, bottom, right) {
    return new Promise((done) => {
      const look = () => {
        const needed = [];
        for (let row = Math.floor(top / TILE); row <= Math.floor((bottom - 1) / TILE); row++) {
          for (let column = Math.floor(left / TILE); column <= Math.floor((right - 1) / TILE); column++) {
            needed.push(this.tile(0, row, column, look));
          }
        }
        if (needed.every(Boolean)) done();
      };
      look();
    });
  }
}

/** The numbers of two grids, one less the other; both are in the page, or neither. @param {Field} a @param {Field} b @returns {Field} */
export function difference(a, b) {
  if (a.rows !== b.rows || a.columns !== b.columns) throw new Fault("grids of different sizes have no difference");
  if (a.grid && b.grid) {
    const [first, second] = [a.grid.values, b.grid.values];
    const values = new Float64Array(first.length);
    for (let at = 0; at < values.length; at++) values[at] = first[at] === second[at] ? 0 : first[at] - second[at];
    return new Local({ rows: a.rows, columns: a.columns, dtype: "float64", values });
  }
  return new Difference(a, b);
}

/** The same, tile by tile. @implements {Field} */
class Difference {
  /** @param {Field} a @param {Field} b */
  constructor(a, b) {
    this.a = a;
    this.b = b;
    this.rows = a.rows;
    this.columns = a.columns;
    this.dtype = "float64";
    /** @type {Grid | null} */
    this.grid = null;
    const spread = Math.max(...a.range, ...b.range) - Math.min(...a.range, ...b.range);
    /** @type {[number, number]} */
    this.range = [-spread / 2, spread / 2];
    /** @type {Map<string, Piece>} */
    this.made = new Map();
  }

  /** @param {number} row @param {number} column */
  at(row, column) {
    const [first, second] = [this.a.at(row, column), this.b.at(row, column)];
    return first === undefined || second === undefined ? undefined : first === second ? 0 : first - second;
  }

  /** @param {number} level @param {number} top @param {number} left @param {number} bottom @param {number} right @param {() => void} arrived */
  pieces(level, top, left, bottom, right, arrived) {
    const others = this.b.pieces(level, top, left, bottom, right, arrived);
    return this.a.pieces(level, top, left, bottom, right, arrived).flatMap((piece) => {
      const match = others.find((other) => ["level", "top", "left", "rows"].every((key) => piece[/** @type {"level"} */ (key)] === other[/** @type {"level"} */ (key)]));
      if (!match) return [];
      const name = `${piece.level}/${piece.top}/${piece.left}`;
      const known = this.made.get(name) ?? { ...piece, values: piece.values.map((value, at) => value - match.values[at]) };
      this.made.set(name, known);
      return [known];
    });
  }
}
