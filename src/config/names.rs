//! Names of roles, schemas, databases and tenants: what is allowed, and how they are written in SQL.
//!
//! Owns the rules and the quoting of identifiers, literals and search paths. Must not know which key a name came from.

use std::borrow::Cow;

/// Longest name Postgres keeps (`NAMEDATALEN - 1`, in bytes); it cuts longer ones silently.
pub const MAX_NAME_BYTES: usize = 63;

/// Checks a name of a role, schema or database.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if name.len() > MAX_NAME_BYTES {
        let length = name.len();
        return Err(format!("the name is {length} bytes long; Postgres would cut it at {MAX_NAME_BYTES}"));
    }
    if let Some(c) = name.chars().find(|c| c.is_control()) {
        return Err(format!("the name holds a control character, {c:?}"));
    }
    Ok(())
}

/// Checks the name of a tenant or cluster: it appears in user names (`reader.acme`), host names, metrics and logs.
///
/// # Errors
/// What is wrong with it.
pub fn check_plain_name(name: &str) -> Result<(), String> {
    check_name(name)?;
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("the name does not start with a letter or digit (a-z, A-Z, 0-9)".to_owned());
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-')) {
        Some(c) => Err(format!("the name holds {c:?}; letters (a-z, A-Z), digits, `_` and `-` are allowed")),
        None => Ok(()),
    }
}

/// The name as an identifier in SQL: bare if that means the same, otherwise in double quotes.
#[must_use]
pub fn identifier(name: &str) -> Cow<'_, str> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let plain = first && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && KEYWORDS.binary_search(&name).is_err() {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(quoted(name))
    }
}

/// The name in double quotes, whatever it is.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The text as an SQL literal, whatever `standard_conforming_strings` says.
#[must_use]
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// Schemas as the value of `search_path`: `tenant_acme, "Shared"`.
#[must_use]
pub fn search_path<'a>(schemas: impl IntoIterator<Item = &'a str>) -> String {
    schemas.into_iter().map(identifier).collect::<Vec<_>>().join(", ")
}

/// The schemas of a `search_path` value: the opposite of [`search_path`]. Bare names are folded to lower case, as
/// Postgres does.
#[must_use]
pub fn split_search_path(text: &str) -> Vec<String> {
    let mut schemas = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('"') {
            Some(inner) => quoted_name(inner),
            None => {
                let (name, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (name.trim().to_ascii_lowercase(), after)
            }
        };
        schemas.push(name);
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    schemas
}

/// The name up to its closing quote, and what follows.
fn quoted_name(inner: &str) -> (String, &str) {
    let mut name = String::new();
    let mut rest = inner;
    while let Some((part, after)) = rest.split_once('"') {
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(again) => {
                name.push('"');
                rest = again;
            }
            None => return (name, after),
        }
    }
    name.push_str(rest);
    (name, "")
}

/// Words that cannot be a bare name everywhere: all of `pg_get_keywords()` that are not unreserved, up to
/// PostgreSQL 17. In alphabetical order.
const KEYWORDS: [&str; 164] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "merge_action",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keywords_can_be_found() {
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn simple_names_stay_bare_and_others_are_quoted() {
        for (name, written) in [
            ("tenant_acme", "tenant_acme"),
            ("Acme", "\"Acme\""),
            ("user", "\"user\""),
            ("public", "public"),
            ("1st", "\"1st\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(identifier(name), written);
        }
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn names_that_postgres_would_change_are_refused() {
        assert!(check_name(&"x".repeat(63)).is_ok());
        assert!(check_name(&"x".repeat(64)).unwrap_err().contains("64 bytes"));
        assert!(check_name("a\0b").is_err());
        assert!(check_name("").is_err());
        assert!(check_plain_name("acme-2_b").is_ok());
        for bad in ["a.b", "a b", "-a", "_a", "ü"] {
            assert!(check_plain_name(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_search_path_splits_into_what_it_was_made_of(
            names in proptest::collection::vec("[^\\x00-\\x1f]{1,9}", 1..5)
        ) {
            let text = search_path(names.iter().map(String::as_str));
            prop_assert_eq!(split_search_path(&text), names);
        }
    }
}
