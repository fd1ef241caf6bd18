/**
 * Names for what a site keeps on its origin. Many sites share one origin (every project of a GitHub Pages user does),
 * so each name carries the site's base path and the database: two sites, or two databases, never meet.
 *
 * @module
 */

import { DurablyError } from "./failures.js";

const DATABASE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/**
 * @typedef {object} Place
 * @property {string} lock  Name of the Web Lock that owns the database.
 * @property {string} channel  Name of the BroadcastChannel of its tabs.
 * @property {string} directory  OPFS directory of its files.
 * @property {string} owner  What the file is called that says who owns them.
 * @property {string} vfs
 */

/**
 * @param {string} base
 * @param {string} database
 * @returns {Promise<Place>}
 */
export async function placeOf(base, database) {
  if (!DATABASE_NAME.test(database)) {
    throw new DurablyError(
      "InvalidInput",
      `a database name has 1 to 64 letters, digits, dots, dashes or underscores and begins with a letter or digit: ${JSON.stringify(database)}`,
    );
  }
  const identity = JSON.stringify([base, database]);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(identity));
  // Some browsers keep OPFS names in a file system that ignores case, so the hash alone tells places apart.
  const hash = Array.from(new Uint8Array(digest, 0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const name = `${database.toLowerCase()}-${hash}`;
  return {
    lock: `durably-web:${identity}`,
    channel: `durably-web:${identity}`,
    directory: `durably-web/${name}`,
    owner: name,
    vfs: `durably-web-${hash}`,
  };
}
