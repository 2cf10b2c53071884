import { EventSource } from "launchdarkly-eventsource";
import { listen } from "./report.mjs";

const source = new EventSource(process.argv[2]);
source.onerror = () => {}; // without a listener for errors, the client throws them
listen(source);
