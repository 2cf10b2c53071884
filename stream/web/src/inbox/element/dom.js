// Nodes of the element.

const ICONS = {
  bell: "M18 9a6 6 0 1 0-12 0c0 6-2.5 7.5-2.5 7.5h17S18 15 18 9M10 20.5a2.3 2.3 0 0 0 4 0",
  archive: "M4 8v11h16V8M3 4h18v4H3zM10 12h4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  dot: "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8",
  close: "M6 6l12 12M18 6L6 18",
};

/** Returns an element. Properties with a dash, and role, become attributes. part is also the class. @param {string} name @param {Record<string, any>} [properties] @returns {any} */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "part") {
      element.className = element.part = value;
    } else if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

/** Returns the first truthy result of find for a node and then for the hosts of the shadow trees that contain the node, from the innermost
 * to the outermost. The host of a document is not followed: document.host can be a form of the page with the name "host". */
export function findOutward(node, find) {
  const root = node.getRootNode();
  return find(node) || (root.nodeType === 11 && root.host ? findOutward(root.host, find) : undefined); // 11: a fragment or a shadow root
}

export function icon(name) {
  const [svg, path] = ["svg", "path"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}
