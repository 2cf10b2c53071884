// The program inserts notifications with GORM. The test puts code of sql/README.md in place of the comment README.
package main

import (
	"encoding/json"
	"log"
	"os"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

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
	db, err := gorm.Open(postgres.Open(""), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		log.Fatal(err)
	}
	// Only the owner can change the table, so this fails if AutoMigrate would change anything. A sender cannot compare
	// the table with the model, because a sender can read only the column id.
	if os.Getenv("ROLE") == "app" {
		if err := db.AutoMigrate(&Notification{}); err != nil {
			log.Fatal("AutoMigrate: ", err)
		}
	}
	check.Run(check.Client[*gorm.DB]{
		DB:     db,
		Insert: func(q *gorm.DB, recipient, data string) error { return q.Create(&rows(recipient, data)[0]).Error },
		InsertMany: func(q *gorm.DB, recipient string, data []string) error {
			return q.Create(rows(recipient, data...)).Error
		},
		InsertWithKey: func(q *gorm.DB, recipient, data string) (int64, error) {
			n := rows(recipient, data)[0]
			err := q.Create(&n).Error
			return n.ID, err
		},
		Transaction: func(work func(*gorm.DB) error) error { return db.Transaction(work) },
		Savepoint:   func(tx *gorm.DB, work func(*gorm.DB) error) error { return tx.Transaction(work) },
		Find: func(q *gorm.DB, recipient string) (found []check.Row, err error) {
			var rows []Notification
			err = q.Where("recipient = ?", recipient).Order("id").Find(&rows).Error
			for _, row := range rows {
				found = append(found, check.Row{ID: row.ID, Event: row.Event, Data: string(row.Data)})
			}
			return found, err
		},
	}, func() error { return notify(db) })
}
