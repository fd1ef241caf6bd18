// Of `durably-web dev`: loads the page again when a file changed, and tells the terminal what went wrong on it.

const HERE = new URL(".", import.meta.url);

/** Of what the server has told, so that it does not come back from here. */
let problem = "";

const events = new EventSource(new URL("events", HERE));
events.addEventListener("changed", () => location.reload());
events.addEventListener("problem", ({ data }) => {
  problem = JSON.parse(data);
  if (problem) console.error(problem);
});

// Another server answers now, and may serve other files.
let server = "";
events.addEventListener("server", ({ data }) => {
  if (server && server !== data) location.reload();
  server = data;
});

/** @param {unknown} error */
function report(error) {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  if (text !== problem) void fetch(new URL("report", HERE), { method: "POST", body: text.slice(0, 2000) }).catch(() => {});
}

addEventListener("error", ({ error, message }) => report(error ?? message));
addEventListener("unhandledrejection", ({ reason }) => report(reason));
const log = console.error;
console.error = (...details) => {
  log.apply(console, details);
  report(details.find((detail) => detail instanceof Error) ?? details.join(" "));
};
