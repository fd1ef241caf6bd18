// The pictures, in the origin private file system: pictures.py finds them there by the same names.

const HERE = "images-example";

const here = async () => (await navigator.storage.getDirectory()).getDirectoryHandle(HERE, { create: true });

/** Store a file under the hash of what is in it: the same picture is stored once, whatever it is called. Its name. */
export async function keep(blob) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  const name = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const handle = await (await here()).getFileHandle(name, { create: true });
  // A copy that was broken off has left an empty file.
  if ((await handle.getFile()).size !== blob.size) await blob.stream().pipeTo(await handle.createWritable());
  return name;
}

/** Remove a file. It is no error if there is none. */
export async function forget(name) {
  try {
    await (await here()).removeEntry(name);
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
  }
}
