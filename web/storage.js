/**
 * What is asked about the files of the database, and not of the engine: how much they are, taking the database out as a plain file,
 * putting another one in its place, and what was set aside.
 *
 * @module
 */

import { asideOf, complete, discard, directoryOf, fileOf, newCopy, roomFor } from "./copies.js";
import { DurablyError, failureOf, invalid } from "./failures.js";
import { openAside, openDatabase } from "./opfs.js";
import { PREFIX, Sealer } from "./sealing.js";

/** @typedef {import("./ownership.js").Ownership} Ownership */
/** @typedef {import("./place.js").Place} Place */
/** @typedef {import("./sqlite.js").Connection} Connection */
/** @typedef {import("./sqlite.js").Sqlite3} Sqlite3 */

/**
 * `after` is called when the answer has been given.
 *
 * @typedef {{text: string, blob?: Blob, after?: () => void}} Answer
 */

// Pages are put together to pieces of this size, so that no more than one of them is in the worker's memory.
const PIECE_BYTES = 1 << 20;
const SQLITE_TYPE = "application/vnd.sqlite3";
// Where the header of a file says how it is to be written: 1 is without a log ahead, as a plain file is.
const FORMAT_AT = 18;
const SELECT_PAGES = "SELECT data FROM sqlite_dbpage('main') ORDER BY pgno";
const SELECT_SEALED = `SELECT input FROM durably_runs WHERE input LIKE '${PREFIX}%' ORDER BY id DESC LIMIT 1`;
const LEAST_BYTES = 512;

/** Answers for the worker that has the files. */
export class Storage {
  #sqlite3;
  #place;
  #ownership;
  #connection;
  #options;
  #knownSchema;
  #retire;
  #restart;
  #importing = false;
  /** Whether results of runs wait for room. */
  full = false;

  /**
   * @param {object} database
   * @param {Sqlite3} database.sqlite3
   * @param {Place} database.place
   * @param {Ownership} database.ownership
   * @param {Connection} database.connection
   * @param {import("./protocol.js").BootOptions} options
   * @param {number} knownSchema
   * @param {object} end
   * @param {() => void} end.retire  from now on nothing that is done on this connection counts
   * @param {() => void} end.restart  another worker is to open the files that there are then
   */
  constructor({ sqlite3, place, ownership, connection }, options, knownSchema, { retire, restart }) {
    this.#sqlite3 = sqlite3;
    this.#place = place;
    this.#ownership = ownership;
    this.#connection = connection;
    this.#options = options;
    this.#knownSchema = knownSchema;
    this.#retire = retire;
    this.#restart = restart;
  }

  /**
   * Answer a request `{id, method, path, query}`.
   *
   * @param {string} text
   * @param {Blob | undefined} blob
   * @param {Promise<unknown>} drained  when the engine has taken over what was asked for before it was up
   * @returns {Promise<Answer>}
   */
  async answer(text, blob, drained) {
    const { id, method, path, query } = JSON.parse(text);
    try {
      switch (`${method} ${path}`) {
        case "GET /storage":
          return done(await this.#told());
        case "GET /database":
          if (query.name !== undefined) return { ...done(), blob: await this.#aside(await this.#known(query.name)) };
          await drained;
          return { ...done(), blob: exported(this.#connection) };
        case "POST /database":
          await drained;
          return await this.#imported(id, blob);
        case "DELETE /database":
          await discard(this.#place, await this.#known(query.name));
          return done();
        default:
          throw new DurablyError("NotFound", `there is no ${method} ${path}`);
      }
    } catch (error) {
      const { name, message } = failureOf(roomFor(error));
      return { text: JSON.stringify({ status: 500, body: { name, error: message } }) };
    }
  }

  async #told() {
    const [[pages], [free], [size]] = /** @type {[[number], [number], [number]]} */ (
      ["page_count", "freelist_count", "page_size"].map((pragma) => this.#connection.query(`PRAGMA ${pragma}`)[0])
    );
    return { bytes: pages * size, free: free * size, full: this.full, setAside: await asideOf(this.#place) };
  }

  // -- what was set aside -------------------------------------------------------------------------------------------------------

  /** @param {unknown} name */
  async #known(name) {
    const found = (await asideOf(this.#place)).find((one) => one.name === name);
    if (found === undefined) throw new DurablyError("NotFound", `nothing was set aside as ${name}; storage() has the list`);
    return found.name;
  }

  /**
   * With what is in its log, if it can be opened; otherwise as it is.
   *
   * @param {string} name
   * @returns {Promise<Blob>}
   */
  async #aside(name) {
    const files = { directory: `${this.#place.directory.split("/")[0]}/${name}`, vfs: `${this.#place.vfs}.aside.${name}` };
    let connection;
    try {
      connection = await openAside(this.#sqlite3, files);
      return exported(connection);
    } catch {
      connection?.close();
      connection = undefined;
      return await fileOf(this.#place, name);
    } finally {
      connection?.close();
    }
  }

  // -- import -------------------------------------------------------------------------------------------------------------------

  /**
   * Put another database in the place of this one: into a directory of its own, and checked there. It becomes the database in one step;
   * before that, nothing has changed. The files that it replaces are deleted when it has been opened.
   *
   * @param {string} id  the request's: the same one does it once
   * @param {Blob | undefined} blob
   * @returns {Promise<Answer>}
   */
  async #imported(id, blob) {
    if ((await this.#ownership.origin()) === id) return done();
    if (!(blob instanceof Blob) || blob.size === 0) throw invalid("there is nothing to import: give the Blob or File of a database");
    if (this.#importing) throw new DurablyError("Conflict", "another import is under way");
    this.#importing = true;
    const copy = await newCopy(this.#place);
    // A name of its own: SQLite remembers pools by name, also of directories that are gone.
    const files = { directory: directoryOf(this.#place, copy), vfs: `${this.#place.vfs}.import.${id}` };
    let restart = false;
    try {
      const sealer = new Sealer(this.#options.encryptionKeys);
      await requirePlausible(blob);
      const checked = await openAside(this.#sqlite3, files, (one) => requireUsable(one, this.#knownSchema), blob);
      try {
        await requireKey(checked, sealer);
      } finally {
        checked.close();
      }
      // Opened as it will be: what is missing shows now. And it has been flushed then.
      (await openDatabase(this.#sqlite3, files, this.#options.durability)).close();
      restart = true;
      // Whoever is told of something from here on is told by the next worker.
      this.#retire();
      await complete(this.#place, copy, id);
      return { ...done(), after: this.#restart };
    } catch (error) {
      await discard(this.#place, directoryOf(this.#place, copy).split("/")[1] ?? "").catch(() => {});
      if (restart) queueMicrotask(this.#restart);
      throw error;
    } finally {
      this.#importing = false;
    }
  }
}

/**
 * The database as a plain file, as it stands in this moment.
 *
 * @param {Connection} connection
 * @returns {Blob}
 */
function exported(connection) {
  /** @type {Blob[]} */
  const pieces = [];
  /** @type {Uint8Array<ArrayBuffer>[]} */
  let pages = [];
  let bytes = 0;
  let isFirst = true;
  // Not by a copy in the file system: there may be no room for one.
  connection.eachBlob(SELECT_PAGES, (page) => {
    if (isFirst) page.fill(1, FORMAT_AT, FORMAT_AT + 2);
    isFirst = false;
    pages.push(/** @type {Uint8Array<ArrayBuffer>} */ (page));
    bytes += page.byteLength;
    if (bytes < PIECE_BYTES) return;
    pieces.push(new Blob(pages));
    pages = [];
    bytes = 0;
  });
  return new Blob([...pieces, ...pages], { type: SQLITE_TYPE });
}

/** @param {Blob} blob */
async function requirePlausible(blob) {
  const header = new Uint8Array(await blob.slice(0, 100).arrayBuffer());
  const isSqlite = new TextDecoder().decode(header.subarray(0, 16)) === "SQLite format 3\0";
  if (!isSqlite || blob.size < LEAST_BYTES) throw new DurablyError("NotADatabase", "this is not a SQLite database; nothing was changed");
  const view = new DataView(header.buffer);
  const size = view.getUint16(16) === 1 ? 65536 : view.getUint16(16);
  const pages = view.getUint32(28);
  // The count holds only if whoever wrote it last knew of it.
  const isCounted = pages > 0 && view.getUint32(24) === view.getUint32(92);
  if (blob.size % size !== 0 || (isCounted && blob.size < pages * size)) {
    throw new DurablyError("NotADatabase", "the file is cut off: it is shorter than its header says; nothing was changed");
  }
}

/**
 * @param {Connection} connection
 * @param {number} knownSchema
 */
function requireUsable(connection, knownSchema) {
  const found = connection.query("PRAGMA integrity_check(1)")[0]?.[0];
  if (found !== "ok") throw new DurablyError("NotADatabase", `the database is damaged: ${found}; nothing was changed`);
  const names = connection.query("SELECT type, name FROM sqlite_master");
  const tables = names.filter(([type]) => type === "table").map(([, name]) => name);
  if (!tables.includes("durably_schema") || !tables.includes("durably_runs")) {
    throw new DurablyError("NotADatabase", "this is a SQLite database, and none of durably_web; nothing was changed");
  }
  const odd = names.find(([type]) => type === "trigger" || type === "view");
  if (odd) throw new DurablyError("NotADatabase", `durably_web makes no ${odd[0]} ${odd[1]}; nothing was changed`);
  const version = connection.schemaVersion();
  if (version > knownSchema) {
    throw new DurablyError(
      "SchemaTooNew",
      `the database has schema version ${version}, and this durably_web knows versions up to ${knownSchema}; nothing was changed`,
    );
  }
}

/**
 * @param {Connection} connection
 * @param {Sealer} sealer
 */
async function requireKey(connection, sealer) {
  const sealed = connection.query(SELECT_SEALED)[0]?.[0];
  if (sealed === undefined) return;
  try {
    await sealer.open(String(sealed));
  } catch (error) {
    const why = sealer.seals ? "was sealed with another key than the encryptionKey of this page" : "is sealed, and this page has no encryptionKey";
    throw new DurablyError("DecryptionFailed", `the database ${why}; nothing was changed`, { cause: error });
  }
}

/**
 * @param {unknown} [body]
 * @returns {Answer}
 */
function done(body = { success: true }) {
  return { text: JSON.stringify({ status: 200, body }) };
}

/**
 * An event that no run has a part in, as JSON.
 *
 * @param {import("./types.js").EventType} type
 * @param {Record<string, unknown>} details
 */
export function storageEvent(type, details) {
  const head = { type, seq: null, timestamp: new Date().toISOString(), runId: null, jobName: null, labels: {} };
  return JSON.stringify({ ...head, ...details });
}
