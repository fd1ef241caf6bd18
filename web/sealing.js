/**
 * Texts that only who has the key can read, exactly as the engine seals them (`durably_web/encryption.py` and
 * `durably_web/store/sealing.py`): `sealed:1:<key id>:<base64 of nonce and body>`, AES-256-GCM with the header as additional data.
 *
 * @module
 */

import { DurablyError } from "./failures.js";
import { decode, encodeBytes } from "./values.js";

/** No JSON begins like this, so sealed texts and others can stand side by side. */
export const PREFIX = "sealed:";

const VERSION = "1";
const NONCE_BYTES = 12;
const KEY_ID_BYTES = 4;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** @typedef {{id: string, key: CryptoKey}} Imported */

/** Seals with the first of its keys, and opens with any of them. Without keys it leaves texts as they are. */
export class Sealer {
  /** @type {Uint8Array[]} */
  #keys;
  /** @type {Promise<Imported[]> | undefined} */
  #imported;
  #encoder = new TextEncoder();
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

  /** @param {Uint8Array[]} keys  each of 32 bytes */
  constructor(keys) {
    this.#keys = keys;
  }

  /** Whether there is a key. */
  get seals() {
    return this.#keys.length > 0;
  }

  /**
   * @param {string} text
   * @returns {Promise<string>}
   */
  async seal(text) {
    const first = (await this.#ready())[0];
    if (first === undefined) return text;
    const header = `${VERSION}:${first.id}:`;
    const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
    const body = await crypto.subtle.encrypt(this.#how(nonce, header), first.key, this.#encoder.encode(text));
    const sealed = new Uint8Array(NONCE_BYTES + body.byteLength);
    sealed.set(nonce);
    sealed.set(new Uint8Array(body), NONCE_BYTES);
    return `${PREFIX}${header}${/** @type {{b: string}} */ (encodeBytes(sealed)).b}`;
  }

  /**
   * What `seal` was given, here or in Python; a text that is not sealed is given back as it is. Rejects with `DecryptionFailed`.
   *
   * @param {string} text
   * @returns {Promise<string>}
   */
  async open(text) {
    if (!text.startsWith(PREFIX)) return text;
    const [version, keyId = "", body = "", ...rest] = text.slice(PREFIX.length).split(":");
    if (version !== VERSION) throw failed("the value was sealed by a newer durably_web: update it");
    if (!this.seals) throw failed("the value is sealed, and there is no key: pass the encryptionKey that sealed it");
    const keys = await this.#ready();
    const found = keys.find(({ id }) => id === keyId);
    if (found === undefined) {
      const known = keys.map(({ id }) => id).join(", ");
      throw failed(`the value was sealed with the key ${keyId}, and there are only ${known}: pass that key too`);
    }
    if (rest.length > 0 || !BASE64.test(body)) throw changed();
    const sealed = /** @type {Uint8Array<ArrayBuffer>} */ (decode({ b: body }));
    const how = this.#how(sealed.subarray(0, NONCE_BYTES), `${VERSION}:${keyId}:`);
    try {
      return this.#decoder.decode(await crypto.subtle.decrypt(how, found.key, sealed.subarray(NONCE_BYTES)));
    } catch {
      throw changed();
    }
  }

  /**
   * @param {Uint8Array<ArrayBuffer>} nonce
   * @param {string} header
   */
  #how(nonce, header) {
    return { name: "AES-GCM", iv: nonce, additionalData: this.#encoder.encode(header) };
  }

  #ready() {
    this.#imported ??= Promise.all(this.#keys.map(imported));
    return this.#imported;
  }
}

/**
 * @param {Uint8Array} key
 * @returns {Promise<Imported>}
 */
async function imported(key) {
  const bytes = new Uint8Array(key);
  const named = new Uint8Array([...new TextEncoder().encode("durably_web key "), ...bytes]);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", named), 0, KEY_ID_BYTES);
  return {
    id: Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join(""),
    key: await crypto.subtle.importKey("raw", bytes, "AES-GCM", false, ["encrypt", "decrypt"]),
  };
}

function changed() {
  return failed("a sealed value was changed after it was stored, or was cut off: restore the database");
}

/** @param {string} message */
function failed(message) {
  return new DurablyError("DecryptionFailed", message);
}
