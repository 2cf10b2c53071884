package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/cors"

	"rowcast/stream"
)

// routers returns the handlers of the public and of the administrators' address. If there is no second address, the first handler also
// serves health and metrics.
func (s *Server) routers() (public, admin http.Handler) {
	p := s.newRouter()
	if len(s.Trusted) > 0 {
		p.Use(s.Trusted.seeThrough, s.lobby.recognise)
	}
	if s.Guard != nil {
		p.Use(s.Guard)
	}
	if len(s.Origins) > 0 {
		p.Use(cors.Handler(cors.Options{
			AllowedOrigins:   s.Origins,
			AllowedMethods:   []string{http.MethodGet},
			AllowedHeaders:   []string{"Authorization", "Cache-Control", "Last-Event-ID"},
			AllowCredentials: true,
			MaxAge:           600,
		}))
	}
	// Nothing here may wrap the writer: the hub takes the connection over.
	p.Get("/events", s.Events.ServeHTTP)
	getOrHead(p, "/rowcast.js", serveScript)
	if s.Routes != nil {
		s.Routes(p)
	}
	if s.AdminListen == "" {
		s.adminRoutes(p)
		return p, nil
	}
	a := s.newRouter()
	if IsLoopback(s.AdminListen) {
		a.Use(AsLocalhost(""))
	}
	s.adminRoutes(a)
	a.With(notForPages).Post("/disconnect", s.disconnect)
	return p, a
}

func (s *Server) adminRoutes(r chi.Router) {
	getOrHead(r, "/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	getOrHead(r, "/readyz", s.readiness)
	getOrHead(r, "/metrics", s.metrics().ServeHTTP)
}

func (s *Server) newRouter() *chi.Mux {
	r := chi.NewRouter()
	r.Use(s.recoverer, bounded)
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "there is nothing here; the stream is at /events", http.StatusNotFound)
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, request *http.Request) {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			if r.Match(chi.NewRouteContext(), method, request.URL.Path) {
				allowed = append(allowed, method)
			}
		}
		if allowed == nil { // a method that the router does not know, and no such path
			r.NotFoundHandler()(w, request)
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		http.Error(w, "the method is not allowed here; allowed is "+strings.Join(allowed, ", "), http.StatusMethodNotAllowed)
	})
	return r
}

func getOrHead(r chi.Router, path string, handler http.HandlerFunc) {
	r.Get(path, handler)
	r.Head(path, handler)
}

// answerTime is how long a client may take over an answer that is no stream.
const answerTime = 15 * time.Second

// bounded limits the time of an answer. A stream removes the limit. A request with a body is the last one on its connection: if a proxy
// and this server disagree about where the body ends, the rest is not taken for the request of another client.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// AsLocalhost refuses requests for another host than this machine. A page can make a browser send them under a name of the page's own
// domain that resolves to this machine (DNS rebinding), and to the browser they are of the same origin. HTTP/1.0, which no browser uses,
// need not name a host. otherwise is appended to the error, and says what else can be done.
func AsLocalhost(otherwise string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "" && !IsLoopback(r.Host) {
				http.Error(w, "this address answers only as localhost or 127.0.0.1"+otherwise, http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// recoverer lets a handler's panic end nothing but its own request.
func (s *Server) recoverer(next http.Handler) http.Handler {
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
				panic(http.ErrAbortHandler) // closes the connection; something may have been written already
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// serveScript serves the browser client. Browsers may keep it but must ask whether it is still the same.
func serveScript(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", scriptTag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(stream.Script))
}

var scriptTag = func() string {
	sum := sha256.Sum256(stream.Script)
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}()
