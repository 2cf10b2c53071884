package sql_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// nodeDir has the programs that insert notifications with PostgreSQL clients from npm, and the package.json with the
// versions of these clients.
const nodeDir = "../.ci/clients/npm"

// nodeClients has, for each client, the name of its program in nodeDir. The name of the client is the comment in the first
// line of its code in README.md.
var nodeClients = map[string]string{
	"pg": "pg", "Postgres.js": "postgres", "Knex": "knex", "Kysely": "kysely",
	"Drizzle": "drizzle", "Sequelize": "sequelize", "TypeORM": "typeorm", "Prisma": "prisma",
}

// Each client of npm inserts the row of README.md with the code of README.md. With the rights of an app, the program
// around this code also inserts a row for everyone and many rows, gets the generated id, reads rows back, and uses
// transactions and savepoints.
func TestNodeClients(t *testing.T) {
	t.Parallel()
	node := dbtest.Node(t)
	dir := compileNodeClients(t, node)
	for name, program := range nodeClients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, app, sender, _ := granted(t)
			runNodeClient(t, conn, app, "app", node, filepath.Join(dir, program+".js"))
			wantNotifications(t, conn, `alice notify {"msg": "hi"}`, `* message {"to": "everyone"}`,
				`many message {"n": 1}`, `many message {"n": 2}`, `many message {"n": 3}`, `key message [1, "two", null]`,
				`kept message {"n": 1}`, `kept message {"n": 2}`, `kept message {"n": 3}`)
			run(t, conn, "TRUNCATE rowcast.notifications")
			runNodeClient(t, conn, sender, "sender", node, filepath.Join(dir, program+"_sender.js"))
			wantNotifications(t, conn, `alice notify {"msg": "hi"}`)
		})
	}
}

// compileNodeClients puts the code of README.md into the programs, and translates them to JavaScript. It returns the
// directory of the programs.
func compileNodeClients(t *testing.T, node string) string {
	t.Helper()
	modules := dbtest.NodeModules(t, ".ci/clients/npm", "clients-npm", "prisma")
	dir := t.TempDir()
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "compile.js", "check.ts"} {
		writeFile(t, filepath.Join(dir, name), readFile(t, filepath.Join(nodeDir, name)))
	}
	compile := []string{"compile.js", "check.ts"}
	blocks := regexp.MustCompile("(?s)```ts\n// (\\S+)\n(.*?)```").FindAllStringSubmatch(readFile(t, "README.md"), -1)
	if len(blocks) != len(nodeClients) {
		t.Errorf("README.md has %d blocks in ts, want %d", len(blocks), len(nodeClients))
	}
	for _, block := range blocks {
		program, ok := nodeClients[block[1]]
		if !ok {
			t.Fatalf("no program tests the code of README.md for %s", block[1])
		}
		text := readFile(t, filepath.Join(nodeDir, program+".ts"))
		app, sender := withSnippet(t, text, block[2])
		writeFile(t, filepath.Join(dir, program+".ts"), app)
		writeFile(t, filepath.Join(dir, program+"_sender.ts"), sender)
		compile = append(compile, program+".ts", program+"_sender.ts")
	}
	generatePrisma(t, node, dir)
	inNode(t, dir, nil, node, compile...)
	return dir
}

// withSnippet puts the code of README.md into a program. It returns the program for the rights of an app, and the
// program for the rights of a sender. The paragraphs of a snippet are: the model, if the program has a place for it;
// the code for an app; and the code for a sender, if it differs.
func withSnippet(t *testing.T, program, snippet string) (app, sender string) {
	t.Helper()
	const model, insert, forSender = "// README: model\n", "// README: insert\n", "// With the rights of a sender"
	paragraphs := strings.Split(snippet, "\n\n")
	if strings.Contains(program, model) {
		program = strings.Replace(program, model, paragraphs[0]+"\n", 1)
		paragraphs = paragraphs[1:]
	}
	if strings.Count(program, insert) != 1 || len(paragraphs) == 0 || len(paragraphs) > 2 ||
		len(paragraphs) == 2 && !strings.HasPrefix(paragraphs[1], forSender) {
		t.Fatalf("want one place for this code of README.md in the program, and one or two paragraphs of code:\n%s\nprogram:\n%s", snippet, program)
	}
	return strings.Replace(program, insert, paragraphs[0], 1), strings.Replace(program, insert, paragraphs[len(paragraphs)-1], 1)
}

// generatePrisma generates the client of Prisma from the model in README.md. The generator and the client use the
// WebAssembly in their npm packages. The program of Prisma would also download a binary for migrations, if the
// environment did not name one.
func generatePrisma(t *testing.T, node, dir string) {
	t.Helper()
	model := regexp.MustCompile("(?s)```prisma\n(.*?)```").FindStringSubmatch(readFile(t, "README.md"))
	if model == nil {
		t.Fatal("README.md has no model of Prisma")
	}
	writeFile(t, filepath.Join(dir, "schema.prisma"), `generator client {
  provider = "prisma-client-js"
  output   = "./prisma"
}
`+model[1])
	inNode(t, dir, []string{"PRISMA_SCHEMA_ENGINE_BINARY=" + node, "CHECKPOINT_DISABLE=1"},
		node, "node_modules/prisma/build/index.js", "generate", "--no-hints")
}

// runNodeClient runs a program that connects as a role. rights, app or sender, tells the program what the role may do.
func runNodeClient(t *testing.T, conn *pgx.Conn, role, rights, node, program string) {
	t.Helper()
	run(t, conn, "ALTER ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN")
	server := conn.Config()
	inNode(t, filepath.Dir(program), []string{
		"PGHOST=" + server.Host, "PGPORT=" + strconv.Itoa(int(server.Port)), "PGDATABASE=" + server.Database, "PGUSER=" + role, "ROLE=" + rights,
		"SERVER_VERSION=" + conn.PgConn().ParameterStatus("server_version"),
	}, node, program)
}

// inNode runs Node in a directory. The environment of the test could have settings of PostgreSQL and Node, so the
// program gets only PATH, HOME and the given variables.
func inNode(t *testing.T, dir string, env []string, node string, arguments ...string) {
	t.Helper()
	command := exec.CommandContext(dbtest.Context(t), node, arguments...)
	command.Dir, command.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("node %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}
