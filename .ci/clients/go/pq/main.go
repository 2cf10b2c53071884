// The program inserts notifications with lib/pq and database/sql. The test puts code of sql/README.md in place of the
// comment README.
package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"log"

	"github.com/lib/pq"

	"example.com/clients/check"
)

// README

// A querier is a database or a transaction.
type querier interface {
	Exec(query string, args ...any) (sql.Result, error)
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *sql.Row
	Prepare(query string) (*sql.Stmt, error)
}

const insert = "INSERT INTO rowcast.notifications (recipient, data) VALUES ($1, $2)"

func main() {
	db, err := sql.Open("postgres", "sslmode=disable")
	if err != nil {
		log.Fatal(err)
	}
	transaction := func(work func(querier) error) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback() // does nothing after a Commit
		if err := work(tx); err != nil {
			return err
		}
		return tx.Commit()
	}
	check.Run(check.Client[querier]{
		DB: db,
		Insert: func(q querier, recipient, data string) error {
			_, err := q.Exec(insert, recipient, data)
			return err
		},
		InsertMany: func(_ querier, recipient string, data []string) error {
			return transaction(func(tx querier) error { return copyIn(tx, recipient, data) })
		},
		InsertWithKey: func(q querier, recipient, data string) (id int64, err error) {
			err = q.QueryRow(insert+" RETURNING id", recipient, data).Scan(&id)
			return id, err
		},
		Transaction: transaction,
		Savepoint:   savepoint,
		Find:        find,
	}, func() error { return notify(db) })
}

// copyIn inserts rows with COPY.
func copyIn(tx querier, recipient string, data []string) error {
	statement, err := tx.Prepare(pq.CopyInSchema("rowcast", "notifications", "recipient", "data"))
	if err != nil {
		return err
	}
	for _, d := range data {
		if _, err := statement.Exec(recipient, d); err != nil {
			return err
		}
	}
	_, err = statement.Exec()
	return errors.Join(err, statement.Close())
}

func savepoint(tx querier, work func(querier) error) error {
	if _, err := tx.Exec("SAVEPOINT s"); err != nil {
		return err
	}
	if err := work(tx); err != nil {
		_, rollback := tx.Exec("ROLLBACK TO SAVEPOINT s")
		return errors.Join(err, rollback)
	}
	_, err := tx.Exec("RELEASE SAVEPOINT s")
	return err
}

func find(q querier, recipient string) (found []check.Row, err error) {
	rows, err := q.Query("SELECT id, event, data FROM rowcast.notifications WHERE recipient = $1 ORDER BY id", recipient)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var row check.Row
		if err := rows.Scan(&row.ID, &row.Event, &row.Data); err != nil {
			return nil, err
		}
		found = append(found, row)
	}
	return found, rows.Err()
}
