/**
 * What has to be given before a worker may open a database, or write into it.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";

/** Say at once what this browser cannot give, rather than after a wait for the lock. */
export async function requireStorage() {
  const missing = !isSecureContext
    ? "this page is not a secure context: serve it over https, or from localhost"
    : !navigator.locks
      ? "this browser has no Web Locks"
      : !navigator.storage?.getDirectory || !("createSyncAccessHandle" in FileSystemFileHandle.prototype)
        ? "this browser has no origin private file system (OPFS) for workers"
        : null;
  if (missing) throw new DurablyError("StoreUnavailable", missing);
  try {
    await navigator.storage.getDirectory();
  } catch (error) {
    throw new DurablyError(
      "StoreUnavailable",
      `the browser gives this page no private file system (a private window?): ${failureOf(error).message}`,
      { cause: error },
    );
  }
}

/**
 * What a newer version has migrated is only read, and left as it is.
 *
 * @param {import("./sqlite.js").Connection} connection
 * @param {number} known
 * @returns {string | null} why, if so
 */
export function newerSchema(connection, known) {
  const version = connection.schemaVersion();
  if (version <= known) return null;
  return (
    `the database has schema version ${version}, and this durably_web knows versions up to ${known}: this page only reads; ` +
    "reload it, or publish the newer version again"
  );
}
