package feed

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// A result of [InboxOf] begins with inboxOf or inboxOfHash. A long name is hashed, because the length of a recipient is
// limited.
const (
	inboxOf     = Reserved + "inbox:"
	inboxOfHash = Reserved + "inbox#"
	maxInboxOf  = 128 // the length in bytes of the longest name that is not hashed
)

// InboxOf returns the recipient of the rows that say what has changed in the inbox of a user. For a group or
// [Everyone], these rows say which rows for it were deleted, or that clients must load their lists again. The function
// rowcast.inbox_twin in the database returns the same.
func InboxOf(recipient string) string {
	if len(recipient) <= maxInboxOf {
		return inboxOf + recipient
	}
	sum := sha256.Sum256([]byte(recipient))
	return inboxOfHash + hex.EncodeToString(sum[:])
}

// IsInbox reports whether a recipient is a result of [InboxOf].
func IsInbox(recipient string) bool {
	return strings.HasPrefix(recipient, inboxOf) || strings.HasPrefix(recipient, inboxOfHash)
}

// A Refused is the error of a request for an inbox if the database refuses a value that the client sent.
type Refused struct {
	Reason string // what is wrong; may be sent to the client
	Stale  bool   // the value is a cursor that this database does not know, so the client must load its list again
}

func (r Refused) Error() string { return r.Reason }
