// The program inserts notifications with bun. The test puts code of sql/README.md in place of the comment README.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"log"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"example.com/clients/check"
)

// README

func rows(recipient string, data ...string) (rows []Notification) {
	for _, d := range data {
		rows = append(rows, Notification{Recipient: recipient, Data: json.RawMessage(d)})
	}
	return rows
}

func main() {
	ctx := context.Background()
	pool, err := sql.Open("pgx", "")
	if err != nil {
		log.Fatal(err)
	}
	db := bun.NewDB(pool, pgdialect.New())
	insert := func(q bun.IDB, model any) error {
		_, err := q.NewInsert().Model(model).Exec(ctx)
		return err
	}
	within := func(q bun.IDB, work func(bun.IDB) error) error {
		return q.RunInTx(ctx, nil, func(_ context.Context, tx bun.Tx) error { return work(tx) })
	}
	check.Run(check.Client[bun.IDB]{
		DB:     db,
		Insert: func(q bun.IDB, recipient, data string) error { return insert(q, &rows(recipient, data)[0]) },
		InsertMany: func(q bun.IDB, recipient string, data []string) error {
			rows := rows(recipient, data...)
			return insert(q, &rows)
		},
		InsertManyWithoutID: func(q bun.IDB, recipient string, data []string) error {
			rows := rows(recipient, data...)
			_, err := q.NewInsert().Model(&rows).ExcludeColumn("id").Exec(ctx)
			return err
		},
		InsertWithKey: func(q bun.IDB, recipient, data string) (int64, error) {
			n := rows(recipient, data)[0]
			err := insert(q, &n)
			return n.ID, err
		},
		Transaction: func(work func(bun.IDB) error) error { return within(db, work) },
		Savepoint:   within,
		Find: func(q bun.IDB, recipient string) (found []check.Row, err error) {
			var rows []Notification
			err = q.NewSelect().Model(&rows).Where("recipient = ?", recipient).Order("id").Scan(ctx)
			for _, row := range rows {
				found = append(found, check.Row{ID: row.ID, Event: row.Event, Data: string(row.Data)})
			}
			return found, err
		},
	}, func() error { return notify(ctx, db) })
}
