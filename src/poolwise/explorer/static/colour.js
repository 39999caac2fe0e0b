// From numbers to colours: palettes whose lightness rises evenly, for every kind of colour vision.

/** @typedef {"grey" | "cividis" | "counts" | "difference"} PaletteName */

// cividis: Nuñez, Anderton & Renslow, PLoS ONE 13(7), 2018. The others: two hues that no common colour blindness confuses.
const STOPS = /** @type {Record<PaletteName, string[]>} */ ({
  grey: ["#000000", "#ffffff"],
  cividis: ["#00204d", "#31446b", "#666970", "#958f78", "#cab969", "#ffea46"],
  counts: ["#f4f6f8", "#b9d6ea", "#69add5", "#2676b0", "#0c4a80", "#062a4d"],
  difference: ["#053061", "#2f79b5", "#a7cfe4", "#f7f7f5", "#f6c08f", "#c8691c", "#6b2f05"],
});
/** What has no colour on a scale: NaN and the infinities. */
export const OUTSIDE = "#c2185b";

/** @type {Map<PaletteName, Uint32Array>} */
const tables = new Map();

/** 256 colours as the four bytes of a pixel. @param {PaletteName} name @returns {Uint32Array} */
export function table(name) {
  const known = tables.get(name);
  if (known) return known;
  const stops = STOPS[name].map(bytes);
  const made = Uint32Array.from({ length: 256 }, (_, number) => {
    const place = (number / 255) * (stops.length - 1);
    const first = Math.min(Math.floor(place), stops.length - 2);
    const mixed = stops[first].map((value, part) => Math.round(value + (stops[first + 1][part] - value) * (place - first)));
    return packed(mixed);
  });
  tables.set(name, made);
  return made;
}

/** @param {string} hex */
const bytes = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** @param {number[]} rgb */
const packed = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;

/** The pixels of some numbers. @param {Float64Array} values @param {[number, number]} range @param {PaletteName} palette @param {Uint32Array} pixels */
export function paint(values, [low, high], palette, pixels) {
  const colours = table(palette);
  const outside = packed(bytes(OUTSIDE));
  const scale = high > low ? 255.999 / (high - low) : 0;
  const [ifHigh, ifLow] = [colours[255], colours[0]];
  for (let at = 0; at < values.length; at++) {
    const value = values[at];
    const step = (value - low) * scale;
    if (step >= 0 && step < 256) pixels[at] = colours[step | 0];
    else if (value - value !== 0) pixels[at] = outside; // NaN, ±inf
    else pixels[at] = step < 0 ? ifLow : ifHigh;
  }
}

/** Three planes as one colour picture. @param {Float64Array[]} planes @param {[number, number]} range @param {Uint32Array} pixels */
export function paintColour(planes, [low, high], pixels) {
  const scale = high > low ? 255 / (high - low) : 0;
  const [red, green, blue] = planes;
  const level = (/** @type {number} */ value) => Math.max(0, Math.min(255, Math.round((value - low) * scale)));
  for (let at = 0; at < pixels.length; at++) {
    pixels[at] = ((255 << 24) | (level(blue[at]) << 16) | (level(green[at]) << 8) | level(red[at])) >>> 0;
  }
}

/** Black or white, whichever is read better on a number's colour. @param {number} value @param {[number, number]} range @param {PaletteName} palette */
export function inkOn(value, [low, high], palette) {
  if (!Number.isFinite(value)) return "#ffffff";
  const step = high > low ? Math.max(0, Math.min(255, Math.floor(((value - low) / (high - low)) * 255.999))) : 0;
  const colour = table(palette)[step];
  const [red, green, blue] = [colour & 255, (colour >> 8) & 255, (colour >> 16) & 255].map((byte) => {
    const share = byte / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000000" : "#ffffff";
}

/** A palette as a CSS gradient. @param {PaletteName} name */
export const scaleOf = (name) => `linear-gradient(to right, ${STOPS[name].join(", ")})`;
