// The program inserts notifications with sqlx. The test puts code of sql/README.md in place of the comment README.
package main

import (
	"errors"
	"log"

	"github.com/jmoiron/sqlx"
	"github.com/jmoiron/sqlx/types"
	_ "github.com/lib/pq"

	"example.com/clients/check"
)

// README

func rows(recipient string, data ...string) (rows []Notification) {
	for _, d := range data {
		rows = append(rows, Notification{Recipient: recipient, Event: "message", Data: types.JSONText(d)})
	}
	return rows
}

const insert = "INSERT INTO rowcast.notifications (recipient, event, data) VALUES (:recipient, :event, :data)"

func main() {
	db, err := sqlx.Connect("postgres", "sslmode=disable")
	if err != nil {
		log.Fatal(err)
	}
	named := func(q sqlx.Ext, rows any) error {
		_, err := sqlx.NamedExec(q, insert, rows)
		return err
	}
	check.Run(check.Client[sqlx.Ext]{
		DB:         db,
		Insert:     func(q sqlx.Ext, recipient, data string) error { return named(q, rows(recipient, data)[0]) },
		InsertMany: func(q sqlx.Ext, recipient string, data []string) error { return named(q, rows(recipient, data...)) },
		InsertWithKey: func(q sqlx.Ext, recipient, data string) (id int64, err error) {
			result, err := sqlx.NamedQuery(q, insert+" RETURNING id", rows(recipient, data)[0])
			if err != nil {
				return 0, err
			}
			defer result.Close()
			if result.Next() {
				err = result.Scan(&id)
			}
			return id, errors.Join(err, result.Err())
		},
		Transaction: func(work func(sqlx.Ext) error) error {
			tx, err := db.Beginx()
			if err != nil {
				return err
			}
			defer tx.Rollback() // does nothing after a Commit
			if err := work(tx); err != nil {
				return err
			}
			return tx.Commit()
		},
		Savepoint: func(tx sqlx.Ext, work func(sqlx.Ext) error) error {
			if _, err := tx.Exec("SAVEPOINT s"); err != nil {
				return err
			}
			if err := work(tx); err != nil {
				_, rollback := tx.Exec("ROLLBACK TO SAVEPOINT s")
				return errors.Join(err, rollback)
			}
			_, err := tx.Exec("RELEASE SAVEPOINT s")
			return err
		},
		Find: func(q sqlx.Ext, recipient string) (found []check.Row, err error) {
			err = sqlx.Select(q, &found, "SELECT id, event, data FROM rowcast.notifications WHERE recipient = $1 ORDER BY id", recipient)
			return found, err
		},
	}, func() error { return notify(db) })
}
