// lib/pq, under database/sql, does what applications do; exit code 0 if all of it goes as with Postgres itself.
package main

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
)

var pool = func() *sql.DB {
	pool, err := sql.Open("postgres", os.Getenv("TENANTRY_URL"))
	must(err)
	pool.SetMaxIdleConns(0)
	return pool
}()

type pqDriver struct{}

type pqSession struct{ conn *sql.Conn }

func open() *sql.Conn {
	conn, err := pool.Conn(ctx)
	must(err)
	return conn
}

func (pqDriver) connect() session { return pqSession{open()} }

func (pqDriver) code(err error) string {
	var known *pq.Error
	if errors.As(err, &known) {
		return string(known.Code)
	}
	return ""
}

func (s pqSession) run(sql string) error {
	_, err := s.conn.ExecContext(ctx, sql)
	return err
}

func (s pqSession) one(sql string) (value string, err error) {
	err = s.conn.QueryRowContext(ctx, sql).Scan(&value)
	return
}

func (s pqSession) close() { s.conn.Close() }

func preparedStatements() {
	first, second := open(), open()
	defer first.Close()
	defer second.Close()
	var statements []*sql.Stmt
	for _, conn := range []*sql.Conn{first, second} {
		statement, err := conn.PrepareContext(ctx, "SELECT owner || $1::text FROM things WHERE id = 1")
		must(err)
		defer statement.Close()
		statements = append(statements, statement)
	}
	for number := 0; number < 20; number++ {
		for _, statement := range statements {
			var text string
			must(statement.QueryRow(fmt.Sprint(number)).Scan(&text))
			same(text, tenant+fmt.Sprint(number))
		}
		tx, err := first.BeginTx(ctx, nil)
		must(err)
		var text string
		must(tx.Stmt(statements[0]).QueryRow("x").Scan(&text))
		must(tx.Commit())
	}
	// Unnamed statements: Parse and Describe, then Bind and Execute, with a Sync between.
	for number := 0; number < 20; number++ {
		var found int
		must(second.QueryRowContext(ctx, "SELECT $1::int + 1", number).Scan(&found))
		same(found, number+1)
	}
}

func copyIn() {
	conn := open()
	defer conn.Close()
	run(pqSession{conn}, "CREATE TABLE IF NOT EXISTS copied_pq (n int, text text)")
	run(pqSession{conn}, "TRUNCATE copied_pq")
	tx, err := conn.BeginTx(ctx, nil)
	must(err)
	statement, err := tx.Prepare(pq.CopyIn("copied_pq", "n", "text"))
	must(err)
	for number := 0; number < 5000; number++ {
		_, err = statement.Exec(number, strings.Repeat("x", 100))
		must(err)
	}
	_, err = statement.Exec()
	must(err)
	must(statement.Close())
	must(tx.Commit())
	same(one(pqSession{conn}, "SELECT count(*)::text FROM copied_pq"), 5000)
}

func cancel() {
	conn := open()
	defer conn.Close()
	for round := 0; round < 2; round++ {
		limited, stop := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err := conn.ExecContext(limited, "SELECT pg_sleep(60)")
		stop()
		// The driver drops a connection whose statement it has cancelled.
		if round > 0 && errors.Is(err, sqldriver.ErrBadConn) {
			break
		}
		if code := (pqDriver{}).code(err); code != "57014" && !errors.Is(err, context.DeadlineExceeded) {
			panic(err)
		}
	}
	next := open()
	defer next.Close()
	same(one(pqSession{next}, "SELECT 'after'::text"), "after")
}

func startupSettings() {
	other, err := sql.Open("postgres", os.Getenv("TENANTRY_URL")+"&application_name=driver&TimeZone=Asia/Tokyo&work_mem=8888kB")
	must(err)
	defer other.Close()
	for name, value := range map[string]string{"application_name": "driver", "TimeZone": "Asia/Tokyo", "work_mem": "8888kB"} {
		var found string
		must(other.QueryRow("SELECT current_setting($1)", name).Scan(&found))
		same(found, value)
	}
}

func listen() {
	listener := pq.NewListener(os.Getenv("TENANTRY_URL"), time.Second, time.Second, nil)
	defer listener.Close()
	must(listener.Listen("news_" + tenant))
	for number := 0; number < 3; number++ {
		_, err := pool.Exec(fmt.Sprintf("NOTIFY news_%s, 'item %d'", tenant, number))
		must(err)
		select {
		case notification := <-listener.Notify:
			same(notification.Extra, fmt.Sprintf("item %d", number))
		case <-time.After(5 * time.Second):
			panic("nothing heard")
		}
	}
	must(listener.Ping())
}

func types() {
	for _, more := range []string{"", "&binary_parameters=yes"} {
		other, err := sql.Open("postgres", os.Getenv("TENANTRY_URL")+more)
		must(err)
		var numbers []int64
		var texts []sql.NullString
		var blob []byte
		var null *string
		must(other.QueryRow("SELECT $1::int[], $2::text[], $3::bytea, $4::text", pq.Array([]int64{1, 2}),
			pq.Array([]sql.NullString{{String: "b\"c", Valid: true}, {}}), []byte{0, 255}, nil).
			Scan(pq.Array(&numbers), pq.Array(&texts), &blob, &null))
		same(numbers, "[1 2]")
		same(texts, "[{b\"c true} { false}]")
		same(blob, "[0 255]")
		same(null == nil, true)
		must(other.Close())
	}
}

func notices() {
	connector, err := pq.NewConnector(os.Getenv("TENANTRY_URL"))
	must(err)
	heard := ""
	other := sql.OpenDB(pq.ConnectorWithNoticeHandler(connector, func(notice *pq.Error) { heard += notice.Message }))
	defer other.Close()
	_, err = other.Exec("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
	must(err)
	same(heard, "hear")
}

func manyAtOnce() {
	shared, err := sql.Open("postgres", os.Getenv("TENANTRY_URL"))
	must(err)
	defer shared.Close()
	shared.SetMaxOpenConns(8)
	statement, err := shared.Prepare("SELECT string_agg(DISTINCT owner, ','), $1::int FROM things")
	must(err)
	var group sync.WaitGroup
	troubles := make(chan string, 16)
	for number := 0; number < 16; number++ {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			troubles <- attempt(func() {
				for round := 0; round < 10; round++ {
					var owner string
					var found int
					must(statement.QueryRow(number).Scan(&owner, &found))
					same(owner, tenant)
					same(found, number)
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
	report("lib/pq", append([]check{
		{"prepared_statements", preparedStatements}, {"copy", copyIn}, {"cancel", cancel}, {"startup_settings", startupSettings},
		{"listen", listen}, {"types", types}, {"notices", notices}, {"many_at_once", manyAtOnce},
	}, portable(pqDriver{})...))
}
