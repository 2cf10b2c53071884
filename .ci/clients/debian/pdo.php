<?php
// The program inserts notifications with PDO. The test puts code of sql/README.md in place of the comment README.

$pdo = new PDO("pgsql:host=" . getenv("PGHOST") . ";port=" . getenv("PGPORT") . ";dbname=" . getenv("PGDATABASE"), getenv("PGUSER"));

// README

function want($got, $expected): void
{
    if ($got !== $expected) {
        throw new LogicException("got " . var_export($got, true) . ", want " . var_export($expected, true));
    }
}

// refused runs a function, and throws an error unless PostgreSQL refuses the empty recipient in it.
function refused(callable $work): void
{
    $message = "no error";
    try {
        $work();
    } catch (PDOException $error) {
        $message = $error->getMessage();
    }
    if (!str_contains($message, "recipient_is_1_to_256_bytes")) {
        throw new LogicException("an empty recipient: got $message, want the constraint recipient_is_1_to_256_bytes");
    }
}

function insert(string $recipient, array $data): void
{
    global $pdo;
    $pdo->prepare("INSERT INTO rowcast.notifications (recipient, data) VALUES (?, ?)")
        ->execute([$recipient, json_encode($data, JSON_FORCE_OBJECT)]);
}

function insertMany(string $recipient, array $data): void
{
    global $pdo;
    $values = [];
    foreach ($data as $d) {
        array_push($values, $recipient, json_encode($d));
    }
    $rows = implode(", ", array_fill(0, count($data), "(?, ?)"));
    $pdo->prepare("INSERT INTO rowcast.notifications (recipient, data) VALUES $rows")->execute($values);
}

// insertWithKey returns the id of the new row. A sender needs RETURNING, because it may not use the sequence, as
// lastInsertId does.
function insertWithKey(string $recipient, array $data): string
{
    global $pdo;
    $sql = "INSERT INTO rowcast.notifications (recipient, data) VALUES (?, ?)";
    if (getenv("ROLE") === "sender") {
        $insert = $pdo->prepare("$sql RETURNING id");
        $insert->execute([$recipient, json_encode($data)]);
        return (string) $insert->fetchColumn();
    }
    $pdo->prepare($sql)->execute([$recipient, json_encode($data)]);
    return $pdo->lastInsertId();
}

function transaction(callable $work): void
{
    global $pdo;
    $pdo->beginTransaction();
    try {
        $work();
        $pdo->commit();
    } catch (Throwable $error) {
        $pdo->rollBack();
        throw $error;
    }
}

function savepoint(callable $work): void
{
    global $pdo;
    $pdo->exec("SAVEPOINT s");
    try {
        $work();
    } catch (Throwable $error) {
        $pdo->exec("ROLLBACK TO SAVEPOINT s");
        throw $error;
    }
}

function find(string $recipient): array
{
    global $pdo;
    $select = $pdo->prepare("SELECT event, data FROM rowcast.notifications WHERE recipient = ? ORDER BY id");
    $select->execute([$recipient]);
    return array_map(fn ($row) => [$row[0], json_decode($row[1], true)], $select->fetchAll(PDO::FETCH_NUM));
}

// A transaction that fails inserts nothing, and the app sees the error that made it fail.
function rollback(): void
{
    $own = new RuntimeException("an error of the app");
    try {
        transaction(function () use ($own) {
            insert("rolled back", []);
            throw $own;
        });
    } catch (Throwable $error) {
        want($error, $own);
    }
    refused(fn () => transaction(function () {
        insert("rolled back", []);
        insert("", []);
    }));
}

insert("*", ["to" => "everyone"]);
insertMany("many", [["n" => 1], ["n" => 2], ["n" => 3]]);
echo "key ", insertWithKey("key", [1, "two", null]), "\n";
rollback();
// An error in a savepoint undoes the work since the savepoint, and the transaction can continue.
transaction(function () {
    insert("kept", ["n" => 1]);
    refused(fn () => savepoint(function () {
        insert("undone", []);
        insert("", []);
    }));
    savepoint(fn () => insert("kept", ["n" => 2]));
    insert("kept", ["n" => 3]);
});
// A role with the rights of a sender cannot read rows.
if (getenv("ROLE") === "app") {
    want(find("alice"), [["notify", ["msg" => "hi"]]]);
    want(find("many"), [["message", ["n" => 1]], ["message", ["n" => 2]], ["message", ["n" => 3]]]);
    want(find("key"), [["message", [1, "two", null]]]);
    want(find("rolled back"), []);
}
