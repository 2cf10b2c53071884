<?php
// An app of Laravel, to test its migrations and test databases. The program does what RefreshDatabase and
// DatabaseTruncation do.

use Illuminate\Contracts\Console\Kernel;
use Illuminate\Foundation\Testing\RefreshDatabase;
use Illuminate\Foundation\Testing\RefreshDatabaseState;
use Illuminate\Support\Facades\DB;

error_reporting(E_ALL & ~E_DEPRECATED);
require "/usr/share/php/Illuminate/autoload.php";
require "/usr/share/php/Doctrine/DBAL/autoload.php";

$app = new Illuminate\Foundation\Application(__DIR__);
$app->singleton(Kernel::class, Illuminate\Foundation\Console\Kernel::class);
$app->singleton(Illuminate\Contracts\Debug\ExceptionHandler::class, Illuminate\Foundation\Exceptions\Handler::class);
$app->make(Kernel::class)->bootstrap();

// A TestCase has what RefreshDatabase needs of the class of a test.
class TestCase
{
    use RefreshDatabase;

    private array $ends = [];

    public function __construct(private $app)
    {
    }

    public function run(callable $test): void
    {
        $this->refreshDatabase();
        $test();
        array_walk($this->ends, fn ($end) => $end());
    }

    public function artisan(string $command, array $parameters = []): void
    {
        $kernel = $this->app[Kernel::class];
        if ($kernel->call($command, $parameters) !== 0) {
            throw new LogicException("artisan $command: " . $kernel->output());
        }
    }

    public function beforeApplicationDestroyed(callable $end): void
    {
        $this->ends[] = $end;
    }
}

// Truncates tables as DatabaseTruncation of Laravel 10 does, but for one connection only.
function truncateTables(?array $tablesToTruncate = null): void
{
    $tables = collect(DB::connection()->getDoctrineSchemaManager()->listTableNames());
    $tables = $tablesToTruncate === null ? $tables->diff(["migrations"]) : $tables->intersect($tablesToTruncate);
    $tables->filter(fn ($table) => DB::table($table)->exists())->each(fn ($table) => DB::table($table)->truncate());
}

function want($got, $expected): void
{
    if ($got !== $expected) {
        throw new LogicException("got " . json_encode($got) . ", want " . json_encode($expected));
    }
}

function counts(): array
{
    return array_map(fn ($table) => DB::table($table)->count(), ["orders", "rowcast.notifications", "rowcast.migrations", "rowcast.history"]);
}

function insert(): void
{
    DB::table("orders")->insert(["id" => 1]);
    DB::table("rowcast.notifications")->insert(["recipient" => "alice", "data" => "{}"]);
}

// The second run of the tests finds the schema rowcast, because migrate:fresh drops only the tables of the search_path.
$versions = (int) $argv[1] + 1;
foreach ([1, 2] as $run) {
    RefreshDatabaseState::$migrated = false;
    (new TestCase($app))->run(function () use ($versions) {
        insert();
        want(counts(), [1, 1, $versions, 1]);
    });
    want(counts(), [0, 0, $versions, 1]);
}

insert();
truncateTables(["orders"]);
want(counts(), [0, 1, $versions, 1]);
truncateTables();
want(counts(), [0, 0, 0, 0]);
insert();
want(counts(), [1, 1, 0, 0]);
RefreshDatabaseState::$migrated = false;
(new TestCase($app))->run(fn () => want(counts(), [0, 1, $versions - 1, 1]));
