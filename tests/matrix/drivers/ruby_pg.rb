# ruby-pg does what applications do; exit code 0 if all of it goes as with Postgres itself.

require "pg"

TENANT = ENV.fetch("TENANTRY_TENANT")
LARGE = 8_000_000

def connect(**options)
  PG.connect(**options)
end

def one(connection, sql, values = [])
  (values.empty? ? connection.exec(sql) : connection.exec_params(sql, values)).getvalue(0, 0)
end

def show(connection, name)
  one(connection, "SELECT current_setting('#{name}')")
end

def same(found, wanted)
  raise "expected #{wanted.inspect}, got #{found.inspect[0, 200]}" unless found == wanted
end

def fails(connection, sql, code)
  connection.exec(sql)
rescue PG::Error => e
  same(e.result&.error_field(PG::Result::PG_DIAG_SQLSTATE), code)
else
  raise "no error: #{sql}"
end

def clients(count)
  all = Array.new(count) { connect }
  yield(*all)
ensure
  all&.each { |each| each.close unless each.finished? }
end

def own_rows
  clients(1) do |connection|
    same(one(connection, "SELECT string_agg(DISTINCT owner, ',') FROM things"), TENANT)
    same(one(connection, "SELECT current_schema"), "schema_#{TENANT}")
  end
end

def prepared_statements
  clients(2) do |first, second|
    [first, second].each { |each| each.prepare("by_id", "SELECT owner || $1::text FROM things WHERE id = 1") }
    20.times do |number|
      [first, second].each { |each| same(each.exec_prepared("by_id", [number]).getvalue(0, 0), "#{TENANT}#{number}") }
      first.transaction { same(first.exec_prepared("by_id", ["x"]).getvalue(0, 0), "#{TENANT}x") }
    end
    same(first.describe_prepared("by_id").nparams, 1)
    first.exec("DEALLOCATE by_id")
    begin
      first.exec_prepared("by_id", [1])
      raise "the statement outlived its DEALLOCATE"
    rescue PG::InvalidSqlStatementName
      same(second.exec_prepared("by_id", [1]).getvalue(0, 0), "#{TENANT}1")
    end
  end
end

def pipelining
  clients(1) do |connection|
    connection.enter_pipeline_mode
    5.times do |group|
      10.times { |number| connection.send_query_params("SELECT $1::int", [group * 10 + number]) }
      connection.pipeline_sync
    end
    seen = []
    syncs = 0
    while syncs < 5
      result = connection.get_result or next
      if result.result_status == PG::PGRES_PIPELINE_SYNC
        syncs += 1
      else
        seen << result.getvalue(0, 0).to_i
      end
    end
    same(seen, (0...50).to_a)
    connection.exit_pipeline_mode
    same(one(connection, "SELECT 'after'"), "after")
  end
end

def copy
  clients(1) do |connection|
    connection.exec("SET client_min_messages = warning")
    connection.exec("CREATE TABLE IF NOT EXISTS copied_ruby (n int, text text); TRUNCATE copied_ruby")
    connection.copy_data("COPY copied_ruby FROM STDIN") do
      5000.times { |n| connection.put_copy_data("#{n}\t#{'x' * 100}\n") }
    end
    same(one(connection, "SELECT count(*) FROM copied_ruby"), "5000")
    size = 0
    connection.copy_data("COPY copied_ruby TO STDOUT (FORMAT binary)") do
      while (block = connection.get_copy_data)
        size += block.bytesize
      end
    end
    raise "only #{size} bytes" if size < 500_000

    begin
      connection.copy_data("COPY copied_ruby FROM STDIN") { connection.put_copy_data("not a number\tx\n") }
      raise "a bad row was accepted"
    rescue PG::InvalidTextRepresentation
      same(one(connection, "SELECT count(*) FROM copied_ruby"), "5000")
    end
  end
end

def cancel
  clients(1) do |connection|
    connection.send_query("SELECT pg_sleep(60)")
    sleep(0.3)
    connection.cancel
    begin
      connection.get_last_result
      raise "not cancelled"
    rescue PG::QueryCanceled
      same(one(connection, "SELECT 'after'"), "after")
    end
  end
end

# Three clients, each with its own settings, whichever servers they get.
def follow(settings)
  clients(3) do |*all|
    all.zip(settings) { |each, mine| mine.each { |name, value| each.exec("SET #{name} = '#{value}'") } }
    check = ->(at) { settings[at].each { |name, value| same(show(all[at], name), value) } }
    4.times do |turn|
      order = [0, 1, 2].rotate(turn)
      order.each(&check)
      all[order[0]].exec("BEGIN")
      all[order[1]].exec("BEGIN")
      check.call(order[1])
      check.call(order[0])
      all[order[0]].exec("COMMIT")
      all[order[1]].exec("ROLLBACK")
    end
    yield(*all)
  end
end

def reported_settings
  follow([
    { "application_name" => "one", "DateStyle" => "ISO, DMY", "TimeZone" => "Asia/Tokyo" },
    { "application_name" => "two", "DateStyle" => "ISO, YMD", "TimeZone" => "America/Lima" },
    { "application_name" => "three", "DateStyle" => "ISO, MDY", "TimeZone" => "Europe/Rome" },
  ]) do |first, second|
    first.exec("RESET TimeZone")
    clients(1) { |plain| same(show(first, "TimeZone"), show(plain, "TimeZone")) }
    same(show(second, "TimeZone"), "America/Lima")
  end
  other = connect(application_name: "driver", options: "-c TimeZone=Asia/Tokyo")
  same(other.parameter_status("TimeZone"), "Asia/Tokyo")
  other.set_client_encoding("LATIN1")
  same(other.get_client_encoding, "LATIN1")
  other.close
end

def unreported_settings
  follow([
    { "statement_timeout" => "61s", "work_mem" => "1111kB", "custom.key" => "one" },
    { "statement_timeout" => "62s", "work_mem" => "2222kB", "custom.key" => "two" },
    { "statement_timeout" => "63s", "work_mem" => "3333kB", "custom.key" => "three" },
  ]) do |first, second, third|
    first.exec("RESET work_mem")
    second.exec("RESET ALL")
    third.exec("SELECT set_config('work_mem', '4444kB', false)")
    [[first, "4MB"], [second, "4MB"], [third, "4444kB"]].each { |each, value| same(show(each, "work_mem"), value) }
    same(show(first, "statement_timeout"), "61s")
  end
end

def set_local
  clients(2) do |client, other|
    client.transaction do
      client.exec("SET LOCAL statement_timeout = '77s'")
      same(show(client, "statement_timeout"), "77s")
    end
    [other, client].each { |each| same(show(each, "statement_timeout"), "0") }
    [["COMMIT", "5555kB"], ["ROLLBACK", "6666kB"]].each do |ending, value|
      client.exec("BEGIN")
      client.exec("SET work_mem = '#{value}'")
      client.exec(ending)
      one(other, "SELECT 1")
      same(show(client, "work_mem"), "5555kB")
    end
  end
end

def listen
  clients(2) do |client, other|
    client.exec("LISTEN news_#{TENANT}")
    3.times { |number| other.exec("NOTIFY news_#{TENANT}, 'item #{number}'") }
    heard = Array.new(3) { client.wait_for_notify(5) { |_, _, payload| break payload } }
    same(heard, ["item 0", "item 1", "item 2"])
    client.exec("UNLISTEN *")
  end
end

def large_rows
  clients(1) do |connection|
    same(one(connection, "SELECT repeat('x', #{LARGE})").length, LARGE)
    same(one(connection, "SELECT length($1)", ["x" * LARGE]), LARGE.to_s)
    connection.send_query("SELECT n FROM generate_series(1, 1000) n")
    connection.set_single_row_mode
    same(connection.get_result.stream_each.sum { |row| row["n"].to_i }, 500_500)
  end
end

def types
  clients(1) do |connection|
    values = ["{1,2}", '{a,NULL,"b\"c"}', nil]
    result = connection.exec_params("SELECT $1::int[], $2::text[], $3::text", values)
    same(result.values[0], values)
    binary = connection.exec_params("SELECT $1::bytea, 7::int", [{ value: "\x00\xFF".b, format: 1 }], 1)
    same(binary.values[0], ["\x00\xFF".b, "\x00\x00\x00\x07".b])
  end
end

def notices
  clients(1) do |connection|
    heard = []
    connection.set_notice_receiver { |result| heard << result.error_field(PG::Result::PG_DIAG_MESSAGE_PRIMARY) }
    connection.exec("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
    same(heard, ["hear"])
  end
end

def errors
  clients(1) do |connection|
    fails(connection, "INSERT INTO things VALUES (1, 'twice', '')", "23505")
    connection.exec("BEGIN")
    fails(connection, "SELECT 1 / 0", "22012")
    fails(connection, "SELECT 1", "25P02")
    connection.exec("ROLLBACK")
    connection.exec("BEGIN; SAVEPOINT here")
    fails(connection, "SELECT * FROM no_such_table", "42P01")
    connection.exec("ROLLBACK TO here; COMMIT")
    same(one(connection, "SELECT 'alive'"), "alive")
  end
end

def temp_tables
  clients(2) do |client, other|
    client.exec("CREATE TEMP TABLE kept (n int)")
    3.times do |number|
      client.transaction { client.exec("INSERT INTO kept VALUES (#{number})") }
      fails(other, "SELECT * FROM kept", "42P01")
    end
    same(one(client, "SELECT sum(n) FROM kept"), "3")
    client.exec("DISCARD ALL")
    fails(client, "SELECT * FROM kept", "42P01")
  end
end

def advisory_locks
  clients(2) do |client, other|
    one(client, "SELECT pg_advisory_lock(hashtext('#{TENANT}'))")
    same(one(other, "SELECT pg_try_advisory_lock(hashtext('#{TENANT}'))"), "f")
    same(one(client, "SELECT pg_advisory_unlock(hashtext('#{TENANT}'))"), "t")
    same(one(other, "SELECT pg_try_advisory_lock(hashtext('#{TENANT}'))"), "t")
  end
end

# currval and lastval are what this client drew last.
def sequences
  clients(2) do |client, other|
    client.exec("SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS drawn (id serial)")
    3.times do
      mine = one(client, "SELECT nextval('drawn_id_seq')")
      same(one(client, "SELECT currval('drawn_id_seq')"), mine)
      others = one(other, "SELECT nextval('drawn_id_seq')")
      same(one(other, "SELECT lastval()"), others)
    end
  end
end

def many_at_once
  Array.new(8) do |number|
    Thread.new do
      clients(1) do |connection|
        10.times do
          connection.transaction do
            same(one(connection, "SELECT string_agg(DISTINCT owner, ',') FROM things"), TENANT)
            same(one(connection, "SELECT $1::int", [number]), number.to_s)
          end
        end
      end
    end
  end.each(&:join)
end

def reconnect_after_drain
  connection = connect
  one(connection, "SELECT 1")
  system(ENV.fetch("TENANTRY_DRAIN")) or raise "no drain"
  begin
    one(connection, "SELECT 1")
  rescue PG::Error => e
    raise "another error: #{e.message}" unless e.message.include?("terminating connection")
  else
    raise "the connection outlived the drain"
  end
  connection.reset
  same(one(connection, "SELECT string_agg(DISTINCT owner, ',') FROM things"), TENANT)
  connection.close
end

checks = %i[
  own_rows prepared_statements pipelining copy cancel reported_settings unreported_settings set_local listen large_rows types
  notices errors temp_tables advisory_locks sequences many_at_once reconnect_after_drain
]
puts "driver ruby-pg #{PG::VERSION}"
failed = checks.reject do |name|
  send(name)
  puts "ok #{name}"
  true
rescue StandardError => e
  puts "FAILED #{name}: #{e.message.tr("\n", ' ')}"
  warn e.full_message
end
puts failed.empty? ? "ok #{checks.size} checks" : "failed #{failed.size} of #{checks.size} checks"
exit(failed.empty?)
