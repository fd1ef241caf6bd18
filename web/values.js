/**
 * The values that cross the bridge between Python and SQLite, as JSON.
 *
 * JSON has one kind of number and no bytes, SQLite has two and has them. Null, text and integers that a
 * double holds exactly go as themselves; everything else is an object with one tag. A float is always tagged,
 * or 1.0 would come back as the integer 1.
 *
 * @module
 */

/** @typedef {null | string | number | {f: number} | {i: string} | {b: string}} WireValue */

/** A float that must stay one: JavaScript cannot tell 1.0 from 1. */
export class Float {
  /** @param {number} value */
  constructor(value) {
    this.value = value;
  }
}

/** @typedef {null | string | number | bigint | Float | Uint8Array} Value  What SQLite is given. */

/**
 * @param {unknown} wire
 * @returns {Value}
 */
export function decode(wire) {
  if (wire === null) return wire;
  if (typeof wire === "string") {
    // UTF-8 has no lone surrogates: SQLite would be given another character in its place.
    if (!wire.isWellFormed()) throw new TypeError("a text with a lone surrogate cannot be stored");
    return wire;
  }
  if (typeof wire === "number") {
    if (!Number.isSafeInteger(wire)) throw new TypeError(`an untagged number must be a safe integer: ${wire}`);
    return wire;
  }
  if (typeof wire === "object") {
    const tagged = /** @type {Record<string, unknown>} */ (wire);
    if (typeof tagged.f === "number") return new Float(tagged.f);
    if (typeof tagged.i === "string") return BigInt(tagged.i);
    if (typeof tagged.b === "string") return bytesOf(tagged.b);
  }
  throw new TypeError(`not a value that can cross the bridge: ${JSON.stringify(wire)}`);
}

/**
 * @param {number} value
 * @returns {WireValue}
 */
export function encodeFloat(value) {
  if (!Number.isFinite(value)) throw new TypeError(`JSON cannot carry the float ${value}`);
  return { f: value };
}

/**
 * @param {bigint} value
 * @returns {WireValue}
 */
export function encodeInteger(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : { i: value.toString() };
}

/**
 * @param {Uint8Array} bytes
 * @returns {WireValue}
 */
export function encodeBytes(bytes) {
  let binary = "";
  // In slices, because a call takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return { b: btoa(binary) };
}

/** @param {string} base64 */
function bytesOf(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}
