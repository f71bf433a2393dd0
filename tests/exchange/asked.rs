//! What the model answers to the proxy's own questions.

use super::sql::{Sql, Variables};

/// The rows, as bodies of DataRow messages.
pub(super) fn rows(question: &Sql, variables: &Variables, pinned: bool) -> Vec<Vec<u8>> {
    match question {
        Sql::AskSettings(names) => {
            let pairs = |name: &String| {
                let now = variables.value(name).map(hex);
                let default = now.as_ref().map(|_| hex(variables.default(name).unwrap_or_default()));
                [now, default]
            };
            let row: Vec<Option<String>> = names.iter().flat_map(pairs).collect();
            vec![columns(&row)]
        }
        Sql::AskAllSettings => {
            let changed = |(name, value): &(&str, &str)| variables.default(name) != Some(value);
            let row = |(name, value): (&str, &str)| columns(&[Some(name.to_owned()), Some(hex(value))]);
            variables.iter().filter(changed).map(row).collect()
        }
        _ => {
            let answer = if pinned { "t" } else { "f" };
            vec![columns(&[Some(answer.to_owned()), Some("f".to_owned())])]
        }
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn columns(row: &[Option<String>]) -> Vec<u8> {
    let mut body = u16::try_from(row.len()).expect("few columns").to_be_bytes().to_vec();
    for column in row {
        let len = column.as_ref().map_or(-1, |text| i32::try_from(text.len()).expect("a short text"));
        body.extend_from_slice(&len.to_be_bytes());
        body.extend_from_slice(column.as_deref().unwrap_or_default().as_bytes());
    }
    body
}
