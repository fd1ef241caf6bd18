#!/usr/bin/env node
/**
 * `durably-web-runtime FOLDER`: copy Python and SQLite, which the client starts and no bundler should touch, to where
 * the site serves plain files from. Run it again after every update of the package.
 */

import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const USAGE = "usage: durably-web-runtime FOLDER    such as public/durably-web";
const SOURCE = fileURLToPath(new URL("../runtime", import.meta.url));

/**
 * Replace the runtime in `target`, all of it or nothing.
 *
 * @param {string} target
 */
async function install(target) {
  await requireOurs(target);
  const parent = dirname(target);
  await mkdir(parent, { recursive: true });
  const scratch = await mkdtemp(join(parent, ".durably-web-"));
  try {
    const fresh = join(scratch, basename(target));
    await cp(SOURCE, fresh, { recursive: true });
    await rm(target, { recursive: true, force: true });
    await rename(fresh, target);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/**
 * Whoever mistypes the folder must not lose what is in it.
 *
 * @param {string} target
 */
async function requireOurs(target) {
  try {
    if ((await readdir(target)).length === 0) return;
  } catch (error) {
    if (error.code === "ENOENT") return;
    throw error;
  }
  const manifest = await readFile(join(target, "manifest.json"), "utf8").then(JSON.parse, () => ({}));
  if (!manifest.wheel?.startsWith("wheels/durably_web-")) {
    throw new Error(`${target} holds something else than this runtime: name another folder`);
  }
}

const [folder, ...more] = process.argv.slice(2);
if (folder === undefined || more.length > 0 || folder.startsWith("-")) {
  console.error(USAGE);
  process.exit(folder === "--help" || folder === "-h" ? 0 : 2);
}
try {
  await install(resolve(folder));
  const { version } = JSON.parse(await readFile(join(SOURCE, "manifest.json"), "utf8"));
  console.log(`the runtime of durably-web ${version} is in ${folder}`);
} catch (error) {
  console.error(`durably-web-runtime: ${error.message}`);
  process.exit(1);
}
