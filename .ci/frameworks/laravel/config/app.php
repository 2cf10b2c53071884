<?php

return [
    "name" => "shop",
    "env" => "testing",
    "debug" => true,
    "key" => str_repeat("k", 32),
    "cipher" => "AES-256-CBC",
    "timezone" => "UTC",
    "locale" => "en",
    "aliases" => [],
    "providers" => [
        Illuminate\Cache\CacheServiceProvider::class,
        Illuminate\Database\DatabaseServiceProvider::class,
        Illuminate\Filesystem\FilesystemServiceProvider::class,
        Illuminate\Foundation\Providers\ConsoleSupportServiceProvider::class,
        Illuminate\Queue\QueueServiceProvider::class,
        Illuminate\View\ViewServiceProvider::class,
    ],
];
