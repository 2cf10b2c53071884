// The code that the hubs in this directory share. It keeps the streams of each user, starts server programs, and answers
// the commands of rowcast-bench.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const streams = new Map(); // the responses of each user
const children = [];

/** Writes an event to the streams of a user. */
export function send(user, { id, event, data }) {
  const text = `id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
  for (const response of streams.get(user) ?? []) response.write(text);
}

/** Serves the streams on a free port, and returns the address. */
export async function serve() {
  const server = createServer((request, response) => {
    const user = new URL(request.url, "http://localhost").searchParams.get("uid");
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    response.write(": hello\n\n");
    streams.set(user, (streams.get(user) ?? new Set()).add(response));
    response.on("close", () => streams.get(user).delete(response));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `127.0.0.1:${server.address().port}`;
}

/** Starts a server program in a directory for its files. write gets the directory, and returns the program's arguments. */
export function start(program, write) {
  const dir = mkdtempSync(join(tmpdir(), "rowcast-bench-"));
  const child = spawn(program, write(dir), { stdio: ["ignore", "ignore", "inherit"] });
  child.on("error", ({ message }) => fail(message));
  child.on("exit", () => fail(`${program} has ended`));
  process.on("exit", () => {
    child.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  });
  children.push(child);
  return dir;
}

export function fail(message) {
  console.error(message);
  process.exit(1);
}

/** Answers the commands of rowcast-bench until they end. */
export function answer(address) {
  const commands = createInterface({ input: process.stdin });
  commands.on("line", (line) => {
    const { Do } = JSON.parse(line);
    const processes = [process.pid, ...children.map(({ pid }) => pid)];
    console.log(JSON.stringify({ Result: Do === "address" ? address : processes }));
  });
  commands.on("close", () => process.exit());
}
