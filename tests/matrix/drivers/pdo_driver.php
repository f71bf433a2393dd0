<?php
// PDO's driver for Postgres does what applications do; exit code 0 if all of it goes as with Postgres itself.
declare(strict_types=1);

$tenant = getenv('TENANTRY_TENANT');
const LARGE = 8_000_000;

function connected(array $options = []): PDO
{
    $address = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
    $options += [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION];
    return new PDO("$address;sslmode=disable", getenv('PGUSER'), getenv('PGPASSWORD'), $options);
}

function one(PDO $db, string $sql, array $values = []): mixed
{
    if (!$values) {
        return $db->query($sql)->fetchColumn();
    }
    $statement = $db->prepare($sql);
    $statement->execute($values);
    return $statement->fetchColumn();
}

function show(PDO $db, string $name): string
{
    return one($db, "SELECT current_setting('$name')");
}

function same(mixed $found, mixed $wanted): void
{
    if ($found !== $wanted) {
        throw new Exception('expected ' . json_encode($wanted) . ', got ' . substr(json_encode($found) ?: '?', 0, 200));
    }
}

function fails(PDO $db, string $sql, string $code): void
{
    try {
        $db->exec($sql);
    } catch (PDOException $error) {
        same($error->getCode(), $code);
        return;
    }
    throw new Exception("no error: $sql");
}

/** Three clients, each with its own settings, whichever servers they get. */
function follow(array $settings): array
{
    $clients = [connected(), connected(), connected()];
    $check = function (int $at) use ($clients, $settings): void {
        foreach ($settings[$at] as $name => $value) {
            same(show($clients[$at], $name), $value);
        }
    };
    foreach ($settings as $at => $mine) {
        foreach ($mine as $name => $value) {
            $clients[$at]->exec("SET $name = '$value'");
        }
    }
    for ($turn = 0; $turn < 4; $turn++) {
        $order = [$turn % 3, ($turn + 1) % 3, ($turn + 2) % 3];
        array_map($check, $order);
        $clients[$order[0]]->beginTransaction();
        $clients[$order[1]]->beginTransaction();
        $check($order[1]);
        $check($order[0]);
        $clients[$order[0]]->commit();
        $clients[$order[1]]->rollBack();
    }
    return $clients;
}

function own_rows(): void
{
    global $tenant;
    $db = connected();
    same(one($db, "SELECT string_agg(DISTINCT owner, ',') FROM things"), $tenant);
    same(one($db, 'SELECT current_schema'), "schema_$tenant");
}

function prepared_statements(): void
{
    global $tenant;
    [$first, $second] = [connected(), connected()];
    $sql = 'SELECT owner || ?::text FROM things WHERE id = 1';
    $statements = array_map(fn (PDO $db) => $db->prepare($sql), [$first, $second]);
    for ($number = 0; $number < 20; $number++) {
        foreach ($statements as $statement) {
            $statement->execute([$number]);
            same($statement->fetchColumn(), "$tenant$number");
        }
        $first->beginTransaction();
        $statements[0]->execute(['x']);
        same($statements[0]->fetchColumn(), "{$tenant}x");
        $first->commit();
    }
    // A statement that goes away says DEALLOCATE, in a transaction as well.
    unset($statements, $statement);
    $first->beginTransaction();
    for ($number = 0; $number < 5; $number++) {
        same((int) one($first, "SELECT $number + ?::int", [1]), $number + 1);
    }
    $first->commit();
    same((int) one($first, 'SELECT 1 + ?::int', [1]), 2);
}

function emulated_statements(): void
{
    global $tenant;
    $db = connected([PDO::ATTR_EMULATE_PREPARES => true]);
    same(one($db, 'SELECT owner FROM things WHERE id = ?', [3]), $tenant);
    $db = connected([PDO::PGSQL_ATTR_DISABLE_PREPARES => true]);
    same(one($db, 'SELECT owner FROM things WHERE id = ?', [3]), $tenant);
}

function copy_both_ways(): void
{
    $db = connected();
    $db->exec('CREATE TABLE IF NOT EXISTS copied_php (n int, text text)');
    $db->exec('TRUNCATE copied_php');
    $rows = array_map(fn (int $n) => "$n\t" . str_repeat('x', 100), range(1, 5000));
    same($db->pgsqlCopyFromArray('copied_php', $rows), true);
    same((int) one($db, 'SELECT count(*) FROM copied_php'), 5000);
    same(count($db->pgsqlCopyToArray('copied_php')), 5000);
    try {
        $db->pgsqlCopyFromArray('copied_php', ["not a number\tx"]);
        throw new Exception('a bad row was accepted');
    } catch (PDOException $error) {
        same((int) one($db, 'SELECT count(*) FROM copied_php'), 5000);
    }
}

function reported_settings(): void
{
    $clients = follow([
        ['application_name' => 'one', 'DateStyle' => 'ISO, DMY', 'TimeZone' => 'Asia/Tokyo'],
        ['application_name' => 'two', 'DateStyle' => 'ISO, YMD', 'TimeZone' => 'America/Lima'],
        ['application_name' => 'three', 'DateStyle' => 'ISO, MDY', 'TimeZone' => 'Europe/Rome'],
    ]);
    $clients[0]->exec('RESET TimeZone');
    same(show($clients[0], 'TimeZone'), show(connected(), 'TimeZone'));
    same(show($clients[1], 'TimeZone'), 'America/Lima');
}

function unreported_settings(): void
{
    $clients = follow([
        ['statement_timeout' => '61s', 'work_mem' => '1111kB', 'custom.key' => 'one'],
        ['statement_timeout' => '62s', 'work_mem' => '2222kB', 'custom.key' => 'two'],
        ['statement_timeout' => '63s', 'work_mem' => '3333kB', 'custom.key' => 'three'],
    ]);
    $clients[0]->exec('RESET work_mem');
    $clients[1]->exec('RESET ALL');
    one($clients[2], "SELECT set_config('work_mem', '4444kB', false)");
    foreach ([[0, '4MB'], [1, '4MB'], [2, '4444kB']] as [$at, $value]) {
        same(show($clients[$at], 'work_mem'), $value);
    }
    same(show($clients[0], 'statement_timeout'), '61s');
}

function set_local(): void
{
    [$client, $other] = [connected(), connected()];
    $client->beginTransaction();
    $client->exec("SET LOCAL statement_timeout = '77s'");
    same(show($client, 'statement_timeout'), '77s');
    $client->commit();
    same(show($other, 'statement_timeout'), '0');
    same(show($client, 'statement_timeout'), '0');
    foreach (['commit' => '5555kB', 'rollBack' => '6666kB'] as $end => $value) {
        $client->beginTransaction();
        $client->exec("SET work_mem = '$value'");
        $client->$end();
        one($other, 'SELECT 1');
        same(show($client, 'work_mem'), '5555kB');
    }
}

function listen(): void
{
    global $tenant;
    [$client, $other] = [connected(), connected()];
    $client->exec("LISTEN news_$tenant");
    $heard = [];
    for ($number = 0; $number < 3; $number++) {
        $other->exec("NOTIFY news_$tenant, 'item $number'");
        $notify = $client->pgsqlGetNotify(PDO::FETCH_ASSOC, 5000);
        $heard[] = $notify ? $notify['payload'] : null;
    }
    same($heard, ['item 0', 'item 1', 'item 2']);
}

function large_rows(): void
{
    $db = connected();
    same(strlen(one($db, "SELECT repeat('x', " . LARGE . ')')), LARGE);
    same((int) one($db, 'SELECT length(?)', [str_repeat('x', LARGE)]), LARGE);
}

function types(): void
{
    $db = connected();
    $statement = $db->prepare('SELECT ?::int[], ?::bool, ?::text, ?::bytea');
    $statement->bindValue(1, '{1,2}');
    $statement->bindValue(2, true, PDO::PARAM_BOOL);
    $statement->bindValue(3, null, PDO::PARAM_NULL);
    $statement->bindValue(4, "\x00\xff", PDO::PARAM_LOB);
    $statement->execute();
    $row = $statement->fetch(PDO::FETCH_NUM);
    same([$row[0], $row[1], $row[2]], ['{1,2}', true, null]);
    same(bin2hex(stream_get_contents($row[3])), '00ff');
}

function cursors(): void
{
    $db = connected();
    $db->beginTransaction();
    $statement = $db->prepare('SELECT n FROM generate_series(1, 100) n', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $statement->execute();
    same($statement->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST)[0], 100);
    same($statement->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_FIRST)[0], 1);
    $statement = null;
    $db->commit();
}

function errors(): void
{
    $db = connected();
    fails($db, "INSERT INTO things VALUES (1, 'twice', '')", '23505');
    $db->beginTransaction();
    fails($db, 'SELECT 1 / 0', '22012');
    fails($db, 'SELECT 1', '25P02');
    $db->rollBack();
    $db->beginTransaction();
    $db->exec('SAVEPOINT here');
    fails($db, 'SELECT * FROM no_such_table', '42P01');
    $db->exec('ROLLBACK TO here');
    same(one($db, "SELECT 'alive'"), 'alive');
    $db->commit();
}

function temp_tables(): void
{
    [$client, $other] = [connected(), connected()];
    $client->exec('CREATE TEMP TABLE kept (n int)');
    for ($number = 0; $number < 3; $number++) {
        $client->beginTransaction();
        $client->exec("INSERT INTO kept VALUES ($number)");
        $client->commit();
        fails($other, 'SELECT * FROM kept', '42P01');
    }
    same((int) one($client, 'SELECT sum(n) FROM kept'), 3);
}

/** lastInsertId asks lastval. */
function sequences(): void
{
    [$client, $other] = [connected(), connected()];
    $client->exec('CREATE TABLE IF NOT EXISTS drawn_php (id serial, n int)');
    for ($number = 0; $number < 3; $number++) {
        $mine = one($client, 'INSERT INTO drawn_php (n) VALUES (?) RETURNING id', [1]);
        $others = one($other, 'INSERT INTO drawn_php (n) VALUES (?) RETURNING id', [2]);
        same($client->lastInsertId(), (string) $mine);
        same($other->lastInsertId('drawn_php_id_seq'), (string) $others);
    }
}

function large_objects(): void
{
    $db = connected();
    $db->beginTransaction();
    $id = $db->pgsqlLOBCreate();
    $stream = $db->pgsqlLOBOpen($id, 'w');
    fwrite($stream, str_repeat('text', 1000));
    $stream = null;
    $db->commit();
    $db->beginTransaction();
    $stream = $db->pgsqlLOBOpen($id, 'r');
    same(stream_get_contents($stream), str_repeat('text', 1000));
    $stream = null;
    same($db->pgsqlLOBUnlink($id), true);
    $db->commit();
}

function reconnect_after_drain(): void
{
    $db = connected();
    one($db, 'SELECT 1');
    system(getenv('TENANTRY_DRAIN'));
    try {
        one($db, 'SELECT 1');
    } catch (PDOException $error) {
        if (!str_contains($error->getMessage(), 'terminating connection')) {
            throw $error;
        }
        own_rows();
        return;
    }
    throw new Exception('the connection outlived the drain');
}

$checks = [
    'own_rows', 'prepared_statements', 'emulated_statements', 'copy_both_ways', 'reported_settings', 'unreported_settings',
    'set_local', 'listen', 'large_rows', 'types', 'cursors', 'errors', 'temp_tables', 'sequences', 'large_objects', 'reconnect_after_drain',
];
echo 'driver PDO ' . phpversion('pdo_pgsql') . "\n";
$failed = 0;
foreach ($checks as $check) {
    try {
        $check();
        echo 'ok ' . str_replace('copy_both_ways', 'copy', $check) . "\n";
    } catch (Throwable $error) {
        $failed++;
        $check = str_replace('copy_both_ways', 'copy', $check);
        echo "FAILED $check: line {$error->getLine()}: " . str_replace("\n", ' ', $error->getMessage()) . "\n";
    }
}
echo $failed ? "failed $failed of " . count($checks) . " checks\n" : 'ok ' . count($checks) . " checks\n";
exit($failed ? 1 : 0);
