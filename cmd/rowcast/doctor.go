package main

import (
	"context"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/doctor"
)

type doctorCmd struct {
	database.Flags
	Role roleName `placeholder:"ROLE" help:"Examine only this role of an app: whether it has the rights that rowcast migrate grants with --app-role or --sender-role, and what can make its INSERTs fail."`
}

// Help is shown by rowcast doctor --help.
func (doctorCmd) Help() string {
	return "Connect as the role of the hub, because the result depends on its rights. With --role, connect as any role. The command changes nothing, with one exception: without --role, it adds a row to the table rowcast.epoch if the table is empty, as a hub does. The table is empty before the first hub has started, and after a crash of the server. " +
		"If a check fails, the exit code is 1. A warning is not a failure."
}

// Run examines the database. It returns errReported if a check fails.
func (c *doctorCmd) Run(ctx context.Context, console console) error {
	config, err := c.Config()
	if err != nil {
		return err
	}
	examination := doctor.Examination{Config: config, Explain: c.Explain, Out: console.out, Role: string(c.Role)}
	if !examination.Run(ctx) {
		return errReported
	}
	return nil
}
