<?php
// An app whose sessions end 10 s after the last request that does not renew a stream. Its arguments are an address, a
// port and a directory for the sessions. The test puts code of cmd/rowcast/README.md in place of the comment README.

if (PHP_SAPI === 'cli') {
    pcntl_exec(PHP_BINARY, ['-S', "$argv[1]:$argv[2]", __FILE__], ['DIRECTORY' => $argv[3]]);
}

require '/usr/share/php/Illuminate/autoload.php';

use Illuminate\Cache\FileStore;
use Illuminate\Cache\Repository as Cache;
use Illuminate\Config\Repository as Config;
use Illuminate\Container\Container;
use Illuminate\Filesystem\Filesystem;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Illuminate\Session\SessionManager;

// README

$container = new Container;
$container->instance('config', new Config(['session' => [
    'driver' => 'file', 'store' => 'file', 'lifetime' => 10 / 60, 'expire_on_close' => false, 'encrypt' => false, 'lottery' => [0, 1],
    'cookie' => 'laravel_session', 'path' => '/', 'domain' => null, 'secure' => false, 'http_only' => true, 'same_site' => 'lax',
]]));
$cache = new Cache(new FileStore(new Filesystem, getenv('DIRECTORY')));
$sessions = new SessionManager($container);
$sessions->extend('file', fn () => new Illuminate\Session\CacheBasedSessionHandler($cache, 10 / 60));

$request = Request::capture();
$response = (new StartSession($sessions))->handle($request, function (Request $request) {
    $user = $request->session()->get('user');
    switch ($request->path()) {
        case 'login':
            $request->session()->put('user', 42);
            return new Response('', 204);
        case 'rowcast/auth':
            return $user ? new JsonResponse(['recipient' => $user, 'expires_in' => 300]) : new Response('', 401);
        default:
            return new Response($user ? 'signed in' : 'signed out');
    }
});
$response->send();
