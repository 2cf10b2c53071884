package main

import (
	"crypto/sha256"
	"sync"
	"time"
)

// An appCache keeps what the app has just said, for pages that open several streams and for clients that all come back together.
// It keeps nobody who has been denied: he may be about to log in.
type appCache struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]cached
}

type cached struct {
	appAnswer
	fresh time.Time // until when
}

const (
	cacheTime = time.Second // less than clients wait before they come back: who is logged out does not find himself here
	cacheSize = 10_000
)

func (c *appCache) get(of [sha256.Size]byte) (appAnswer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.known[of]
	return found.appAnswer, ok && time.Now().Before(found.fresh)
}

// put adds an answer. What is no longer fresh goes when there is no room, and all if that is not enough.
func (c *appCache) put(of [sha256.Size]byte, v appAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if len(c.known) >= cacheSize {
		for hash, old := range c.known {
			if now.After(old.fresh) {
				delete(c.known, hash)
			}
		}
	}
	if c.known == nil || len(c.known) >= cacheSize {
		c.known = make(map[[sha256.Size]byte]cached)
	}
	c.known[of] = cached{v, now.Add(cacheTime)}
}
