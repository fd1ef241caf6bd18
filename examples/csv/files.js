// The files of this example in the origin private file system: files.py knows them by the same names.

const HERE = "csv-example";

/** @param {string[]} path  Folders below this example's own; they are made where they are missing. */
async function folder(...path) {
  let found = await navigator.storage.getDirectory();
  for (const part of [HERE, ...path]) found = await found.getDirectoryHandle(part, { create: true });
  return found;
}

/** Copy a file, piece by piece, so that it never is in memory as a whole. Its name for the job. */
export async function keep(blob) {
  const name = crypto.randomUUID();
  const handle = await (await folder("in")).getFileHandle(name, { create: true });
  try {
    await blob.stream().pipeTo(await handle.createWritable());
  } catch (error) {
    await forget(`in/${name}`);
    throw error;
  }
  return `in/${name}`;
}

/** The pieces that a job has written, as one file; nothing of it is loaded before somebody reads it. */
export async function pieces(path, kind, count) {
  const from = await folder(...path.split("/"));
  const names = Array.from({ length: count + 1 }, (_, number) => `${kind}-${String(number).padStart(5, "0")}.csv`);
  const files = await Promise.all(names.map(async (name) => (await from.getFileHandle(name)).getFile()));
  return new Blob(files, { type: "text/csv" });
}

/** Remove a file or a folder. It is no error if there is none. */
export async function forget(path) {
  const parts = path.split("/");
  const name = parts.pop();
  try {
    await (await folder(...parts)).removeEntry(name, { recursive: true });
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
  }
}
