// The form beside the boards. Each control writes into a copy of the state and says that it did.

import { element } from "./board.js";
import { Fault } from "./pooling.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./pooling.js").Op} Op */
/** @typedef {import("./scene.js").Numbers} Numbers */
/** @typedef {(change: (state: State) => void) => void} Edit */
/** A control, and how it takes over what the state says. @typedef {{element: HTMLElement, update: (state: State) => void}} Control */

/** @param {Numbers} numbers @param {Edit} edit @returns {Control} */
export function controls(numbers, edit) {
  const parts = [what(numbers, edit), operation("Operation", numbers, edit, "op"), geometry(edit)];
  const form = element("form", "controls", { "aria-label": "What is pooled, and how" }, ...parts.map((part) => part.element));
  form.addEventListener("submit", (event) => event.preventDefault());
  return { element: form, update: (state) => parts.forEach((part) => part.update(state)) };
}

/** @param {string} legend @param {HTMLElement[]} children */
const group = (legend, ...children) => element("fieldset", "", {}, element("legend", "", {}, legend), ...children);

/** @param {string} label @param {HTMLElement} input */
const labelled = (label, input) => element("label", "field", {}, element("span", "", {}, label), input);

/** @param {[string, string][]} options @param {(value: string) => void} change */
function select(options, change) {
  const made = /** @type {HTMLSelectElement} */ (element("select"));
  made.append(...options.map(([value, label]) => element("option", "", { value }, label)));
  made.addEventListener("change", () => change(made.value));
  return made;
}

/** @param {string} label @param {(value: number) => void} change @param {number} least */
function number(label, change, least) {
  const made = /** @type {HTMLInputElement} */ (element("input", "", { type: "number", min: String(least), step: "1", "aria-label": label, inputmode: "numeric" }));
  made.addEventListener("input", () => change(made.value === "" ? NaN : Number(made.value)));
  return made;
}

/** Show a number, unless it is what somebody is typing. @param {HTMLInputElement} input @param {number | null | undefined} value */
function put(input, value) {
  const text = value === null || value === undefined || Number.isNaN(value) ? "" : String(value);
  const typing = input === document.activeElement && (text === "" || Number(input.value) === value);
  if (!typing && input.value !== text) input.value = text;
}

/** @param {string} label @param {(checked: boolean) => void} change */
function check(label, change) {
  const input = /** @type {HTMLInputElement} */ (element("input", "", { type: "checkbox" }));
  input.addEventListener("change", () => change(input.checked));
  return { element: element("label", "check", {}, input, element("span", "", {}, label)), input };
}

/** @param {Numbers} numbers @param {Edit} edit @returns {Control} */
function what(numbers, edit) {
  const { items } = numbers.source;
  const item = select(items.map(({ name }, at) => [String(at), name]), (value) => edit((state) => numbers.open(state, Number(value))));
  const channel = select([], (value) => edit((state) => (state.channel = Number(value))));
  const [items_, channels_] = [labelled("Array", item), labelled("Channel", channel)];
  let shown = -1;
  const update = (/** @type {State} */ state) => {
    const current = numbers.item(state);
    if (shown !== state.item) {
      const options = current.channels.map((name, at) => element("option", "", { value: String(at) }, name));
      if (current.picture && current.channels.length === 3) options.unshift(element("option", "", { value: "-1" }, "colour"));
      channel.replaceChildren(...options);
      shown = state.item;
    }
    item.value = String(state.item);
    channel.value = String(state.channel);
    channels_.hidden = current.channels.length < 2;
    items_.hidden = items.length < 2;
  };
  const box = group("What", items_, channels_);
  return { element: box, update: (state) => { update(state); box.hidden = items_.hidden && channels_.hidden; } };
}

/** An operation and its parameters. @param {string} legend @param {Numbers} numbers @param {Edit} edit @param {"op" | "other"} which @returns {Control} */
export function operation(legend, numbers, edit, which) {
  const kinds = select(numbers.source.operations.map(({ name }) => [name, name]), (value) => edit((state) => (state[which] = { name: value, parameters: {} })));
  const inputs = element("div", "parameters");
  let shown = "";
  /** @type {((op: Op) => void)[]} */
  let updates = [];
  const build = (/** @type {string} */ name) => {
    updates = [];
    inputs.replaceChildren(...numbers.operation(name).parameters.map((about) => {
      const { element: made, update } = parameter(about, (value) => edit((state) => (state[which] = { name, parameters: { ...state[which].parameters, [about.name]: value } })));
      updates.push((op) => update(op.parameters[about.name] ?? about.default));
      return made;
    }));
  };
  const update = (/** @type {State} */ state) => {
    const op = state[which];
    if (!numbers.source.operations.some(({ name }) => name === op.name)) return;
    kinds.value = op.name;
    if (shown !== op.name) build(op.name);
    shown = op.name;
    for (const each of updates) each(op);
  };
  return { element: group(legend, labelled("Kind", kinds), inputs), update };
}

/** @param {import("./frameworks.js").Operation["parameters"][number]} about @param {(value: any) => void} change */
function parameter(about, change) {
  const label = about.name.replaceAll("_", " ");
  if (about.choices) {
    const input = select(about.choices.map((choice) => [choice, choice]), change);
    return { element: labelled(label, input), update: (/** @type {any} */ value) => (input.value = String(value)) };
  }
  if (about.type === "bool") {
    const { element: made, input } = check(label, change);
    return { element: made, update: (/** @type {any} */ value) => (input.checked = Boolean(value)) };
  }
  const input = number(label, (value) => change(Number.isNaN(value) ? null : value), about.least ?? 0);
  input.step = "any";
  input.placeholder = about.default === null ? "none" : String(about.default);
  return { element: labelled(label, input), update: (/** @type {any} */ value) => put(input, value) };
}

/** @param {Edit} edit @returns {Control} */
function geometry(edit) {
  const kinds = select([["window", "sliding window"], ["adaptive", "adaptive"], ["global", "global"]], (value) => edit((state) => (state.shape.kind = /** @type {"window"} */ (value))));
  const parts = [
    pair("Window", 1, (state) => state.shape.window, (state, value) => (state.shape.window = value)),
    stride(),
    padding(),
    pair("Dilation", 1, (state) => state.shape.dilation, (state, value) => (state.shape.dilation = value)),
    ceil(),
    mode(),
    pair("Output size", 1, (state) => state.shape.output, (state, value) => (state.shape.output = value)),
    bins(),
  ];
  const sliding = parts.slice(0, 6);
  const update = (/** @type {State} */ state) => {
    kinds.value = state.shape.kind;
    for (const part of parts) {
      part.element.hidden = sliding.includes(part) ? state.shape.kind !== "window" : state.shape.kind !== "adaptive";
      part.update(state);
    }
  };
  return { element: group("Geometry", labelled("Kind", kinds), ...parts.map((part) => part.element)), update };

  /** Two numbers, height and width. @param {string} label @param {number} least @param {(state: State) => [number, number]} get @param {(state: State, value: [number, number]) => void} write @returns {Control} */
  function pair(label, least, get, write) {
    const inputs = ["height", "width"].map((axis, at) =>
      number(`${label}, ${axis}`, (value) => edit((state) => {
        const both = /** @type {[number, number]} */ ([...get(state)]);
        both[at] = value;
        write(state, both);
      }), least),
    );
    const box = element("div", "field", { role: "group", "aria-label": label }, element("span", "", {}, label), element("span", "two", {}, inputs[0], "×", inputs[1]));
    return { element: box, update: (state) => inputs.forEach((input, at) => put(input, get(state)[at])) };
  }

  /** @returns {Control} */
  function stride() {
    const numbers_ = pair("Stride", 1, (state) => state.shape.stride ?? state.shape.window, (state, value) => (state.shape.stride = value));
    const left = check("stride left out", (checked) => edit((state) => (state.shape.stride = checked ? null : [...state.shape.window])));
    left.element.title = "Here the stride then is the window";
    const box = element("div", "", {}, numbers_.element, left.element);
    return { element: box, update: (state) => { numbers_.update(state); left.input.checked = state.shape.stride === null; } };
  }

  /** @returns {Control} */
  function padding() {
    const rules = select([["numbers", "in numbers"], ["same", "same"], ["same_lower", "same, odd one first"], ["valid", "valid"]], (value) =>
      edit((state) => (state.shape.padding = value === "numbers" ? [[0, 0], [0, 0]] : value)));
    const sides = [["top", 0, 0], ["bottom", 0, 1], ["left", 1, 0], ["right", 1, 1]].map(([label, axis, side]) =>
      ({ axis: Number(axis), side: Number(side), input: number(`Padding, ${label}`, (value) => edit((state) => {
        if (typeof state.shape.padding === "string") return;
        const copy = structuredClone(state.shape.padding);
        copy[Number(axis)][Number(side)] = value;
        state.shape.padding = copy;
      }), 0) }));
    const [top, bottom, left, right] = sides.map(({ input }) => input);
    const rows = [
      element("span", "two", {}, top, "↕", bottom),
      element("span", "two", {}, left, "↔", right),
    ];
    const box = element("div", "", { role: "group", "aria-label": "Padding" }, labelled("Padding", rules), element("div", "field", {}, element("span", "", {}, "top, bottom"), rows[0]), element("div", "field", {}, element("span", "", {}, "left, right"), rows[1]));
    return {
      element: box,
      update: (state) => {
        const given = state.shape.padding;
        rules.value = typeof given === "string" ? given : "numbers";
        for (const child of [...box.children].slice(1)) /** @type {HTMLElement} */ (child).hidden = typeof given === "string";
        if (typeof given !== "string") for (const { axis, side, input } of sides) put(input, given[axis][side]);
      },
    };
  }

  /** @returns {Control} */
  function ceil() {
    const { element: made, input } = check("round the size up (ceil mode)", (checked) => edit((state) => (state.shape.ceil = checked)));
    return { element: made, update: (state) => (input.checked = state.shape.ceil) };
  }

  /** @returns {Control} */
  function mode() {
    const input = select(["absent", "circular", "reflect", "replicate"].map((name) => [name, name]), (value) => edit((state) => (state.shape.paddingMode = value)));
    return { element: labelled("Padding reads", input), update: (state) => (input.value = state.shape.paddingMode) };
  }

  /** @returns {Control} */
  function bins() {
    const input = select(["overlapping", "disjoint"].map((name) => [name, name]), (value) => edit((state) => (state.shape.bins = value)));
    return { element: labelled("Bins", input), update: (state) => (input.value = state.shape.bins) };
  }
}

/** Two sliders. @param {Numbers} numbers @param {Edit} edit @returns {Control} */
export function shifter(numbers, edit) {
  const sliders = [["down", 0], ["right", 1]].map(([label, at]) => {
    const input = /** @type {HTMLInputElement} */ (element("input", "", { type: "range", step: "1" }));
    const value = element("output", "number");
    input.addEventListener("input", () => edit((state) => {
      const both = /** @type {[number, number]} */ ([...state.shift]);
      both[Number(at)] = Number(input.value);
      state.shift = both;
    }));
    return { input, value, element: element("label", "slider", {}, element("span", "", {}, `Shift ${label}`), input, value) };
  });
  const box = element("div", "sliders", {}, ...sliders.map((slider) => slider.element));
  return {
    element: box,
    update: (state) => sliders.forEach(({ input, value }, at) => {
      const { rows, columns } = numbers.item(state);
      const most = Math.min(16, [rows, columns][at] - 1);
      [input.min, input.max] = [String(-most), String(most)];
      input.value = String(state.shift[at]);
      value.textContent = String(state.shift[at]).replace("-", "−");
      input.disabled = most < 1;
    }),
  };
}

/** What a person can read, whatever went wrong. @param {unknown} fault */
export const sentence = (fault) => (fault instanceof Fault || fault instanceof Error ? fault.message : String(fault));
