// The compiler checks this file, and nothing runs it.
import * as elements from "rowcast/inbox"; // rowcast-inbox.d.ts
import * as stores from "rowcast/inbox-store"; // rowcast-inbox-store.d.ts
import * as elementScript from "./src/inbox/element/index.js";
import * as storeScript from "./src/inbox/store/index.js";

// The scripts export what the types export, and nothing more. The store has all members that its type declares, and the
// element has the members that are named here.
type Members<T> = { [Name in keyof T]: T[Name] }; // without private members
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
export const declared: Members<InstanceType<typeof stores.RowcastInbox>> = new storeScript.RowcastInbox({});
export const element: Pick<elements.RowcastInboxElement, "strings" | "token" | "withCredentials" | "render" | "open"> = new elementScript.RowcastInboxElement();
export const exported: [Same<keyof typeof stores, keyof typeof storeScript>, Same<keyof typeof elements, keyof typeof elementScript>] = [true, true];

const inbox = new stores.RowcastInbox({ events: new URL("https://app.example/events"), limit: 5, token: async () => "a", withCredentials: true });
inbox.addEventListener("change", () => console.log(inbox.unseenCount + inbox.waiting, inbox.items[0].time.getTime(), inbox.state === "failed"));
inbox.addEventListener("error", ({ action, error }) => console.log(action.length, error.status));
inbox.addEventListener("row", ({ detail }) => detail.id.length);
inbox.addEventListener("inbox", ({ detail }) => detail.action === "archive" && inbox.undo(detail.version).then((undone) => undone === true));
inbox.read(new Set(["1"])).then((saved) => saved === true);

const bell = document.querySelector("rowcast-inbox");
bell.strings = { title: "Inbox", new: { other: "{n} new" } };
bell.render = ({ data }) => (data.plain ? undefined : document.createElement("b"));
bell.addEventListener("rowcast-click", ({ detail }) => detail.item.event + detail.url);
// @ts-expect-error
bell.store = inbox;
// @ts-expect-error
bell.strings = { title: 5 };
// @ts-expect-error
bell.render = () => 5;
// @ts-expect-error
new stores.RowcastInbox({ limit: "5" });
// @ts-expect-error
inbox.items = [];
// @ts-expect-error
stores.RowcastInboxElement;
// @ts-expect-error
stores.MANY;
