// Questions on standard input, one JSON list; answers on standard output. What the page computes, without a page.
import { readFileSync } from "node:fs";
import * as pooling from "../src/poolwise/explorer/static/pooling.js";
import * as state from "../src/poolwise/explorer/static/state.js";
import * as frameworks from "../src/poolwise/explorer/static/frameworks.js";

const number = (value) => (Number.isFinite(value) ? value : String(value));
const numbers = (values) => Array.from(values, number);
const grid = ({ rows, columns, dtype, values }) => ({ rows, columns, dtype, values: Float64Array.from(values, Number) });
const at = (g) => (row, column) => g.values[row * g.columns + column];
const called = (call) => state.read(call);

const answers = {
  pooled({ input, call }) {
    const { op, shape } = called(call);
    pooling.checkOp(op);
    const x = grid(input);
    const geometry = pooling.geometryOf([x.rows, x.columns], shape);
    const y = pooling.pooled(x, geometry, op);
    const windows = [];
    for (let row = 0; row < y.rows; row++) {
      for (let column = 0; column < y.columns; column++) windows.push(pooling.look(at(x), x.dtype, geometry, op, row, column));
    }
    return {
      rows: y.rows,
      columns: y.columns,
      dtype: y.dtype,
      values: numbers(y.values),
      looks: windows.map((found) => number(found.result)),
      winners: windows.map(({ winner, taps }) => (winner < 0 ? -1 : taps[winner].from[0] * x.columns + taps[winner].from[1])),
      gradient: numbers(pooling.backward(x, geometry, op).values),
      coverage: geometry.axes.map((axis) => Array.from(pooling.coverage(axis))),
      readers: geometry.axes.map((axis) => Array.from({ length: axis.size }, (_, element) => pooling.readers(axis, element).length)),
    };
  },
  shift: ({ input, shift, call }) => {
    const { op, shape } = called(call);
    const x = grid(input);
    const geometry = pooling.geometryOf([x.rows, x.columns], shape);
    const moved = pooling.shifted(x, ...shift);
    const [before, after] = [x, moved].map((each) => pooling.pooled(each, geometry, op).values);
    return { moved: numbers(moved.values), input: pooling.change(x.values, moved.values), output: pooling.change(before, after) };
  },
  state: ({ text }) => state.write(state.read(text)),
  call: ({ text }) => state.writeCall(state.read(text).op, state.read(text).shape),
  meaning: ({ framework, input, call }) => {
    const { op, shape } = called(call);
    const meant = frameworks.meaning(framework, op, shape);
    if (meant.refusal !== null) return { refusal: meant.refusal };
    const x = grid(input);
    const y = pooling.pooled(x, pooling.geometryOf([x.rows, x.columns], meant.shape), meant.op);
    return { refusal: null, notes: meant.notes, rows: y.rows, columns: y.columns, values: numbers(y.values) };
  },
  code: ({ language, call, sizes, about }) => {
    const { op, shape } = called(call);
    return frameworks.code(language, { op, about, shape, geometry: pooling.geometryOf(sizes, shape) });
  },
};

const asked = JSON.parse(readFileSync(0, "utf8"));
const said = asked.map((question) => {
  try {
    return { answer: answers[question.do](question) };
  } catch (fault) {
    if (!(fault instanceof pooling.Fault)) throw fault;
    return { fault: fault.message };
  }
});
process.stdout.write(JSON.stringify(said));
