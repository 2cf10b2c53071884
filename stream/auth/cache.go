package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// A cache keeps the answers that accept a client, each for up to a second, because a page may open several streams at
// once. Denials are not kept, because the user may be about to sign in. Expired answers are removed within a second,
// because an answer with many groups can use 30 KB.
type cache struct {
	mu       sync.Mutex
	answers  map[[sha256.Size]byte]cached
	sweeping bool // sweep will be called
}

type cached struct {
	answer
	until time.Time
}

const (
	// cacheTime is shorter than the default wait before a reconnect, so that the app is asked again after a logout.
	cacheTime = time.Second
	cacheSize = 10_000
)

func (c *cache) get(of [sha256.Size]byte) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.answers[of]
	return found.answer, ok && time.Now().Before(found.until)
}

// remove removes an answer that is no longer valid.
func (c *cache) remove(of [sha256.Size]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.answers, of)
}

// put adds an answer. If the cache is full, expired answers are removed, or all answers if none has expired.
func (c *cache) put(of [sha256.Size]byte, v answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) >= cacheSize {
		c.removeExpired()
	}
	if c.answers == nil || len(c.answers) >= cacheSize {
		c.answers = make(map[[sha256.Size]byte]cached)
	}
	c.answers[of] = cached{v, time.Now().Add(cacheTime)}
	if !c.sweeping {
		c.sweeping = true
		time.AfterFunc(cacheTime, c.sweep)
	}
}

// sweep removes expired answers, now and each second until the cache is empty.
func (c *cache) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeExpired()
	if c.sweeping = len(c.answers) > 0; c.sweeping {
		time.AfterFunc(cacheTime, c.sweep)
	} else {
		c.answers = nil // a map does not release memory otherwise
	}
}

// removeExpired removes the expired answers. The caller holds the lock.
func (c *cache) removeExpired() {
	now := time.Now()
	for hash, old := range c.answers {
		if !now.Before(old.until) {
			delete(c.answers, hash)
		}
	}
}
