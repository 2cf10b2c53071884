// Package check does what apps do with one of the database clients of Go.
package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"reflect"
	"strings"
)

// A Client has functions that call a database client of Go, such as lib/pq. Q is the client's type of a database or a
// transaction.
type Client[Q any] struct {
	DB                  Q
	Insert              func(q Q, recipient, data string) error
	InsertMany          func(q Q, recipient string, data []string) error
	InsertManyWithoutID func(q Q, recipient string, data []string) error // for PostgreSQL 13, if InsertMany writes id
	InsertWithKey       func(q Q, recipient, data string) (id int64, err error)
	Transaction         func(work func(tx Q) error) error
	Savepoint           func(tx Q, work func(Q) error) error
	Find                func(q Q, recipient string) ([]Row, error)
}

// A Row is a row that was read back.
type Row struct {
	ID          int64
	Event, Data string
}

// Run ends the program with an error if something is not as an app expects it. readme runs the code of sql/README.md.
// The Go test examines the rows afterwards. With the rights of a sender, Run does not read rows back, because a sender
// can read only their ids.
func Run[Q any](client Client[Q], readme func() error) {
	steps := []func(Client[Q]) error{everyone[Q], many[Q], key[Q], rollback[Q], savepoint[Q]}
	if os.Getenv("ROLE") == "app" {
		steps = append(steps, readBack[Q])
	}
	if err := readme(); err != nil {
		log.Fatal("the code of sql/README.md: ", err)
	}
	for _, step := range steps {
		if err := step(client); err != nil {
			log.Fatal(err)
		}
	}
}

func everyone[Q any](c Client[Q]) error { return c.Insert(c.DB, "*", `{"to": "everyone"}`) }

func many[Q any](c Client[Q]) error {
	rows := []string{`{"n": 1}`, `{"n": 2}`, `{"n": 3}`}
	err := c.InsertMany(c.DB, "many", rows)
	if c.InsertManyWithoutID == nil || !strings.HasPrefix(os.Getenv("SERVER_VERSION"), "13.") {
		return err
	}
	if err == nil || !strings.Contains(err.Error(), `cannot insert into column "id"`) {
		return fmt.Errorf("several rows with DEFAULT for id in PostgreSQL 13: got %v, want that column id is refused", err)
	}
	return c.InsertManyWithoutID(c.DB, "many", rows)
}

func key[Q any](c Client[Q]) error {
	id, err := c.InsertWithKey(c.DB, "key", `[1, "two", null]`)
	if err == nil {
		fmt.Println("key", id)
	}
	return err
}

// rollback lets two transactions fail: the first by an error of the app, and the second by an INSERT that PostgreSQL
// refuses. It checks that the app sees each error. The Go test notices if a row was inserted.
func rollback[Q any](c Client[Q]) error {
	own := errors.New("an error of the app")
	err := c.Transaction(func(tx Q) error {
		return errors.Join(c.Insert(tx, "rolled back", "{}"), own)
	})
	if !errors.Is(err, own) {
		return fmt.Errorf("a transaction in which the app fails: got %v, want the error of the app", err)
	}
	return refused(c.Transaction(func(tx Q) error {
		if err := c.Insert(tx, "rolled back", "{}"); err != nil {
			return err
		}
		return c.Insert(tx, "", "{}")
	}))
}

// savepoint lets an INSERT in a savepoint fail, and checks that the transaction can continue. The Go test notices if a
// row of that savepoint was inserted.
func savepoint[Q any](c Client[Q]) error {
	return c.Transaction(func(tx Q) error {
		if err := c.Insert(tx, "kept", `{"n": 1}`); err != nil {
			return err
		}
		err := c.Savepoint(tx, func(nested Q) error {
			if err := c.Insert(nested, "undone", "{}"); err != nil {
				return err
			}
			return c.Insert(nested, "", "{}")
		})
		if err := refused(err); err != nil {
			return err
		}
		if err := c.Savepoint(tx, func(nested Q) error { return c.Insert(nested, "kept", `{"n": 2}`) }); err != nil {
			return err
		}
		return c.Insert(tx, "kept", `{"n": 3}`)
	})
}

// refused returns an error unless PostgreSQL has refused an empty recipient.
func refused(err error) error {
	if err == nil || !strings.Contains(err.Error(), "recipient_is_1_to_256_bytes") {
		return fmt.Errorf("an empty recipient: got %v, want the constraint recipient_is_1_to_256_bytes", err)
	}
	return nil
}

func readBack[Q any](c Client[Q]) error {
	for recipient, want := range map[string][]string{
		"alice": {`notify {"msg":"hi"}`}, "key": {`message [1,"two",null]`},
		"many": {`message {"n":1}`, `message {"n":2}`, `message {"n":3}`}, "rolled back": nil,
	} {
		rows, err := c.Find(c.DB, recipient)
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		var got []string
		for _, row := range rows {
			var data any
			if err := json.Unmarshal([]byte(row.Data), &data); err != nil {
				return fmt.Errorf("read back %+v: decode data: %w", row, err)
			}
			if row.ID <= 0 {
				return fmt.Errorf("read back %+v: got the id %d, want a positive one", row, row.ID)
			}
			compact, _ := json.Marshal(data)
			got = append(got, row.Event+" "+string(compact))
		}
		if !reflect.DeepEqual(got, want) {
			return fmt.Errorf("read back %q: got %q, want %q", recipient, got, want)
		}
	}
	return nil
}
