package demo

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"rowcast/cmd/internal/server"
	"rowcast/sql/connstring"
)

//go:embed page/index.html
var indexHTML string

//go:embed page/*.js page/*.css page/*.svg
var files embed.FS

// A page serves the page of the demo and its existing rows, and inserts the rows of its form.
type page struct {
	pool *pgxpool.Pool
	html []byte
}

func newPage(ctx context.Context, p *postgres) (*page, error) {
	index, err := template.New("page").Parse(indexHTML)
	if err != nil {
		return nil, err
	}
	var html bytes.Buffer
	err = index.Execute(&html, struct {
		Commands []command
		Database string
	}{p.commands(), p.about})
	if err != nil {
		return nil, err
	}
	database, err := connstring.Parse(p.dsn)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(database.ConnString())
	if err != nil {
		return nil, err
	}
	config.ConnConfig = database
	config.MaxConns = 4
	config.ConnConfig.RuntimeParams["application_name"] = "rowcast demo"
	config.ConnConfig.RuntimeParams["search_path"] = "pg_catalog, pg_temp" // other schemas may contain another role's functions
	pool, err := pgxpool.NewWithConfig(ctx, config)
	return &page{pool: pool, html: html.Bytes()}, err
}

func (p *page) close() { p.pool.Close() }

func (p *page) routes(r chi.Router) {
	r.Get("/", p.index)
	r.Get("/demo/notifications", p.existing)
	r.Post("/demo/notifications", p.insert)
	r.Get("/demo/{file}", serveFile)
}

// index serves the page. Its Content-Security-Policy allows scripts, styles and connections of this origin only. If a
// bug inserted data as HTML, a script in the data would not run.
func (p *page) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(p.html)
}

func serveFile(w http.ResponseWriter, r *http.Request) {
	http.ServeFileFS(w, r, files, "page/"+chi.URLParam(r, "file"))
}

// selectExisting reads the cursor, and the newest 50 rows that are for a user or for everyone, the oldest of them
// first. It replaces large data by a text. The page opens its stream from this cursor, so it misses no row and receives
// none twice.
const selectExisting = `
SELECT json_build_object('cursor', rowcast.cursor(), 'rows', coalesce(json_agg(
	json_build_object('id', id, 'name', event, 'at', created_at,
		'data', CASE WHEN pg_column_size(data) < 32768 THEN data ELSE to_jsonb('too large to be shown here'::text) END)
	ORDER BY xid, id), '[]'))
FROM (
	(SELECT * FROM rowcast.notifications WHERE recipient = $1 ORDER BY xid DESC, id DESC LIMIT 50)
	UNION ALL
	(SELECT * FROM rowcast.notifications WHERE recipient = '*' ORDER BY xid DESC, id DESC LIMIT 50)
	ORDER BY xid DESC, id DESC LIMIT 50
) newest`

// statementTimeout limits each statement of the page.
const statementTimeout = 5 * time.Second

func (p *page) existing(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), statementTimeout)
	defer cancel()
	var rows json.RawMessage
	if err := p.pool.QueryRow(ctx, selectExisting, r.URL.Query().Get("uid")).Scan(&rows); err != nil {
		writeError(w, err)
		return
	}
	server.WriteJSON(w, http.StatusOK, rows)
}

// A formRow is a row from the page's form. Data is text that PostgreSQL converts to jsonb, so that PostgreSQL reports
// what is wrong with it.
type formRow struct {
	Recipient string `json:"recipient"`
	Event     string `json:"event"`
	Data      string `json:"data"`
}

const maxFormRow = 16 << 20 // bytes of the request's body

const insertRow = `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ($1, $2, $3::text::jsonb) RETURNING id`

// insert inserts a row. This is enough for the hub to send it.
func (p *page) insert(w http.ResponseWriter, r *http.Request) {
	var row formRow
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxFormRow))
	body.DisallowUnknownFields()
	if err := body.Decode(&row); err != nil {
		server.WriteJSON(w, http.StatusBadRequest, map[string]string{"error": "read the request: " + err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), statementTimeout)
	defer cancel()
	var id int64
	if err := p.pool.QueryRow(ctx, insertRow, row.Recipient, row.Event, row.Data).Scan(&id); err != nil {
		writeError(w, err)
		return
	}
	server.WriteJSON(w, http.StatusCreated, map[string]int64{"id": id})
}

// writeError answers with an error of a query. It formats an error message of PostgreSQL in nearly the same way as
// psql.
func writeError(w http.ResponseWriter, err error) {
	status, text := http.StatusServiceUnavailable, "PostgreSQL does not answer: "+err.Error()
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok {
		status, text = http.StatusUnprocessableEntity, fmt.Sprintf("%s: %s", failed.Severity, failed.Message)
		if failed.Detail != "" && failed.ConstraintName == "" { // for a violated constraint, the detail repeats the row
			text += ". " + failed.Detail
		}
	}
	server.WriteJSON(w, status, map[string]string{"error": text})
}

// guard refuses a request to insert a row if a browser sends it for a page of another origin. The demo needs this,
// because it does not authenticate requests. guard also tells browsers not to guess the content type of an answer.
func guard(next http.Handler) http.Handler {
	checked := http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		checked.ServeHTTP(w, r)
	})
}
