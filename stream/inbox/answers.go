package inbox

import "sync"

// answers counts the bytes of the answers that are being sent. Without a limit, many clients that read slowly could
// make the hub keep any number of large answers in memory.
type answers struct {
	limit int

	mu    sync.Mutex
	total int
	users map[string]int // the bytes of each user
}

// add counts an answer of n bytes if the limits allow it, and reports whether they do.
func (a *answers) add(user string, n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.total > 0 && a.total+n > a.limit || a.users[user] > 0 && a.users[user]+n > a.limit/4 {
		return false
	}
	if a.users == nil {
		a.users = make(map[string]int)
	}
	a.total += n
	a.users[user] += n
	return true
}

// remove removes an answer that was added.
func (a *answers) remove(user string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total -= n
	if a.users[user] -= n; a.users[user] == 0 {
		delete(a.users, user)
	}
}
