import { createEventSource } from "eventsource-client";
import { report } from "./report.mjs";

createEventSource({ url: process.argv[2], onMessage: ({ event, id, data }) => report(event, id, data) });
