//! COPY in both directions.
//!
//! Owns the data. Must not know what else is in the table.

use crate::author::Author;
use crate::script::Talk;

/// Rows for `box_N (id, word)`; some do not fit.
fn rows(author: &mut Author) -> Vec<u8> {
    let first = 1_000 + author.below(100_000);
    match author.below(6) {
        0 => b"not a number\tword\n".to_vec(),
        1 => b"1\tduplicate\n".to_vec(),
        2 => Vec::new(),
        3 => format!("{first}\t{}\n", "long ".repeat(20_000)).into_bytes(),
        _ => (0..author.below(40))
            .map(|n| format!("{}\tcopied {n}\n", first + n))
            .collect::<String>()
            .into_bytes(),
    }
}

/// The data in pieces, and its end.
fn data(author: &mut Author, mut talk: Talk) -> Talk {
    let rows = rows(author);
    let pieces = author.pick(&[1, 1, 3, 7]);
    for piece in rows.chunks((rows.len() / pieces).max(1)) {
        talk = talk.copy_data(piece);
    }
    if author.one_in(5) { talk.copy_fail("the client gives up") } else { talk.copy_done() }
}

fn copy_from(author: &Author) -> String {
    format!("COPY box_{} (id, word) FROM STDIN", author.place)
}

pub(crate) fn copy_in(author: &mut Author) -> Talk {
    if author.one_in(2) {
        let mut sql = copy_from(author);
        if author.one_in(4) {
            sql = format!("SELECT 1; {sql}; SELECT 2");
        }
        let talk = Talk::new().query(&sql);
        return data(author, talk);
    }
    let talk = Talk::new().parse("", &copy_from(author)).bind("", "", &[]).execute("");
    data(author, talk).sync()
}

pub(crate) fn copy_out(author: &mut Author) -> Talk {
    let place = author.place;
    let sql = match author.below(6) {
        0 => format!("COPY (SELECT id, num FROM box_{place} ORDER BY id) TO STDOUT (FORMAT binary)"),
        1 => format!("COPY (SELECT * FROM box_{place} ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"),
        2 => "COPY (SELECT 1 / (3 - g) FROM generate_series(1, 5) g) TO STDOUT".to_owned(),
        3 => "COPY (SELECT g, repeat('z', 500) FROM generate_series(1, 300) g) TO STDOUT".to_owned(),
        4 => "SELECT 1; COPY (SELECT 2) TO STDOUT; SELECT 3".to_owned(),
        _ => "COPY (SELECT '2024-02-29 12:00+00'::timestamptz) TO STDOUT".to_owned(),
    };
    if author.one_in(2) || sql.contains(';') {
        return Talk::new().query(&sql);
    }
    Talk::new().parse("", &sql).bind("", "", &[]).describe_portal("").execute("").sync()
}

/// Between other statements, without a wait.
pub(crate) fn in_pipeline(author: &mut Author) -> Talk {
    let place = author.place;
    let talk = Talk::new().parse("", "SELECT 1").bind("", "", &[]).execute("");
    let talk = talk.parse("", &copy_from(author)).bind("", "", &[]).execute("");
    let talk = data(author, talk).parse("", "SELECT 2").bind("", "", &[]).execute("").sync();
    let talk = talk.query(&copy_from(author));
    let talk = data(author, talk).query(&format!("SELECT count(*) FROM box_{place}"));
    let sql = format!("COPY (SELECT max(id) FROM box_{place}) TO STDOUT");
    talk.parse("", &sql).bind("", "", &[]).execute("").parse("", "SELECT 4").sync()
}

/// Sync between the command and its data is ignored.
pub(crate) fn over_a_sync(author: &mut Author) -> Talk {
    author.in_transaction = false;
    let talk = Talk::new().query("ROLLBACK").wait();
    // It must come to read the data, or each Sync would be answered: whatever the session has set, the table is there and
    // can be written.
    let begin = "BEGIN; SET TRANSACTION READ WRITE; SET LOCAL search_path TO DEFAULT";
    let talk =
        talk.query(begin).wait().parse("", &copy_from(author)).bind("", "", &[]).execute("").sync_in_copy();
    let talk = talk.copy_data(b"900\tover a Sync\n").sync_in_copy().copy_done().sync().wait();
    talk.query("ROLLBACK")
}
