/**
 * What the browser does to a page that nobody looks at: it is left, kept for the way back, or frozen; and what it tells of the network.
 *
 * @module
 */

/**
 * What the browser says of the network: now, and at each change.
 *
 * @param {(online: boolean) => void} listener
 * @returns {() => void} ends the listening
 */
export function onNetwork(listener) {
  if (typeof window === "undefined") return () => {};
  const listening = new AbortController();
  const { signal } = listening;
  addEventListener("online", () => listener(true), { signal });
  addEventListener("offline", () => listener(false), { signal });
  listener(navigator.onLine);
  return () => listening.abort();
}

/**
 * @param {object} listeners
 * @param {(reason: import("./protocol.js").ShutdownReason) => void} listeners.onShutdown  the page goes, and there may be a moment left
 * @param {(certain: boolean) => void} listeners.onSuspend  from now on nothing of this page may run; `certain` when its workers
 *   stop too
 * @param {() => void} listeners.onResume  the page is back
 * @returns {() => void} ends the listening
 */
export function onLifecycle({ onShutdown, onSuspend, onResume }) {
  // Not in a browser, such as on a server that renders the page.
  if (typeof window === "undefined") return () => {};
  const listening = new AbortController();
  const { signal } = listening;
  addEventListener("pagehide", ({ persisted }) => (persisted ? onSuspend(true) : onShutdown("pagehide")), { signal });
  addEventListener("pageshow", ({ persisted }) => persisted && onResume(), { signal });
  document.addEventListener("freeze", () => onSuspend(false), { signal });
  document.addEventListener("resume", () => onResume(), { signal });
  return () => listening.abort();
}
