import { EventSource } from "undici";
import { listen } from "./report.mjs";

listen(new EventSource(process.argv[2]));
