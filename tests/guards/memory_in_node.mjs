// Start the site's Python from its memory, in Node, and print which modules were there and which came with the engine.

import { readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { gunzipSync } from "node:zlib";

const runtime = path.resolve(process.argv[2]);
const manifest = JSON.parse(readFileSync(path.join(runtime, "manifest.json"), "utf8"));
const indexURL = path.join(runtime, manifest.pyodide);

try {
  const { loadPyodide } = await import(pathToFileURL(path.join(indexURL, "pyodide.mjs")).href);
  const memory = new Uint8Array(gunzipSync(readFileSync(path.join(runtime, manifest.snapshot))));
  const pyodide = await loadPyodide({ indexURL, _loadSnapshot: memory });
  console.log(
    pyodide.runPython(`
import json, sys
before = set(sys.modules)
import durably_web.browser, durably_web.restored
json.dumps({"before": sorted(before), "added": sorted(set(sys.modules) - before)})
`),
  );
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
