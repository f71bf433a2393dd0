//! What a client gets through the proxy against what it gets from a server of its own.
//!
//! What may differ, each for a reason, and what keeps the scripts off it or takes it out of the comparison:
//!
//! - The name in an error about a prepared statement (42P05, 26000): on servers statements have names of ours. Taken out.
//! - Notices and notifications: they come when they come. Taken out.
//! - A ParameterStatus comes before its ReadyForQuery; where in between, is not compared.
//! - An answer of ours may come before the Flush or Sync that makes Postgres send its own. Both orders of sending are
//!   accepted, the order of messages is not.
//! - A statement that returns no rows can be described by Postgres in a failed transaction; through the proxy it may
//!   have to be prepared first, which fails there. The model is as strict as the proxy.
//! - The unnamed statement, bound again when its Parse and first Bind came together and its transaction has ended: 26000.
//!   So is one that an error has left alone while it skipped or failed to prepare the next. Not written.
//! - Names that changed in a segment (what ends with Sync) still unanswered, used in a later one: they mean what they
//!   would if the earlier succeeded. Not written.
//! - Between a RESET and the end of its segment, or of its simple query, the settings are those of the proxy's login; the
//!   client's startup settings come behind. Not written: RESET stands alone.
//! - What a client has set on a server whose order of answers is in doubt is lost, and the client with it.
//! - SQL sees the server's names: EXECUTE does not mix with Parse, nor DEALLOCATE through Parse. Not written.
//! - A COPY through the extended protocol that fails before it has read a Sync sent in advance: nobody can tell whether
//!   that Sync will be answered, so the server is closed, and the ReadyForQuery of the Sync behind the data may be
//!   missing. Data behind such a COPY is not written.
//! - Messages that are malformed, or too many names: FATAL instead of ERROR. Not written.

use super::messages::Message;
use super::messages::split;

/// The messages in `bytes`, without what may differ.
pub(super) fn normalised(bytes: &[u8]) -> Vec<Message> {
    let (mut found, mut reports) = (Vec::new(), Vec::new());
    for message in split(bytes).0.into_iter().filter_map(normal) {
        match message.tag {
            b'S' => reports.push(message),
            b'Z' => {
                found.append(&mut reports);
                found.push(message);
            }
            _ => found.push(message),
        }
    }
    found
}

fn normal(mut message: Message) -> Option<Message> {
    match message.tag {
        b'N' | b'A' => return None,
        b'E' if code(&message.body) == "42P05" || code(&message.body) == "26000" => {
            message.body = code(&message.body).as_bytes().to_vec();
        }
        _ => {}
    }
    Some(message)
}

/// The SQLSTATE of an error.
pub(super) fn code(body: &[u8]) -> &str {
    let text = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"));
    text.and_then(|code| std::str::from_utf8(code).ok()).unwrap_or_default()
}

/// Checks that the client has everything a direct connection would have `sent`, and nothing beyond what that would
/// have sent with its buffer (`all`).
pub(super) fn check(received: &[u8], sent: &[u8], all: &[u8]) -> Result<(), String> {
    let (received, sent, all) = (normalised(received), normalised(sent), normalised(all));
    let same = received.iter().zip(&all).take_while(|(mine, other)| mine == other).count();
    if same == received.len() && received.len() >= sent.len() && received.len() <= all.len() {
        return Ok(());
    }
    let around = same.saturating_sub(6);
    Err(format!(
        "message {same} differs\nthrough the proxy: {:?}\ndirectly:          {:?}\n({} due, {} at most)",
        received.get(around..received.len().min(same + 3)).unwrap_or_default(),
        all.get(around..all.len().min(same + 3)).unwrap_or_default(),
        sent.len(),
        all.len()
    ))
}
