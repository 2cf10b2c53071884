package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/cors"

	"rowcast/stream"
	"rowcast/stream/auth"
)

// routers returns the handlers for Listen and for AdminListen. If AdminListen is empty, public also serves health and
// metrics, and admin is nil.
func (s *Server) routers() (public, admin http.Handler) {
	p := s.newRouter("not found: the stream is at " + s.EventsPath)
	if len(s.Trusted) > 0 {
		p.Use(s.Trusted.setClientAddress, s.idle.attribute)
	}
	if s.Guard != nil {
		p.Use(s.Guard)
	}
	p.Use(s.refusePreflights)
	if len(s.Origins) > 0 || s.LoopbackOrigins {
		p.Use(cors.Handler(cors.Options{
			AllowOriginFunc:  s.allowsOrigin,
			AllowedMethods:   s.crossOriginMethods(),
			AllowedHeaders:   s.crossOriginHeaders(),
			ExposedHeaders:   []string{"Retry-After", "Date"}, // the inbox element computes the clock skew from Date
			AllowCredentials: true,
			MaxAge:           600,
		}))
	}
	// No middleware of this router may wrap the ResponseWriter, because the hub takes the connection over.
	getOrHead(p, s.EventsPath, s.Events.ServeHTTP)
	s.otherRoutes(p)
	if s.AdminListen == "" {
		s.adminRoutes(p)
		return p, nil
	}
	a := s.newRouter("not found: this address is for /healthz, /readyz, /metrics and /disconnect")
	if IsLoopback(s.AdminListen) {
		a.Use(s.AsLocalhost(""))
	}
	s.adminRoutes(a)
	s.disconnectRoute(a)
	return p, a
}

// SetEventsPath sets EventsPath. It returns an error if another handler of the server has this path, at Listen or at
// AdminListen. It refuses the paths of the inbox and of /disconnect even if the server does not serve them. The field
// Routes must be set before the call.
func (s *Server) SetEventsPath(path string) error {
	r := chi.NewRouter()
	s.otherRoutes(r)
	s.adminRoutes(r)
	s.disconnectRoute(r)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if r.Match(chi.NewRouteContext(), method, path) {
			return fmt.Errorf("the hub uses %s for another purpose: choose another path, such as /stream", path)
		}
	}
	s.EventsPath = path
	return nil
}

// otherRoutes adds the routes of the scripts, of the inbox and of the field Routes.
func (s *Server) otherRoutes(r chi.Router) {
	getOrHead(r, "/rowcast.js", serveScript(stream.Script))
	getOrHead(r, "/rowcast-{hash:[0-9a-f]+}.js", serveScript(stream.Script))
	getOrHead(r, "/rowcast-inbox.js", serveScript(stream.InboxScript))
	getOrHead(r, "/rowcast-inbox-store.js", serveScript(stream.InboxStoreScript))
	s.inboxRoutes(r)
	if s.Routes != nil {
		s.Routes(r)
	}
}

// allowsOrigin reports whether pages of an origin, other than the hub's own, may open streams and read the answers.
func (s *Server) allowsOrigin(_ *http.Request, origin string) bool {
	return slices.Contains(s.Origins, strings.ToLower(origin)) || s.LoopbackOrigins && auth.IsLoopbackOrigin(origin)
}

// refusePreflights denies the preflight requests of pages whose origin may not use the hub. A browser sends a preflight
// request before it sends a token to another origin. The page learns only that its request has failed. The hub logs
// the reason.
func (s *Server) refusePreflights(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		isPreflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
		if isPreflight && !s.allowsOrigin(r, r.Header.Get("Origin")) {
			s.Events.Deny(w, r, auth.ForeignPage(r))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// crossOriginMethods returns the methods that pages of another origin may use.
func (s *Server) crossOriginMethods() []string {
	methods := []string{http.MethodGet, http.MethodHead}
	if s.Inbox {
		methods = append(methods, http.MethodPost)
	}
	return methods
}

// crossOriginHeaders returns the request headers that pages of another origin may send.
func (s *Server) crossOriginHeaders() []string {
	headers := append([]string{"Authorization", "Cache-Control", "Last-Event-ID"}, s.CORSHeaders...)
	if s.Inbox {
		headers = append(headers, "Content-Type")
	}
	return headers
}

func (s *Server) adminRoutes(r chi.Router) {
	getOrHead(r, "/healthz", s.healthz)
	getOrHead(r, "/readyz", s.readyz)
	getOrHead(r, "/metrics", s.metrics().ServeHTTP)
}

func (s *Server) disconnectRoute(r chi.Router) {
	r.With(refuseBrowsers).Post("/disconnect", s.disconnect)
}

func (s *Server) newRouter(notFound string) *chi.Mux {
	r := chi.NewRouter()
	r.Use(s.recoverPanic, limitTime, forbidStorage)
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, notFound, http.StatusNotFound)
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, request *http.Request) {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			if r.Match(chi.NewRouteContext(), method, request.URL.Path) {
				allowed = append(allowed, method)
			}
		}
		if allowed == nil { // the router calls this handler for an unknown method even if the path does not exist
			r.NotFoundHandler()(w, request)
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		http.Error(w, "method not allowed: use "+strings.Join(allowed, ", "), http.StatusMethodNotAllowed)
	})
	return r
}

func getOrHead(r chi.Router, path string, handler http.HandlerFunc) {
	r.Get(path, handler)
	r.Head(path, handler)
}

// answerTime is the time in which a client must receive an answer that is not a stream.
const answerTime = 15 * time.Second

// beginAnswer begins the time limit of an answer. A handler calls it again if the body of the request, or PostgreSQL, may
// have taken long.
func beginAnswer(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
}

// limitTime is a middleware that limits the time of an answer. The hub removes the limit from streams. After a request
// with a body, the connection is closed. Otherwise, if a proxy and this server disagreed about where the body ends,
// this server could take the rest of the body for the request of another client (request smuggling). A request of
// HTTP/1.0 may have a chunked body although its ContentLength is 0, because net/http ignores Transfer-Encoding there.
func limitTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		beginAnswer(w)
		if r.ContentLength != 0 || !r.ProtoAtLeast(1, 1) {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// forbidStorage is a middleware that forbids caches to store an answer, unless its handler says otherwise. Without the
// header, a cache may store answers such as 404 and the 200 of /healthz. Varnish does so for two minutes.
func forbidStorage(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// recoverPanic is a middleware that logs the panic of a handler, except http.ErrAbortHandler, and closes the connection
// of its request. Other requests continue.
func (s *Server) recoverPanic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch panicked := recover(); panicked {
			case nil:
			case http.ErrAbortHandler:
				panic(panicked)
			default:
				if logger, ok := s.panics.Allow(s.Logger); ok {
					logger.Error("a request handler panicked", "path", r.URL.Path, "panic", panicked, "stack", string(debug.Stack()))
				}
				panic(http.ErrAbortHandler) // closes the connection, so that the client does not take a part of the answer for all of it
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// scriptName is the name of the browser client in the URL that browsers may cache for a year.
var scriptName = stream.ScriptName()

// serveScript serves a script for browsers. If the name in the URL is scriptName, which contains a hash of the script,
// browsers may cache the script for a year. At any other URL, even with the hash of another version, browsers must ask
// each time whether the script has changed. Pages of all origins may load it, because it is public. If the CORS
// middleware has allowed the origin, the header of the middleware stays, because "*" does not allow a request with
// cookies. Ranges are ignored: a request of 16 KiB could ask for thousands of them, and its answer would be many times
// as long as the script.
func serveScript(script []byte) http.HandlerFunc {
	sum := sha256.Sum256(script)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		if w.Header().Get("Access-Control-Allow-Origin") == "" {
			w.Header().Set("Access-Control-Allow-Origin", "*")
		}
		w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache")
		if r.URL.Path == "/"+scriptName {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		w.Header().Set("ETag", tag)
		r.Header.Del("Range")
		http.ServeContent(withoutRanges{w}, r, "", time.Time{}, bytes.NewReader(script))
	}
}

// withoutRanges removes the header with which http.ServeContent says that it serves ranges.
type withoutRanges struct{ http.ResponseWriter }

func (w withoutRanges) WriteHeader(status int) {
	w.Header().Del("Accept-Ranges")
	w.ResponseWriter.WriteHeader(status)
}

// WriteJSON answers with a value as JSON, and forbids caches to store the answer.
func WriteJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}
