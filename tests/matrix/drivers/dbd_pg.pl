#!/usr/bin/perl
# DBD::Pg does what applications do; exit code 0 if all of it goes as with Postgres itself.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async :pg_types);

$| = 1;
my $tenant = $ENV{TENANTRY_TENANT};
my $large  = 8_000_000;

sub connected {
    my %options = @_;
    return DBI->connect(
        "dbi:Pg:dbname=$ENV{PGDATABASE}", $ENV{PGUSER}, $ENV{PGPASSWORD},
        { AutoCommit => 1, RaiseError => 1, PrintError => 0, PrintWarn => 0, %options },
    );
}

sub one {
    my ($db, $sql, @values) = @_;
    return ($db->selectrow_array($sql, undef, @values))[0];
}

sub show { return one($_[0], "SELECT current_setting('$_[1]')") }

sub same {
    my ($found, $wanted) = @_;
    $found = 'undef' unless defined $found;
    die "expected '$wanted', got '" . substr($found, 0, 200) . "'\n" unless $found eq $wanted;
    return;
}

sub fails {
    my ($db, $sql, $code) = @_;
    my $fine = eval { $db->do($sql); 1 };
    die "no error: $sql\n" if $fine;
    same($db->state, $code);
    return;
}

# Three clients, each with its own settings, whichever servers they get.
sub follow {
    my ($settings, $then) = @_;
    my @clients = map { connected() } 0 .. 2;
    my $check = sub {
        my ($at) = @_;
        same(show($clients[$at], $_), $settings->[$at]{$_}) for sort keys %{ $settings->[$at] };
    };
    for my $at (0 .. 2) {
        $clients[$at]->do("SET $_ = '$settings->[$at]{$_}'") for sort keys %{ $settings->[$at] };
    }
    for my $turn (0 .. 3) {
        my @order = map { ($_ + $turn) % 3 } 0 .. 2;
        $check->($_) for @order;
        $clients[$_]->begin_work for @order[0, 1];
        $check->($_) for @order[1, 0];
        $clients[ $order[0] ]->commit;
        $clients[ $order[1] ]->rollback;
    }
    $then->(@clients);
    $_->disconnect for @clients;
    return;
}

my @checks = (
    own_rows => sub {
        my $db = connected();
        same(one($db, q{SELECT string_agg(DISTINCT owner, ',') FROM things}), $tenant);
        same(one($db, 'SELECT current_schema'), "schema_$tenant");
        $db->disconnect;
    },
    prepared_statements => sub {
        my ($first, $second) = (connected(pg_switch_prepared => 1), connected(pg_switch_prepared => 1));
        my @statements = map { $_->prepare('SELECT owner || ?::text FROM things WHERE id = 1') } ($first, $second);
        for my $number (0 .. 19) {
            for my $statement (@statements) {
                $statement->execute($number);
                same(($statement->fetchrow_array)[0], "$tenant$number");
                $statement->finish;
            }
            $first->begin_work;
            $statements[0]->execute('x');
            same(($statements[0]->fetchrow_array)[0], "${tenant}x");
            $statements[0]->finish;
            $first->commit;
        }
        undef @statements;
        # Dropped handles are deallocated, inside transactions as well.
        $first->begin_work;
        for my $number (1 .. 5) {
            my $statement = $first->prepare("SELECT $number + ?::int", { pg_prepare_now => 1 });
            $statement->execute(1);
            same(($statement->fetchrow_array)[0], $number + 1);
            $statement->finish;
        }
        $first->commit;
        same(one($first, 'SELECT 1 + ?::int', 1), 2);
        $_->disconnect for ($first, $second);
    },
    copy => sub {
        my $db = connected();
        $db->do('CREATE TABLE IF NOT EXISTS copied_perl (n int, text text)');
        $db->do('TRUNCATE copied_perl');
        $db->do('COPY copied_perl FROM STDIN');
        $db->pg_putcopydata("$_\t" . ('x' x 100) . "\n") for 1 .. 5000;
        $db->pg_putcopyend;
        same(one($db, 'SELECT count(*) FROM copied_perl'), 5000);
        $db->do('COPY copied_perl TO STDOUT');
        my ($line, $rows) = ('', 0);
        $rows++ while $db->pg_getcopydata($line) >= 0;
        same($rows, 5000);
        $db->do('COPY copied_perl FROM STDIN');
        $db->pg_putcopydata("not a number\tx\n");
        die "a bad row was accepted\n" if eval { $db->pg_putcopyend; 1 };
        same($db->state, '22P02');
        same(one($db, 'SELECT count(*) FROM copied_perl'), 5000);
        $db->disconnect;
    },
    cancel => sub {
        my $db = connected();
        $db->do('SELECT pg_sleep(60)', { pg_async => PG_ASYNC });
        select undef, undef, undef, 0.3;
        $db->pg_cancel or die "not cancelled\n";
        same(one($db, "SELECT 'after'"), 'after');
        $db->disconnect;
    },
    reported_settings => sub {
        follow(
            [
                { application_name => 'one',   DateStyle => 'ISO, DMY', TimeZone => 'Asia/Tokyo' },
                { application_name => 'two',   DateStyle => 'ISO, YMD', TimeZone => 'America/Lima' },
                { application_name => 'three', DateStyle => 'ISO, MDY', TimeZone => 'Europe/Rome' },
            ],
            sub {
                my ($first, $second) = @_;
                $first->do('RESET TimeZone');
                my $plain = connected();
                same(show($first, 'TimeZone'), show($plain, 'TimeZone'));
                $plain->disconnect;
                same(show($second, 'TimeZone'), 'America/Lima');
            },
        );
    },
    unreported_settings => sub {
        follow(
            [
                { statement_timeout => '61s', work_mem => '1111kB', 'custom.key' => 'one' },
                { statement_timeout => '62s', work_mem => '2222kB', 'custom.key' => 'two' },
                { statement_timeout => '63s', work_mem => '3333kB', 'custom.key' => 'three' },
            ],
            sub {
                my ($first, $second, $third) = @_;
                $first->do('RESET work_mem');
                $second->do('RESET ALL');
                one($third, "SELECT set_config('work_mem', '4444kB', false)");
                same(show($first,  'work_mem'), '4MB');
                same(show($second, 'work_mem'), '4MB');
                same(show($third,  'work_mem'), '4444kB');
                same(show($first,  'statement_timeout'), '61s');
            },
        );
    },
    set_local => sub {
        my ($client, $other) = (connected(), connected());
        $client->begin_work;
        $client->do(q{SET LOCAL statement_timeout = '77s'});
        same(show($client, 'statement_timeout'), '77s');
        $client->commit;
        same(show($_, 'statement_timeout'), 0) for ($other, $client);
        for my $step ([ commit => '5555kB' ], [ rollback => '6666kB' ]) {
            my ($end, $value) = @$step;
            $client->begin_work;
            $client->do("SET work_mem = '$value'");
            $client->$end;
            one($other, 'SELECT 1');
            same(show($client, 'work_mem'), '5555kB');
        }
        $_->disconnect for ($client, $other);
    },
    listen => sub {
        my ($client, $other) = (connected(), connected());
        $client->do("LISTEN news_$tenant");
        $other->do("NOTIFY news_$tenant, 'item $_'") for 0 .. 2;
        my @heard;
        for (1 .. 50) {
            while (my $notify = $client->pg_notifies) { push @heard, $notify->[2] }
            last if @heard == 3;
            select undef, undef, undef, 0.1;
        }
        same(join('|', @heard), 'item 0|item 1|item 2');
        $_->disconnect for ($client, $other);
    },
    large_rows => sub {
        my $db = connected();
        same(length one($db, "SELECT repeat('x', $large)"), $large);
        same(one($db, 'SELECT length(?)', 'x' x $large), $large);
        $db->disconnect;
    },
    types => sub {
        my $db  = connected();
        my $sql = 'SELECT ?::int[], ?::text[], ?::text';
        my $row = $db->selectrow_arrayref($sql, undef, [ 1, 2 ], [ 'a', undef, 'b"c' ], undef);
        same(join(',', @{ $row->[0] }), '1,2');
        same($row->[1][2], 'b"c');
        die "no null\n" if defined $row->[1][1] || defined $row->[2];
        my $statement = $db->prepare('SELECT ?::bytea');
        $statement->bind_param(1, "\x00\xff", { pg_type => PG_BYTEA });
        $statement->execute;
        same(($statement->fetchrow_array)[0], "\x00\xff");
        $db->disconnect;
    },
    notices => sub {
        my $db = connected(PrintWarn => 1);
        my $heard = '';
        local $SIG{__WARN__} = sub { $heard .= $_[0] };
        $db->do(q{DO $$ BEGIN RAISE NOTICE 'hear'; END $$});
        die "heard '$heard'\n" unless $heard =~ /NOTICE:  hear/;
        $db->disconnect;
    },
    errors => sub {
        my $db = connected();
        fails($db, q{INSERT INTO things VALUES (1, 'twice', '')}, '23505');
        $db->begin_work;
        fails($db, 'SELECT 1 / 0', '22012');
        fails($db, 'SELECT 1',     '25P02');
        $db->rollback;
        $db->begin_work;
        $db->pg_savepoint('here');
        fails($db, 'SELECT * FROM no_such_table', '42P01');
        $db->pg_rollback_to('here');
        same(one($db, "SELECT 'alive'"), 'alive');
        $db->commit;
        $db->disconnect;
    },
    temp_tables => sub {
        my ($client, $other) = (connected(), connected());
        $client->do('CREATE TEMP TABLE kept (n int)');
        for my $number (0 .. 2) {
            $client->begin_work;
            $client->do('INSERT INTO kept VALUES (?)', undef, $number);
            $client->commit;
            fails($other, 'SELECT * FROM kept', '42P01');
        }
        same(one($client, 'SELECT sum(n) FROM kept'), 3);
        $_->disconnect for ($client, $other);
    },
    # The driver asks currval.
    sequences => sub {
        my ($client, $other) = (connected(), connected());
        $client->do('CREATE TABLE IF NOT EXISTS drawn_perl (id serial PRIMARY KEY, n int)');
        for my $number (1 .. 3) {
            $client->do('INSERT INTO drawn_perl (n) VALUES (?)', undef, 100 + $number);
            $other->do('INSERT INTO drawn_perl (n) VALUES (?)', undef, 200 + $number);
            for my $step ([ $client, 100 ], [ $other, 200 ]) {
                my ($db, $base) = @$step;
                my $id = $db->last_insert_id(undef, undef, 'drawn_perl', undef);
                same(one($db, "SELECT n FROM drawn_perl WHERE id = $id"), $base + $number);
            }
            $client->do('DELETE FROM drawn_perl');
        }
        $_->disconnect for ($client, $other);
    },
    large_objects => sub {
        my $db = connected();
        $db->begin_work;
        my $id = $db->pg_lo_creat($db->{pg_INV_WRITE} | $db->{pg_INV_READ});
        my $fd = $db->pg_lo_open($id, $db->{pg_INV_WRITE});
        same($db->pg_lo_write($fd, 'text' x 1000, 4000), 4000);
        $db->pg_lo_close($fd);
        $db->commit;
        $db->begin_work;
        $fd = $db->pg_lo_open($id, $db->{pg_INV_READ});
        my $found = '';
        same($db->pg_lo_read($fd, $found, 4000), 4000);
        same($found, 'text' x 1000);
        $db->pg_lo_unlink($id);
        $db->commit;
        $db->disconnect;
    },
    reconnect_after_drain => sub {
        my $db = connected();
        one($db, 'SELECT 1');
        system($ENV{TENANTRY_DRAIN}) == 0 or die "no drain\n";
        die "the connection outlived the drain\n" if eval { one($db, 'SELECT 1'); 1 };
        die "another error: $@" unless $@ =~ /terminating connection/;
        die "ping says that it lives\n" if $db->ping;
        my $next = $db->clone;
        same(one($next, q{SELECT string_agg(DISTINCT owner, ',') FROM things}), $tenant);
        $next->disconnect;
    },
);

print "driver DBD::Pg $DBD::Pg::VERSION\n";
my ($count, $failed) = (0, 0);
while (my ($name, $check) = splice @checks, 0, 2) {
    $count++;
    if (eval { $check->(); 1 }) {
        print "ok $name\n";
    } else {
        $failed++;
        (my $why = $@) =~ s/\n/ /g;
        print "FAILED $name: $why\n";
    }
}
print $failed ? "failed $failed of $count checks\n" : "ok $count checks\n";
exit($failed ? 1 : 0);
