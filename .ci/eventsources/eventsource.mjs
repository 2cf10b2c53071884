import { EventSource } from "eventsource";
import { listen } from "./report.mjs";

listen(new EventSource(process.argv[2]));
