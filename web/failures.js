/**
 * Errors with the names that the Python side uses (`durably_web/errors.py`), so that a page can tell them apart
 * wherever they were raised.
 *
 * @module
 */

/** @typedef {{name: string, message: string}} Failure  An error as it crosses a worker's boundary. */

/** An error that is told apart by its `name`. */
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
