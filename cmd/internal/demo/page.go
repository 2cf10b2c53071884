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

// A page serves the page of the demo, and runs the statements of its forms.
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
	r.Post("/demo/notifications", p.insert)
	r.Post("/demo/messages", p.notify)
	r.Get("/demo/orders", p.orders)
	r.Post("/demo/orders", p.order)
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

// statementTimeout limits each statement of the page.
const statementTimeout = 5 * time.Second

// A formRow is a row from the page's form. Data is text that PostgreSQL converts to jsonb, so that PostgreSQL reports
// what is wrong with it.
type formRow struct {
	Recipient string `json:"recipient"`
	Event     string `json:"event"`
	Data      string `json:"data"`
}

const maxFormRow = 16 << 20 // the maximum size of the body of a form's request, in bytes

const insertRow = `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ($1, $2, $3::text::jsonb) RETURNING id`

// insert inserts a row into the table of notifications. This is enough for the hub to send the row.
func (p *page) insert(w http.ResponseWriter, r *http.Request) {
	if row, ok := readForm[formRow](w, r); ok {
		p.answer(w, r, insertRow, row.Recipient, row.Event, row.Data)
	}
}

// A formMessage is a message from the page's form.
type formMessage struct {
	Text string `json:"text"`
}

// notify sends a message that is not stored.
func (p *page) notify(w http.ResponseWriter, r *http.Request) {
	if message, ok := readForm[formMessage](w, r); ok {
		p.answer(w, r, `SELECT 0 FROM pg_notify('rowcast', $1)`, message.Text)
	}
}

// A formOrder is an order from the page's form.
type formOrder struct {
	Customer string `json:"customer"`
	Product  string `json:"product"`
}

// order inserts into the watched table.
func (p *page) order(w http.ResponseWriter, r *http.Request) {
	if order, ok := readForm[formOrder](w, r); ok {
		p.answer(w, r, `INSERT INTO rowcast_demo.orders (customer, product) VALUES ($1, $2) RETURNING id`, order.Customer, order.Product)
	}
}

const selectOrders = `SELECT coalesce(json_agg(json_build_object('id', id, 'customer', left(customer, 100), 'product', left(product, 100)) ORDER BY id DESC), '[]')
FROM (SELECT * FROM rowcast_demo.orders ORDER BY id DESC LIMIT 5) newest`

// orders answers with the newest rows of the watched table.
func (p *page) orders(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), statementTimeout)
	defer cancel()
	var rows json.RawMessage
	if err := p.pool.QueryRow(ctx, selectOrders).Scan(&rows); err != nil {
		writeError(w, err)
		return
	}
	server.WriteJSON(w, http.StatusOK, rows)
}

// readForm reads the values of a form. If it cannot, it answers the request and reports false.
func readForm[T any](w http.ResponseWriter, r *http.Request) (values T, ok bool) {
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxFormRow))
	body.DisallowUnknownFields()
	if err := body.Decode(&values); err != nil {
		server.WriteJSON(w, http.StatusBadRequest, map[string]string{"error": "cannot read the request: " + err.Error()})
		return values, false
	}
	return values, true
}

// answer runs a statement that returns an id, and answers with the id.
func (p *page) answer(w http.ResponseWriter, r *http.Request, statement string, args ...any) {
	ctx, cancel := context.WithTimeout(r.Context(), statementTimeout)
	defer cancel()
	var id int64
	if err := p.pool.QueryRow(ctx, statement, args...).Scan(&id); err != nil {
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

// guard refuses a POST that a browser sends for a page of another origin. The demo needs this, because it does not
// authenticate requests. guard also tells browsers not to guess the content type of an answer.
func guard(next http.Handler) http.Handler {
	checked := http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		checked.ServeHTTP(w, r)
	})
}
