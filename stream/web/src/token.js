/** Returns the result of a token callback as a text. It throws an error if a header cannot have the text, for example because of a line break.
 * @param {any} result @returns {string} */
export function checkToken(result) {
  const text = result || "";
  new Headers({ Authorization: `Bearer ${text}` });
  return text;
}
