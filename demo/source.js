// Where the CSV text comes from: the airports beside this page, or a file of the visitor's.

/** More than this in one run's input makes the page slow, and a browser's storage small. */
const MOST_BYTES = 32 * 1024 * 1024;

/** @returns {Promise<string>} */
export async function airports() {
  const response = await fetch(new URL("./airports.csv", import.meta.url));
  if (!response.ok) throw new Error(`airports.csv could not be loaded: HTTP ${response.status}`);
  return response.text();
}

/**
 * The text of a file. Throws an error whose message can be shown.
 *
 * @param {File} file
 * @returns {Promise<string>}
 */
export async function textOf(file) {
  if (file.size === 0) throw new Error(`${file.name} is empty.`);
  if (file.size > MOST_BYTES) throw new Error(`${file.name} is larger than 32 MB, which is too much for this demo.`);
  const bytes = await file.arrayBuffer().catch((error) => {
    throw new Error(`${file.name} could not be read: ${error.message}`);
  });
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file.name} is not UTF-8 text: it is a binary file, or has to be saved as “CSV UTF-8” first.`);
  }
  if (text.includes("\0")) throw new Error(`${file.name} is not a text file: it contains NUL characters.`);
  if (!text.trim()) throw new Error(`${file.name} is empty.`);
  return text;
}
