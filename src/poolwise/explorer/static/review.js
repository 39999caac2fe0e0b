// The page of a review: the network's strip, what a cell of the chosen stage sees, and the stage's windows in the explorer.

import { Explorer } from "./explorer.js";
import { NetworkView, readSeen } from "./network.js";
import { read, write } from "./state.js";

/** @typedef {import("./network.js").Network} Network */
/** @typedef {import("./scene.js").Source} Source */

const PANEL = "stage-panel";

/** The state in the address: `stage=3&seen=centre&` and the explorer's own. */
export class ReviewPage {
  stage = 0;
  seen = "centre";
  /** @type {Explorer | null} */
  explorer = null;

  /**
   * @param {HTMLElement} root what holds the page's places @param {Network} network @param {Source} source one small array for each stage that has one
   * @param {(number | null)[]} items each stage's array @param {number} start the stage to begin with
   */
  constructor(root, network, source, items, start) {
    this.root = root;
    this.network = network;
    this.items = items;
    this.start = start;
    this.view = new NetworkView(network, PANEL, (number) => this.choose(number), (seen) => this.look(seen));
    this.place("strip").replaceChildren(this.view.strip.element);
    this.place("sight").replaceChildren(this.view.element);
    this.restore();
    if (source.items.length) this.explorer = this.explore(source);
    this.show();
    addEventListener("hashchange", () => this.follow());
  }

  /** @param {string} name */
  place(name) {
    return /** @type {HTMLElement} */ (this.root.querySelector(`[data-place="${name}"]`));
  }

  /** @param {Source} source */
  explore(source) {
    const root = this.place("explorer");
    root.classList.add("embedded");
    const item = this.items[this.stage] ?? 0;
    const asked = location.hash.slice(1);
    const explorer = new Explorer(root, { ...source, start: `${source.start}&item=${item}` }, {
      ask: null,
      read: () => asked,
      write: (text) => this.wrote(text),
      link: () => `${location.href.split("#")[0]}#${this.text()}`,
      save: null,
    });
    explorer.title.hidden = true;
    return explorer;
  }

  // ---- state ---------------------------------------------------------------------------------------------------

  /** What the address says. */
  restore() {
    const given = new Map(location.hash.slice(1).split("&").map((part) => /** @type {[string, string]} */ (part.split("="))));
    const number = Number(given.get("stage") ?? this.start);
    this.stage = Number.isInteger(number) && number >= 0 && number < this.network.stages.length ? number : this.start;
    this.seen = readSeen(decodeURIComponent(given.get("seen") ?? ""));
  }

  text() {
    const own = `stage=${this.stage}&seen=${encodeURIComponent(this.seen)}`;
    return this.explorer && this.items[this.stage] !== null ? `${own}&${write(this.explorer.state)}` : own;
  }

  /** A link on the page, or a step back. */
  follow() {
    const given = location.hash.slice(1);
    if (!given.startsWith("stage=") || given === this.text()) return;
    this.restore();
    const item = this.items[this.stage];
    if (item !== null) this.explorer?.restore(`item=${item}&${given}`);
    this.show();
    if (given.includes("&")) return;
    this.view.strip.element.scrollIntoView({ block: "center" });
    /** @type {HTMLElement} */ (this.view.strip.tabs.children[this.stage]).focus({ preventScroll: true });
  }

  /** The explorer's state, whenever it has come to rest. @param {string} text */
  wrote(text) {
    const { item, theme } = read(text);
    if (theme === "auto") this.root.removeAttribute("data-theme");
    else this.root.dataset.theme = theme;
    this.view.sight.redraw();
    const stage = this.items.indexOf(item);
    if (stage >= 0 && stage !== this.stage && this.items[this.stage] !== null) {
      this.stage = stage;
      this.show();
    } else this.tell();
  }

  tell() {
    const text = this.text();
    if (location.hash.slice(1) !== text) history.replaceState(null, "", `#${text}`);
  }

  /** @param {number} number */
  choose(number) {
    if (number === this.stage) return;
    this.stage = number;
    if (/^\d/.test(this.seen)) this.seen = "centre"; // a cell of another map
    const item = this.items[number];
    if (item !== null) this.explorer?.edit((state) => this.explorer?.numbers.open(state, item));
    this.show();
  }

  /** @param {string} seen */
  look(seen) {
    this.seen = seen;
    this.show();
  }

  // ---- what is shown -------------------------------------------------------------------------------------------

  show() {
    this.view.show(this.stage, this.seen);
    this.place("panel").setAttribute("aria-labelledby", this.view.strip.idOf(this.stage));
    for (const about of this.root.querySelectorAll("[data-about]")) {
      /** @type {HTMLElement} */ (about).hidden = /** @type {HTMLElement} */ (about).dataset.about !== String(this.stage);
    }
    this.place("windows").hidden = this.items[this.stage] === null;
    this.place("no-windows").hidden = this.items[this.stage] !== null;
    this.tell();
  }
}

/** Brings a page to life that Python wrote. @param {Document} page */
export function reviewed(page) {
  const { network, source, items, start } = JSON.parse(/** @type {HTMLElement} */ (page.getElementById("review-data")).textContent ?? "");
  return new ReviewPage(/** @type {HTMLElement} */ (page.querySelector(".review")), network, source, items, start);
}
