package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// A cache keeps the answers that accept a client, each for up to a second, because a page may open several streams at
// once. Denials are not kept, because the user may be about to sign in.
type cache struct {
	mu      sync.Mutex
	answers map[[sha256.Size]byte]cached
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
	now := time.Now()
	if len(c.answers) >= cacheSize {
		for hash, old := range c.answers {
			if now.After(old.until) {
				delete(c.answers, hash)
			}
		}
	}
	if c.answers == nil || len(c.answers) >= cacheSize {
		c.answers = make(map[[sha256.Size]byte]cached)
	}
	c.answers[of] = cached{v, now.Add(cacheTime)}
}
