/**
 * What the browser does to a page that nobody looks at: it is left, kept for the way back, or frozen.
 *
 * @module
 */

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
