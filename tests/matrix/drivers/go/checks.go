// What the Go programs have in common: how checks are run and reported, and those that need nothing but SQL.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

const large = 8000000

var (
	tenant = os.Getenv("TENANTRY_TENANT")
	ctx    = context.Background()
)

// session is one connection of a driver.
type session interface {
	run(sql string) error
	// one is the first value of the first row, as text.
	one(sql string) (string, error)
	close()
}

// driver opens sessions and knows its errors.
type driver interface {
	connect() session
	code(err error) string
}

type check struct {
	name string
	run  func()
}

// version is set by the linker.
var version = "?"

// report runs all checks, says which failed, and ends the process.
func report(name string, checks []check) {
	fmt.Println("driver", name, version)
	failed := 0
	for _, each := range checks {
		if why := attempt(each.run); why != "" {
			failed++
			fmt.Printf("FAILED %s: %s\n", each.name, strings.ReplaceAll(why, "\n", " "))
		} else {
			fmt.Println("ok", each.name)
		}
	}
	if failed > 0 {
		fmt.Printf("failed %d of %d checks\n", failed, len(checks))
		os.Exit(1)
	}
	fmt.Printf("ok %d checks\n", len(checks))
}

func attempt(run func()) (why string) {
	defer func() {
		if trouble := recover(); trouble != nil {
			why = fmt.Sprint(trouble)
		}
	}()
	run()
	return ""
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func same(found, wanted interface{}) {
	if f, w := fmt.Sprint(found), fmt.Sprint(wanted); f != w {
		if len(f) > 200 {
			f = f[:200]
		}
		panic(fmt.Sprintf("expected %q, got %q", w, f))
	}
}

func run(s session, sql string) { must(s.run(sql)) }

func one(s session, sql string) string {
	value, err := s.one(sql)
	must(err)
	return value
}

func show(s session, name string) string {
	return one(s, "SELECT current_setting('"+name+"')")
}

func ownRows(s session) {
	same(one(s, "SELECT string_agg(DISTINCT owner, ',') FROM things"), tenant)
	same(one(s, "SELECT current_schema::text"), "schema_"+tenant)
}

func portable(d driver) []check {
	fails := func(s session, sql, code string) {
		err := s.run(sql)
		if err == nil {
			panic("no error: " + sql)
		}
		same(d.code(err), code)
	}
	with := func(count int, then func(all []session)) func() {
		return func() {
			var all []session
			for at := 0; at < count; at++ {
				all = append(all, d.connect())
			}
			defer func() {
				for _, each := range all {
					each.close()
				}
			}()
			then(all)
		}
	}
	// follow: three clients, each with its own settings, whichever servers they get.
	follow := func(names []string, values [][]string, then func(all []session)) func() {
		return with(3, func(all []session) {
			for at, mine := range values {
				for i, name := range names {
					run(all[at], fmt.Sprintf("SET %s = '%s'", name, mine[i]))
				}
			}
			check := func(at int) {
				for i, name := range names {
					same(show(all[at], name), values[at][i])
				}
			}
			for turn := 0; turn < 4; turn++ {
				first, second, third := turn%3, (turn+1)%3, (turn+2)%3
				check(first)
				check(second)
				check(third)
				run(all[first], "BEGIN")
				run(all[second], "BEGIN")
				check(second)
				check(first)
				run(all[first], "COMMIT")
				run(all[second], "ROLLBACK")
			}
			then(all)
		})
	}
	return []check{
		{"own_rows", with(1, func(all []session) { ownRows(all[0]) })},
		{"reported_settings", follow(
			[]string{"application_name", "DateStyle", "TimeZone"},
			[][]string{{"one", "ISO, DMY", "Asia/Tokyo"}, {"two", "ISO, YMD", "America/Lima"}, {"three", "ISO, MDY", "Europe/Rome"}},
			func(all []session) {
				run(all[0], "RESET TimeZone")
				plain := d.connect()
				defer plain.close()
				same(show(all[0], "TimeZone"), show(plain, "TimeZone"))
				same(show(all[1], "TimeZone"), "America/Lima")
			})},
		{"unreported_settings", follow(
			[]string{"statement_timeout", "work_mem", "custom.key"},
			[][]string{{"61s", "1111kB", "one"}, {"62s", "2222kB", "two"}, {"63s", "3333kB", "three"}},
			func(all []session) {
				run(all[0], "RESET work_mem")
				run(all[1], "RESET ALL")
				one(all[2], "SELECT set_config('work_mem', '4444kB', false)")
				same(show(all[0], "work_mem"), "4MB")
				same(show(all[1], "work_mem"), "4MB")
				same(show(all[2], "work_mem"), "4444kB")
				same(show(all[0], "statement_timeout"), "61s")
			})},
		{"set_local", with(2, func(all []session) {
			client, other := all[0], all[1]
			run(client, "BEGIN")
			run(client, "SET LOCAL statement_timeout = '77s'")
			same(show(client, "statement_timeout"), "77s")
			run(client, "COMMIT")
			same(show(other, "statement_timeout"), "0")
			same(show(client, "statement_timeout"), "0")
			for _, step := range [][]string{{"COMMIT", "5555kB"}, {"ROLLBACK", "6666kB"}} {
				run(client, "BEGIN")
				run(client, "SET work_mem = '"+step[1]+"'")
				run(client, step[0])
				one(other, "SELECT '1'::text")
				same(show(client, "work_mem"), "5555kB")
			}
		})},
		{"large_rows", with(1, func(all []session) {
			same(len(one(all[0], fmt.Sprintf("SELECT repeat('x', %d)", large))), large)
			same(one(all[0], "SELECT length('"+strings.Repeat("x", large)+"')::text"), large)
			ownRows(all[0])
		})},
		{"errors", with(1, func(all []session) {
			fails(all[0], "INSERT INTO things VALUES (1, 'twice', '')", "23505")
			run(all[0], "BEGIN")
			fails(all[0], "SELECT 1 / 0", "22012")
			fails(all[0], "SELECT 1", "25P02")
			run(all[0], "ROLLBACK")
			run(all[0], "BEGIN")
			run(all[0], "SAVEPOINT here")
			fails(all[0], "SELECT * FROM no_such_table", "42P01")
			run(all[0], "ROLLBACK TO here")
			same(one(all[0], "SELECT 'alive'::text"), "alive")
			run(all[0], "COMMIT")
		})},
		{"temp_tables", with(2, func(all []session) {
			run(all[0], "CREATE TEMP TABLE kept (n int)")
			for number := 0; number < 3; number++ {
				run(all[0], "BEGIN")
				run(all[0], fmt.Sprintf("INSERT INTO kept VALUES (%d)", number))
				run(all[0], "COMMIT")
				fails(all[1], "SELECT * FROM kept", "42P01")
			}
			same(one(all[0], "SELECT sum(n)::text FROM kept"), "3")
		})},
		{"advisory_locks", with(2, func(all []session) {
			// One number space per database: a number of this tenant's own.
			key := "hashtext('" + tenant + "')"
			one(all[0], "SELECT pg_advisory_lock("+key+")::text")
			same(one(all[1], "SELECT pg_try_advisory_lock("+key+")::text"), "false")
			one(all[0], "SELECT '1'::text")
			same(one(all[0], "SELECT pg_advisory_unlock("+key+")::text"), "true")
			same(one(all[1], "SELECT pg_try_advisory_lock("+key+")::text"), "true")
		})},
		{"sequences", with(2, func(all []session) {
			// currval and lastval are what this client drew last.
			run(all[0], "CREATE TABLE IF NOT EXISTS drawn (id serial)")
			for number := 0; number < 3; number++ {
				mine := one(all[0], "SELECT nextval('drawn_id_seq')::text")
				same(one(all[0], "SELECT currval('drawn_id_seq')::text"), mine)
				others := one(all[1], "SELECT nextval('drawn_id_seq')::text")
				same(one(all[1], "SELECT lastval()::text"), others)
			}
		})},
		{"reconnect_after_drain", func() {
			client := d.connect()
			ownRows(client)
			must(exec.Command(os.Getenv("TENANTRY_DRAIN")).Run())
			_, err := client.one("SELECT '1'::text")
			if err == nil {
				panic("the connection outlived the drain")
			}
			// A driver that notices the closed connection first has no code.
			if code := d.code(err); code != "" && code != "57P01" {
				panic(err)
			}
			client.close()
			next := d.connect()
			defer next.close()
			ownRows(next)
		}},
	}
}
