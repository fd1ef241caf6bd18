import assert from "node:assert/strict";
import { test } from "node:test";
import { placeOf } from "../../web/place.js";

test("every site and every database has a place of its own", async () => {
  const places = await Promise.all([
    placeOf("/", "default"),
    placeOf("/a/", "default"),
    placeOf("/A/", "default"),
    placeOf("/a/", "Default"),
    placeOf("/a/", "other"),
    placeOf("/a/b/", "default"),
  ]);
  for (const name of ["lock", "channel", "directory", "owner", "vfs"]) {
    assert.equal(new Set(places.map((place) => place[name])).size, places.length);
    // Also in a file system that ignores case.
    if (!["lock", "channel"].includes(name)) assert.equal(new Set(places.map((place) => place[name].toLowerCase())).size, places.length);
  }
});

test("the place does not move", async () => {
  assert.deepEqual(await placeOf("/my-repo/", "app"), await placeOf("/my-repo/", "app"));
  assert.equal((await placeOf("/my-repo/", "app")).directory, "durably-web/app-307d1bd5b64eb137a00b18f8d948a379");
});

test("a name that could leave its directory is refused", async () => {
  for (const name of ["", ".", "..", "../x", "a/b", "a\\b", "-", "é", "x".repeat(65)]) {
    await assert.rejects(placeOf("/", name), { name: "InvalidInput" });
  }
});
