<?php

return [
    "default" => "pgsql",
    "migrations" => "migrations",
    "connections" => [
        "pgsql" => [
            "driver" => "pgsql",
            "host" => getenv("PGHOST"),
            "port" => getenv("PGPORT"),
            "database" => getenv("PGDATABASE"),
            "username" => getenv("PGUSER"),
            "password" => "",
            "charset" => "utf8",
            "prefix" => "",
            "schema" => "public",
        ],
    ],
];
