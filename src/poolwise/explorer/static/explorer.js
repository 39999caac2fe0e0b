// The explorer: what a pooling does to an array, seen. `mount` puts it into an element; the hosts (a notebook, a page on
// this machine, a file) give it a source and a way to ask Python, where there is one.

import { Board, WHOLE, element, said, bringInto, set } from "./board.js";
import { scaleOf } from "./colour.js";
import { controls, operation, sentence, shifter } from "./controls.js";
import { Local, Remote, difference, unpacked } from "./fields.js";
import { FRAMEWORKS, LANGUAGES, code, meaning } from "./frameworks.js";
import { NetworkView, readSeen } from "./network.js";
import { coverage, geometryOf } from "./pooling.js";
import { Numbers, brackets, facts, formula, margin, marks, plural, unread, whoReads } from "./scene.js";
import { THEMES, VIEWS, initial, read, write, writeCall, writeOp } from "./state.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Cell} Cell */
/** @typedef {import("./scene.js").Source} Source */
/** @typedef {import("./scene.js").Geometry} Geometry */
/** @typedef {import("./scene.js").Planes} Planes */
/** @typedef {import("./scene.js").Op} Op */
/** @typedef {import("./scene.js").Shape} Shape */
/** @typedef {import("./fields.js").Field} Field */
/** @typedef {import("./fields.js").Ask} Ask */
/** @typedef {import("./board.js").Place} Place */
/** @typedef {import("./board.js").Picture} Picture */
/** @typedef {import("./colour.js").PaletteName} PaletteName */
/** Where the explorer lives. ask: null without Python. read, write: the state's text. link: an address to copy. save: the address of a file to keep.
 * @typedef {{ask: Ask | null, read: () => string, write: (text: string) => void, link: (() => string) | null, save: ((text: string) => string) | null}} Host */
/** One board of a view. side: in whose cells it counts.
 * @typedef {object} Shown
 * @property {string} title
 * @property {"input" | "output"} side
 * @property {Field[]} fields
 * @property {PaletteName} palette
 * @property {[number, number]} range
 * @property {Geometry} geometry
 * @property {string} [unit]
 */
/** A view, computed. fault: what could not be, in a sentence. @typedef {{boards: Shown[], lede: string, above?: HTMLElement[], below?: (HTMLElement | string)[], op?: Op, geometry?: Geometry, fault?: string}} Scene */

const LABELS = /** @type {Record<string, string>} */ ({
  windows: "Windows", coverage: "Coverage", frameworks: "Frameworks", backward: "Backward",
  compare: "Compare", shift: "Shift", maps: "Feature maps", network: "Network", code: "Code",
});
const MAPS = 8; // channels on a page

export class Explorer {
  /** Several explorers can stand in one notebook. */
  id = `poolwise-${Math.random().toString(36).slice(2, 10)}`;
  title = element("h1");
  subtitle = element("p", "muted");
  status = element("p", "status", { role: "alert" });
  lede = element("p", "lede");
  facts = element("dl", "facts");
  above = element("div", "above");
  row = element("div", "boards");
  words = element("output", "formula", { "aria-live": "polite" });
  below = element("div", "below");
  stage = element("section", "stage", { role: "tabpanel", id: `${this.id}-stage`, tabindex: "-1" });
  theme = /** @type {HTMLSelectElement} */ (element("select", "", { "aria-label": "Light or dark" }));
  /** @type {Board[]} */
  boards = [];
  /** @type {Field[] | null} the fields that formulas are about */
  input = null;
  /** @type {Field[] | null} */
  output = null;
  run = 0; // the last that was begun
  shown = 0; // and the last whose scene, or fault, is on the page
  page = 0;
  waiting = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  telling = undefined;
  mapsRow = element("div", "maps");
  mapsShown = "";
  /** @type {NetworkView | null} */
  strip = null;
  toMaps = element("button", "button", { type: "button" }, "Its feature maps");

  /** @param {HTMLElement} root @param {Source} source @param {Host} host */
  constructor(root, source, host) {
    this.host = host;
    this.root = root;
    this.numbers = new Numbers(source, host.ask);
    this.state = this.started(host.read());
    const edit = (/** @type {(state: State) => void} */ change) => this.edit(change);
    this.form = controls(this.numbers, edit);
    this.other = operation("Compared with", this.numbers, edit, "other");
    this.slider = shifter(this.numbers, edit);
    this.tabs = this.tablist();
    this.toMaps.addEventListener("click", () => this.openMaps());
    root.classList.add("poolwise");
    root.replaceChildren(...this.skeleton(source));
    this.render();
  }

  /** What the array comes with, over it what the source starts with, over that what an address says. @param {string} text @returns {State} */
  started(text) {
    const { start, items } = this.numbers.source;
    const within = (/** @type {State} */ { item }) => Math.min(item, items.length - 1);
    const plain = initial();
    this.numbers.open(plain, within(read(start)));
    const state = read(start, plain);
    const item = within(read(text, state));
    if (item !== plain.item) this.numbers.open(state, item);
    return Object.assign(read(text, state), { item });
  }

  remove() {
    this.run++;
    clearTimeout(this.telling);
    for (const board of this.boards) board.remove();
  }

  // ---- the page's parts ----------------------------------------------------------------------------------------

  /** @param {Source} source */
  skeleton(source) {
    this.title.textContent = source.title;
    this.stage.append(this.lede, this.status, this.above, this.row, this.words, this.below);
    const drawer = /** @type {HTMLDetailsElement} */ (element("details", "drawer", {}, element("summary", "", {}, "What and how"), this.form.element));
    drawer.open = matchMedia("(min-width: 52rem)").matches;
    const head = element("header", "head", {}, element("div", "", {}, this.title, this.subtitle), this.buttons());
    const help = element("p", "credit muted", {}, "Arrow keys move the cell, + − 0 or the wheel zoom, dragging moves.");
    const credit = source.credit ? [element("p", "credit muted", {}, source.credit)] : [];
    const layout = element("div", "layout", {}, drawer, element("div", "main", {}, this.facts, this.stage));
    return [head, this.tabs, layout, element("footer", "", {}, help, ...credit)];
  }

  buttons() {
    const { theme } = this;
    theme.append(...THEMES.map((name) => element("option", "", { value: name }, name === "auto" ? "light or dark" : name)));
    theme.addEventListener("change", () => this.edit((state) => (state.theme = theme.value)));
    /** @type {HTMLElement[]} */
    const made = [theme];
    const { link, save } = this.host;
    if (link) made.push(this.copier("Copy link", link));
    if (save) {
      const anchor = element("a", "button", { download: "view.html", href: "#" }, "Save as file");
      anchor.addEventListener("click", () => set(anchor, { href: save(write(this.state)) }));
      made.push(anchor);
    }
    return element("div", "buttons", {}, ...made);
  }

  /** @param {string} label @param {() => string} text */
  copier(label, text) {
    const button = element("button", "button", { type: "button" }, label);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text());
        button.textContent = "Copied";
      } catch {
        button.textContent = "Not allowed here";
      }
      setTimeout(() => (button.textContent = label), 1500);
    });
    return button;
  }

  tablist() {
    const list = element("div", "tabs", { role: "tablist", "aria-label": "Views" });
    const views = VIEWS.filter((view) => view !== "network" || this.numbers.source.network);
    for (const view of views) {
      const tab = element("button", "", { type: "button", role: "tab", id: `${this.id}-${view}`, "aria-controls": `${this.id}-stage` }, LABELS[view]);
      tab.addEventListener("click", () => this.edit((state) => (state.view = view)));
      list.append(tab);
    }
    list.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const view = views[(views.indexOf(this.state.view) + step + views.length) % views.length];
      this.edit((state) => (state.view = view));
      /** @type {HTMLElement} */ (list.querySelector(`#${this.id}-${view}`)).focus();
      event.preventDefault();
    });
    return list;
  }

  // ---- state ---------------------------------------------------------------------------------------------------

  /** @param {(state: State) => void} change */
  edit(change) {
    const state = structuredClone(this.state);
    const before = `${state.item} ${writeCall(state.op, state.shape)}`;
    change(state);
    if (`${state.item} ${writeCall(state.op, state.shape)}` !== before) state.cell = null;
    if (state.view !== this.state.view || state.item !== this.state.item) this.page = 0;
    this.state = state;
    this.render();
  }

  /** @param {string} text */
  restore(text) {
    this.state = this.started(text);
    this.render();
  }

  /** Once per frame, whatever happened in it. */
  render() {
    if (this.waiting) return;
    set(this.stage, { "aria-busy": "true" });
    this.waiting = requestAnimationFrame(async () => {
      this.waiting = 0;
      const run = ++this.run;
      this.frame();
      try {
        const scene = await this.scene(this.state);
        if (run !== this.run) return;
        this.status.textContent = scene.fault ?? "";
        this.paint(scene);
        this.shown = run;
        this.tell();
      } catch (fault) {
        if (run !== this.run) return;
        this.shown = run;
        this.status.textContent = sentence(fault);
        this.rest();
      }
    });
  }

  /** The address follows when a movement has come to rest: writing it costs a fifth of a frame. */
  tell() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      this.host.write(write(this.state));
      this.rest();
    }, 120);
  }

  /** Busy until the state that was asked for last is shown. */
  rest() {
    set(this.stage, { "aria-busy": String(this.waiting !== 0 || this.shown !== this.run) });
  }

  /** What does not wait for numbers. */
  frame() {
    const { state } = this;
    const item = this.numbers.item(state);
    if (state.theme === "auto") this.root.removeAttribute("data-theme");
    else this.root.dataset.theme = state.theme;
    this.theme.value = state.theme;
    this.form.update(state);
    for (const tab of this.tabs.children) {
      const chosen = tab.id === `${this.id}-${state.view}`;
      if (chosen && tab.getAttribute("aria-selected") !== "true") bringInto(this.tabs, tab);
      set(tab, { "aria-selected": String(chosen), tabindex: chosen ? "0" : "-1" });
    }
    set(this.stage, { "aria-labelledby": `${this.id}-${state.view}` });
    const channels = item.channels.length > 1 ? `${item.channels.length} channels of ` : "";
    this.subtitle.textContent = [item.name, `${channels}${item.rows}×${item.columns}`, item.dtype, item.note].filter(Boolean).join(" · ");
  }

  /** @param {Scene} scene */
  paint(scene) {
    const { state } = this;
    this.lede.textContent = scene.lede;
    this.facts.hidden = state.view === "network";
    const { rows, columns } = this.numbers.item(state);
    const shown = facts(this.numbers.geometry(state), [rows, columns]);
    fill(this.facts, shown.map(([name, value]) => element("div", "", {}, element("dt", "", {}, name), element("dd", "", {}, value))));
    fill(this.above, scene.above ?? []);
    fill(this.below, scene.below ?? []);
    this.paintBoards(scene);
  }

  // ---- boards --------------------------------------------------------------------------------------------------

  /** @param {Scene} scene */
  paintBoards(scene) {
    const { boards } = scene;
    while (this.boards.length > boards.length) {
      const board = /** @type {Board} */ (this.boards.pop());
      board.element.parentElement?.remove();
      board.remove();
    }
    while (this.boards.length < boards.length) this.boards.push(this.newBoard());
    const { rows, columns } = this.numbers.item(this.state);
    this.row.style.setProperty("--aspect", String(Math.max(0.8, Math.min(1.8, columns / rows))));
    set(this.row, { "data-count": String(boards.length) });
    const op = scene.op ?? this.state.op;
    const geometry = scene.geometry ?? this.numbers.geometry(this.state);
    boards.forEach((shown, at) => this.paintBoard(this.boards[at], shown, op, geometry));
    this.words.hidden = boards.length === 0;
    this.say(boards, op, geometry);
  }

  newBoard() {
    const caption = element("figcaption", "", {}, element("strong"), element("span", "muted"), element("span", "scale"));
    const figure = element("figure", "", {}, caption);
    this.row.append(figure);
    return new Board(figure, {
      point: () => undefined,
      leave: () => this.state.cell && this.edit((state) => (state.cell = null)),
      move: (place) => this.edit((state) => (state.place = place.zoom === 1 ? null : [place.row, place.column, place.zoom])),
    });
  }

  /** @param {Board} board @param {Shown} shown @param {Op} op @param {Geometry} geometry */
  paintBoard(board, shown, op, geometry) {
    const { fields, side, title } = shown;
    const [field] = fields;
    const { cell, place } = this.state;
    const caption = /** @type {HTMLElement} */ (board.element.previousElementSibling);
    const [name, size, scale] = /** @type {any} */ (caption.children);
    name.textContent = title;
    size.textContent = `${field.rows}×${field.columns}`;
    legend(scale, shown);
    board.listener.point = (row, column) => this.point(side, row, column);
    const found = cell?.board === "output" && inside(cell, geometry.rows, geometry.columns) && this.input ? this.numbers.look(cell, op, geometry, this.input[0]) : null;
    const focus = cell && cell.board === side && inside(cell, field.rows, field.columns) ? { row: cell.row, column: cell.column } : null;
    board.litCell = cell?.board === "output" ? [cell.row, cell.column] : null;
    const input = side === "input";
    board.show(
      {
        label: `${title}, ${plural(field.rows, "row")}, ${plural(field.columns, "column")}`,
        fields,
        palette: shown.palette,
        range: shown.range,
        margin: input ? margin(geometry) : [0, 0, 0, 0],
        unread: input ? unread(geometry) : [[], []],
        ruled: true,
        brackets: input ? brackets(geometry) : [[], []],
        marks: cell && inside(cell, ...sizesOf(cell, geometry)) ? marks(side, cell, geometry, found) : [],
        focus,
        say: (row, column) => `row ${row}, column ${column}: ${fields.map((each) => worded(each.at(row, column))).join(", ")}`,
      },
      place ? { row: place[0], column: place[1], zoom: place[2] } : WHOLE,
    );
  }

  /** @param {"input" | "output"} side @param {number} row @param {number} column */
  point(side, row, column) {
    const { cell } = this.state;
    if (cell && cell.board === side && cell.row === row && cell.column === column) return;
    this.edit((state) => (state.cell = { board: side, row, column }));
  }

  /** The formula of the cell looked at. @param {Shown[]} boards @param {Op} op @param {Geometry} geometry */
  say(boards, op, geometry) {
    const { cell } = this.state;
    if (!cell || !inside(cell, ...sizesOf(cell, geometry)) || !this.input) {
      fill(this.words, [element("span", "muted", {}, "Point at a cell, or press an arrow key on a grid.")]);
      return;
    }
    const { input } = this;
    const channels = this.numbers.channels(this.state);
    const names = this.numbers.item(this.state).channels;
    const prefix = (/** @type {number} */ at) => (input.length > 1 ? [element("b", "channel", {}, names[channels[at]])] : []);
    const place = element("span", "muted", {}, `${cell.board === "output" ? "out" : "in"} (${cell.row}, ${cell.column}) `);
    if (cell.board === "input") {
      const values = input.map((field, at) => element("div", "", {}, ...prefix(at), worded(field.at(cell.row, cell.column))));
      fill(this.words, [place, ...values, element("div", "muted", {}, whoReads(geometry, cell))]);
      return;
    }
    this.await(input, cell, geometry);
    const outputs = boards.find((shown) => shown.side === "output" && shown.unit !== "difference")?.fields ?? [];
    const about = this.numbers.operation(op.name);
    const lines = input.map((field, at) => {
      const found = this.numbers.look(cell, op, geometry, field);
      const shown = this.output?.[at] ?? outputs[at];
      const result = op === this.state.op || !shown ? (shown?.at(cell.row, cell.column) ?? undefined) : found.result;
      const parts = formula(op, found, about, result).map(({ text, winner }) => (winner ? element("mark", "", {}, text) : text));
      return element("div", "", {}, ...prefix(at), ...parts);
    });
    fill(this.words, [place, ...lines]);
  }

  /** Numbers that Python has, and that this window needs: look again when they are here. @param {Field[]} input @param {Cell} cell @param {Geometry} geometry */
  await(input, cell, geometry) {
    const rows = geometry.axes[0].row(cell.row).elements.filter((element) => element >= 0);
    const columns = geometry.axes[1].row(cell.column).elements.filter((element) => element >= 0);
    if (!rows.length || !columns.length) return;
    for (const field of input) {
      if (!(field instanceof Remote) || field.at(rows[0], columns[0]) !== undefined && field.at(rows[rows.length - 1], columns[columns.length - 1]) !== undefined) continue;
      field.ready(Math.min(...rows), Math.min(...columns), Math.max(...rows) + 1, Math.max(...columns) + 1).then(() => this.render());
    }
    for (const field of this.output ?? []) {
      if (field instanceof Remote && field.at(cell.row, cell.column) === undefined) {
        field.ready(cell.row, cell.column, cell.row + 1, cell.column + 1).then(() => this.render());
      }
    }
  }

  // ---- views ---------------------------------------------------------------------------------------------------

  /** @param {State} state @returns {Promise<Scene>} */
  async scene(state) {
    this.numbers.operation(state.op.name);
    const geometry = this.numbers.geometry(state);
    const channels = this.numbers.channels(state);
    this.input = await Promise.all(channels.map((channel) => this.numbers.input(state, channel)));
    this.output = null;
    return this[/** @type {"windows"} */ (state.view)](state, geometry, channels);
  }

  /** @param {State} state @param {Op} op @param {Shape} shape @param {number[]} channels @param {[number, number]} shift */
  outputs(state, op, shape, channels, shift = [0, 0]) {
    return Promise.all(channels.map((channel) => this.numbers.output(state, channel, op, shape, shift)));
  }

  /** The input as a board. @param {State} state @param {Geometry} geometry @param {Field[]} fields @returns {Shown} */
  inputBoard(state, geometry, fields, title = "Input") {
    const { low, high } = this.numbers.item(state);
    return { title, side: "input", fields, palette: this.palette(state), range: this.colours(state, [low, high]), geometry };
  }

  /** @param {State} state @param {Op} op @param {Geometry} geometry @param {Field[]} fields @returns {Shown} */
  outputBoard(state, op, geometry, fields, title = `Output of ${writeOp(op)}`) {
    const { low, high } = this.numbers.item(state);
    const within = ["max", "min", "mean"].includes(op.name) && !op.parameters.divisor;
    const range = within ? this.colours(state, [low, high]) : spanOf(fields);
    return { title, side: "output", fields, palette: this.palette(state), range, geometry };
  }

  /** Bytes of a picture are drawn as they are; other numbers from the smallest to the largest. @param {State} state @param {[number, number]} range @returns {[number, number]} */
  colours(state, range) {
    const { picture, dtype } = this.numbers.item(state);
    return picture && dtype === "uint8" ? [0, 255] : range;
  }

  /** @param {State} state @returns {PaletteName} */
  palette(state) {
    return this.numbers.item(state).picture ? "grey" : "cividis";
  }

  /** @param {State} state @param {Geometry} geometry @param {number[]} channels @returns {Promise<Scene>} */
  async windows(state, geometry, channels) {
    this.output = await this.outputs(state, state.op, state.shape, channels);
    const boards = [this.inputBoard(state, geometry, this.input ?? []), this.outputBoard(state, state.op, geometry, this.output)];
    return { boards, lede: "Each window of the input becomes one cell of the output. Along the sides: where every window lies." };
  }

  /** @param {State} state @param {Geometry} geometry @param {number[]} channels @returns {Promise<Scene>} */
  async coverage(state, geometry, channels) {
    this.output = await this.outputs(state, state.op, state.shape, channels);
    const counts = geometry.axes.map(coverage);
    const read = this.numbers.once(`coverage ${state.item} ${writeCall(state.op, state.shape)}`, () => outer(counts[0], counts[1]));
    const here = geometry.axes.map((axis) => Int32Array.from({ length: axis.output }, (_, cell) => axis.row(cell).elements.filter((element) => element >= 0).length));
    const held = this.numbers.once(`held ${state.item} ${writeCall(state.op, state.shape)}`, () => outer(here[0], here[1]));
    /** @type {Shown[]} */
    const boards = [
      { title: "How often each element is read", side: "input", fields: [read], palette: "counts", range: [0, read.range[1]], geometry },
      { title: "How many elements each window reads", side: "output", fields: [held], palette: "counts", range: [0, held.range[1]], geometry },
    ];
    const even = read.range[0] === read.range[1];
    const lede = even ? `Every element is read ${read.range[0] === 1 ? "once" : `${read.range[0]} times`}.` : `Elements are read ${read.range[0]} to ${read.range[1]} times: the output hears some parts of the input louder than others.`;
    return { boards, lede, below: [histogram(counts)] };
  }

  /** @param {State} state @param {Geometry} geometry @param {number[]} channels @returns {Promise<Scene>} */
  async backward(state, geometry, channels) {
    const [channel] = channels;
    const field = await this.numbers.gradient(state, channel);
    this.output = await this.outputs(state, state.op, state.shape, channels);
    /** @type {Shown} */
    const board = { title: "Gradient at the input", side: "input", fields: [field], palette: "counts", range: [0, Math.max(field.range[1], 1e-9)], geometry };
    if (field.range[0] < 0) Object.assign(board, { palette: "difference", range: even(field.range) });
    const boards = [board, this.outputBoard(state, state.op, geometry, this.output)];
    const lede = "A gradient of 1 arrives at every cell of the output. This is what reaches each element of the input.";
    return { boards, lede, below: [landed(field, state)] };
  }

  /** @param {State} state @param {Geometry} geometry @param {number[]} channels @returns {Promise<Scene>} */
  async compare(state, geometry, channels) {
    this.other.update(state);
    const [channel] = channels;
    this.input = [/** @type {Field[]} */ (this.input)[0]];
    const lede = "Two operations on the same windows, and what one makes larger than the other.";
    const input = this.inputBoard(state, geometry, this.input);
    try {
      const { a, b, less } = await this.numbers.two(state, channel, [state.op, state.shape], [state.other, state.shape]);
      this.output = [a];
      const [first, second] = [writeOp(state.op), writeOp(state.other)];
      const boards = [input, this.outputBoard(state, state.op, geometry, [a], first), this.outputBoard(state, state.other, geometry, [b], second)];
      if (less) boards.push({ title: `${first} − ${second}`, side: "output", fields: [less], palette: "difference", range: even(less.range), geometry, unit: "difference" });
      return { boards, lede, above: [this.other.element], below: apart(less) };
    } catch (fault) {
      return { boards: [input], lede, above: [this.other.element], fault: sentence(fault) };
    }
  }

  /** @param {State} state @param {Geometry} geometry @param {number[]} channels @returns {Promise<Scene>} */
  async shift(state, geometry, channels) {
    this.slider.update(state);
    const [channel] = channels;
    const moved = await this.numbers.input(state, channel, state.shift);
    const [plain] = await this.outputs(state, state.op, state.shape, [channel]);
    const [after] = await this.outputs(state, state.op, state.shape, [channel], state.shift);
    const less = lessOf(after, plain);
    this.input = [moved];
    this.output = [after];
    const share = await this.numbers.change(state);
    const boards = [this.inputBoard(state, geometry, [moved], "Input, shifted"), this.outputBoard(state, state.op, geometry, [after])];
    if (less) boards.push({ title: "Change of the output", side: "output", fields: [less], palette: "difference", range: even(this.spread(state, less)), geometry, unit: "difference" });
    return { boards, lede: "Move the input; what leaves on one side comes in on the other. How much does the output notice?", above: [this.slider.element], below: [changes(share, state, geometry)] };
  }

  /** One scale for every shift, so that a small change looks small. @param {State} state @param {Field} less @returns {[number, number]} */
  spread(state, less) {
    const { low, high } = this.numbers.item(state);
    return high > low ? [low - high, high - low] : less.range;
  }

  /** @param {State} state @param {Geometry} geometry @param {number[]} channels @returns {Promise<Scene>} */
  async frameworks(state, geometry, channels) {
    const [channel] = channels;
    const rows = await Promise.all(FRAMEWORKS.map((framework) => this.reading(state, channel, framework)));
    const chosen = rows.find((row) => row.id === state.framework && row.field) ?? rows[0];
    const field = /** @type {Field} */ (chosen.field);
    const itsGeometry = chosen.geometry ?? geometry;
    this.input = [/** @type {Field[]} */ (this.input)[0]];
    this.output = [field];
    const boards = [
      this.inputBoard(state, itsGeometry, this.input, `Input, as ${chosen.label} reads it`),
      this.outputBoard(state, chosen.op ?? state.op, itsGeometry, [field], `Output of ${chosen.label}`),
    ];
    if (chosen.less && chosen.id !== "poolwise") boards.push({ title: `${chosen.label} − poolwise`, side: "output", fields: [chosen.less], palette: "difference", range: even(chosen.less.range), geometry: itsGeometry, unit: "difference" });
    const table = this.table(rows, chosen.id);
    return { boards, lede: "The same numbers typed into each framework, everything else left at its default.", below: [table], op: chosen.op, geometry: itsGeometry };
  }

  /** @typedef {{id: string, label: string, said: string, size: string, op?: Op, geometry?: Geometry, field?: Field, less?: Field | null}} Reading */
  /** @param {State} state @param {number} channel @param {{id: string, label: string}} framework @returns {Promise<Reading>} */
  async reading(state, channel, framework) {
    const meant = meaning(framework.id, state.op, state.shape);
    if (meant.refusal !== null) return { ...framework, said: meant.refusal, size: "–" };
    try {
      const geometry = this.numbers.geometry(state, meant.shape);
      const { a, less } = await this.numbers.two(state, channel, [meant.op, meant.shape], [state.op, state.shape]);
      const notes = [...meant.notes];
      if (framework.id !== "poolwise") notes.unshift(less === null ? "Another size." : largest(less));
      return { ...framework, said: notes.join(" "), size: `${geometry.rows}×${geometry.columns}`, op: meant.op, geometry, field: a, less };
    } catch (fault) {
      return { ...framework, said: sentence(fault), size: "–" };
    }
  }

  /** @param {Reading[]} rows @param {string} chosen */
  table(rows, chosen) {
    const body = rows.map((row) => {
      const radio = /** @type {HTMLInputElement} */ (element("input", "", { type: "radio", name: `${this.id}-framework`, value: row.id }));
      radio.checked = row.id === chosen;
      radio.disabled = !row.field;
      radio.addEventListener("change", () => this.edit((state) => (state.framework = row.id)));
      const head = element("th", "", { scope: "row" }, element("label", "check", {}, radio, element("span", "", {}, row.label)));
      return element("tr", row.field ? "" : "muted", {}, head, element("td", "number", {}, row.size), element("td", "", {}, row.said));
    });
    const heads = ["Framework", "Output", "Against poolwise"].map((text) => element("th", "", { scope: "col" }, text));
    return element("div", "scroll", { tabindex: "0", role: "region", "aria-label": "What each framework makes of it" }, element("table", "readings", {}, element("thead", "", {}, element("tr", "", {}, ...heads)), element("tbody", "", {}, ...body)));
  }

  /** @param {State} state @param {Geometry} geometry @returns {Promise<Scene>} */
  async maps(state, geometry) {
    const item = this.numbers.item(state);
    const count = item.channels.length;
    const first = this.page * MAPS;
    const shown = Array.from({ length: Math.min(MAPS, count - first) }, (_, at) => first + at);
    const before = await Promise.all(shown.map((channel) => this.numbers.input(state, channel)));
    const after = await Promise.all(shown.map((channel) => (sameCall(item.call, state) ? this.numbers.after(state, channel) : this.numbers.output(state, channel, state.op, state.shape))));
    const common = [state.item, writeCall(state.op, state.shape), this.page, state.theme].join(" ");
    if (this.mapsShown !== common || !this.mapsRow.isConnected) {
      this.mapsRow = element("div", "maps");
      shown.forEach((channel, at) => this.mapsRow.append(this.map(state, geometry, channel, before[at], after[at])));
      this.mapsShown = common;
    }
    const own = item.after && sameCall(item.call, state) ? "as the model itself computed them" : `pooled by ${writeOp(state.op)}`;
    return { boards: [], lede: `${plural(count, "channel")} before and after, ${own}. Every pair has its own scale of colours.`, below: [this.mapsRow, ...this.pager(count)] };
  }

  /** @param {State} state @param {Geometry} geometry @param {number} channel @param {Field} before @param {Field} after */
  map(state, geometry, channel, before, after) {
    const name = this.numbers.item(state).channels[channel];
    const open = element("button", "button", { type: "button" }, `Channel ${name}`);
    open.addEventListener("click", () => this.edit((next) => Object.assign(next, { view: "windows", channel })));
    return pairOf({ title: open, before, after, geometry, palette: this.palette(state), range: spanOf([before]), label: `channel ${name}` });
  }

  /** @param {number} count */
  pager(count) {
    const pages = Math.ceil(count / MAPS);
    if (pages < 2) return [];
    const turn = (/** @type {number} */ step) => {
      this.page = Math.max(0, Math.min(pages - 1, this.page + step));
      this.render();
    };
    const [back, on] = [["‹ before", -1], ["next ›", 1]].map(([label, step]) => {
      const button = /** @type {HTMLButtonElement} */ (element("button", "button", { type: "button" }, String(label)));
      button.addEventListener("click", () => turn(Number(step)));
      return button;
    });
    back.disabled = this.page === 0;
    on.disabled = this.page === pages - 1;
    const place = `channels ${this.page * MAPS} to ${Math.min(count, (this.page + 1) * MAPS) - 1} of ${count}`;
    return [element("div", "pager", {}, back, element("span", "muted", {}, place), on)];
  }

  /** @param {State} state @returns {Promise<Scene>} */
  async network(state) {
    const network = await this.numbers.network();
    const lede = "Every stage’s map on the scale of the input, and what a cell of the chosen one sees of your image.";
    if (!network.stages.length) return { boards: [], lede: "Nothing in this network makes its map smaller." };
    const panel = `${this.id}-sees`;
    this.strip ??= new NetworkView(
      network, panel,
      (stage) => this.edit((next) => Object.assign(next, { stage, seen: /^\d/.test(next.seen) ? "centre" : next.seen })),
      (seen) => this.edit((next) => (next.seen = seen)),
    );
    const stage = Math.min(state.stage, network.stages.length - 1);
    this.strip.show(stage, readSeen(state.seen));
    set(this.strip.element, { id: panel, role: "tabpanel", tabindex: "0", "aria-labelledby": this.strip.strip.idOf(stage) });
    this.toMaps.hidden = this.itemOf(network.stages[stage].name) < 0;
    return { boards: [], lede, below: [this.strip.strip.element, this.strip.element, this.toMaps] }; // the same nodes: focus stays
  }

  /** The array of a pooling of the network. @param {string} stage */
  itemOf(stage) {
    return this.numbers.source.items.findIndex(({ name }) => name === stage);
  }

  openMaps() {
    const item = this.itemOf(this.strip?.network.stages[this.state.stage]?.name ?? "");
    if (item >= 0) this.edit((state) => { this.numbers.open(state, item); state.view = "maps"; });
  }

  /** @param {State} state @param {Geometry} geometry @returns {Promise<Scene>} */
  async code(state, geometry) {
    const about = this.numbers.operation(state.op.name);
    const blocks = LANGUAGES.map(({ id, label }) => {
      const text = code(id, { op: state.op, about, shape: state.shape, geometry });
      const head = element("div", "codehead", {}, element("h2", "", {}, label), this.copier("Copy", () => text));
      return element("article", "code", {}, head, element("pre", "", { tabindex: "0", "data-language": id, "aria-label": `${label} code` }, element("code", "", {}, text)));
    });
    return { boards: [], lede: "The lines that give what is on the screen. Where a framework’s own pooling cannot say it, its block says so.", below: [element("div", "codes", {}, ...blocks)] };
  }
}

// ---- parts of views -----------------------------------------------------------------------------------------------

/** Children in place, left alone where they are the same. @param {Element} parent @param {(Node | string)[]} children */
function fill(parent, children) {
  const now = [...parent.childNodes];
  if (now.length === children.length && now.every((node, at) => node === children[at])) return;
  const texts = (/** @type {(Node | string)[]} */ nodes) => nodes.map((node) => (typeof node === "string" ? node : node instanceof Element ? node.outerHTML : node.textContent)).join("\u0000");
  if (now.length === children.length && !children.some((child) => child instanceof Element && child.querySelector("canvas, input, button, select")) && texts(now) === texts(children)) return;
  const focused = document.activeElement;
  const again = focused && parent.contains(focused) && focused instanceof HTMLInputElement ? [focused.name, focused.value] : null;
  parent.replaceChildren(...children);
  if (again && document.activeElement !== focused) /** @type {HTMLElement | null} */ (parent.querySelector(`input[name="${again[0]}"][value="${again[1]}"]`))?.focus();
}

/** @param {HTMLElement} where @param {Shown} shown */
function legend(where, { palette, range, fields }) {
  const [low, high] = range.map((value) => said(value, 3));
  const text = `${palette} ${low} ${high} ${fields.length}`;
  if (where.dataset.shown === text) return;
  where.dataset.shown = text;
  const bar = element("i", "", { style: `background: ${scaleOf(palette)}`, "aria-hidden": "true" });
  where.replaceChildren(...(fields.length > 1 ? ["colour"] : [low, bar, high]));
}

/** @param {Cell} cell @param {number} rows @param {number} columns */
const inside = (cell, rows, columns) => cell.row < rows && cell.column < columns;

/** @param {Cell} cell @param {Geometry} geometry @returns {[number, number]} */
const sizesOf = (cell, geometry) => (cell.board === "output" ? [geometry.rows, geometry.columns] : [geometry.axes[0].size, geometry.axes[1].size]);

/** @param {number | undefined} value */
const worded = (value) => (value === undefined ? "…" : said(value));

/** @param {Field[]} fields @returns {[number, number]} */
const spanOf = (fields) => [Math.min(...fields.map((field) => field.range[0])), Math.max(...fields.map((field) => field.range[1]))];

/** A range around zero. @param {[number, number]} range @returns {[number, number]} */
function even([low, high]) {
  const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
  return [-most, most];
}

/** @param {Int32Array} down @param {Int32Array} across */
function outer(down, across) {
  const values = new Float64Array(down.length * across.length);
  down.forEach((first, row) => across.forEach((second, column) => (values[row * across.length + column] = first * second)));
  return new Local({ rows: down.length, columns: across.length, dtype: "int32", values });
}

/** What changed, where both are in one place. @param {Field} after @param {Field} plain */
const lessOf = (after, plain) => (Boolean(after.grid) === Boolean(plain.grid) ? difference(after, plain) : null);

/** How many elements are read how often. @param {Int32Array[]} counts */
function histogram([down, across]) {
  /** @type {Map<number, number>} */
  const found = new Map();
  for (const first of down) for (const second of across) found.set(first * second, (found.get(first * second) ?? 0) + 1);
  const total = down.length * across.length;
  const rows = [...found].sort(([a], [b]) => a - b).slice(0, 24).map(([times, elements]) => {
    const bar = element("i", "", { style: `width: ${((100 * elements) / total).toFixed(2)}%`, "aria-hidden": "true" });
    return element("tr", "", {}, element("th", "", { scope: "row" }, `${times}×`), element("td", "number", {}, elements.toLocaleString("en")), element("td", "bar", {}, bar), element("td", "number", {}, `${said((100 * elements) / total, 3)} %`));
  });
  const heads = ["read", "elements", "", "share"].map((text) => (text ? element("th", "", { scope: "col" }, text) : element("td")));
  return element("table", "histogram", {}, element("thead", "", {}, element("tr", "", {}, ...heads)), element("tbody", "", {}, ...rows));
}

/** @param {Field} field @param {State} state */
function landed(field, state) {
  if (!field.grid) return element("p", "muted", {}, "Point at an output cell to see where its gradient goes.");
  const { values } = field.grid;
  const reached = values.reduce((sum, value) => sum + (value !== 0 ? 1 : 0), 0);
  const selective = ["max", "min", "relumax"].includes(state.op.name) ? " Each goes to the element that won; of equals, to the first." : "";
  return element("p", "", {}, `${said((100 * reached) / values.length, 3)} % of the elements receive a gradient, at most ${said(Math.max(...field.range.map(Math.abs)))}.${selective}`);
}

/** @param {Field | null} less */
function apart(less) {
  return less?.grid ? [element("p", "", {}, largest(less))] : [];
}

/** @param {Field} less */
function largest(less) {
  if (!less.grid) return "";
  const { values } = less.grid;
  const differing = values.reduce((sum, value) => sum + (value !== 0 ? 1 : 0), 0);
  if (!differing) return "The same numbers.";
  return `${differing.toLocaleString("en")} of ${plural(values.length, "number")} differ, by at most ${said(Math.max(Math.abs(less.range[0]), Math.abs(less.range[1])), 3)}.`;
}

/** @param {{input: number, output: number}} share @param {State} state @param {Geometry} geometry */
function changes(share, state, geometry) {
  const percent = (/** @type {number} */ value) => `${said(100 * value, 3)} %`;
  const steps = geometry.axes.map((axis) => axis.sliding?.step ?? 0);
  const aligned = state.shift.some(Boolean) && state.shift.every((move, axis) => steps[axis] && move % steps[axis] === 0);
  const rows = [["input changed by", percent(share.input)], ["output changed by", percent(share.output)], ["output over input", share.input ? said(share.output / share.input, 3) : "–"]];
  const list = element("dl", "facts", {}, ...rows.map(([name, value]) => element("div", "", {}, element("dt", "", {}, name), element("dd", "", {}, value))));
  const note = aligned ? "The shift is a multiple of the stride: the output is the old one, moved." : "Changes are sums of |after − before| over sums of |before|, cell by cell.";
  return element("div", "changes", {}, list, element("p", "muted", {}, note));
}

/** @param {string | null} call @param {State} state */
const sameCall = (call, state) => call !== null && writeCall(state.op, state.shape) === call;

/**
 * Two linked boards, before and after. geometry: null where the second is no pooling of the first.
 * @param {{title: HTMLElement, before: Field, after: Field, geometry: Geometry | null, palette: PaletteName, range: [number, number], label: string, afterRange?: [number, number]}} about
 */
function pairOf({ title, before, after, geometry, palette, range, label, afterRange }) {
  const words = element("output", "small muted", {}, `${before.rows}×${before.columns} → ${after.rows}×${after.columns}`);
  const row = element("div", "pair");
  const box = element("figure", "map", {}, element("figcaption", "", {}, title, words), row);
  /** @type {Cell | null} */
  let cell = null;
  let place = WHOLE;
  const fields = [before, after];
  const sides = /** @type {const} */ (["input", "output"]);
  const boards = sides.map((side) => new Board(row, {
    point: (at, column) => { cell = { board: side, row: at, column }; show(); },
    leave: () => { cell = null; show(); },
    move: (next) => { place = next; show(); },
  }));
  const show = () => {
    boards.forEach((board, at) => {
      const side = sides[at];
      const field = fields[at];
      const ring = geometry ? marks(side, cell, geometry, null) : cell?.board === side ? [{ row: cell.row, column: cell.column, style: /** @type {const} */ ("focus") }] : [];
      board.show({
        label: `${label}, ${at ? "after" : "before"}, ${field.rows} rows, ${field.columns} columns`, fields: [field], palette, range: at ? (afterRange ?? range) : range,
        margin: [0, 0, 0, 0], unread: [[], []], ruled: false, brackets: [[], []], marks: ring,
        focus: cell?.board === side ? { row: cell.row, column: cell.column } : null,
        say: (at_, column) => `row ${at_}, column ${column}: ${worded(field.at(at_, column))}`,
      }, place);
    });
    if (cell) {
      const field = fields[sides.indexOf(cell.board)];
      words.textContent = `${cell.board === "input" ? "before" : "after"} (${cell.row}, ${cell.column}) = ${worded(field.at(cell.row, cell.column))}`;
    } else words.textContent = `${before.rows}×${before.columns} → ${after.rows}×${after.columns}`;
  };
  show();
  return box;
}

/** Pairs of maps alone, for a report. call: the pooling between them, null where there is none.
 * @typedef {{title: string, before: Planes, after: Planes, call: string | null, scales: [[number, number], [number, number]]}} MapPair */

/**
 * @param {HTMLElement} root
 * @param {{pairs: MapPair[], palette: PaletteName}} source
 * @param {{title: string, picture: HTMLElement | null}} about what the maps are of
 */
export function featureMaps(root, { pairs, palette }, { title, picture }) {
  root.classList.add("poolwise", "embedded");
  const row = element("div", "maps");
  if (picture) row.append(element("figure", "map of", {}, element("figcaption", "", {}, element("strong", "", {}, title)), picture));
  for (const { title: name, before, after, call, scales } of pairs) {
    const [first, second] = [before, after].map((planes) => new Local(unpacked(/** @type {any} */ (planes.data)[0])));
    const geometry = call === null ? null : geometryOf([before.rows, before.columns], read(call).shape);
    row.append(pairOf({ title: element("strong", "", {}, name), before: first, after: second, geometry, palette, range: scales[0], afterRange: scales[1], label: name }));
  }
  root.replaceChildren(row);
}

// ---- hosts --------------------------------------------------------------------------------------------------------

/** In a page: the state in the address, Python behind `ask/` or nowhere. @param {HTMLElement} root @param {Source} source @param {boolean} served */
export function mount(root, source, served) {
  /** @type {Ask} */
  const ask = async (kind, query) => {
    const answer = await fetch(`ask/${kind}?${query}`);
    const said_ = await answer.json();
    if (!answer.ok) throw new Error(said_.error);
    return said_;
  };
  /** @type {Explorer} */
  const explorer = new Explorer(root, source, {
    ask: served ? ask : null,
    read: () => location.hash.slice(1),
    write: (text) => { if (location.hash.slice(1) !== text) history.replaceState(null, "", `#${text}`); },
    link: () => `${location.href.split("#")[0]}#${write(explorer.state)}`,
    save: served ? (text) => `view.html?${text}` : null,
  });
  addEventListener("hashchange", () => explorer.restore(location.hash.slice(1)));
  return explorer;
}

/** In a notebook, as anywidget calls it. @param {{model: any, el: HTMLElement}} host */
function render({ model, el }) {
  /** @type {Map<number, {done: (value: any) => void, failed: (fault: Error) => void}>} */
  const asked = new Map();
  let last = 0;
  const hear = (/** @type {any} */ message) => {
    const waiting = asked.get(message.id);
    asked.delete(message.id);
    if (message.error) waiting?.failed(new Error(message.error));
    else waiting?.done(message.answer);
  };
  model.on("msg:custom", hear);
  const explorer = new Explorer(el, model.get("source"), {
    ask: (kind, query) => new Promise((done, failed) => {
      asked.set(++last, { done, failed });
      model.send({ id: last, kind, query });
    }),
    read: () => model.get("state"),
    write: (text) => {
      if (model.get("state") === text) return;
      model.set("state", text);
      model.save_changes();
    },
    link: null,
    save: null,
  });
  const follow = () => {
    if (model.get("state") !== write(explorer.state)) explorer.restore(model.get("state"));
  };
  model.on("change:state", follow);
  return () => {
    model.off("msg:custom", hear);
    model.off("change:state", follow);
    explorer.remove();
  };
}

export default { render };
