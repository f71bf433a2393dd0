// pgx does what applications do; exit code 0 if all of it goes as with Postgres itself.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

type pgxDriver struct{}

type pgxSession struct{ conn *pgx.Conn }

func open(change func(config *pgx.ConnConfig)) *pgx.Conn {
	config, err := pgx.ParseConfig(os.Getenv("TENANTRY_URL"))
	must(err)
	if change != nil {
		change(config)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	must(err)
	return conn
}

func (pgxDriver) connect() session { return pgxSession{open(nil)} }

func (pgxDriver) code(err error) string {
	var known *pgconn.PgError
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

func (s pgxSession) run(sql string) error {
	_, err := s.conn.Exec(ctx, sql)
	return err
}

func (s pgxSession) one(sql string) (value string, err error) {
	err = s.conn.QueryRow(ctx, sql).Scan(&value)
	return
}

func (s pgxSession) close() { s.conn.Close(ctx) }

// The driver prepares every text that it sees, and keeps it.
func preparedStatements() {
	first, second := open(nil), open(nil)
	defer first.Close(ctx)
	defer second.Close(ctx)
	for number := 0; number < 20; number++ {
		for _, conn := range []*pgx.Conn{first, second} {
			var text string
			must(conn.QueryRow(ctx, "SELECT owner || $1::text FROM things WHERE id = 1", fmt.Sprint(number)).Scan(&text))
			same(text, tenant+fmt.Sprint(number))
		}
		tx, err := first.Begin(ctx)
		must(err)
		var id int
		must(tx.QueryRow(ctx, "SELECT id + $1::int FROM things WHERE id = 2", number).Scan(&id))
		same(id, number+2)
		must(tx.Commit(ctx))
	}
	_, err := first.Prepare(ctx, "by_id", "SELECT body FROM things WHERE id = $1")
	must(err)
	for number := 1; number < 5; number++ {
		var body string
		must(first.QueryRow(ctx, "by_id", number).Scan(&body))
		same(len(body), 50)
	}
	must(first.Deallocate(ctx, "by_id"))
}

func simpleProtocol() {
	conn := open(func(config *pgx.ConnConfig) { config.PreferSimpleProtocol = true })
	defer conn.Close(ctx)
	for number := 0; number < 5; number++ {
		var found int
		must(conn.QueryRow(ctx, "SELECT $1::int", number).Scan(&found))
		same(found, number)
	}
}

func pipelining() {
	conn := open(nil)
	defer conn.Close(ctx)
	batch := &pgx.Batch{}
	for number := 0; number < 50; number++ {
		batch.Queue("SELECT $1::int", number)
	}
	results := conn.SendBatch(ctx, batch)
	for number := 0; number < 50; number++ {
		var found int
		must(results.QueryRow().Scan(&found))
		same(found, number)
	}
	must(results.Close())
	bad := &pgx.Batch{}
	bad.Queue("SELECT 1")
	bad.Queue("SELECT 1 / 0")
	bad.Queue("SELECT 2")
	same(pgxDriver{}.code(conn.SendBatch(ctx, bad).Close()), "22012")
	ownRows(pgxSession{conn})
}

func copyBothWays() {
	conn := open(nil)
	defer conn.Close(ctx)
	run(pgxSession{conn}, "CREATE TABLE IF NOT EXISTS copied_go (n int, text text)")
	run(pgxSession{conn}, "TRUNCATE copied_go")
	var rows [][]interface{}
	for number := 0; number < 5000; number++ {
		rows = append(rows, []interface{}{number, strings.Repeat("x", 100)})
	}
	count, err := conn.CopyFrom(ctx, pgx.Identifier{"copied_go"}, []string{"n", "text"}, pgx.CopyFromRows(rows))
	must(err)
	same(count, 5000)
	var out bytes.Buffer
	_, err = conn.PgConn().CopyTo(ctx, &out, "COPY copied_go TO STDOUT")
	must(err)
	same(out.Len() > 500000, true)
	_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader("not a number\tx\n"), "COPY copied_go FROM STDIN")
	same(pgxDriver{}.code(err), "22P02")
	same(one(pgxSession{conn}, "SELECT count(*)::text FROM copied_go"), 5000)
}

func cancel() {
	conn := open(nil)
	defer conn.Close(ctx)
	go func() {
		time.Sleep(300 * time.Millisecond)
		must(conn.PgConn().CancelRequest(ctx))
	}()
	_, err := conn.Exec(ctx, "SELECT pg_sleep(60)")
	same(pgxDriver{}.code(err), "57014")
	same(one(pgxSession{conn}, "SELECT 'after'::text"), "after")
}

func startupSettings() {
	conn := open(func(config *pgx.ConnConfig) {
		config.RuntimeParams = map[string]string{"application_name": "driver", "TimeZone": "Asia/Tokyo", "work_mem": "8888kB"}
	})
	defer conn.Close(ctx)
	for name, value := range map[string]string{"application_name": "driver", "TimeZone": "Asia/Tokyo", "work_mem": "8888kB"} {
		same(show(pgxSession{conn}, name), value)
	}
	same(conn.PgConn().ParameterStatus("TimeZone"), "Asia/Tokyo")
}

func listen() {
	conn, other := open(nil), open(nil)
	defer conn.Close(ctx)
	defer other.Close(ctx)
	run(pgxSession{conn}, "LISTEN news_"+tenant)
	for number := 0; number < 3; number++ {
		run(pgxSession{other}, fmt.Sprintf("NOTIFY news_%s, 'item %d'", tenant, number))
		notification, err := conn.WaitForNotification(ctx)
		must(err)
		same(notification.Payload, fmt.Sprintf("item %d", number))
	}
}

// Binary formats, as this driver does it always.
func types() {
	conn := open(nil)
	defer conn.Close(ctx)
	for round := 0; round < 3; round++ {
		var numbers []int32
		var texts []*string
		var blob []byte
		var number float64
		var null *string
		b := "b\"c"
		must(conn.QueryRow(ctx, "SELECT $1::int[], $2::text[], $3::bytea, $4::float8, $5::text",
			[]int32{1, 2}, []*string{&b, nil}, []byte{0, 255}, 1.5, nil).Scan(&numbers, &texts, &blob, &number, &null))
		same(numbers, "[1 2]")
		same(*texts[0], b)
		same(texts[1] == nil && null == nil, true)
		same(blob, "[0 255]")
		same(number, 1.5)
	}
}

func notices() {
	heard := ""
	conn := open(func(config *pgx.ConnConfig) {
		config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { heard += notice.Message }
	})
	defer conn.Close(ctx)
	run(pgxSession{conn}, "DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
	same(heard, "hear")
}

func manyAtOnce() {
	var group sync.WaitGroup
	troubles := make(chan string, 8)
	for number := 0; number < 8; number++ {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			troubles <- attempt(func() {
				conn := open(nil)
				defer conn.Close(ctx)
				for round := 0; round < 10; round++ {
					must(conn.BeginFunc(ctx, func(tx pgx.Tx) error {
						var owner string
						var found int
						err := tx.QueryRow(ctx, "SELECT string_agg(DISTINCT owner, ','), $1::int FROM things", number).Scan(&owner, &found)
						same(owner, tenant)
						same(found, number)
						return err
					}))
				}
			})
		}(number)
	}
	group.Wait()
	close(troubles)
	for trouble := range troubles {
		same(trouble, "")
	}
}

func main() {
	report("pgx", append([]check{
		{"prepared_statements", preparedStatements}, {"simple_protocol", simpleProtocol}, {"pipelining", pipelining},
		{"copy", copyBothWays}, {"cancel", cancel}, {"startup_settings", startupSettings}, {"listen", listen}, {"types", types},
		{"notices", notices}, {"many_at_once", manyAtOnce},
	}, portable(pgxDriver{})...))
}
