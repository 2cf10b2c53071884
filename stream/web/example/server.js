import { promisify } from "node:util";
import connectPgSimple from "connect-pg-simple";
import express from "express";
import session from "express-session";
import pg from "pg";
import { passToHub } from "./hub.js";
import { signInPage, tasksPage } from "./pages.js";

const { DATABASE_URL, SESSION_SECRET, PORT = "3000", HUB = "http://127.0.0.1:8080" } = process.env;
if (!DATABASE_URL || !SESSION_SECRET) throw new Error("DATABASE_URL and SESSION_SECRET must be set; see README.md");
const production = process.env.NODE_ENV === "production";
if (production) throw new Error("everyone can sign in as everyone: add passwords to /sign-in, and remove this line");

const db = new pg.Pool({ connectionString: DATABASE_URL, connectionTimeoutMillis: 5000, statement_timeout: 10_000 });
const lost = (error) => console.error("lost a connection to PostgreSQL:", error.message);
db.on("error", lost).on("connect", (client) => client.on("error", lost));

async function transaction(work) {
  const client = await db.connect();
  try {
    await client.query("BEGIN");
    await work(client);
    await client.query("COMMIT");
    client.release();
  } catch (error) {
    client.release(error); // closes the connection, which rolls back
    throw error;
  }
}

const app = express();
app.disable("x-powered-by");
app.set("trust proxy", "loopback");

app.use((req, res, next) => {
  res.set({
    "Content-Security-Policy":
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; " +
      "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
  });
  next();
});
app.use(express.static("public"));
app.use(passToHub(HUB));

// Refuses forms of pages of other origins. Browsers send the origin of the page in the header Origin.
app.use((req, res, next) => {
  if (["GET", "HEAD"].includes(req.method) || req.get("Origin") === `${req.protocol}://${req.host}`) return next();
  res.status(403).send("This form belongs to another site.");
});
app.use(express.urlencoded({ extended: false, limit: "10kb" }));

const store = new (connectPgSimple(session))({ pool: db, tableName: "sessions" });
app.use(
  session({
    name: "session",
    secret: SESSION_SECRET,
    store,
    resave: false,
    saveUninitialized: false,
    rolling: true,
    cookie: { httpOnly: true, sameSite: "lax", secure: production, maxAge: 8 * 60 * 60 * 1000 },
  }),
);

// The hub asks here which user opens a stream or reads an inbox. Its request has the cookie of the browser.
app.get("/rowcast/auth", (req, res) => {
  const { user } = req.session;
  if (req.get("Rowcast-Check") === "renew") req.session = null; // answer, but do not extend the session
  if (!user) return res.sendStatus(401);
  res.json({ recipient: user, expires_in: 300 });
});

app.use((req, res, next) => {
  res.set("Cache-Control", "no-store");
  next();
});

app.get("/sign-in", async (req, res) => {
  const { rows } = await db.query("SELECT id, name FROM users ORDER BY name");
  res.send(signInPage(rows));
});

app.post("/sign-in", async (req, res) => {
  const { rows } = await db.query("SELECT id FROM users WHERE id = $1", [req.body?.user]);
  if (!rows.length) return res.redirect(303, "/sign-in");
  await promisify(req.session.regenerate).call(req.session);
  req.session.user = rows[0].id;
  await promisify(req.session.save).call(req.session); // a browser may follow the redirect before express-session has saved
  res.redirect(303, "/");
});

app.use((req, res, next) => (req.session.user ? next() : res.redirect(303, "/sign-in")));

app.post("/sign-out", async (req, res) => {
  const { user } = req.session;
  await promisify(req.session.destroy).call(req.session);
  await db.query("SELECT pg_notify('rowcast.disconnect', $1)", [user]); // ends the streams; other devices open new ones
  res.clearCookie("session").redirect(303, "/sign-in");
});

// The cursor and the tasks are read in one statement. The stream begins with the first row that this statement did not see.
app.get("/", async (req, res) => {
  const { rows } = await db.query(
    `SELECT rowcast.cursor() AS cursor,
       (SELECT name FROM users WHERE id = $1) AS name,
       (SELECT json_agg(u ORDER BY name) FROM users u) AS users,
       (SELECT json_agg(t) FROM (SELECT t.id, title, done, name AS author FROM tasks t JOIN users u ON u.id = author
          WHERE assignee = $1 AND NOT done ORDER BY t.id DESC LIMIT 200) t) AS received,
       (SELECT json_agg(t) FROM (SELECT t.id, title, done, name AS assignee FROM tasks t JOIN users u ON u.id = assignee
          WHERE author = $1 AND assignee <> $1 ORDER BY t.id DESC LIMIT 20) t) AS given`,
    [req.session.user],
  );
  res.send(tasksPage(rows[0]));
});

// One transaction inserts the task and its notification, so the task never exists without the notification.
app.post("/tasks", async (req, res) => {
  const { title, assignee } = req.body ?? {};
  await transaction(async (client) => {
    const { rows } = await client.query(
      `INSERT INTO tasks (title, author, assignee) VALUES (trim($1), $2, $3)
       RETURNING id, title, (SELECT name FROM users WHERE id = author) AS author`,
      [title, req.session.user, assignee],
    );
    const data = { ...rows[0], text: `from ${rows[0].author}`, url: `/#task-${rows[0].id}` };
    await client.query("INSERT INTO rowcast.notifications (recipient, event, data) VALUES ($1, 'task', $2)", [assignee, data]);
  });
  res.redirect(303, "/");
});

app.post("/tasks/:id/done", async (req, res) => {
  await transaction(async (client) => {
    const { rows } = await client.query(
      `UPDATE tasks SET done = true WHERE id = $1 AND assignee = $2 AND NOT done
       RETURNING id, title, author, (SELECT name FROM users WHERE id = assignee) AS assignee`,
      [req.params.id, req.session.user],
    );
    for (const { author, assignee, ...task } of rows) {
      const data = { ...task, text: `done by ${assignee}`, url: `/#given-${task.id}` };
      await client.query("INSERT INTO rowcast.notifications (recipient, event, data) VALUES ($1, 'done', $2)", [author, data]);
    }
  });
  res.redirect(303, "/");
});

app.use((error, req, res, next) => {
  if (res.headersSent) return next(error);
  // The constraints of the tables refuse input that is not valid.
  if (/^2[23]/.test(error.code)) return res.status(400).send("Please check what you have entered.");
  if (error.status < 500) return res.status(error.status).send(error.message);
  console.error(error);
  res.status(500).send("Something went wrong. Please try again.");
});

const server = app.listen(PORT, "127.0.0.1", (error) => {
  if (error) throw error;
  console.log(`Open http://127.0.0.1:${PORT}`);
});

function stop() {
  server.close(() => {
    store.close();
    db.end();
  });
  setTimeout(() => server.closeAllConnections(), 2000).unref(); // a stream does not end by itself
}
process.once("SIGINT", stop).once("SIGTERM", stop);
