// The app passes requests for these paths on to the hub, so the stream has the origin of the page. In production, a reverse proxy does this.
import http from "node:http";
import { pipeline } from "node:stream";

const paths = /^\/(events|inbox(\/[a-z]+)?|rowcast(-inbox(-store)?)?\.js)$/;

export const passToHub = (hub) => (req, res, next) => {
  if (!paths.test(req.path)) return next();
  const request = http.request(hub + req.url, { method: req.method, headers: req.headers }, (answer) => {
    res.writeHead(answer.statusCode, answer.headers);
    pipeline(answer, res, () => {}); // ends both if one of them ends
  });
  request.on("error", () => (res.headersSent ? res.destroy() : res.sendStatus(502)));
  res.on("close", () => request.destroy());
  req.pipe(request);
};
