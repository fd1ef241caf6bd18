/**
 * Runs that go on elsewhere: from this page on a server, from a server in a page, or from one server on another.
 *
 * @module
 */

import { Asking } from "./asking.js";
import { invalid } from "./failures.js";
import { newId } from "./ulid.js";
import { onlyLimits } from "./wire.js";

/** @typedef {import("./types.js").Offer} Offer */
/** @typedef {import("./types.js").RequestOptions} RequestOptions */

/**
 * A run has one owner at most, whatever is lost on the way: who offers it executes it no more until somebody has said what became of
 * the offer, and who takes it says so, however often it is asked.
 */
export class Handing extends Asking {
  #request;

  /**
   * @param {import("./types.js").Transport["request"]} request
   */
  constructor(request) {
    super(request);
    this.#request = request;
  }

  /**
   * Let a run go on where another client asks, with all that is stored of it. Here it is `"cancelled"` then, and its error says that
   * it went to `name`: an address, or what people call it. It has the same id there.
   *
   *     const server = await createDurably({ url: "/api/durably" });
   *     await durably.handOver(run.id, server, { name: "/api/durably" });
   *     const { output } = await server.waitForRun(run.id);
   *
   * What is executed finishes its current steps first. Where the other side refuses the run, this rejects with its error, and the run
   * goes on here. Where its answer is lost, or this page is closed, the run stays offered, and nobody executes it here: call this
   * again with the same `name`, which brings to its end whatever had begun.
   *
   * @param {string} runId
   * @param {Handing} to  a client of this module
   * @param {{name: string} & RequestOptions} options
   * @returns {Promise<void>}
   */
  async handOver(runId, to, options) {
    if (!(to instanceof Handing)) throw invalid("handOver takes a client: await createDurably({ url }) for a server");
    const { name, ...limits } = options ?? {};
    if (typeof name !== "string" || !name) throw invalid('handOver needs a name for where the run goes: { name: "/api/durably" }');
    for (;;) {
      const own = newId();
      const offer = await this.#offer(runId, name, own, limits);
      if (offer.document === null || (await this.#isTaken(offer, to, offer.handoverId === own, limits))) {
        if (offer.document !== null) await this.confirmHandover(runId, offer.handoverId, limits);
        return;
      }
      // One that had begun earlier was declined by now. It is over, and this is another one.
    }
  }

  /**
   * All that is stored of a run, as `docs/export.md` describes it. Nothing changes.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   * @returns {Promise<Record<string, any>>}
   */
  async exportRun(runId, options) {
    return this.#request("GET", "/export", { runId }, null, onlyLimits(options));
  }

  /**
   * Hold a run back, and give the document by which `importRun` takes it, once: a text, to be passed on as it is. Until
   * `confirmHandover` or `withdrawHandover` nobody executes or changes the run here. `handOver` does all of this.
   *
   * @param {string} runId
   * @param {{name: string} & RequestOptions} options  `name`: where it goes
   * @returns {Promise<Offer>}
   */
  async offerRun(runId, options) {
    const { name, ...limits } = options ?? {};
    return this.#offer(runId, name, undefined, limits);
  }

  /**
   * Take in a run by its document; safe to repeat. Rejects with `InvalidInput`, `NotFound` or `Conflict`, and then nothing was stored.
   *
   * @param {string} document
   * @param {RequestOptions} [options]
   * @returns {Promise<{id: string}>}
   */
  async importRun(document, options) {
    const answer = await this.#request("POST", "/runs/import", {}, { document }, onlyLimits(options));
    return { id: answer.runId };
  }

  /**
   * The offered run was taken where it was offered to. It never goes on here.
   *
   * @param {string} runId
   * @param {string} handoverId
   * @param {RequestOptions} [options]
   */
  async confirmHandover(runId, handoverId, options) {
    await this.#request("POST", "/handover/confirm", { runId, handoverId }, null, onlyLimits(options));
  }

  /**
   * The offered run was not taken, and never will be: `declineHandover` has said so over there. It goes on here.
   *
   * @param {string} runId
   * @param {string} handoverId
   * @param {RequestOptions} [options]
   */
  async withdrawHandover(runId, handoverId, options) {
    await this.#request("POST", "/handover/withdraw", { runId, handoverId }, null, onlyLimits(options));
  }

  /**
   * See to it that a handover is never taken here, however late its document comes; `false` where it was taken before.
   *
   * @param {string} runId
   * @param {string} handoverId
   * @param {RequestOptions} [options]
   * @returns {Promise<boolean>}
   */
  async declineHandover(runId, handoverId, options) {
    const answer = await this.#request("POST", "/handover/decline", { runId, handoverId }, null, onlyLimits(options));
    return answer.declined;
  }

  /**
   * @param {string} runId
   * @param {string} name
   * @param {string | undefined} id  the handover's; otherwise the request's own
   * @param {RequestOptions} options
   * @returns {Promise<Offer>}
   */
  async #offer(runId, name, id, options) {
    const body = id === undefined ? { target: name } : { target: name, handoverId: id };
    return this.#request("POST", "/handover/offer", { runId }, body, onlyLimits(options));
  }

  /**
   * Whether the other side has the run now. If not it goes on here, which is an error where that `mayReject`.
   *
   * @param {Offer} offer
   * @param {Handing} to
   * @param {boolean} mayReject
   * @param {RequestOptions} options
   * @returns {Promise<boolean>}
   */
  async #isTaken({ runId, handoverId, document }, to, mayReject, options) {
    try {
      await to.importRun(/** @type {string} */ (document), options);
      return true;
    } catch (error) {
      // It may have been refused, or have arrived without an answer. Only who is asked knows, and from now on does not take it.
      let declined;
      try {
        declined = await to.declineHandover(runId, handoverId, options);
      } catch {
        throw error;
      }
      if (!declined) return true;
      await this.withdrawHandover(runId, handoverId, options);
      if (mayReject) throw error;
      return false;
    }
  }
}
