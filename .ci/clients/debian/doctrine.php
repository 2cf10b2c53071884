<?php
// The program prints the tables that Doctrine finds, or the error of Doctrine: first without a filter, and then with
// the schema_filter in its argument.
require "/usr/share/php/Doctrine/DBAL/autoload.php";

use Doctrine\DBAL\Configuration;
use Doctrine\DBAL\DriverManager;

$connection = [
    "driver" => "pdo_pgsql", "host" => getenv("PGHOST"), "port" => getenv("PGPORT"),
    "dbname" => getenv("PGDATABASE"), "user" => getenv("PGUSER"),
];

// Symfony makes this function from its setting schema_filter.
$filtered = new Configuration();
$filtered->setSchemaAssetsFilter(fn ($asset) => (bool) preg_match($argv[1], is_string($asset) ? $asset : $asset->getName()));

foreach ([new Configuration(), $filtered] as $configuration) {
    try {
        $schema = DriverManager::getConnection($connection, $configuration)->createSchemaManager()->introspectSchema();
        echo implode(", ", array_map(fn ($table) => $table->getName(), $schema->getTables())), "\n";
    } catch (Doctrine\DBAL\Exception $error) {
        echo $error->getMessage(), "\n";
    }
}
