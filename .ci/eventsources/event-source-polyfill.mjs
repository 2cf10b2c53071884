import polyfill from "event-source-polyfill";
import { listen } from "./report.mjs";

listen(new polyfill.EventSourcePolyfill(process.argv[2]));
