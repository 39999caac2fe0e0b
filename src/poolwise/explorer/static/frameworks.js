// What PyTorch, Keras, JAX and ONNX each make of the same numbers, and the lines of code that give what is shown.
// Each sentence here is held to the framework itself by tests/test_explorer_frameworks.py.

/** @typedef {import("./pooling.js").Shape} Shape */
/** @typedef {import("./pooling.js").Op} Op */
/** @typedef {import("./pooling.js").Geometry} Geometry */
/** An operation as Python describes it. stems: the words for it in functions, PyTorch's and Keras's names.
 * @typedef {object} Operation
 * @property {string} name
 * @property {string} kind the class
 * @property {[string, string, string]} stems
 * @property {string} formula
 * @property {{name: string, default: any, choices?: string[], type: string, least?: number}[]} parameters
 */
/** refusal: why the framework has no numbers for this; else what it computes, in this library's terms.
 * @typedef {{refusal: string} | {refusal: null, op: Op, shape: Shape, notes: string[]}} Meaning */

export const FRAMEWORKS = [
  { id: "poolwise", label: "poolwise" },
  { id: "pytorch", label: "PyTorch" },
  { id: "keras", label: "Keras / TensorFlow" },
  { id: "jax", label: "JAX (Flax)" },
  { id: "onnx", label: "ONNX" },
];

/** @typedef {(op: Op, shape: Shape) => string | false | null | undefined} Reason */

/** @param {Shape} shape */
const numbers = (shape) => (typeof shape.padding === "string" ? [] : shape.padding.flat());
/** @param {Shape} shape */
const padded = (shape) => shape.kind === "window" && (typeof shape.padding === "string" ? shape.padding !== "valid" : numbers(shape).some(Boolean));
/** @param {Shape} shape */
const slides = (shape) => shape.kind === "window";
/** @param {Shape} shape */
const dilated = (shape) => slides(shape) && shape.dilation.some((gap) => gap > 1);
/** @param {Shape} shape */
const bySize = (shape) => shape.kind === "adaptive";

const NO = /** @type {Record<string, Record<string, string>>} */ ({
  pytorch: {
    min: "PyTorch has no min pooling; −max_pool2d(−x) is one.",
    sum: "PyTorch has no sum pooling; avg_pool2d with divisor_override=1 is one.",
    lp: "PyTorch’s LPPool is another operation: it keeps the sign of x^p, so it is NaN for odd p where the sum is negative.",
    relumax: "PyTorch has it in two steps: max_pool2d, then relu.",
  },
  keras: { relumax: "Keras has it in two steps: MaxPooling2D, then ReLU." },
  jax: {
    sum: "Flax has no sum pooling; jax.lax.reduce_window adds.",
    relumax: "Flax has it in two steps: max_pool, then relu.",
  },
  onnx: { relumax: "ONNX has it in two nodes: MaxPool, then Relu." },
});

/** @param {string} framework @param {string[]} known @returns {Reason} */
const serves = (framework, known) => (op) =>
  !known.includes(op.name) && (NO[framework][op.name] ?? `${labelOf(framework)} has no such pooling.`);

/** @param {string} id */
const labelOf = (id) => FRAMEWORKS.find((framework) => framework.id === id)?.label ?? id;

/** @type {Record<string, {refusals: Reason[], turn: (op: Op, shape: Shape) => {op: Op, shape: Shape, notes: string[]}}>} */
const RULES = {
  pytorch: {
    refusals: [
      serves("pytorch", ["max", "mean"]),
      (_, shape) => slides(shape) && shape.paddingMode !== "absent" && padded(shape) && "PyTorch’s pools have no padding mode; torch.nn.functional.pad before them has.",
      (_, shape) => slides(shape) && typeof shape.padding === "string" && shape.padding !== "valid" && "PyTorch’s pools take padding in numbers only, not “same”.",
      (_, shape) => slides(shape) && typeof shape.padding !== "string" && shape.padding.some(([low, high]) => low !== high) && "PyTorch’s pools pad both sides alike.",
      (op, shape) => op.name === "mean" && dilated(shape) && "PyTorch’s average pooling has no dilation.",
      (_, shape) =>
        slides(shape) &&
        typeof shape.padding !== "string" &&
        shape.padding.some(([low], axis) => low > Math.floor(shape.window[axis] / 2)) &&
        "PyTorch refuses padding of more than half the window.",
      (_, shape) => bySize(shape) && shape.bins === "disjoint" && "PyTorch’s adaptive bins overlap.",
      (op, shape) => !slides(shape) && op.parameters.divisor && "PyTorch’s adaptive average pooling takes no divisor.",
    ],
    turn: (op, shape) => ({ ...counting(op, shape, true), notes: op.name === "mean" && padded(shape) ? ["A mean counts the padding as zeros (count_include_pad=True is PyTorch’s default)."] : [] }),
  },
  keras: {
    refusals: [
      serves("keras", ["max", "mean"]),
      (_, shape) => slides(shape) && numbers(shape).some(Boolean) && "Keras’s pools know padding=\"valid\" and \"same\" only; a ZeroPadding2D before them makes the zeros compete.",
      (_, shape) => slides(shape) && shape.padding === "same_lower" && "Keras puts the odd one on the right only.",
      (_, shape) => slides(shape) && shape.paddingMode !== "absent" && padded(shape) && "Keras’s pools have no padding mode.",
      (_, shape) => dilated(shape) && "Keras’s pools have no dilation.",
      (_, shape) => slides(shape) && shape.ceil && "Keras’s pools have no ceil_mode: sizes round down.",
      (op) => op.name === "mean" && op.parameters.divisor && "Keras’s average pooling takes no divisor.",
      (_, shape) => bySize(shape) && shape.bins === "disjoint" && "Keras’s adaptive bins overlap.",
    ],
    turn: (op, shape) => ({ ...counting(op, shape, false), notes: op.name === "max" ? ["On TensorFlow a NaN may lose against a number."] : [] }),
  },
  jax: {
    refusals: [
      serves("jax", ["max", "mean", "min"]),
      (_, shape) => slides(shape) && shape.paddingMode !== "absent" && padded(shape) && "Flax’s pools have no padding mode.",
      (_, shape) => dilated(shape) && "Flax’s pools have no dilation; jax.lax.reduce_window has.",
      (_, shape) => slides(shape) && shape.ceil && "Flax’s pools have no ceil_mode: sizes round down.",
      (op) => op.name === "mean" && op.parameters.divisor && "Flax’s avg_pool takes no divisor.",
    ],
    turn: (op, shape) => {
      const notes = [];
      if (slides(shape) && !shape.stride) notes.push("Without strides Flax steps by 1, not by the window.");
      if (op.name === "mean" && padded(shape)) notes.push("A mean counts the padding (count_include_pad=True is Flax’s default).");
      if (bySize(shape)) notes.push("Flax has no adaptive pooling; Equinox’s bins do not overlap: the first n mod m are one longer.");
      return { ...stepping(counting(op, shape, true), bySize(shape) ? "disjoint" : shape.bins), notes };
    },
  },
  onnx: {
    refusals: [
      serves("onnx", ["max", "mean", "lp"]),
      (_, shape) => slides(shape) && shape.paddingMode !== "absent" && padded(shape) && "ONNX’s pools have no padding mode; a Pad node before them has.",
      (op) => op.name === "mean" && op.parameters.divisor && "AveragePool takes no divisor.",
      (op) => op.name === "lp" && !Number.isInteger(op.parameters.p ?? 2) && "LpPool’s p is a whole number.",
      (_, shape) => bySize(shape) && "ONNX has global pools, but no adaptive ones.",
    ],
    turn: (op, shape) => ({
      ...stepping(counting(op, shape, false), shape.bins),
      notes: slides(shape) && !shape.stride ? ["Without strides ONNX steps by 1, not by the window."] : [],
    }),
  },
};

/** @param {Op} op @param {Shape} shape @param {boolean} pads whether a mean counts padding unless told otherwise */
function counting(op, shape, pads) {
  if (op.name !== "mean") return { op, shape };
  return { op: { name: "mean", parameters: { ...op.parameters, count_include_pad: pads } }, shape };
}

/** A stride left out is 1. @param {{op: Op, shape: Shape}} call @param {string} bins @returns {{op: Op, shape: Shape}} */
function stepping({ op, shape }, bins) {
  return { op, shape: { ...shape, stride: shape.stride ?? [1, 1], bins } };
}

/** @param {string} framework @param {Op} op @param {Shape} shape @returns {Meaning} */
export function meaning(framework, op, shape) {
  if (framework === "poolwise") return { refusal: null, op, shape, notes: [] };
  const { refusals, turn } = RULES[framework];
  for (const reason of refusals) {
    const said = reason(op, shape);
    if (said) return { refusal: said };
  }
  return { refusal: null, ...turn(op, shape) };
}

// ---- code ------------------------------------------------------------------------------------------------------

/** @param {unknown} value @returns {string} a Python literal */
function python(value) {
  if (Array.isArray(value)) return `(${value.map(python).join(", ")}${value.length === 1 ? "," : ""})`;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value === null || value === undefined) return "None";
  if (value === Infinity) return 'float("inf")';
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** @param {Record<string, unknown>} given */
const keywords = (given) => Object.entries(given).map(([name, value]) => `${name}=${python(value)}`);

/** The parameters that are not as by default. @param {Op} op @param {Operation} about */
function parameters(op, about) {
  const given = about.parameters.filter(({ name, default: plain }) => (op.parameters[name] ?? plain) !== plain);
  return Object.fromEntries(given.map(({ name }) => [name, op.parameters[name]]));
}

/** `pool`'s keywords for what is not as by default. @param {Shape} shape */
function options(shape) {
  /** @type {Record<string, unknown>} */
  const given = {};
  if (shape.stride && shape.stride.some((step, axis) => step !== shape.window[axis])) given.stride = shape.stride;
  if (padded(shape)) given.padding = typeof shape.padding === "string" ? shape.padding : shorter(shape.padding);
  if (dilated(shape)) given.dilation = shape.dilation;
  if (shape.ceil) given.ceil_mode = true;
  if (padded(shape) && shape.paddingMode !== "absent") given.padding_mode = shape.paddingMode;
  return given;
}

/** One number per axis where both sides are alike. @param {[number, number][]} padding */
const shorter = (padding) => (padding.every(([low, high]) => low === high) ? padding.map(([low]) => low) : padding);

/** @param {Op} op @param {Operation} about */
const made = (op, about) => `poolwise.${about.kind}(${keywords(parameters(op, about)).join(", ")})`;

/** @param {Op} op @param {Operation} about @param {Shape} shape */
function call(op, about, shape) {
  if (shape.kind === "global") return `poolwise.global_pool(x, ${made(op, about)}, axes=(-2, -1), keepdims=True)`;
  if (shape.kind === "adaptive") {
    const bins = shape.bins === "overlapping" ? [] : keywords({ bins: shape.bins });
    return `poolwise.adaptive_pool(${["x", made(op, about), python(shape.output), ...bins].join(", ")})`;
  }
  const given = ["x", python(shape.window), ...keywords({ ...parameters(op, about), ...options(shape) })];
  return `poolwise.${about.stems[0]}_pool(${given.join(", ")})`;
}

/** @typedef {{op: Op, about: Operation, shape: Shape, geometry: Geometry}} Shown */
/** @type {Record<string, (shown: Shown) => string>} */
const WRITERS = {
  numpy: ({ op, about, shape }) => `import poolwise\n\n# x: (…, height, width)\ny = ${call(op, about, shape)}`,
  pytorch: ({ op, about, shape }) => {
    const head = "# x: a tensor (batch, channels, height, width)";
    const said = meaning("pytorch", op, shape);
    if (said.refusal !== null) return `import poolwise  # PyTorch’s own pools cannot say it\n\n${head}\ny = ${call(op, about, shape)}`;
    const mean = op.name === "mean" ? "avg" : "max";
    const line = shape.kind === "window"
      ? `F.${mean}_pool2d(${["x", python(shape.window), ...keywords(pytorch(op, shape))].join(", ")})`
      : `F.adaptive_${mean}_pool2d(x, ${python(shape.kind === "global" ? [1, 1] : shape.output)})`;
    return `import torch.nn.functional as F  # or poolwise.torch.functional: the same names, faster\n\n${head}\ny = ${line}`;
  },
  keras: ({ op, about, shape }) => {
    const simple = slides(shape) && !numbers(shape).some(Boolean) && shape.padding !== "same_lower" && !dilated(shape) && !shape.ceil && shape.paddingMode === "absent";
    if (shape.kind === "adaptive" || (slides(shape) && !simple)) return "# Keras’s layers have no arguments for this geometry.";
    const head = "# x: (batch, height, width, channels)";
    const own = keywords(parameters(op, about));
    if (shape.kind === "global") {
      const layer = `Global${about.stems[2]}Pooling2D`;
      return `from poolwise.keras import ${layer}\n\n${head}\ny = ${layer}(${[...own, "keepdims=True"].join(", ")})(x)`;
    }
    const layer = `${about.stems[2]}Pooling2D`;
    const strides = options(shape).stride ? keywords({ strides: shape.stride }) : [];
    const padding = shape.padding === "same" ? keywords({ padding: "same" }) : [];
    const from = ["max", "mean"].includes(op.name) && !own.length ? "poolwise.keras import " + layer + "  # or keras.layers" : "poolwise.keras import " + layer;
    return `from ${from}\n\n${head}\ny = ${layer}(${[python(shape.window), ...strides, ...padding, ...own].join(", ")})(x)`;
  },
  jax: ({ op, shape, geometry }) => {
    const kinds = /** @type {Record<string, string>} */ ({ max: "-jnp.inf, lax.max", min: "jnp.inf, lax.min", sum: "0.0, lax.add", mean: "0.0, lax.add" });
    const even = geometry.axes.every((axis) => axis.sliding);
    if (!kinds[op.name] || !even || (padded(shape) && shape.paddingMode !== "absent")) {
      return "# jax.lax.reduce_window cannot say it: numpy.asarray(x) and the NumPy line give it.";
    }
    return reduceWindow(op, geometry, kinds[op.name]);
  },
  onnx: ({ op, shape }) => {
    const kinds = /** @type {Record<string, string>} */ ({ max: "MaxPool", mean: "AveragePool", lp: "LpPool" });
    const said = meaning("onnx", op, shape);
    if (said.refusal !== null) return `# ${said.refusal}`;
    /** @type {Record<string, unknown>} */
    const own = op.name === "lp" ? { p: op.parameters.p ?? 2 } : {};
    if (shape.kind === "global") {
      return `from onnx import helper\n\nnode = helper.make_node("Global${kinds[op.name]}", ["x"], ["y"]${keywords(own).map((text) => `, ${text}`).join("")})`;
    }
    if (op.name === "mean" && op.parameters.count_include_pad) own.count_include_pad = 1;
    /** @type {Record<string, unknown>} */
    const given = { kernel_shape: shape.window, strides: shape.stride ?? shape.window, ...onnxPadding(shape), ...own };
    if (dilated(shape)) given.dilations = shape.dilation;
    if (shape.ceil) given.ceil_mode = 1;
    return `from onnx import helper\n\n# opset 22\nnode = helper.make_node("${kinds[op.name]}", ["x"], ["y"], ${keywords(given).join(", ")})`;
  },
};

/** @param {Op} op @param {Shape} shape */
function pytorch(op, shape) {
  const given = options(shape);
  if (op.name === "mean" && padded(shape) && !op.parameters.count_include_pad) given.count_include_pad = false;
  if (op.name === "mean" && op.parameters.divisor) given.divisor_override = op.parameters.divisor;
  return given;
}

/** @param {Shape} shape @returns {Record<string, unknown>} */
function onnxPadding(shape) {
  if (!padded(shape)) return {};
  if (shape.padding === "same") return { auto_pad: "SAME_UPPER" };
  if (shape.padding === "same_lower") return { auto_pad: "SAME_LOWER" };
  const pairs = /** @type {[number, number][]} */ (shape.padding);
  return { pads: [...pairs.map(([low]) => low), ...pairs.map(([, high]) => high)] };
}

/** @param {Op} op @param {Geometry} geometry @param {string} kind */
function reduceWindow(op, geometry, kind) {
  const along = geometry.axes.map((axis) => {
    const { start, step, dilation } = /** @type {import("./pooling.js").Sliding} */ (axis.sliding);
    const end = start + (axis.output - 1) * step + (axis.window - 1) * dilation + 1;
    return { window: axis.window, step, dilation, low: -start, high: end - axis.size };
  });
  const cut = along.map(({ high }, axis) => (high < 0 ? `:${geometry.axes[axis].size + high}` : ":"));
  const lines = ["import jax.numpy as jnp", "from jax import lax", "", "# x: (batch, channels, height, width), floats"];
  if (cut.some((part) => part !== ":")) lines.push(`x = x[:, :, ${cut.join(", ")}]  # what no window reads`);
  const given = [
    python([1, 1, ...along.map(({ window }) => window)]),
    python([1, 1, ...along.map(({ step }) => step)]),
    python([[0, 0], [0, 0], ...along.map(({ low, high }) => [low, Math.max(high, 0)])]),
    ...(along.some(({ dilation }) => dilation > 1) ? [`window_dilation=${python([1, 1, ...along.map(({ dilation }) => dilation)])}`] : []),
  ].join(", ");
  lines.push(`y = lax.reduce_window(x, ${kind}, ${given})`);
  if (op.name === "mean") lines.push(...divided(op, geometry, given));
  return lines.join("\n");
}

/** @param {Op} op @param {Geometry} geometry @param {string} given */
function divided(op, geometry, given) {
  if (op.parameters.divisor) return [`y = y / ${op.parameters.divisor}`];
  const whole = geometry.axes.every((axis) => [0, axis.output - 1].every((cell) => axis.row(cell).elements.every((element) => element >= 0)));
  if (whole) return [`y = y / ${geometry.axes[0].window * geometry.axes[1].window}`];
  if (op.parameters.count_include_pad) {
    const counts = geometry.axes.map((axis) => `jnp.array(${pythonList(Array.from({ length: axis.output }, (_, cell) => axis.row(cell).count))})`);
    return [`y = y / (${counts[0]}[:, None] * ${counts[1]})`];
  }
  return [`y = y / lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, ${given})`];
}

/** @param {number[]} values */
const pythonList = (values) => `[${values.join(", ")}]`;

export const LANGUAGES = [
  { id: "numpy", label: "NumPy" },
  { id: "pytorch", label: "PyTorch" },
  { id: "keras", label: "Keras / TensorFlow" },
  { id: "jax", label: "JAX" },
  { id: "onnx", label: "ONNX" },
];

/** The lines that give what is on the screen. @param {string} language @param {Shown} shown */
export const code = (language, shown) => WRITERS[language](shown);
