/**
 * The site's copy in this browser, as a page sees it: it asks the service worker to keep the site, and tells when that is done and when
 * a new version has come. What the service worker does is in `service-worker.js`. Nothing here delays a start, or fails it.
 *
 * @module
 */

import { failureOf } from "./failures.js";

/** @typedef {import("./types.js").Site} Site */

// A page may be open for weeks.
const LOOK_FOR_UPDATE_MS = 3_600_000;

export class Offline {
  #runtime;
  #tell;
  #closing = new AbortController();
  /** @type {Site} */
  #site = { stored: false, update: null };
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #looking;

  /**
   * @param {string} runtime  absolute URL of the folder with the manifest
   * @param {(type: "site:stored" | "site:update", version: string) => void} tell  must not raise
   */
  constructor(runtime, tell) {
    this.#runtime = runtime;
    this.#tell = tell;
  }

  get site() {
    return { ...this.#site };
  }

  /**
   * Have the site kept, if it is made for that, and watch for new versions.
   *
   * @param {Promise<void>} ready  what downloads before that is more urgent
   */
  async start(ready) {
    try {
      const container = globalThis.navigator?.serviceWorker;
      const script = new URL("../service-worker.js", this.#runtime);
      const scope = new URL("./", script).href;
      // The service worker of a site elsewhere would not see this page.
      if (!container || !globalThis.location?.href.startsWith(scope)) return;
      container.addEventListener("message", ({ data }) => {
        if (data?.type === "durably-web:not-stored") console.warn(`durably-web: ${data.reason}`);
      }, this.#closing);
      const registration = (await known(container, script, scope)) ?? (await this.#register(container, script, scope, ready));
      if (registration && !this.#closing.signal.aborted) this.#watch(registration);
    } catch (error) {
      console.debug("durably-web: this site is not kept for offline use:", failureOf(error).message);
    }
  }

  close() {
    this.#closing.abort();
    clearInterval(this.#looking);
  }

  /**
   * @param {ServiceWorkerContainer} container
   * @param {URL} script
   * @param {string} scope
   * @param {Promise<void>} ready
   */
  async #register(container, script, scope, ready) {
    await ready;
    // A worker has just asked the server for it.
    const manifest = await (await fetch(new URL("manifest.json", this.#runtime), { cache: "force-cache" })).json();
    if (!manifest.offline) return undefined;
    const registered = await container.getRegistration(scope);
    if (registered?.scope === scope && !isOurs(registered, script)) {
      throw new Error(`the site has a service worker of its own, ${scriptOf(registered)}`);
    }
    return container.register(script, { scope });
  }

  /** @param {ServiceWorkerRegistration} registration */
  #watch(registration) {
    const { signal } = this.#closing;
    /** @param {ServiceWorker | null} worker */
    const follow = (worker) => {
      if (!worker) return;
      const look = () => void this.#look(registration, worker);
      worker.addEventListener("statechange", look, { signal });
      look();
    };
    registration.addEventListener("updatefound", () => follow(registration.installing), { signal });
    for (const worker of [registration.active, registration.waiting, registration.installing]) follow(worker);
    this.#looking = setInterval(() => registration.update().catch(() => {}), LOOK_FOR_UPDATE_MS);
  }

  /**
   * @param {ServiceWorkerRegistration} registration
   * @param {ServiceWorker} worker
   */
  async #look(registration, worker) {
    if (worker.state === "activated" && !this.#site.stored) {
      this.#site.stored = true;
      const version = await versionOf(worker);
      if (!this.#closing.signal.aborted) this.#tell("site:stored", version);
    }
    // The first one of all waits for nobody.
    if (worker.state === "installed" && registration.active) {
      const version = await versionOf(worker);
      if (this.#closing.signal.aborted || registration.waiting !== worker) return;
      this.#site.update = version;
      this.#tell("site:update", version);
    }
  }
}

/**
 * The registration of our service worker, where there is one already.
 *
 * @param {ServiceWorkerContainer} container
 * @param {URL} script
 * @param {string} scope
 */
async function known(container, script, scope) {
  const registration = await container.getRegistration(scope);
  return registration?.scope === scope && isOurs(registration, script) ? registration : undefined;
}

/**
 * @param {ServiceWorkerRegistration} registration
 * @param {URL} script
 */
function isOurs(registration, script) {
  return scriptOf(registration) === script.href;
}

/** @param {ServiceWorkerRegistration} registration */
function scriptOf({ active, waiting, installing }) {
  return (active ?? waiting ?? installing)?.scriptURL;
}

/**
 * @param {ServiceWorker} worker
 * @returns {Promise<string>}
 */
function versionOf(worker) {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = ({ data }) => {
      port1.close();
      resolve(data);
    };
    worker.postMessage({ type: "durably-web:version" }, [port2]);
  });
}
