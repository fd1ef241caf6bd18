// Run a Cloudflare Worker in Python as workerd does, as far as Node allows: Pyodide, Cloudflare's own SDK for Python (`workers`), and
// the Request, Response and fetch of the platform. What workerd itself gives the SDK is stood in for here, and it is little.
//
//   node worker_in_node.mjs PYODIDE SDK ENTRY ENVIRONMENT
//
// Each line of the input is a call: {"fetch": [url, options]} or {"scheduled": cron}. Each line of the output is its outcome.

import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [indexURL, sdk, entry, environment] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(path.join(indexURL, "pyodide.mjs")).href);
const pyodide = await loadPyodide({ indexURL: indexURL + path.sep, stdout: (line) => console.error(line) });

// Of the runtime: what the SDK asks it for.
pyodide.registerJsModule("_pyodide_entrypoint_helper", {
  patchWaitUntil: () => undefined,
  cloudflareWorkersModule: {},
  cloudflareSocketsModule: {},
  doAnImport: (name) => Promise.reject(new Error(`there is no ${name} here`)),
});
pyodide.registerJsModule("_cloudflare_compat_flags", {
  python_workflows_implicit_dependencies: true,
  python_request_headers_preserve_commas: true,
});

const place = "/session/metadata";
for (const folder of ["workers", "workers/gateway"]) {
  pyodide.FS.mkdirTree(`${place}/${folder}`);
  for (const name of readdirSync(path.join(sdk, folder)).filter((name) => name.endsWith(".py"))) {
    pyodide.FS.writeFile(`${place}/${folder}/${name}`, readFileSync(path.join(sdk, folder, name)));
  }
}
pyodide.FS.writeFile(`${place}/entry.py`, readFileSync(entry));
pyodide.runPython(`import sys; sys.path.insert(0, ${JSON.stringify(place)})`);
const Default = pyodide.runPython("from entry import Default; Default");

const context = { waitUntil: () => undefined, passThroughOnException: () => undefined };
const env = JSON.parse(environment);
// As workerd wraps a request for the default entrypoint.
const Request_ = pyodide.runPython("from workers import Request; Request");

async function outcome(call) {
  const worker = Default(context, env);
  if (call.scheduled !== undefined) {
    const controller = { cron: call.scheduled, scheduledTime: Date.now(), noRetry: () => undefined };
    await worker.scheduled(controller, env, context);
    return { ok: true };
  }
  const response = (await worker.fetch(Request_(new Request(...call.fetch)))).js_object;
  return { status: response.status, type: response.headers.get("content-type"), body: await response.text() };
}

console.log(JSON.stringify({ python: pyodide.version }));
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(await outcome(JSON.parse(line))));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.message) }));
  }
}
