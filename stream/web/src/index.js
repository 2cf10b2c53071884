// The browser client of rowcast, documented in README.md and rowcast.d.ts.
export { RowcastSource } from "./source.js";
