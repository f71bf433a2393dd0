// PostgreSQL's JDBC driver does what applications do; exit code 0 if all of it goes as with Postgres itself.

import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;

public class JdbcDriver {
    static final String TENANT = System.getenv("TENANTRY_TENANT");
    static final int LARGE = 8_000_000;

    interface Check {
        void run() throws Exception;
    }

    static Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("sslmode", "disable");
        // Statements are prepared on the server from the second use on.
        properties.setProperty("prepareThreshold", "2");
        for (int at = 0; at < options.length; at += 2) {
            properties.setProperty(options[at], options[at + 1]);
        }
        String address = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        return DriverManager.getConnection("jdbc:postgresql://" + address, properties);
    }

    static void run(Connection db, String sql) throws SQLException {
        try (Statement statement = db.createStatement()) {
            statement.execute(sql);
        }
    }

    static String one(Connection db, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            for (int at = 0; at < values.length; at++) {
                statement.setObject(at + 1, values[at]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                return rows.getString(1);
            }
        }
    }

    static String show(Connection db, String name) throws SQLException {
        return one(db, "SELECT current_setting('" + name + "')");
    }

    static void same(Object found, Object wanted) {
        if (!String.valueOf(found).equals(String.valueOf(wanted))) {
            String text = String.valueOf(found);
            throw new AssertionError("expected " + wanted + ", got " + text.substring(0, Math.min(200, text.length())));
        }
    }

    static void fails(Connection db, String sql, String code) {
        try {
            run(db, sql);
        } catch (SQLException error) {
            same(error.getSQLState(), code);
            return;
        }
        throw new AssertionError("no error: " + sql);
    }

    static void ownRows(Connection db) throws SQLException {
        same(one(db, "SELECT string_agg(DISTINCT owner, ',') FROM things"), TENANT);
        same(one(db, "SELECT current_schema"), "schema_" + TENANT);
    }

    static void ownRows() throws SQLException {
        try (Connection db = connect()) {
            ownRows(db);
        }
    }

    static void preparedStatements() throws SQLException {
        try (Connection first = connect(); Connection second = connect()) {
            List<PreparedStatement> statements = new ArrayList<>();
            for (Connection db : List.of(first, second)) {
                statements.add(db.prepareStatement("SELECT owner || ?::text FROM things WHERE id = 1"));
            }
            for (int number = 0; number < 20; number++) {
                first.setAutoCommit(number % 2 == 0);
                for (PreparedStatement statement : statements) {
                    statement.setString(1, String.valueOf(number));
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        same(rows.getString(1), TENANT + number);
                    }
                }
                if (!first.getAutoCommit()) {
                    first.commit();
                }
            }
            // A table that changes under a prepared statement, as on a direct connection: the driver prepares again.
            first.setAutoCommit(true);
            run(first, "DROP TABLE IF EXISTS changing");
            run(first, "CREATE TABLE changing (a int)");
            run(first, "INSERT INTO changing VALUES (1)");
            for (int number = 0; number < 5; number++) {
                same(one(first, "SELECT * FROM changing"), 1);
            }
            run(first, "ALTER TABLE changing ALTER a TYPE text");
            same(one(first, "SELECT * FROM changing"), 1);
        }
    }

    /** A batch goes out as one pipeline. */
    static void pipelining() throws SQLException {
        try (Connection db = connect("reWriteBatchedInserts", "false")) {
            run(db, "DROP TABLE IF EXISTS batched");
            run(db, "CREATE TABLE batched (n int PRIMARY KEY)");
            db.setAutoCommit(false);
            try (PreparedStatement insert = db.prepareStatement("INSERT INTO batched VALUES (?)")) {
                for (int number = 0; number < 1000; number++) {
                    insert.setInt(1, number);
                    insert.addBatch();
                }
                same(Arrays.stream(insert.executeBatch()).sum(), 1000);
                db.commit();
                for (int number = 999; number < 1010; number++) {
                    insert.setInt(1, number);
                    insert.addBatch();
                }
                insert.executeBatch();
                throw new AssertionError("the error was lost");
            } catch (BatchUpdateException error) {
                same(error.getSQLState(), "23505");
                db.rollback();
            }
            same(one(db, "SELECT count(*) FROM batched"), 1000);
        }
    }

    static void copy() throws Exception {
        try (Connection db = connect()) {
            run(db, "CREATE TABLE IF NOT EXISTS copied_java (n int, text text)");
            run(db, "TRUNCATE copied_java");
            CopyManager copies = db.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder lines = new StringBuilder();
            for (int number = 0; number < 5000; number++) {
                lines.append(number).append('\t').append("x".repeat(100)).append('\n');
            }
            same(copies.copyIn("COPY copied_java FROM STDIN", new StringReader(lines.toString())), 5000);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            copies.copyOut("COPY copied_java TO STDOUT (FORMAT BINARY)", out);
            same(out.size() > 500_000, true);
            try {
                copies.copyIn("COPY copied_java FROM STDIN", new StringReader("not a number\tx\n"));
                throw new AssertionError("a bad row was accepted");
            } catch (SQLException error) {
                same(error.getSQLState(), "22P02");
            }
            same(one(db, "SELECT count(*) FROM copied_java"), 5000);
        }
    }

    static void cancel() throws Exception {
        try (Connection db = connect(); Statement statement = db.createStatement()) {
            Thread other = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    statement.cancel();
                } catch (Exception error) {
                    throw new IllegalStateException(error);
                }
            });
            other.start();
            try {
                statement.execute("SELECT pg_sleep(60)");
                throw new AssertionError("not cancelled");
            } catch (SQLException error) {
                same(error.getSQLState(), "57014");
            }
            other.join();
            statement.setQueryTimeout(1);
            fails(() -> statement.execute("SELECT pg_sleep(60)"), "57014");
            same(one(db, "SELECT 'after'"), "after");
        }
    }

    static void fails(Check check, String code) throws Exception {
        try {
            check.run();
        } catch (SQLException error) {
            same(error.getSQLState(), code);
            return;
        }
        throw new AssertionError("no error");
    }

    /** Three clients, each with its own settings, whichever servers they get. */
    static List<Connection> follow(String[] names, String[][] values) throws SQLException {
        List<Connection> all = new ArrayList<>();
        for (String[] mine : values) {
            Connection db = connect();
            for (int at = 0; at < names.length; at++) {
                run(db, "SET " + names[at] + " = '" + mine[at] + "'");
            }
            all.add(db);
        }
        for (int turn = 0; turn < 4; turn++) {
            int[] order = {turn % 3, (turn + 1) % 3, (turn + 2) % 3};
            for (int client : order) {
                checkSettings(all.get(client), names, values[client]);
            }
            all.get(order[0]).setAutoCommit(false);
            all.get(order[1]).setAutoCommit(false);
            checkSettings(all.get(order[1]), names, values[order[1]]);
            checkSettings(all.get(order[0]), names, values[order[0]]);
            all.get(order[0]).commit();
            all.get(order[1]).rollback();
            all.get(order[0]).setAutoCommit(true);
            all.get(order[1]).setAutoCommit(true);
        }
        return all;
    }

    static void checkSettings(Connection db, String[] names, String[] values) throws SQLException {
        for (int at = 0; at < names.length; at++) {
            same(show(db, names[at]), values[at]);
        }
    }

    static void reportedSettings() throws SQLException {
        List<Connection> all = follow(new String[] {"application_name", "DateStyle", "TimeZone"}, new String[][] {
            {"one", "ISO, DMY", "Asia/Tokyo"}, {"two", "ISO, YMD", "America/Lima"}, {"three", "ISO, MDY", "Europe/Rome"},
        });
        same(all.get(0).unwrap(PGConnection.class).getParameterStatus("TimeZone"), "Asia/Tokyo");
        run(all.get(0), "RESET TimeZone");
        try (Connection plain = connect()) {
            same(show(all.get(0), "TimeZone"), show(plain, "TimeZone"));
        }
        same(show(all.get(1), "TimeZone"), "America/Lima");
        for (Connection db : all) {
            db.close();
        }
        try (Connection db = connect("ApplicationName", "driver", "options", "-c work_mem=8888kB")) {
            same(show(db, "application_name"), "driver");
            same(show(db, "work_mem"), "8888kB");
        }
    }

    static void unreportedSettings() throws SQLException {
        List<Connection> all = follow(new String[] {"statement_timeout", "work_mem", "custom.key"}, new String[][] {
            {"61s", "1111kB", "one"}, {"62s", "2222kB", "two"}, {"63s", "3333kB", "three"},
        });
        run(all.get(0), "RESET work_mem");
        run(all.get(1), "RESET ALL");
        one(all.get(2), "SELECT set_config('work_mem', '4444kB', false)");
        same(show(all.get(0), "work_mem"), "4MB");
        same(show(all.get(1), "work_mem"), "4MB");
        same(show(all.get(2), "work_mem"), "4444kB");
        same(show(all.get(0), "statement_timeout"), "61s");
        for (Connection db : all) {
            db.close();
        }
    }

    static void setLocal() throws SQLException {
        try (Connection client = connect(); Connection other = connect()) {
            client.setAutoCommit(false);
            run(client, "SET LOCAL statement_timeout = '77s'");
            same(show(client, "statement_timeout"), "77s");
            client.commit();
            same(show(other, "statement_timeout"), "0");
            same(show(client, "statement_timeout"), "0");
            client.commit();
            run(client, "SET work_mem = '5555kB'");
            client.commit();
            one(other, "SELECT 1");
            same(show(client, "work_mem"), "5555kB");
            run(client, "SET work_mem = '6666kB'");
            client.rollback();
            one(other, "SELECT 1");
            same(show(client, "work_mem"), "5555kB");
            client.rollback();
            client.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            same(show(client, "transaction_isolation"), "serializable");
            client.rollback();
            client.setReadOnly(true);
            fails(client, "DELETE FROM things", "25006");
            client.rollback();
            one(other, "SELECT 1");
            same(show(other, "transaction_isolation"), "read committed");
            same(show(client, "transaction_isolation"), "serializable");
            client.rollback();
        }
    }

    static void listen() throws SQLException {
        try (Connection client = connect(); Connection other = connect()) {
            run(client, "LISTEN news_" + TENANT);
            List<String> heard = new ArrayList<>();
            for (int number = 0; number < 3; number++) {
                run(other, "NOTIFY news_" + TENANT + ", 'item " + number + "'");
                PGNotification[] found = client.unwrap(PGConnection.class).getNotifications(5000);
                for (PGNotification each : found) {
                    heard.add(each.getParameter());
                }
            }
            same(heard, List.of("item 0", "item 1", "item 2"));
        }
    }

    static void largeRows() throws SQLException {
        try (Connection db = connect()) {
            same(one(db, "SELECT repeat('x', " + LARGE + ")").length(), LARGE);
            same(one(db, "SELECT length(?)", "x".repeat(LARGE)), LARGE);
        }
    }

    /** Portals across Flush, 100 rows at a time. */
    static void cursors() throws SQLException {
        try (Connection db = connect()) {
            db.setAutoCommit(false);
            try (Statement statement = db.createStatement()) {
                statement.setFetchSize(100);
                long sum = 0;
                try (ResultSet rows = statement.executeQuery("SELECT n FROM generate_series(1, 1000) n")) {
                    while (rows.next()) {
                        sum += rows.getInt(1);
                    }
                }
                same(sum, 500500);
            }
            db.commit();
        }
    }

    static void types() throws SQLException {
        for (String binary : List.of("true", "false")) {
            String sql = "SELECT ?::int[], ?::text[], ?::bytea, ?::float8, ?::text, ?::bool";
            try (Connection db = connect("binaryTransfer", binary); PreparedStatement statement = db.prepareStatement(sql)) {
                for (int round = 0; round < 4; round++) {
                    statement.setArray(1, db.createArrayOf("int4", new Integer[] {1, 2}));
                    statement.setArray(2, db.createArrayOf("text", new String[] {"a", null, "b\"c"}));
                    statement.setBytes(3, new byte[] {0, (byte) 255});
                    statement.setDouble(4, 1.5);
                    statement.setString(5, null);
                    statement.setBoolean(6, true);
                    try (ResultSet row = statement.executeQuery()) {
                        row.next();
                        Array numbers = row.getArray(1);
                        same(Arrays.toString((Integer[]) numbers.getArray()), "[1, 2]");
                        same(Arrays.toString((String[]) row.getArray(2).getArray()), "[a, null, b\"c]");
                        same(Arrays.toString(row.getBytes(3)), "[0, -1]");
                        same(row.getDouble(4) + " " + row.getString(5) + " " + row.getBoolean(6), "1.5 null true");
                    }
                }
            }
        }
    }

    static void notices() throws SQLException {
        try (Connection db = connect(); Statement statement = db.createStatement()) {
            statement.execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$");
            same(statement.getWarnings().getMessage(), "hear");
        }
    }

    static void errors() throws SQLException {
        try (Connection db = connect()) {
            fails(db, "INSERT INTO things VALUES (1, 'twice', '')", "23505");
            db.setAutoCommit(false);
            fails(db, "SELECT 1 / 0", "22012");
            fails(db, "SELECT 1", "25P02");
            db.rollback();
            Savepoint here = db.setSavepoint();
            fails(db, "SELECT * FROM no_such_table", "42P01");
            db.rollback(here);
            same(one(db, "SELECT 'alive'"), "alive");
            db.commit();
        }
        // The driver's own savepoints around each statement.
        try (Connection db = connect("autosave", "always")) {
            db.setAutoCommit(false);
            for (int number = 0; number < 3; number++) {
                fails(db, "SELECT 1 / 0", "22012");
                same(one(db, "SELECT ?::int", number), number);
            }
            db.commit();
        }
    }

    static void tempTables() throws SQLException {
        try (Connection client = connect(); Connection other = connect()) {
            run(client, "CREATE TEMP TABLE kept (n int)");
            for (int number = 0; number < 3; number++) {
                client.setAutoCommit(false);
                run(client, "INSERT INTO kept VALUES (" + number + ")");
                client.commit();
                client.setAutoCommit(true);
                fails(other, "SELECT * FROM kept", "42P01");
            }
            same(one(client, "SELECT sum(n) FROM kept"), 3);
        }
    }

    /** currval and lastval are what this client drew last. */
    static void sequences() throws SQLException {
        try (Connection client = connect(); Connection other = connect()) {
            run(client, "CREATE TABLE IF NOT EXISTS drawn (id serial)");
            for (int number = 0; number < 3; number++) {
                String mine = one(client, "SELECT nextval('drawn_id_seq')");
                same(one(client, "SELECT currval('drawn_id_seq')"), mine);
                String others = one(other, "SELECT nextval('drawn_id_seq')");
                same(one(other, "SELECT lastval()"), others);
            }
        }
    }

    static void largeObjects() throws SQLException {
        try (Connection db = connect()) {
            db.setAutoCommit(false);
            // Function-call messages.
            var objects = db.unwrap(PGConnection.class).getLargeObjectAPI();
            long id = objects.createLO();
            var object = objects.open(id);
            object.write("text".repeat(1000).getBytes());
            object.seek(0);
            same(new String(object.read(4000)), "text".repeat(1000));
            object.close();
            objects.delete(id);
            db.commit();
        }
    }

    static void catalog() throws SQLException {
        try (Connection db = connect();
            ResultSet rows = db.getMetaData().getColumns(null, "schema_" + TENANT, "things", null)) {
            List<String> names = new ArrayList<>();
            while (rows.next()) {
                names.add(rows.getString("COLUMN_NAME"));
            }
            same(names, List.of("id", "owner", "body"));
        }
    }

    static void manyAtOnce() throws Exception {
        var threads = Executors.newFixedThreadPool(8);
        List<Future<?>> all = new ArrayList<>();
        for (int number = 0; number < 8; number++) {
            int mine = number;
            all.add(threads.submit(() -> {
                try (Connection db = connect()) {
                    db.setAutoCommit(false);
                    for (int round = 0; round < 10; round++) {
                        ownRows(db);
                        same(one(db, "SELECT ?::int", mine), mine);
                        db.commit();
                    }
                }
                return null;
            }));
        }
        for (Future<?> each : all) {
            each.get();
        }
        threads.shutdown();
    }

    static void reconnectAfterDrain() throws Exception {
        Connection db = connect();
        ownRows(db);
        same(new ProcessBuilder(System.getenv("TENANTRY_DRAIN")).inheritIO().start().waitFor(), 0);
        fails(() -> one(db, "SELECT 1"), "57P01");
        same(db.isValid(5), false);
        ownRows();
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("own_rows", JdbcDriver::ownRows);
        checks.put("prepared_statements", JdbcDriver::preparedStatements);
        checks.put("pipelining", JdbcDriver::pipelining);
        checks.put("copy", JdbcDriver::copy);
        checks.put("cancel", JdbcDriver::cancel);
        checks.put("reported_settings", JdbcDriver::reportedSettings);
        checks.put("unreported_settings", JdbcDriver::unreportedSettings);
        checks.put("set_local", JdbcDriver::setLocal);
        checks.put("listen", JdbcDriver::listen);
        checks.put("large_rows", JdbcDriver::largeRows);
        checks.put("cursors", JdbcDriver::cursors);
        checks.put("types", JdbcDriver::types);
        checks.put("notices", JdbcDriver::notices);
        checks.put("errors", JdbcDriver::errors);
        checks.put("temp_tables", JdbcDriver::tempTables);
        checks.put("sequences", JdbcDriver::sequences);
        checks.put("large_objects", JdbcDriver::largeObjects);
        checks.put("catalog", JdbcDriver::catalog);
        checks.put("many_at_once", JdbcDriver::manyAtOnce);
        checks.put("reconnect_after_drain", JdbcDriver::reconnectAfterDrain);
        try (Connection db = connect()) {
            System.out.println("driver JDBC " + db.getMetaData().getDriverVersion());
        }
        int failed = 0;
        for (var check : checks.entrySet()) {
            try {
                check.getValue().run();
                System.out.println("ok " + check.getKey());
            } catch (Throwable error) {
                failed++;
                String why = String.valueOf(error.getMessage()).replace('\n', ' ');
                System.out.println("FAILED " + check.getKey() + ": " + why);
                error.printStackTrace();
            }
        }
        System.out.println((failed == 0 ? "ok " : "failed " + failed + " of ") + checks.size() + " checks");
        System.exit(failed == 0 ? 0 : 1);
    }
}
