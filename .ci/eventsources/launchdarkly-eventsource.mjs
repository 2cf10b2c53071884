import { EventSource } from "launchdarkly-eventsource";
import { listen } from "./report.mjs";

const source = new EventSource(process.argv[2]);
source.onerror = () => {}; // without a listener, it throws the errors
listen(source);
