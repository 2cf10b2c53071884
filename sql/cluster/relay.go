package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"sync"
	"time"
)

// relay stands between embedded-postgres and the repository, on a port of this
// machine, for what the library lacks: it counts the bytes that come, ends the
// download with a context, says why it failed, and insists on the checksum,
// which the library does without when there is none.
type relay struct {
	url    string
	server *http.Server
	served chan struct{} // closed when the server has ended

	mu  sync.Mutex
	err error
}

func startRelay(ctx context.Context, source string, progress func(done, total int64)) (*relay, error) {
	target, err := url.Parse(source)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{url: "http://" + listener.Addr().String(), served: make(chan struct{})}
	silent := log.New(io.Discard, "", 0)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(target) },
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			DialContext:       (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			DisableKeepAlives: true,
		},
		ErrorLog:       silent,
		ModifyResponse: func(response *http.Response) error { return r.check(response, progress) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			r.fail(err)
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	r.server = &http.Server{
		Handler:           proxy,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          silent,
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		defer close(r.served)
		if err := r.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			r.fail(err)
		}
	}()
	return r, nil
}

func (r *relay) check(response *http.Response, progress func(done, total int64)) error {
	address := response.Request.URL
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", address, response.Status)
	}
	if progress == nil || path.Ext(address.Path) != ".jar" {
		progress = func(int64, int64) {}
	}
	response.Body = &body{
		ReadCloser: response.Body,
		total:      response.ContentLength,
		progress:   progress,
		fail:       func(err error) { r.fail(fmt.Errorf("get %s: %w", address, err)) },
	}
	return nil
}

// body tells how much of it has been read, and what went wrong with that.
type body struct {
	io.ReadCloser
	done, total int64
	progress    func(done, total int64)
	fail        func(err error)
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.done += int64(n)
	if n > 0 {
		b.progress(b.done, b.total)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.fail(err)
	}
	return n, err
}

func (r *relay) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

func (r *relay) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *relay) close() {
	_ = r.server.Close()
	<-r.served
}
