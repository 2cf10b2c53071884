// What a row shows. Data of rows enters the document only as text, or as the URL of a link or an image.

/** Returns the URL of a link or an image if it is http or https. Other URLs could run a script. */
function safeURL(text) {
  try {
    const url = new URL(text, document.baseURI);
    return typeof text === "string" && text.trim() && /^https?:$/.test(url.protocol) ? url.href : undefined;
  } catch {}
}

const isText = (value) => typeof value === "string" && value.trim() !== "";
const member = (object, path) => path.split(".").reduce((value, name) => (value !== null && typeof value === "object" && Object.hasOwn(value, name) ? value[name] : undefined), object);

/** Returns the title, the body and the link of a row, from the members of data that usually have them. */
export function textsOf({ data, event }) {
  const texts = typeof data === "string" ? [data] : ["title", "msg", "message", "text", "body"].map((name) => member(data, name));
  const [title = event, body = ""] = texts.filter(isText);
  return { title, body, url: safeURL(member(data, "url")) };
}

/** Fills the elements of a template that have the attribute data-field. Its value is the path of a member of data, or "event" for the name
 * of the event. The result is undefined if the row has nothing to show in any of these elements. */
export function fill(content, item) {
  const elements = content.querySelectorAll("[data-field]");
  let missing = 0;
  for (const element of elements) {
    const field = element.dataset.field;
    const value = field === "event" ? item.event : member(item.data, field);
    const attribute = { a: "href", img: "src" }[element.localName];
    const shown = attribute ? safeURL(value) : typeof value === "object" ? undefined : value;
    if (shown === undefined || String(shown).trim() === "") missing++;
    if (!attribute) element.textContent = String(shown ?? "");
    else if (shown) element.setAttribute(attribute, shown);
    else element.removeAttribute(attribute);
  }
  return missing && missing === elements.length ? undefined : content;
}
