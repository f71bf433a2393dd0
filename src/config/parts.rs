//! A long text cut into parts that are read one after the other.
//!
//! A parser of TOML keeps some 7 KiB of tokens and values for a tenant's ten lines until it has seen the last one. With
//! thousands of tenants that is by far the most memory that the proxy ever has. So what stands before the first
//! `[[tenant]]` is one part, and some hundred tenants each are the others.
//!
//! Owns where a text may be cut: nowhere, unless it is plain that every part means what it means in the whole.

/// A part ends behind the tenant that makes it this long, in bytes.
const PART_BYTES: usize = 64 * 1024;

const TENANT: &str = "[[tenant]]";

/// Where a text is cut: the first part, and the others, each with the number of its first byte.
///
/// A text with tables of another kind behind the first tenant, or with strings of several lines, is one part.
pub(super) fn parts(text: &str) -> (&str, Vec<(usize, &str)>) {
    let cuts = cuts(text).unwrap_or_default();
    let ends = cuts.iter().skip(1).copied().chain([text.len()]);
    let others = cuts.iter().zip(ends).filter_map(|(start, end)| Some((*start, text.get(*start..end)?)));
    let first = cuts.first().and_then(|end| text.get(..*end)).unwrap_or(text);
    (first, others.collect())
}

fn cuts(text: &str) -> Option<Vec<usize>> {
    if text.len() <= PART_BYTES || text.contains("\"\"\"") || text.contains("'''") {
        return None;
    }
    let (mut cuts, mut at): (Vec<usize>, usize) = (Vec::new(), 0);
    for line in text.split_inclusive('\n') {
        let start = at;
        at = at.saturating_add(line.len());
        let header = line.trim_start();
        if header.starts_with(TENANT) {
            let is_due = cuts.last().is_none_or(|last| start.saturating_sub(*last) >= PART_BYTES);
            cuts.extend(is_due.then_some(start));
        } else if !cuts.is_empty() && header.starts_with('[') && !header.starts_with("[tenant.") {
            // It may belong to what stands before the first tenant, or be a list within a value.
            return None;
        }
    }
    Some(cuts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(count: usize) -> String {
        (0..count)
            .map(|number| format!("[[tenant]]\nname = \"t{number}\"\n[tenant.limits]\nshare = 1\n"))
            .collect()
    }

    #[test]
    fn a_long_text_is_cut_before_tenants_and_nothing_is_lost() {
        let text = format!("[listen]\nbacklog = 1\n{}", tenants(5_000));
        let (first, others) = parts(&text);
        assert_eq!(first, "[listen]\nbacklog = 1\n");
        assert!(others.len() > 2 && others.iter().all(|(_, part)| part.starts_with(TENANT)));
        assert!(others.iter().all(|(_, part)| part.len() < PART_BYTES + 100));
        let whole: String = std::iter::once(first).chain(others.iter().map(|(_, part)| *part)).collect();
        assert_eq!(whole, text);
        assert!(others.iter().all(|(start, part)| text[*start..].starts_with(part)));
    }

    #[test]
    fn what_could_mean_something_else_is_not_cut() {
        let tenants = tenants(5_000);
        for text in [
            "[listen]\n[[tenant]]\n".to_owned(),
            format!("{tenants}[listen]\nbacklog = 1\n"),
            format!("{tenants}a = [\n  [1],\n]\n"),
            format!("{tenants}a = \"\"\"\n[[tenant]]\n\"\"\"\n"),
            format!("{tenants}a = '''\n[[tenant]]\n'''\n"),
        ] {
            assert_eq!(parts(&text), (&*text, Vec::new()));
        }
    }
}
