/**
 * The service worker of a site: it keeps one release, whole, and answers everything that the site's pages load from it.
 *
 * `durably_web/site/release.py` writes the release in front of this file, and the two of them to the site's root. A plain script,
 * not a module: not every browser takes modules here.
 *
 * What is kept is found by its address and its hash. So a release can only find its own files, whatever else is kept beside them,
 * and what did not change is neither loaded nor stored again for the next one.
 */

/** @typedef {{integrity: string, bytes: number}} ReleaseFile */

/**
 * What the site consists of, by path; what a start loads from another server, by its address. Without a version nothing is kept any more.
 *
 * @typedef {{version: string | null, files: Record<string, ReleaseFile>}} Release
 */

const worker = /** @type {ServiceWorkerGlobalScope & {RELEASE: Release}} */ (/** @type {unknown} */ (self));
const { version, files } = worker.RELEASE;

const SITE = new URL("./", worker.location.href);
// Of the cache and of the lock that guards it. Many sites share an origin.
const NAME = `durably-web:site:${SITE.pathname}`;
const DOWNLOADS_AT_ONCE = 6;

// How long the page from which another version takes over waits for that, and how often that one looks whether other pages are gone.
const HAND_OVER_MS = 10_000;
const LOOKS = 10;
const LOOK_MS = 50;

// -- keeping -----------------------------------------------------------------------------------------------

worker.addEventListener("install", (event) => event.waitUntil(navigator.locks.request(NAME, keepAll)));

/** Keep every file of this release, or fail: then the browser goes on with the version that it has. */
async function keepAll() {
  const store = await caches.open(NAME);
  const missing = Object.keys(files);
  /** @type {string[]} */
  const added = [];
  /** @type {unknown[]} */
  const failures = [];
  const keep = async () => {
    for (let path = missing.pop(); path !== undefined && failures.length === 0; path = missing.pop()) {
      try {
        if (await store.match(keyOf(path))) continue;
        const response = await download(path);
        added.push(path);
        await store.put(keyOf(path), response);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: DOWNLOADS_AT_ONCE }, keep));
  if (failures.length === 0) return;
  await Promise.all(added.map((path) => store.delete(keyOf(path))));
  const reason = explain(/** @type {Error} */ (failures[0]));
  console.warn(`durably-web: ${reason}`);
  for (const client of await windows()) client.postMessage({ type: "durably-web:not-stored", reason });
  throw new Error(reason);
}

/** @param {Error} error */
function explain(error) {
  const megabytes = (Object.values(files).reduce((sum, { bytes }) => sum + bytes, 0) / 1e6).toFixed(0);
  return error.name === "QuotaExceededError"
    ? `this browser has no room to keep the site for offline use (${megabytes} MB)`
    : `this version of the site was not stored: ${error.message}`;
}

worker.addEventListener("activate", (event) => event.waitUntil(begin()));

async function begin() {
  // Whoever keeps files of a release to come holds the lock, or is waiting with them; its turn to clear up comes.
  await navigator.locks.request(NAME, { ifAvailable: true }, async (lock) => {
    const { installing, waiting } = worker.registration;
    if (lock && !installing && !waiting) await clearUp();
  });
  if (version === null) await worker.registration.unregister();
  // Pages of the first visit, too, shall go on when the network goes.
  else await worker.clients.claim();
}

/** Delete what belongs to other releases of this site. */
async function clearUp() {
  if (version === null) {
    await caches.delete(NAME);
    return;
  }
  const store = await caches.open(NAME);
  const own = new Set(Object.keys(files).map(keyOf));
  for (const request of await store.keys()) if (!own.has(request.url)) await store.delete(request);
}

/**
 * A file from the server, exactly as this release has it.
 *
 * @param {string} path
 */
async function download(path) {
  const { integrity } = files[path];
  let problem = "";
  // A page has just loaded most of them: asking whether that is still right costs no second download. What the browser remembers
  // may be wrong all the same, so it is asked for once more, from the server itself.
  for (const cache of /** @type {const} */ (["no-cache", "reload"])) {
    try {
      // A page that says that there is no such file has another hash, too.
      return plain(await fetch(addressOf(path), { cache, integrity }));
    } catch (error) {
      problem = /** @type {Error} */ (error).message;
    }
  }
  throw new Error(`${path}: the server cannot be reached, or does not have this version of it (${problem})`);
}

/**
 * The response as if it had come from whatever address is asked for: a script keeps the query that it was asked for with, and a
 * host that redirects `index.html` does no harm.
 *
 * @param {Response} response
 */
function plain(response) {
  const headers = new Headers(response.headers);
  // Of the way here: the body is unpacked already, and is the same for everybody.
  for (const name of ["content-encoding", "content-length", "vary"]) headers.delete(name);
  return new Response(response.body, { status: 200, headers });
}

// -- answering ---------------------------------------------------------------------------------------------

worker.addEventListener("fetch", (event) => {
  const { request, clientId } = event;
  // A page that asks for something is there.
  coming.delete(clientId);
  const path = request.method === "GET" ? pathOf(new URL(request.url), request.mode === "navigate") : undefined;
  if (path === undefined) return;
  event.respondWith(request.mode === "navigate" && request.destination === "document" ? openPage(event, path) : answer(request, path));
});

/**
 * @param {Request} request
 * @param {string} path
 */
async function answer(request, path) {
  try {
    const response = await kept(path);
    const range = request.headers.get("range");
    return range === null ? response : partOf(response, range);
  } catch (error) {
    const text = `The stored copy of this site is damaged. ${/** @type {Error} */ (error).message}. Reload the page when you are online.\n`;
    // There may be a version that is whole.
    void worker.registration.update().catch(() => {});
    return new Response(text, { status: 503, statusText: "Stored copy damaged", headers: { "content-type": "text/plain; charset=utf-8" } });
  }
}

/**
 * A file of this release. What the browser has lost is loaded again, and never from another release.
 *
 * @param {string} path
 */
async function kept(path) {
  const store = await caches.open(NAME);
  const found = await store.match(keyOf(path));
  if (found) return found;
  const response = await download(path);
  await store.put(keyOf(path), response.clone()).catch((error) => console.warn(`durably-web: ${explain(error)}`));
  return response;
}

/**
 * The bytes that a `Range` asks for; the whole where it asks for more than one piece, which HTTP allows.
 *
 * @param {Response} response
 * @param {string} range
 */
async function partOf(response, range) {
  const [, first = "", last = ""] = /^bytes=(\d*)-(\d*)$/.exec(range.trim()) ?? [];
  if (first === "" && last === "") return response;
  const body = await response.blob();
  const start = first === "" ? Math.max(0, body.size - Number(last)) : Number(first);
  const end = first === "" || last === "" ? body.size : Math.min(Number(last) + 1, body.size);
  const headers = new Headers(response.headers);
  if (start >= end) {
    headers.set("content-range", `bytes */${body.size}`);
    return new Response(null, { status: 416, statusText: "Range Not Satisfiable", headers });
  }
  headers.set("content-range", `bytes ${start}-${end - 1}/${body.size}`);
  headers.set("content-length", `${end - start}`);
  return new Response(body.slice(start, end), { status: 206, statusText: "Partial Content", headers });
}

/**
 * Which file of the release a host would give for an address, if any.
 *
 * @param {URL} url
 * @param {boolean} page
 */
function pathOf({ origin, pathname, href }, page) {
  if (origin !== SITE.origin) return Object.hasOwn(files, href) ? href : undefined;
  if (!pathname.startsWith(SITE.pathname)) return undefined;
  let path;
  try {
    path = decodeURIComponent(pathname.slice(SITE.pathname.length));
  } catch {
    return undefined;
  }
  const candidates = path === "" || path.endsWith("/") ? [`${path}index.html`] : page ? [path, `${path}.html`] : [path];
  return candidates.find((candidate) => Object.hasOwn(files, candidate));
}

/** @param {string} path */
function addressOf(path) {
  return path.includes("://") ? path : new URL(path.split("/").map(encodeURIComponent).join("/"), SITE).href;
}

/** @param {string} path */
function keyOf(path) {
  return `${addressOf(path)}?${files[path].integrity}`;
}

// -- the next version --------------------------------------------------------------------------------------
//
// A new version waits until no page of this one is open: that is what browsers do by themselves. On a reload of the only page they do
// not, because the old page is there until the new one is. So an empty page comes in between: once it is there the old one is gone, and
// the new version can look whether any other is open.

const HEAD = '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>…</title>';
const EMPTY_PAGE = `${HEAD}
<script>
  const { serviceWorker } = navigator;
  const again = () => location.reload();
  const later = () => {
    serviceWorker.controller?.postMessage({ type: "durably-web:later" });
    again();
  };
  serviceWorker.addEventListener("controllerchange", again);
  serviceWorker.addEventListener("message", ({ data }) => data.type === "durably-web:later" && later());
  serviceWorker.getRegistration().then(({ waiting }) => waiting ? waiting.postMessage({ type: "durably-web:take-over" }) : later(), later);
  setTimeout(later, ${HAND_OVER_MS});
</script>
`;
const AGAIN = `${HEAD}<meta http-equiv="refresh" content="1">`;

/** Since when an empty page waits for an answer. */
let handingOver = -Infinity;
/** Empty pages that were told to wait: not a second one in their place. @type {Set<string>} */
const told = new Set();
/** Pages that were answered and may not be there yet, and since when. @type {Map<string, number>} */
const coming = new Map();

/**
 * @param {FetchEvent} event
 * @param {string} path
 */
async function openPage(event, path) {
  if (worker.registration.waiting) {
    // A page that came now would begin with this version and go on with the next.
    if (performance.now() - handingOver < HAND_OVER_MS) return pageOf(AGAIN);
    if (await isOnlyPage()) {
      handingOver = performance.now();
      return pageOf(EMPTY_PAGE);
    }
  }
  coming.set(event.resultingClientId, performance.now());
  return answer(event.request, path);
}

/** Whether no page is open but the one that is perhaps just being reloaded. */
async function isOnlyPage() {
  const open = (await windows()).filter(({ frameType }) => frameType !== "nested").map(({ id }) => id);
  for (const [id, since] of coming) if (open.includes(id) || performance.now() - since > HAND_OVER_MS) coming.delete(id);
  return open.length + coming.size < 2 && !open.some((id) => told.has(id));
}

worker.addEventListener("message", (event) => {
  const { data, ports, source } = event;
  if (!(source instanceof Client)) return;
  switch (data?.type) {
    case "durably-web:version":
      ports[0].postMessage(version ?? "withdrawn");
      break;
    case "durably-web:take-over":
      event.waitUntil(takeOver(source));
      break;
    case "durably-web:later":
      handingOver = -Infinity;
      told.add(source.id);
      break;
  }
});

/**
 * Take over from the version before, if the page that asks for it is the only one.
 *
 * @param {Client} page
 */
async function takeOver(page) {
  for (let looks = 0; looks < LOOKS; looks++) {
    if ((await windows()).every(({ id }) => id === page.id)) return worker.skipWaiting();
    // The page before this one may still be on its way out.
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  page.postMessage({ type: "durably-web:later" });
}

/** Every window of this site, whichever version it has. */
async function windows() {
  const all = await worker.clients.matchAll({ type: "window", includeUncontrolled: true });
  return all.filter(({ url }) => url.startsWith(SITE.href));
}

/** @param {string} text */
function pageOf(text) {
  return new Response(text, { headers: { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" } });
}
