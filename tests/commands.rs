//! The command line as a script meets it: exit codes, what goes to standard output, what to standard error.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test expects by failing")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

#[path = "support/certs.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, reason = "each test binary uses its part")]
mod certs;

fn tenantry(args: &[&str], input: &str) -> Output {
    tenantry_with(&[], args, input)
}

/// As `tenantry`, with further variables in its environment.
fn tenantry_with(variables: &[(&str, &str)], args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenantry"))
        .args(args)
        .envs(variables.iter().copied())
        .env_remove("TENANTRY_CONFIG")
        .env("TENANTRY_ADMIN_PASSWORD", "one")
        .env("ACME_DB_PASSWORD", "two'\\")
        .env("GLOBEX_DB_PASSWORD", "three")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the output of a terminal's program has come to when `text` is in it.
fn until(output: &mut impl Read, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}, and only {seen:?} before it"));
        seen.push(char::from(byte[0]));
    }
    seen
}

#[test]
fn a_password_that_is_not_typed_to_its_end_leaves_the_terminal_as_it_was() {
    let shell =
        concat!("trap : INT; '", env!("CARGO_BIN_EXE_tenantry"), "' hash-password; stty -a; echo over");
    let mut terminal = Command::new("script")
        .args(["-qfec", shell, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    until(&mut screen, "Password: ");
    keys.write_all(b"hunt\x03").unwrap();
    let rest = until(&mut screen, "over");
    assert!(rest.contains("interrupted") && !rest.contains("hunt"), "{rest}");
    assert!(rest.contains(" echo ") && !rest.contains("-echo "), "{rest}");
    terminal.wait().unwrap();
}

const EXAMPLE: &str = "config/tenantry.example.toml";

#[test]
fn a_good_configuration_is_0_and_a_bad_one_78() {
    let good = tenantry(&["check", "-c", EXAMPLE], "");
    assert_eq!(good.status.code(), Some(0), "{}", err(&good));
    assert!(out(&good).ends_with("config/tenantry.example.toml: ok\n"), "{}", out(&good));
    let quiet = tenantry(&["check", "-q", "-c", EXAMPLE], "");
    assert_eq!((quiet.status.code(), out(&quiet)), (Some(0), String::new()));
    for args in [["check", "-c"], ["serve", "-c"]] {
        let bad = tenantry(&[args[0], args[1], "tests/config/walls.toml"], "");
        assert_eq!(bad.status.code(), Some(78), "{}", err(&bad));
        assert!(err(&bad).contains("there would be no wall between them"), "{}", err(&bad));
        assert_eq!(out(&bad), "");
    }
    let none = tenantry(&["check", "-c", "/nonexistent"], "");
    assert_eq!(none.status.code(), Some(78), "{}", err(&none));
}

#[test]
fn a_bad_log_filter_is_a_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    std::fs::write(&path, text.replace("[log]", "[log]\nfilter = \"tenantry=loud\"")).unwrap();
    let bad = tenantry(&["check", "-c", path.to_str().unwrap()], "");
    assert_eq!(bad.status.code(), Some(78), "{}", out(&bad));
    assert!(err(&bad).contains("log.filter"), "{}", err(&bad));
}

/// A configuration with certificates for everything, beside the files that it names and some that do not fit.
fn with_certificates(dir: &Path) -> String {
    let authority = certs::Authority::new("ca");
    let (own, other) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    for (name, text) in [
        ("ca.crt", &authority.pem()),
        ("tls.crt", &own.cert),
        ("tls.key", &own.key),
        ("other.key", &other.key),
        ("empty.pem", &String::new()),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let url =
        "postgres://localhost/app?sslmode=verify-full&sslrootcert=ca.crt&sslcert=tls.crt&sslkey=tls.key";
    format!(
        "[listen.tls]\ncert = \"tls.crt\"\nkey = \"tls.key\"\nclient_ca = \"ca.crt\"\n\
         [cluster.main]\nurl = \"{url}\"\nmax_connections = 20\n\
         [[tenant]]\nname = \"acme\"\nrole = \"acme\"\nschema = \"acme\"\n\
         client_auth = {{ certificate = \"acme\" }}\n"
    )
}

#[test]
fn certificates_that_cannot_be_loaded_are_a_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    let path = path.to_str().unwrap();
    let text = with_certificates(dir.path());
    std::fs::write(path, &text).unwrap();
    let good = tenantry(&["check", "-c", path], "");
    assert_eq!(good.status.code(), Some(0), "{}", err(&good));
    for (from, to, line, words) in [
        ("cert = \"tls.crt\"", "cert = \"gone.crt\"", 2, "gone.crt: No such file"),
        ("key = \"tls.key\"", "key = \"other.key\"", 2, "other.key cannot be used"),
        ("key = \"tls.key\"", "key = \"empty.pem\"", 3, "no usable PEM private key"),
        ("client_ca = \"ca.crt\"", "client_ca = \"empty.pem\"", 4, "no usable PEM certificate"),
        ("sslrootcert=ca.crt", "sslrootcert=gone.crt", 6, "gone.crt: No such file"),
        ("sslkey=tls.key", "sslkey=other.key", 6, "other.key cannot be used"),
    ] {
        std::fs::write(path, text.replace(from, to)).unwrap();
        for args in [&["check", "-c", path][..], &["check", "--live", "-c", path], &["serve", "-c", path]] {
            let bad = tenantry(args, "");
            assert_eq!(bad.status.code(), Some(78), "{args:?} with {to}: {}{}", out(&bad), err(&bad));
            assert_eq!(out(&bad), "", "{args:?} with {to}");
            let shown = err(&bad);
            assert!(shown.contains(words) && shown.contains(&format!("t.toml:{line}:")), "{to}: {shown}");
        }
    }
    let both = text.replace("\"ca.crt\"", "\"gone.crt\"").replace("sslkey=tls.key", "sslkey=other.key");
    std::fs::write(path, both).unwrap();
    let shown = err(&tenantry(&["check", "-c", path], ""));
    assert!(shown.contains("2 errors in the configuration"), "{shown}");
    let unused =
        text.replace("[listen.tls]\n", "[listen.tls]\nmode = \"disable\"\n").replace("\"tls.key\"", "\"x\"");
    std::fs::write(path, unused.replace("certificate = \"acme\"", VERIFIER)).unwrap();
    let off = tenantry(&["check", "-c", path], "");
    assert_eq!(off.status.code(), Some(0), "what is switched off is not loaded: {}", err(&off));
}

const VERIFIER: &str = "scram = \"SCRAM-SHA-256$4096:c2FsdHNhbHQ=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                        AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"";

#[test]
fn a_variable_that_overrides_nothing_is_a_bad_configuration() {
    for (variable, words) in [
        ("TENANTRY_POOL__QUEUE_TIMEOU", "TENANTRY_POOL__QUEUE_TIMEOUT"),
        ("TENANTRY_POOOL__QUEUE_TIMEOUT", "TENANTRY_POOL__"),
        ("TENANTRY_CLUSTER__MAIM__MAX_CONNECTIONS", "TENANTRY_CLUSTER__MAIN__"),
        ("TENANTRY_CLUSTER__MAIN__ADMIN__USR", "TENANTRY_CLUSTER__MAIN__ADMIN__USER"),
        ("TENANTRY_TIER__LUKEWARM__CEILING", "TENANTRY_TIER__WARM__"),
        ("TENANTRY_TENANT__ACME__TIER", "tenants cannot be overridden"),
        ("TENANTRY__POOL__QUEUE_TIMEOUT", "TENANTRY_POOL__"),
        ("TENANTRY_pool__queue_timeout", "TENANTRY_POOL__"),
    ] {
        for args in [
            &["check", "-c", EXAMPLE][..],
            &["serve", "-c", EXAMPLE],
            &["tenant", "sql", "acme", "-c", EXAMPLE],
        ] {
            let bad = tenantry_with(&[(variable, "hunter2")], args, "");
            assert_eq!(bad.status.code(), Some(78), "{args:?} with {variable}: {}{}", out(&bad), err(&bad));
            let shown = err(&bad);
            assert!(shown.contains(&format!("`{variable}`")) && shown.contains(words), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
    let fine = [
        ("TENANTRY_POOL__QUEUE_TIMEOUT", "2s"),
        ("TENANTRY_CLUSTER__MAIN__MAX_CONNECTIONS", "300"),
        ("TENANTRY_TENANTS_PASSWORD", "hunter2"),
        ("TENANTRY_TEST_POSTGRES", "x"),
        ("OTHER_POOL__QUEUE_TIMEOU", "x"),
    ];
    let good = tenantry_with(&fine, &["check", "-c", EXAMPLE], "");
    assert_eq!(good.status.code(), Some(0), "{}", err(&good));
}

#[test]
fn wrong_usage_is_2() {
    for args in
        [&["sevre"][..], &["check", "--alive"], &["tenant", "sql"], &["healthcheck", "--url", "ftp://x"], &[]]
    {
        assert_eq!(tenantry(args, "").status.code(), Some(2), "{args:?}");
    }
    let unknown = tenantry(&["tenant", "sql", "nobody", "-c", EXAMPLE], "");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(err(&unknown).contains("no tenant `nobody`"), "{}", err(&unknown));
}

#[test]
fn a_live_check_without_a_server_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let socket = format!("host={} dbname=app", dir.path().display());
    let url = "postgres://db1.internal:5432/app?sslmode=verify-full";
    std::fs::write(&path, text.replace(&format!("\"{url}\""), &format!("\"{socket}\""))).unwrap();
    let failed = tenantry(&["check", "--live", "-c", path.to_str().unwrap()], "");
    assert_eq!(failed.status.code(), Some(1), "{}{}", out(&failed), err(&failed));
    assert!(out(&failed).contains("error: cluster `main`"), "{}", out(&failed));
}

#[test]
fn a_password_becomes_a_verifier_and_is_not_shown() {
    let made = tenantry(&["hash-password", "--iterations", "5000"], "hunter2\n");
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let verifier = out(&made);
    assert!(verifier.starts_with("SCRAM-SHA-256$5000:") && verifier.ends_with('\n'), "{verifier}");
    let again = tenantry(&["hash-password", "--iterations", "5000"], "hunter2\n");
    assert_ne!(verifier, out(&again), "each has a salt of its own");
    // The printed line works in a configuration as it is.
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let start = text.find("SCRAM-SHA-256$").unwrap();
    let old = text[start..].split('"').next().unwrap();
    let env = |_: &str| Some("x".to_owned());
    let none = |name: &str| {
        if name.starts_with("TENANTRY_") && !name.ends_with("_ADMIN_PASSWORD") { None } else { env(name) }
    };
    tenantry::config::load_text(&text.replace(old, verifier.trim()), Path::new(""), &none, None).unwrap();
    assert_eq!(tenantry(&["hash-password"], "\n").status.code(), Some(2), "an empty one");
}

#[test]
fn the_sql_of_a_tenant_holds_no_password() {
    let sql = tenantry(&["tenant", "sql", "acme", "-c", EXAMPLE], "");
    assert_eq!(sql.status.code(), Some(0), "{}", err(&sql));
    let text = out(&sql);
    assert!(text.contains("ALTER ROLE \"tenant_acme\" PASSWORD 'SCRAM-SHA-256$"), "{text}");
    assert!(!text.contains("two'"), "{text}");
    assert!(!text.contains("TO PUBLIC"), "{text}");
}

#[test]
fn help_and_version_are_0() {
    assert_eq!(tenantry(&["--help"], "").status.code(), Some(0));
    let version = tenantry(&["--version"], "");
    assert!(out(&version).starts_with("tenantry "), "{}", out(&version));
}
