// What a pooling reads and what it makes of it: `geometry.py` and the four plainest operations, in JavaScript.
// The same cases run through Python's reference and through this file (tests/test_explorer_parity.py).

/** A mistake in what was asked, as one sentence for the person who asked. */
export class Fault extends Error {}

/**
 * One pooled axis. `row(i)` says what output cell i reads.
 * @typedef {object} Axis
 * @property {number} size elements
 * @property {number} output cells
 * @property {number} window taps of a window (of the widest, where they differ)
 * @property {number} low padding before the first element
 * @property {number} high padding after the last
 * @property {string} mode what taps in the padding read: "absent", "circular", "reflect", "replicate"
 * @property {boolean} uneven whether windows differ
 * @property {Sliding | null} sliding the regular form
 * @property {(cell: number) => Row} row
 */
/** @typedef {{start: number, step: number, dilation: number}} Sliding */
/** Taps of one window: where each lies, which element it reads (−1: none), how many count for a padded mean.
 * @typedef {{places: number[], elements: number[], count: number}} Row */
/** @typedef {{axes: [Axis, Axis], rows: number, columns: number}} Geometry */
/** An operation of this file or, where `here` is false, one that only Python computes.
 * @typedef {{name: string, parameters: Record<string, any>}} Op */
/** Numbers on a grid. dtype: NumPy's name.
 * @typedef {{rows: number, columns: number, dtype: string, values: Float64Array}} Grid */
/** What a pooling is asked for, apart from its operation; null stride: left out.
 * @typedef {object} Shape
 * @property {"window" | "adaptive" | "global"} kind
 * @property {[number, number]} window
 * @property {[number, number] | null} stride
 * @property {string | [[number, number], [number, number]]} padding
 * @property {[number, number]} dilation
 * @property {boolean} ceil
 * @property {string} paddingMode
 * @property {[number, number]} output
 * @property {string} bins
 */

export const HERE = ["max", "min", "mean", "sum"];
const AXES = ["height", "width"];
const MOST_CELLS = 2 ** 26;

/**
 * The tables of both axes; throws a Fault where the numbers cannot work.
 * @param {[number, number]} sizes
 * @param {Shape} shape
 * @returns {Geometry}
 */
export function geometryOf(sizes, shape) {
  const axes = /** @type {[Axis, Axis]} */ ([0, 1].map((number) => axisOf(sizes[number], shape, number)));
  const cells = axes[0].output * axes[1].output;
  if (cells > MOST_CELLS || axes.some((axis) => axis.output * axis.window > MOST_CELLS)) {
    throw new Fault(`the output would be ${axes.map((axis) => axis.output).join("×")} cells, more than can be shown; pad less`);
  }
  return { axes, rows: axes[0].output, columns: axes[1].output };
}

/** @param {number} size @param {Shape} shape @param {number} number @returns {Axis} */
function axisOf(size, shape, number) {
  if (shape.kind === "global") return bins(size, 1, "overlapping");
  if (shape.kind === "adaptive") {
    const cells = whole("output size", shape.output[number], 1);
    return bins(size, cells, shape.bins);
  }
  const window = whole("window", shape.window[number], 1);
  const step = shape.stride ? whole("stride", shape.stride[number], 1) : window;
  const dilation = whole("dilation", shape.dilation[number], 1);
  const span = (window - 1) * dilation + 1;
  const [low, high] = padding(shape.padding, number, size, span, step);
  const output = outputSize(size, low, high, span, step, shape.ceil);
  if (output < 1) {
    throw new Fault(
      `window must fit the padded input: it spans ${span} along the ${AXES[number]}, ` +
        `which has ${size} + padding ${low}+${high}`,
    );
  }
  return regular(size, output, -low, step, dilation, window, low, high, shape.paddingMode);
}

/** @param {string} name @param {number} value @param {number} least @returns {number} */
function whole(name, value, least) {
  if (!Number.isSafeInteger(value) || value < least || value > 1e9) {
    throw new Fault(`${name} must be a whole number of at least ${least}, got ${value}`);
  }
  return value;
}

/**
 * @param {Shape["padding"]} given @param {number} number @param {number} size @param {number} span
 * @param {number} step @returns {[number, number]}
 */
function padding(given, number, size, span, step) {
  if (given === "valid") return [0, 0];
  if (typeof given === "string") {
    const total = Math.max((Math.ceil(size / step) - 1) * step + span - size, 0);
    const small = Math.floor(total / 2);
    return given === "same" ? [small, total - small] : [total - small, small];
  }
  const [low, high] = given[number].map((value) => whole("padding", value, 0));
  return [low, high];
}

/**
 * ⌊(n + low + high − span) / step⌋ + 1; ceil rounds up and drops a last window that starts in the right padding.
 * @param {number} size @param {number} low @param {number} high @param {number} span @param {number} step
 * @param {boolean} ceil
 */
export function outputSize(size, low, high, span, step, ceil) {
  const free = size + low + high - span;
  if (!ceil) return Math.floor(free / step) + 1;
  const rounded = Math.ceil(free / step) + 1;
  return (rounded - 1) * step >= size + low ? rounded - 1 : rounded;
}

/** @returns {Axis} */
function regular(
  /** @type {number} */ size,
  /** @type {number} */ output,
  /** @type {number} */ start,
  /** @type {number} */ step,
  /** @type {number} */ dilation,
  /** @type {number} */ window,
  /** @type {number} */ low,
  /** @type {number} */ high,
  /** @type {string} */ mode,
) {
  /** @param {number} cell @returns {Row} */
  const row = (cell) => {
    const places = Array.from({ length: window }, (_, tap) => start + cell * step + tap * dilation);
    const declared = places.filter((place) => place >= -low && place < size + high);
    const read = (/** @type {number} */ place) => (place < size + high ? folded(place, size, mode) : -1);
    return { places, elements: places.map(read), count: declared.length };
  };
  return { size, output, window, low, high, mode, uneven: false, sliding: { start, step, dilation }, row };
}

/** @param {number} size @param {number} output @param {string} rule @returns {Axis} */
function bins(size, output, rule) {
  if (rule === "disjoint" && output > size) {
    throw new Fault(`output size must be at most ${size} for disjoint bins, got ${output}`);
  }
  if (size % output === 0) return regular(size, output, 0, size / output, 1, size / output, 0, 0, "absent");
  const short = Math.floor(size / output);
  const longer = size % output;
  const disjoint = (/** @type {number} */ cell) => cell * short + Math.min(cell, longer);
  /** @param {number} cell @returns {Row} */
  const row = (cell) => {
    const begin = rule === "disjoint" ? disjoint(cell) : Math.floor((cell * size) / output);
    const end = rule === "disjoint" ? disjoint(cell + 1) : Math.ceil(((cell + 1) * size) / output);
    const places = Array.from({ length: end - begin }, (_, tap) => begin + tap);
    return { places, elements: places, count: places.length };
  };
  const window = Math.ceil(size / output) + (rule === "disjoint" ? 0 : 1);
  return { size, output, window, low: 0, high: 0, mode: "absent", uneven: true, sliding: null, row };
}

/** The element that a place in the padding reads, −1 for none. @param {number} place @param {number} size @param {string} mode */
function folded(place, size, mode) {
  if (place >= 0 && place < size) return place;
  if (mode === "circular") return ((place % size) + size) % size;
  if (mode === "replicate") return place < 0 ? 0 : size - 1;
  if (mode === "reflect") {
    const period = Math.max(2 * (size - 1), 1);
    const around = ((place % period) + period) % period;
    return size > 1 ? Math.min(around, period - around) : 0;
  }
  return -1;
}

/** Where a window begins and ends on an axis, absent taps included. @param {Axis} axis @param {number} cell */
export function extent(axis, cell) {
  const { places } = axis.row(cell);
  return [places[0], places[places.length - 1] + 1];
}

/** @type {WeakMap<Axis, Int32Array>} */
const coverages = new WeakMap();

/** How often each element of an axis is read. @param {Axis} axis */
export function coverage(axis) {
  const known = coverages.get(axis);
  if (known) return known;
  const read = new Int32Array(axis.size);
  for (let cell = 0; cell < axis.output; cell++) {
    for (const element of axis.row(cell).elements) if (element >= 0) read[element]++;
  }
  coverages.set(axis, read);
  return read;
}

/** The output cells of an axis that read an element. @param {Axis} axis @param {number} element */
export function readers(axis, element) {
  const cells = [];
  for (let cell = 0; cell < axis.output; cell++) if (axis.row(cell).elements.includes(element)) cells.push(cell);
  return cells;
}

/** Refuses parameters that mean nothing, of the operations of this file. @param {Op} op */
export function checkOp({ name, parameters }) {
  if (name !== "mean") return;
  const { divisor, rounding } = parameters;
  if (divisor !== null && divisor !== undefined && !(divisor >= 1 && divisor <= 2 ** 53)) {
    throw new Fault(`divisor must be at least 1, got ${divisor}`);
  }
  if (!["nearest", "truncate", undefined].includes(rounding)) {
    throw new Fault(`rounding must be "nearest" or "truncate", got ${rounding}`);
  }
}

// ---- forward ---------------------------------------------------------------------------------------------------

/** @param {string} dtype */
export const isInteger = (dtype) => /^u?int/.test(dtype);

/** What an empty window gives. @param {Op} op @param {string} dtype */
function empty(op, dtype) {
  const bits = Number(dtype.replace(/\D/g, ""));
  const signed = dtype.startsWith("int");
  if (op.name === "max") return isInteger(dtype) ? (signed ? -(2 ** (bits - 1)) : 0) : -Infinity;
  return isInteger(dtype) ? 2 ** (signed ? bits - 1 : bits) - 1 : Infinity;
}

/** @param {number} value */
function halfToEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** The dtype of a pooling's result. @param {Op} op @param {string} dtype */
export function resultDtype(op, dtype) {
  if (op.name !== "sum" || !isInteger(dtype)) return dtype;
  return dtype.startsWith("u") ? "uint64" : "int64";
}

/**
 * Turns a total of what is present into the result.
 * @param {Op} op @param {string} dtype @returns {(total: number, present: number, count: number) => number}
 */
function finisher(op, dtype) {
  if (op.name === "max" || op.name === "min") {
    const nothing = empty(op, dtype);
    return (total, present) => (present ? total : nothing);
  }
  const integer = isInteger(dtype);
  const settle = dtype === "float32" ? Math.fround : (/** @type {number} */ value) => value;
  if (op.name === "sum") return (total) => settle(total);
  const { count_include_pad: padded, divisor, rounding } = op.parameters;
  const round = rounding === "truncate" ? Math.trunc : halfToEven;
  return (total, present, count) => {
    const over = divisor ?? (padded ? count : present);
    if (integer) return over ? round(total / over) : 0;
    return settle(total / over);
  };
}

/**
 * The whole output of max, min, mean or sum: one pass per axis.
 * @param {Grid} grid @param {Geometry} geometry @param {Op} op @returns {Grid}
 */
export function pooled(grid, geometry, op) {
  const { rows, columns } = geometry;
  const kind = op.name === "mean" ? "sum" : op.name;
  const [down, across] = geometry.axes;
  const narrow = space(2, grid.rows * columns);
  along(grid.values, narrow, grid.rows, across, 1, kind);
  const values = new Float64Array(rows * columns);
  along(narrow, values, 1, down, columns, kind);
  finish(values, geometry.axes.map(presence), op, grid.dtype);
  return { rows, columns, dtype: resultDtype(op, grid.dtype), values };
}

/**
 * Totals into results, in place. Extrema are results already, but where a window is empty; so are sums but for rounding.
 * @param {Float64Array} values @param {Presence[]} present @param {Op} op @param {string} dtype
 */
function finish(values, [down, across], op, dtype) {
  const extreme = op.name === "max" || op.name === "min";
  if (extreme && down.full && across.full) return;
  const settle = finisher(op, dtype);
  const columns = across.present.length;
  if (op.name === "mean" && down.full && across.full && down.even && across.even) {
    divide(values, op.parameters.divisor ?? down.present[0] * across.present[0], op, dtype);
    return;
  }
  for (let row = 0, at = 0; row < down.present.length; row++) {
    const [inRow, countRow] = [down.present[row], down.count[row]];
    for (let column = 0; column < columns; column++, at++) {
      values[at] = settle(values[at], inRow * across.present[column], countRow * across.count[column]);
    }
  }
}

/** All by the same number, in place; a loop without calls. @param {Float64Array} values @param {number} divisor @param {Op} op @param {string} dtype */
function divide(values, divisor, op, dtype) {
  if (!isInteger(dtype)) {
    if (dtype === "float32") for (let at = 0; at < values.length; at++) values[at] = Math.fround(values[at] / divisor);
    else for (let at = 0; at < values.length; at++) values[at] /= divisor;
  } else if (op.parameters.rounding === "truncate") {
    for (let at = 0; at < values.length; at++) values[at] = Math.trunc(values[at] / divisor);
  } else {
    for (let at = 0; at < values.length; at++) {
      const exact = values[at] / divisor;
      const up = Math.floor(exact + 0.5);
      values[at] = up - exact === 0.5 && up % 2 !== 0 ? up - 1 : up; // a half goes to the even neighbour
    }
  }
}

/** Elements read and taps counted, per cell. full: no cell reads nothing. even: all read as many as they count.
 * @typedef {{present: Int32Array, count: Int32Array, full: boolean, even: boolean}} Presence */
/** @type {WeakMap<Axis, Presence>} */
const presences = new WeakMap();

/** @param {Axis} axis @returns {Presence} */
function presence(axis) {
  const known = presences.get(axis);
  if (known) return known;
  const present = new Int32Array(axis.output);
  const count = new Int32Array(axis.output);
  for (let cell = 0; cell < axis.output; cell++) {
    const row = axis.row(cell);
    count[cell] = row.count;
    for (const element of row.elements) if (element >= 0) present[cell]++;
  }
  const full = present.every((number) => number > 0);
  const even = present.every((number, cell) => number === present[0] && count[cell] === present[0]);
  const made = { present, count, full, even };
  presences.set(axis, made);
  return made;
}

const IDENTITY = /** @type {Record<string, number>} */ ({ max: -Infinity, min: Infinity, sum: 0 });

/**
 * Reduces one axis: values (outer, axis.size, inner) → (outer, axis.output, inner).
 * @param {Float64Array} values @param {Float64Array} result @param {number} outer @param {Axis} axis
 * @param {number} inner @param {string} kind
 */
function along(values, result, outer, axis, inner, kind) {
  const block = axis.size * inner;
  for (let number = 0; number < outer; number++) {
    const source = values.subarray(number * block, (number + 1) * block);
    const target = result.subarray(number * axis.output * inner, (number + 1) * axis.output * inner);
    if (axis.sliding && (inner === 1 || axis.window > FEW)) slide(source, target, axis, axis.sliding, inner, kind);
    else if (inner > 1) combine(source, target, axis, inner, kind);
    else gather(source, target, axis, inner, kind);
  }
}

const FEW = 6; // taps up to which reading each of them is quicker than doubling; measured in Node 20 on 512×512

/** Whether every tap of every window is an element. @param {Axis} axis @param {Sliding} sliding */
const allPresent = (axis, { start, step, dilation }) =>
  start >= 0 && start + (axis.output - 1) * step + (axis.window - 1) * dilation < axis.size;

/** A line, tap by tap. @param {Float64Array} line @param {Float64Array} target @param {Axis} axis @param {Sliding} sliding @param {string} kind */
function direct(line, target, axis, { step, dilation }, kind) {
  for (let cell = 0, at = 0; cell < axis.output; cell++, at += step) target[cell] = line[at];
  for (let tap = 1; tap < axis.window; tap++) merge(target, 0, line, tap * dilation, step, axis.output, kind);
}

/** Whole rows, tap by tap. @param {Float64Array} source @param {Float64Array} target @param {Axis} axis @param {number} inner @param {string} kind */
function combine(source, target, axis, inner, kind) {
  target.fill(IDENTITY[kind]);
  for (let cell = 0; cell < axis.output; cell++) {
    for (const element of axis.row(cell).elements) {
      if (element >= 0) merge(target, cell * inner, source, element * inner, 1, inner, kind);
    }
  }
}

/**
 * target[to + i] becomes the larger, the smaller or the sum of itself and source[from + i·step]. NaN, once met, stays.
 * @param {Float64Array} target @param {number} to @param {Float64Array} source @param {number} from @param {number} step
 * @param {number} count @param {string} kind
 */
function merge(target, to, source, from, step, count, kind) {
  if (kind === "sum") {
    for (let i = 0, at = from; i < count; i++, at += step) target[to + i] += source[at];
  } else if (kind === "max") {
    for (let i = 0, at = from; i < count; i++, at += step) {
      const value = source[at];
      if (!(value <= target[to + i]) && target[to + i] === target[to + i]) target[to + i] = value;
    }
  } else {
    for (let i = 0, at = from; i < count; i++, at += step) {
      const value = source[at];
      if (!(value >= target[to + i]) && target[to + i] === target[to + i]) target[to + i] = value;
    }
  }
}

/** @type {Float64Array[]} scratch space, kept between calls */
const scratch = [new Float64Array(0), new Float64Array(0), new Float64Array(0)];

/** @param {number} number @param {number} length */
function space(number, length) {
  if (scratch[number].length < length) scratch[number] = new Float64Array(length);
  return scratch[number].subarray(0, length);
}

/**
 * Windows of one size: few taps one by one, many by doubling. After j rounds every place holds the reduction of the 2^j taps that start there.
 * @param {Float64Array} source @param {Float64Array} target @param {Axis} axis @param {Sliding} sliding
 * @param {number} inner @param {string} kind
 */
function slide(source, target, axis, sliding, inner, kind) {
  const { start, step, dilation } = sliding;
  const few = inner === 1 && axis.window <= FEW;
  if (few && allPresent(axis, sliding)) {
    direct(source.subarray(start), target, axis, sliding, kind);
    return;
  }
  const length = (axis.output - 1) * step + (axis.window - 1) * dilation + 1;
  const line = space(0, length * inner);
  for (let place = 0; place < length; place++) {
    const raw = start + place;
    const element = raw < axis.size + axis.high ? folded(raw, axis.size, axis.mode) : -1;
    if (element < 0) line.fill(IDENTITY[kind], place * inner, (place + 1) * inner);
    else if (inner === 1) line[place] = source[element];
    else line.set(source.subarray(element * inner, (element + 1) * inner), place * inner);
  }
  if (few) {
    direct(line, target, axis, sliding, kind);
    return;
  }
  const reduced = kind === "sum" ? sums(line, axis.window, dilation * inner) : extrema(line, axis.window, dilation * inner, kind);
  if (inner === 1) for (let cell = 0; cell < axis.output; cell++) target[cell] = reduced[cell * step];
  else
    for (let cell = 0; cell < axis.output; cell++) {
      target.set(reduced.subarray(cell * step * inner, (cell * step + 1) * inner), cell * inner);
    }
}

/** In place. @param {Float64Array} line @param {number} window @param {number} gap @param {string} kind */
function extrema(line, window, gap, kind) {
  let [width, end] = [1, line.length];
  while (width < window) {
    const more = Math.min(width, window - width) * gap;
    end -= more;
    merge(line, 0, line, more, 1, end, kind);
    width += more / gap;
  }
  return line;
}

/** Sums of powers of two, added up by the window's binary digits: nothing is ever subtracted.
 * @param {Float64Array} line @param {number} window @param {number} gap */
function sums(line, window, gap) {
  const total = space(1, line.length).fill(0);
  let [width, begin, end] = [1, 0, line.length];
  for (let left = window; left; left >>= 1, width *= 2) {
    if (left & 1) {
      const last = Math.min(line.length, end) - begin;
      for (let at = 0; at < last; at++) total[at] += line[at + begin];
      begin += width * gap;
    }
    if (left > 1) {
      end -= width * gap;
      for (let at = 0; at < end; at++) line[at] += line[at + width * gap];
    }
  }
  return total;
}

/** @param {Float64Array} source @param {Float64Array} target @param {Axis} axis @param {number} inner @param {string} kind */
function gather(source, target, axis, inner, kind) {
  for (let cell = 0; cell < axis.output; cell++) {
    const { elements } = axis.row(cell);
    for (let column = 0; column < inner; column++) {
      let total = IDENTITY[kind];
      for (const element of elements) if (element >= 0) total = joined(kind, total, source[element * inner + column]);
      target[cell * inner + column] = total;
    }
  }
}

/** @param {string} kind @param {number} total @param {number} value */
function joined(kind, total, value) {
  if (kind === "sum") return total + value;
  return kind === "max" ? Math.max(total, value) : Math.min(total, value);
}

// ---- one window ------------------------------------------------------------------------------------------------

/** One tap: its place on the grid, and its number unless it is absent.
 * @typedef {{row: number, column: number, from: [number, number] | null, value: number | null}} Tap */
/** One window, looked at. winner: position of the tap that is the result, −1: none. ties: taps as large as it.
 * @typedef {{taps: Tap[], values: number[], result: number, winner: number, ties: number, divisor: number}} Look */

/**
 * @param {(row: number, column: number) => number} at the input's numbers
 * @param {string} dtype @param {Geometry} geometry @param {Op} op @param {number} row @param {number} column
 * @returns {Look}
 */
export function look(at, dtype, geometry, op, row, column) {
  const [down, across] = [geometry.axes[0].row(row), geometry.axes[1].row(column)];
  /** @type {Tap[]} */
  const taps = [];
  down.places.forEach((y, i) =>
    across.places.forEach((x, j) => {
      const [r, c] = [down.elements[i], across.elements[j]];
      const here = r >= 0 && c >= 0;
      taps.push({ row: y, column: x, from: here ? [r, c] : null, value: here ? at(r, c) : null });
    }),
  );
  const values = /** @type {number[]} */ (taps.map((tap) => tap.value).filter((value) => value !== null));
  const kind = op.name === "mean" ? "sum" : op.name;
  const total = values.reduce((sum, value) => joined(kind, sum, value), IDENTITY[kind] ?? 0);
  const result = finisher(op, dtype)(total, values.length, down.count * across.count);
  const divisor = op.parameters.divisor ?? (op.parameters.count_include_pad ? down.count * across.count : values.length);
  return { taps, values, result, ...won(taps, op, total), divisor };
}

/** The tap that is the largest (or smallest): the first of equals, the last NaN. @param {Tap[]} taps @param {Op} op @param {number} best */
function won(taps, op, best) {
  if (op.name !== "max" && op.name !== "min") return { winner: -1, ties: 0 };
  const same = taps.flatMap((tap, number) => (tap.value !== null && (tap.value === best || tap.value !== tap.value) ? [number] : []));
  if (Number.isNaN(best)) {
    const nans = same.filter((number) => Number.isNaN(taps[number].value));
    return { winner: nans[nans.length - 1], ties: nans.length };
  }
  return { winner: same.length ? same[0] : -1, ties: same.length };
}

// ---- backward --------------------------------------------------------------------------------------------------

/** How many taps a direct walk over every window visits. @param {Geometry} geometry */
export const work = (geometry) => geometry.rows * geometry.columns * geometry.axes[0].window * geometry.axes[1].window;

/**
 * Where a gradient of one per output cell goes (or of one cell alone).
 * @param {Grid} grid @param {Geometry} geometry @param {Op} op @param {[number, number] | null} only
 * @returns {Grid}
 */
export function backward(grid, geometry, op, only = null) {
  const values = new Float64Array(grid.rows * grid.columns);
  const rows = geometry.axes.map((axis) => Array.from({ length: axis.output }, (_, cell) => axis.row(cell)));
  const visit = op.name === "max" || op.name === "min" ? toWinner : evenly;
  const [firstRow, lastRow] = only ? [only[0], only[0] + 1] : [0, geometry.rows];
  const [firstColumn, lastColumn] = only ? [only[1], only[1] + 1] : [0, geometry.columns];
  for (let row = firstRow; row < lastRow; row++) {
    for (let column = firstColumn; column < lastColumn; column++) visit(grid, values, rows[0][row], rows[1][column], op);
  }
  return { rows: grid.rows, columns: grid.columns, dtype: "float64", values };
}

/** @param {Grid} grid @param {Float64Array} gradient @param {Row} down @param {Row} across @param {Op} op */
function toWinner(grid, gradient, down, across, op) {
  let [best, winner] = [NaN, -1];
  for (const row of down.elements) {
    for (const column of across.elements) {
      if (row < 0 || column < 0) continue;
      const at = row * grid.columns + column;
      const value = grid.values[at];
      const beats = op.name === "max" ? value > best : value < best;
      if (winner < 0 || beats || value !== value) [best, winner] = [value, at];
    }
  }
  if (winner >= 0) gradient[winner] += 1;
}

/** @param {Grid} grid @param {Float64Array} gradient @param {Row} down @param {Row} across @param {Op} op */
function evenly(grid, gradient, down, across, op) {
  const present = (/** @type {Row} */ row) => row.elements.filter((element) => element >= 0);
  const [rows, columns] = [present(down), present(across)];
  let share = 1;
  if (op.name === "mean") {
    const { divisor, count_include_pad: padded } = op.parameters;
    share /= divisor ?? (padded ? down.count * across.count : rows.length * columns.length);
  }
  for (const row of rows) for (const column of columns) gradient[row * grid.columns + column] += share;
}

// ---- shifts ----------------------------------------------------------------------------------------------------

/** The grid moved down and right, what leaves on one side coming in on the other.
 * @param {Grid} grid @param {number} down @param {number} right @returns {Grid} */
export function shifted(grid, down, right) {
  const { rows, columns } = grid;
  const values = new Float64Array(grid.values.length);
  const split = (((columns - right) % columns) + columns) % columns;
  for (let row = 0; row < rows; row++) {
    const from = ((((row - down) % rows) + rows) % rows) * columns;
    values.set(grid.values.subarray(from + split, from + columns), row * columns);
    values.set(grid.values.subarray(from, from + split), row * columns + columns - split);
  }
  return { ...grid, values };
}

/** @type {WeakMap<Float64Array, number>} */
const weights = new WeakMap();

/** Σ|a|, not finite where a number of them is not. @param {Float64Array} a */
function weight(a) {
  const known = weights.get(a);
  if (known !== undefined) return known;
  let sum = 0;
  for (let at = 0; at < a.length; at++) sum += Math.abs(a[at]);
  weights.set(a, sum);
  return sum;
}

/** Σ|b − a| / Σ|a| over the numbers finite in both. @param {Float64Array} a @param {Float64Array} b */
export function change(a, b) {
  let moved = 0;
  for (let at = 0; at < a.length; at++) moved += Math.abs(b[at] - a[at]);
  const sum = weight(a);
  if (Number.isFinite(moved) && Number.isFinite(sum)) return sum ? moved / sum : 0;
  return changeOfFinite(a, b);
}

/** @param {Float64Array} a @param {Float64Array} b */
function changeOfFinite(a, b) {
  let [moved, sum] = [0, 0];
  for (let at = 0; at < a.length; at++) {
    const gap = Math.abs(b[at] - a[at]);
    if (!(gap < Infinity)) continue;
    moved += gap;
    sum += Math.abs(a[at]);
  }
  return sum ? moved / sum : 0;
}
