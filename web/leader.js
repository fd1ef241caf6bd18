/**
 * Who owns the database: the worker that holds its Web Lock. The lock is held in the worker, never on the page, so that it goes
 * exactly when the worker goes, however that happens.
 *
 * @module
 */

/** A worker's place in the line for the lock of a database. */
export class Candidacy {
  #name;
  #queue = new AbortController();
  /** @type {PromiseWithResolvers<{asleep: boolean}>} */
  #won = Promise.withResolvers();
  #release = () => {};
  #granted = false;
  #onDeposed;

  /**
   * @param {string} name  of the lock
   * @param {() => void} onDeposed  called when another worker took the lock away
   */
  constructor(name, onDeposed) {
    this.#name = name;
    this.#onDeposed = onDeposed;
    this.#ask({ signal: this.#queue.signal }, false);
  }

  /** Resolves when the lock is ours, which may never be; `asleep` when it was taken from somebody who may still live. */
  get won() {
    return this.#won.promise;
  }

  /**
   * Take the lock from a holder that does not answer. One candidate at a time: the others see `isAsleep` become false.
   *
   * @param {() => Promise<boolean>} isAsleep  asked again, once nobody else can do the same
   * @param {Promise<unknown>} settled  until then nobody else may
   */
  async succeed(isAsleep, settled) {
    await navigator.locks.request(`${this.#name}:succession`, { ifAvailable: true }, async (alone) => {
      // Meanwhile the line may have moved.
      if (!alone || !(await isAsleep()) || this.#granted) return;
      this.#queue.abort();
      this.#ask({ steal: true }, true);
      await settled.catch(() => {});
    });
  }

  /** Give the lock back, or leave the line. */
  release() {
    this.#queue.abort();
    this.#release();
  }

  /**
   * @param {LockOptions} options
   * @param {boolean} asleep
   */
  #ask(options, asleep) {
    navigator.locks
      .request(this.#name, options, () => {
        this.#granted = true;
        this.#won.resolve({ asleep });
        return new Promise((release) => {
          this.#release = () => release(undefined);
        });
      })
      .catch((error) => {
        // Either we left the line ourselves, or the lock that we had was stolen, or there are no locks to be had.
        if (options.signal?.aborted) return;
        if (this.#granted) this.#onDeposed();
        else this.#won.reject(error);
      });
    this.#won.promise.catch(() => {});
  }
}

/**
 * A lock that lives as long as this worker: who waits for it learns of the worker's end, whatever ended it.
 *
 * @returns {Promise<string>} its name
 */
export async function holdLifeline() {
  const name = `durably-web:lifeline:${crypto.randomUUID()}`;
  await new Promise((held, refused) => {
    navigator.locks
      .request(name, () => {
        held(undefined);
        return new Promise(() => {});
      })
      .catch(refused);
  });
  return name;
}

/**
 * Whether the end of this lifeline can be waited for here. After the site's data was cleared, pages that were open before see none of
 * the locks of workers that were started after.
 *
 * @param {string} name
 */
export async function seesLifeline(name) {
  const { held = [] } = await navigator.locks.query();
  return held.some((lock) => lock.name === name);
}

/**
 * @param {string} name
 * @param {AbortSignal} signal  ends the waiting
 * @returns {Promise<void>} resolves when the holder of the lifeline is gone
 */
export async function endOfLifeline(name, signal) {
  await navigator.locks.request(name, { signal }, () => {});
}
