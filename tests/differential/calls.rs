//! Function-call messages, large objects, cancels.
//!
//! Owns the numbers of functions, which are the same in every Postgres.

use crate::author::Author;
use crate::player::IT_RUNS;
use crate::script::{Format, Talk, Value};

pub(crate) fn call(author: &mut Author) -> Talk {
    let int = |author: &mut Author| Value::int(i32::try_from(author.below(9)).unwrap());
    let format = if author.one_in(2) { Format::Binary } else { Format::Text };
    let (one, other) = (int(author), int(author));
    match author.below(4) {
        // Division, which may fail.
        0 => Talk::new().call(INT4_DIV, &[one, other], format),
        1 => Talk::new().call(1, &[one], format),
        2 => Talk::new().call(UPPER, &[Value::text("upper case")], format).query("SELECT 1"),
        _ => Talk::new().call(INT4_PLUS, &[one, other], format),
    }
}

/// A large object, written and read by function calls as libpq does it.
pub(crate) fn large_object(author: &mut Author) -> Talk {
    author.in_transaction = false;
    let number = author.large_object();
    let oid = Value::int(i32::try_from(number).unwrap());
    let (zero, mode) = (Value::int(0), Value::int(0x0006_0000));
    let talk = Talk::new().query("ROLLBACK").query("BEGIN").wait();
    let talk = talk.query(&format!("SELECT lo_create({number})")).wait();
    let talk = talk.call(LO_OPEN, &[oid.clone(), mode], Format::Binary).wait();
    let bytes = Value::text(&"large ".repeat(author.below(2_000)));
    let talk = talk.call(LO_WRITE, &[zero.clone(), bytes], Format::Binary);
    let talk = talk.call(LO_SEEK, &[zero.clone(), zero.clone(), zero.clone()], Format::Binary);
    let talk = talk.call(LO_READ, &[zero.clone(), Value::int(4_000)], Format::Binary).wait();
    let talk = talk.call(LO_CLOSE, &[zero], Format::Binary);
    if author.one_in(2) {
        return talk.query("ROLLBACK");
    }
    talk.query("COMMIT").wait().call(LO_UNLINK, &[oid], Format::Binary)
}

/// A query that would run for a minute, and is cancelled when it says that it runs. Before it there is a transaction, or
/// not.
pub(crate) fn cancel(author: &mut Author) -> Talk {
    author.in_transaction = false;
    let begin = author.pick(&["BEGIN", "SELECT 'no transaction'"]);
    let talk = Talk::new().query("ROLLBACK").query(begin).wait();
    let sleep = format!("SELECT say('info', '{IT_RUNS}'), pg_sleep(60)");
    let talk = match author.below(5) {
        0 => talk.query(&format!("SELECT 1; {sleep}; SELECT 2")).cancel(),
        1 => talk.parse("", &sleep).bind("", "", &[]).execute("").sync().cancel(),
        2 => talk.query(&sleep).query("SELECT 'behind it'").cancel(),
        3 => talk.query(&format!("COPY ({sleep}) TO STDOUT")).cancel(),
        _ => {
            let talk = talk.query(&format!("SAVEPOINT s; {sleep}")).cancel();
            talk.query("ROLLBACK TO s; SELECT 'goes on'").wait()
        }
    };
    talk.query("COMMIT").query("SELECT 'after it'")
}

const INT4_DIV: u32 = 154;
const INT4_PLUS: u32 = 177;
const UPPER: u32 = 871;
const LO_OPEN: u32 = 952;
const LO_CLOSE: u32 = 953;
const LO_READ: u32 = 954;
const LO_WRITE: u32 = 955;
const LO_SEEK: u32 = 956;
const LO_UNLINK: u32 = 964;
