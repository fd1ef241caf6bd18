/**
 * Who owns the database: the worker that holds its Web Lock. The lock is held in the worker, never on the page, so that it goes
 * exactly when the worker goes, however that happens.
 *
 * @module
 */

// A page that reloads meets the lock of its own past for a few dozen milliseconds, seldom half a second.
// Calling that "another tab" would refuse its first requests.
const PATIENCE_MS = 1_500;

/**
 * Wait for the lock, for as long as it takes. `onFollower` is called once if somebody else keeps it.
 *
 * @param {string} name
 * @param {() => void} onFollower
 * @returns {Promise<() => void>} gives the lock back
 */
export function lead(name, onFollower) {
  return new Promise((resolve, reject) => {
    const impatience = setTimeout(onFollower, PATIENCE_MS);
    navigator.locks
      .request(name, () => {
        clearTimeout(impatience);
        return /** @type {Promise<void>} */ (new Promise((release) => resolve(() => release())));
      })
      .catch((error) => {
        clearTimeout(impatience);
        reject(error);
      });
  });
}

/**
 * A lock that lives as long as this worker: who waits for it learns of the worker's end, whatever ended it.
 *
 * @returns {Promise<string>} its name
 */
export async function holdLifeline() {
  const name = `durably-web:lifeline:${crypto.randomUUID()}`;
  await new Promise((held) => {
    void navigator.locks.request(name, () => {
      held(undefined);
      return new Promise(() => {});
    });
  });
  return name;
}

/**
 * @param {string} name
 * @param {AbortSignal} signal  ends the waiting
 * @returns {Promise<void>} resolves when the holder of the lifeline is gone
 */
export async function endOfLifeline(name, signal) {
  await navigator.locks.request(name, { signal }, () => {});
}
