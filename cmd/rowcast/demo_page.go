package main

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
)

//go:embed demo/index.html
var demoHTML string

//go:embed demo/*.js demo/*.css demo/*.svg
var demoFiles embed.FS

// demoPage serves the page at / and what it needs besides the stream: its files, the rows that are there already, and a way to
// insert one.
type demoPage struct {
	pool *pgxpool.Pool
	html []byte
}

// newDemoPage fills in the page, which is the same for everybody.
func newDemoPage(pool *pgxpool.Pool, database *demoDatabase) (*demoPage, error) {
	page, err := template.New("page").Parse(demoHTML)
	if err != nil {
		return nil, err
	}
	var html bytes.Buffer
	err = page.Execute(&html, struct {
		Commands []demoCommand
		Database string
	}{database.commands(), database.about})
	return &demoPage{pool: pool, html: html.Bytes()}, err
}

func (p *demoPage) routes(r chi.Router) {
	r.Get("/", p.index)
	r.Get("/demo/notifications", p.history)
	r.Post("/demo/notifications", p.insert)
	r.Method(http.MethodGet, "/demo/{file}", http.FileServerFS(demoFiles))
}

// index says what the page may do, which is next to nothing: should a row's data ever be taken for HTML, it still does no harm.
func (p *demoPage) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(p.html)
}

// demoHistory reads the newest rows that concern a user, oldest first, and the cursor of the very statement that reads them, from
// which the page opens its stream.
const demoHistory = `
SELECT json_build_object('cursor', rowcast.cursor(), 'rows', coalesce(json_agg(
	json_build_object('id', id, 'name', event, 'at', created_at,
		'data', CASE WHEN pg_column_size(data) < 32768 THEN data ELSE to_jsonb('too large to be shown again'::text) END)
	ORDER BY xid, id), '[]'))
FROM (
	(SELECT * FROM rowcast.notifications WHERE recipient = $1 ORDER BY xid DESC, id DESC LIMIT 50)
	UNION ALL
	(SELECT * FROM rowcast.notifications WHERE recipient IS NULL ORDER BY xid DESC, id DESC LIMIT 50)
	ORDER BY xid DESC, id DESC LIMIT 50
) newest`

func (p *demoPage) history(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), demoPatience)
	defer cancel()
	var rows json.RawMessage
	if err := p.pool.QueryRow(ctx, demoHistory, r.URL.Query().Get("uid")).Scan(&rows); err != nil {
		refuse(w, err)
		return
	}
	server.WriteJSON(w, http.StatusOK, rows)
}

// A row of the page's form. Data is the text that PostgreSQL reads as jsonb, so that it is PostgreSQL that says what is wrong with it.
type demoRow struct {
	Recipient *string `json:"recipient"` // null is everyone
	Event     string  `json:"event"`
	Data      string  `json:"data"`
}

const demoInsert = `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ($1, $2, $3::text::jsonb) RETURNING id`

// demoPatience bounds a statement, demoLargest the bytes of a row from the form.
const (
	demoPatience = 5 * time.Second
	demoLargest  = 16 << 20
)

// insert does nothing but INSERT: that is all that sending a notification takes.
func (p *demoPage) insert(w http.ResponseWriter, r *http.Request) {
	var row demoRow
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, demoLargest))
	body.DisallowUnknownFields()
	if err := body.Decode(&row); err != nil {
		server.WriteJSON(w, http.StatusBadRequest, map[string]string{"error": "read the request: " + err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), demoPatience)
	defer cancel()
	var id int64
	if err := p.pool.QueryRow(ctx, demoInsert, row.Recipient, row.Event, row.Data).Scan(&id); err != nil {
		refuse(w, err)
		return
	}
	server.WriteJSON(w, http.StatusCreated, map[string]int64{"id": id})
}

// refuse passes on what PostgreSQL says, as psql would print it.
func refuse(w http.ResponseWriter, err error) {
	status, text := http.StatusServiceUnavailable, "PostgreSQL does not answer: "+err.Error()
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		status, text = http.StatusUnprocessableEntity, fmt.Sprintf("%s: %s", said.Severity, said.Message)
		if said.Detail != "" && said.ConstraintName == "" { // a constraint's detail repeats the row
			text += ". " + said.Detail
		}
	}
	server.WriteJSON(w, status, map[string]string{"error": text})
}

// onlyHere refuses what a foreign page can make a browser send: the demo asks nobody who he is.
func onlyHere(next http.Handler) http.Handler {
	checked := server.AsLocalhost("")(http.NewCrossOriginProtection().Handler(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		checked.ServeHTTP(w, r)
	})
}
