/** The types of the npm package: what a page imports, and every shape that it gives to the client or gets from it. */
export { createDurably, Durably, DurablyError } from "./types/client.js";
export type * from "./types/types.js";
