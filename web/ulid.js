/**
 * Ids that sort by the time they were made: ULIDs (https://github.com/ulid/spec), as `durably_web/ids.py` makes them.
 *
 * 48 bits of milliseconds and 80 random bits, as 26 characters.
 *
 * @module
 */

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RANDOM_BITS = 80n;
const RANDOM_BYTES = 10;
// How far apart the ids of one millisecond are: those between are for what a request makes more of, one for each run.
const APART = 1n << 32n;
const LENGTH = 26;
const END = 1n << 128n;
// 26 characters hold 130 bits, so the first one has three.
const ID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

let lastTime = -1;
let lastRandom = 0n;

/**
 * An id that is greater than all that this context has made before, also within a millisecond and when the clock goes back; and
 * than the 2³² that are counted up from each of them.
 *
 * @param {number} [now]  milliseconds since the epoch
 * @param {(bytes: Uint8Array<ArrayBuffer>) => Uint8Array} [random]  fills the bytes
 * @returns {string}
 */
export function newId(now = Date.now(), random = (bytes) => crypto.getRandomValues(bytes)) {
  if (now > lastTime) {
    lastTime = now;
    // The top bit stays free, so that counting up cannot overflow into the time.
    lastRandom = numberOf(random(new Uint8Array(RANDOM_BYTES))) >> 1n;
  } else {
    lastRandom += APART;
  }
  return write((BigInt(lastTime) << RANDOM_BITS) | lastRandom);
}

/**
 * The id that comes `n` after another one, both taken as numbers of 128 bits.
 *
 * @param {string} id
 * @param {number} n  0 or more
 * @returns {string}
 */
export function countedUp(id, n) {
  let number = BigInt(n);
  let weight = 1n;
  for (let at = LENGTH - 1; at >= 0; at--) {
    number += BigInt(ALPHABET.indexOf(/** @type {string} */ (id[at]))) * weight;
    weight <<= 5n;
  }
  if (number >= END) throw new RangeError(`no id comes ${n} after ${id}`);
  return write(number);
}

/** @param {unknown} value */
export function isId(value) {
  return typeof value === "string" && ID.test(value);
}

/** @param {Uint8Array} bytes */
function numberOf(bytes) {
  return bytes.reduce((number, byte) => (number << 8n) | BigInt(byte), 0n);
}

/** @param {bigint} number */
function write(number) {
  let id = "";
  for (let shift = 125n; shift >= 0n; shift -= 5n) id += ALPHABET[Number((number >> shift) & 31n)];
  return id;
}
