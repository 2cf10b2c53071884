import { EventSource } from "eventsource";
import ReconnectingEventSource from "reconnecting-eventsource";
import { listen } from "./report.mjs";

listen(new ReconnectingEventSource(process.argv[2], { eventSourceClass: EventSource }));
