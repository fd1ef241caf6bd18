/**
 * Errors with the names that the Python side uses (`durably_web/errors.py`), so that a page can tell them apart
 * wherever they were raised.
 *
 * @module
 */

/** @typedef {{name: string, message: string}} Failure  An error as it crosses a worker's boundary. */

/**
 * An error that is told apart by its `name`:
 *
 * - `InvalidInput`, `BadRequest`: what was passed cannot be used.
 * - `NotFound`: there is no such job or run.
 * - `Conflict`: the state of the run forbids it.
 * - `RunFailed`, `RunCancelled`: how the run ended that was waited for.
 * - `TimeoutError`: no answer in time; what was asked for may still happen.
 * - `StoreUnavailable`: nobody can be asked: the client was closed, its worker or the server is gone.
 * - `StoreBusy`, `StorageFull`, `StoreNotDurable`, `NotADatabase`, `SchemaTooNew`, `DecryptionFailed`: the database.
 * - `StorageCleared`, `StorageDamaged`: what happened to it, told by `onStatus`; the client goes on with an empty one.
 * - `BootFailed`, and the names of Python's own errors, such as `SyntaxError`: the jobs cannot run.
 * - `Unauthorized`, `Forbidden`, `PayloadTooLarge`, `TooManyRequests`: what only a server says.
 */
export class DurablyError extends Error {
  /**
   * @param {string} name
   * @param {string} message
   * @param {{cause?: unknown}} [options]
   */
  constructor(name, message, options) {
    super(message, options);
    this.name = name;
  }
}

/**
 * What the caller passed cannot be used.
 *
 * @param {string} message
 * @param {{cause?: unknown}} [options]
 */
export function invalid(message, options) {
  return new DurablyError("InvalidInput", message, options);
}

/**
 * @param {unknown} error
 * @returns {Failure}
 */
export function failureOf(error) {
  if (error instanceof Error || error instanceof DOMException) return { name: error.name, message: error.message };
  return { name: "Error", message: String(error) };
}

/** @param {Failure} failure */
export function errorOf(failure) {
  return new DurablyError(failure.name, failure.message);
}
