//! The configuration as an operator meets it: files in, settings or readable errors out.
//!
//! `tests/config/*.toml` are files with mistakes (one kind each); beside each stands the text that an operator sees.
//! After a wanted change of a text, `TENANTRY_BLESS=1 cargo test --test config` writes them anew.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test expects by failing")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tenantry::config::{self, ConfigError, Loaded, MaxConnections, Settings, TenantSource};
use tenantry::tenant::issuer::{Algorithm, TokenAs};
use tenantry::tenant::{ClientAuth, PoolMode, ServerAuth, Tier, TimeLimits};

const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                        AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn nothing(_: &str) -> Option<String> {
    None
}

/// A file with one cluster of 40 connections, `head` before it and `tail` behind.
fn file(head: &str, tenants: &[&str], tail: &str) -> String {
    let mut text =
        format!("{head}\n[cluster.main]\nurl = \"postgres://localhost/app\"\nmax_connections = 40\n");
    for name in tenants {
        text += &format!(
            "[[tenant]]\nname = \"{name}\"\nrole = \"r_{name}\"\nschema = \"s_{name}\"\n\
             client_auth = {{ scram = \"{VERIFIER}\" }}\n"
        );
    }
    text + tail
}

fn load(text: &str) -> Result<Loaded, ConfigError> {
    config::load_text(text, Path::new("/etc/tenantry"), &nothing, None)
}

fn settings(text: &str) -> Settings {
    load(text).unwrap_or_else(|error| panic!("{error}\n{text}")).settings
}

#[test]
fn every_mistake_is_shown_as_expected() {
    let mut seen = 0;
    for path in toml_files("tests/config") {
        let shown = match config::load_with_warnings(&path, &nothing, None) {
            Ok(loaded) => loaded.warnings.join("\n\n"),
            Err(error) => error.to_string(),
        } + "\n";
        let expected = path.with_extension("txt");
        if std::env::var_os("TENANTRY_BLESS").is_some() {
            fs::write(&expected, &shown).unwrap();
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        assert!(shown == wanted, "{} now says:\n{shown}\nwanted:\n{wanted}", path.display());
        seen += 1;
    }
    assert!(seen >= 15, "only {seen} files");
}

/// The files of a directory by name; the path stays relative, as it is part of the texts.
fn toml_files(dir: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

#[test]
fn no_error_repeats_a_secret() {
    for path in toml_files("tests/config") {
        if let Err(error) = config::load(&path, &nothing, None) {
            for secret in ["hunter2", "aHVudGVyMg", "geheim", "me:secret", "AAAAAAAA"] {
                assert!(!error.to_string().contains(secret), "{}: {error}", path.display());
            }
        }
    }
}

#[test]
fn the_example_is_read_without_a_warning() {
    let env = |name: &str| name.ends_with("_PASSWORD").then(|| "secret".to_owned());
    let loaded = config::load_with_warnings(Path::new("config/tenantry.example.toml"), &env, None).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let settings = loaded.settings;
    assert_eq!(settings.clusters[0].max_connections, MaxConnections::Auto);
    assert_eq!(settings.catalog.len(), 2);
    let acme = settings.catalog.by_name("acme").unwrap();
    assert_eq!((acme.tier, acme.allowance.ceiling, acme.mode), (Tier::Hot, 100, PoolMode::Transaction));
    let globex = settings.catalog.by_name("globex").unwrap();
    assert_eq!(globex.allowance.reserve, 2);
    assert_eq!(globex.user("reader").unwrap().mode, Some(PoolMode::Transaction));
    assert!(matches!(&globex.server_auth, ServerAuth::Password(password) if password.expose() == "secret"));
}

#[test]
fn trusted_load_balancers_are_networks_or_one_address() {
    for trusted in ["\"192.0.2.7\"", "[\"10.0.0.0/8\", \"192.0.2.0/28\"]"] {
        let head = format!("listen.proxy_protocol = {{ trusted = {trusted} }}");
        let proxies = settings(&file(&head, &["acme"], "")).listen.trusted_proxies;
        assert!(proxies.contain("192.0.2.7".parse().unwrap()), "{trusted}");
        assert!(!proxies.contain("192.0.2.77".parse().unwrap()), "{trusted}");
    }
}

#[test]
fn an_issuer_has_defaults_and_its_keys_are_read_again_with_each_load() {
    let dir = tempfile::tempdir().unwrap();
    let keys = |kid: &str| {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}]}}"#);
        fs::write(dir.path().join("jwks.json"), jwks).unwrap();
    };
    let head = "listen.tls = { cert = \"c\", key = \"k\" }\n\
        jwt = { issuer = \"https://id.test\", audience = \"db\", keys = \"jwks.json\" }";
    let tail = format!(
        "[[tenant]]\nname = \"mint\"\nrole = \"r\"\nschema = \"s\"\nclient_auth = {{ jwt = true }}\n\
         user = [{{ name = \"both\", client_auth = {{ jwt = \"svc-7\", scram = \"{VERIFIER}\" }} }}]\n"
    );
    let load =
        || config::load_text(&file(head, &["acme"], &tail), dir.path(), &nothing, None).unwrap().settings;
    keys("one");
    let (before, settings) = (load(), {
        keys("two");
        load()
    });
    let issuer = settings.issuer.unwrap();
    assert_eq!((&*issuer.tenant_claim, &*issuer.user_claim, issuer.leeway_s), ("tenant", "sub", 30));
    assert_eq!(issuer.algorithms, [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]);
    assert_eq!((issuer.token_as, issuer.audiences.len(), issuer.scopes.len()), (TokenAs::OauthBearer, 1, 0));
    assert_eq!(issuer.keys.fitting(Algorithm::EdDSA, Some("two")).count(), 1);
    assert_eq!(before.issuer.unwrap().keys.fitting(Algorithm::EdDSA, Some("two")).count(), 0);
    let mint = settings.catalog.by_name("mint").unwrap();
    assert_eq!(
        mint.user("mint").unwrap().auth.token_subject(),
        Some("mint"),
        "`true` is the user's own name"
    );
    let both = &mint.user("both").unwrap().auth;
    assert_eq!((both.token_subject(), both.verifier()), (Some("svc-7"), Some(VERIFIER)));
}

#[test]
fn the_example_shows_the_defaults() {
    let text = fs::read_to_string("config/tenantry.example.toml").unwrap();
    // Everything that is commented out as `# key = value`, except what has no default or needs files.
    let shown = uncommented(
        &text,
        &[
            "unix_socket_dir",
            "cert",
            "key",
            "client_ca",
            "sni_domain",
            "tenants_dir",
            "proxy_protocol",
            "token",
            "file",
        ],
    );
    let env = |name: &str| name.ends_with("_PASSWORD").then(|| "secret".to_owned());
    let load = |text: &str| config::load_text(text, Path::new(""), &env, None).unwrap().settings;
    let (plain, shown) = (load(&text), load(&shown));
    assert_eq!(plain.listen, shown.listen);
    assert_eq!(plain.http, shown.http);
    assert_eq!(plain.servers, shown.servers);
    assert_eq!(plain.tenant_sources, shown.tenant_sources);
    assert_eq!((plain.drain, &plain.log), (shown.drain, &shown.log));
    assert_eq!(plain.metrics_top_tenants, shown.metrics_top_tenants);
    assert_eq!(plain.clusters[0].admin_reserve, shown.clusters[0].admin_reserve);
    for tenant in plain.catalog.iter() {
        assert_eq!(tenant.allowance, shown.catalog.by_name(&tenant.name).unwrap().allowance);
        assert_eq!(tenant.max_clients, shown.catalog.by_name(&tenant.name).unwrap().max_clients);
        assert_eq!(tenant.queue_timeout, shown.catalog.by_name(&tenant.name).unwrap().queue_timeout);
        assert_eq!(tenant.time_limits, shown.catalog.by_name(&tenant.name).unwrap().time_limits);
    }
}

#[test]
fn the_example_names_every_key_in_its_section() {
    let text = fs::read_to_string("config/tenantry.example.toml").unwrap();
    let mut sections = vec![(String::new(), String::new())];
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if bare.starts_with('[') && bare.ends_with(']') {
            sections.push((bare.trim_matches(['[', ']']).to_owned(), String::new()));
        }
        let (_, section) = sections.last_mut().unwrap();
        section.push_str(line);
        section.push('\n');
    }
    for key in config::all_keys() {
        let (first, last) = (key.split('.').next().unwrap(), key.rsplit('.').next().unwrap());
        let is_named = sections.iter().any(|(name, section)| {
            let is_its_own = name.split('.').next() == Some(first) || first == last;
            let mut words = section.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            is_its_own && words.any(|word| word == last)
        });
        assert!(is_named, "{key}");
    }
}

/// The text with `# key = value` lines (and lists over several lines) made real, except for these keys and `[listen.tls]`.
fn uncommented(text: &str, except: &[&str]) -> String {
    // Sections that need files.
    let mut is_off = false;
    let mut list = false;
    let mut out = String::new();
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if bare.starts_with('[') {
            is_off = ["[listen.tls]", "[jwt]", "[cluster.east]"].iter().any(|off| bare.starts_with(off));
        }
        let key = bare.split_once(" = ").map(|(key, _)| key).filter(|key| {
            key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !is_off && !except.contains(key)
        });
        let starts = key.is_some() && line.starts_with("# ");
        list = (list && !bare.starts_with(']')) || (starts && bare.ends_with('['));
        let keep = starts || list || (line.starts_with("# ]"));
        out += if keep { bare } else { line };
        out.push('\n');
    }
    out
}

#[test]
fn time_limits_come_from_the_tenant_its_tier_or_the_pool() {
    let seconds = |n| Some(Duration::from_secs(n));
    let limits = |text: &str, own: &str| {
        let settings = settings(&file(text, &["acme"], own));
        settings.catalog.by_name("acme").unwrap().time_limits
    };
    assert_eq!(limits("", ""), TimeLimits::default());
    let text = "[pool]\nclient_idle_timeout = \"1s\"\nidle_transaction_timeout = \"2s\"\n\
        transaction_timeout = \"3s\"\npin_idle_timeout = \"4s\"\n\
        [tier.warm]\nidle_transaction_timeout = \"20s\"\ntransaction_timeout = \"30s\"\npin_idle_timeout = \"0s\"\n\
        [tier.hot]\nclient_idle_timeout = \"100s\"\n";
    let expected = TimeLimits {
        client_idle: seconds(1),
        idle_transaction: seconds(20),
        transaction: seconds(30),
        pin_idle: None,
    };
    assert_eq!(limits(text, "tier = \"warm\""), expected);
    // Where the proxy chooses the tier, no tier has a say in it.
    assert_eq!(limits(text, "").idle_transaction, seconds(2));
    let own = "tier = \"warm\"\n\
        limits = { idle_transaction_timeout = \"200s\", transaction_timeout = \"0s\", pin_idle_timeout = \"400s\" }";
    let expected =
        TimeLimits { idle_transaction: seconds(200), transaction: None, pin_idle: seconds(400), ..expected };
    assert_eq!(limits(text, own), expected);
    assert_eq!(expected.shortest(), seconds(1));
}

#[test]
fn a_small_file_is_enough() {
    let settings = settings(&file("", &["acme"], ""));
    let acme = settings.catalog.by_name("acme").unwrap();
    assert_eq!(&*acme.database, "app");
    assert_eq!((&*acme.role, &*acme.search_path), ("r_acme", "s_acme"));
    // It begins as cold. Half of the 40 where that is less than 20 shares.
    assert_eq!((acme.tier, acme.allowance.share, acme.allowance.ceiling), (Tier::Cold, 1, 20));
    let tiers = acme.tiers.as_ref().unwrap().map(|allowance| (allowance.share, allowance.ceiling));
    assert_eq!(tiers, [(5, 20), (2, 20), (1, 20)]);
    assert_eq!(acme.queue_timeout, Duration::from_secs(5));
    assert!(matches!(acme.user("acme").unwrap().auth, ClientAuth::Scram(_)));
    assert_eq!(settings.listen.addresses, ["127.0.0.1:6432".parse().unwrap()]);
    let sources =
        [TenantSource::Option, TenantSource::UserSuffix, TenantSource::User, TenantSource::Database];
    assert_eq!(settings.tenant_sources, sources);
}

#[test]
fn tenants_that_may_use_the_same_share_what_says_so() {
    let text = file("", &["acme", "globex", "initech"], "")
        .replace("schema = \"s_initech\"", "schema = \"s_initech\"\nlimits = { reserve = 1 }");
    let catalog = settings(&text).catalog;
    let [acme, globex, initech] =
        ["acme", "globex", "initech"].map(|name| catalog.by_name(name).unwrap().tiers.clone().unwrap());
    assert!(Arc::ptr_eq(&acme, &globex));
    assert_eq!(initech.map(|allowance| allowance.reserve), [1; 3]);
}

#[test]
fn a_domain_switches_sni_on() {
    let settings = settings(&file("login.sni_domain = \"DB.example.com.\"", &["acme"], ""));
    assert_eq!(settings.tenant_sources.first(), Some(&TenantSource::Sni));
    assert_eq!(settings.sni_domain.as_deref(), Some("db.example.com"));
}

#[test]
fn odd_names_are_quoted_in_the_search_path() {
    let text = file("", &["acme"], "")
        .replace("schema = \"s_acme\"", "search_path = ['A\"b', \"order\", \"plain\"]");
    let acme = settings(&text).catalog.by_name("acme").unwrap().clone();
    assert_eq!(&*acme.search_path, "\"A\"\"b\", \"order\", plain");
    assert_eq!(config::names::split_search_path(&acme.search_path), ["A\"b", "order", "plain"]);
}

#[test]
fn tenants_and_clusters_keep_their_numbers() {
    let first = settings(&file("", &["acme", "globex"], ""));
    let id = |settings: &Settings, name: &str| settings.catalog.by_name(name).map(|tenant| tenant.id);
    let again = |text: &str, previous: &Settings| {
        config::load_text(text, Path::new(""), &nothing, Some(previous)).map(|loaded| loaded.settings)
    };
    let other = "[cluster.another]\nurl = \"postgres://localhost/b\"\nmax_connections = 9\n";
    let text = file("", &["new", "globex"], other).replace("role =", "cluster = \"main\"\nrole =");
    let second = again(&text, &first).unwrap();
    assert_eq!(id(&first, "globex"), id(&second, "globex"));
    assert_eq!(id(&second, "acme"), None);
    assert_ne!(id(&second, "new"), id(&first, "acme"), "a number is not used twice");
    assert_eq!(second.catalog.version(), 2);
    let names: Vec<&str> = second.clusters.iter().map(|cluster| &*cluster.name).collect();
    assert_eq!(names, ["main", "another"], "`another` would come first by name");
    assert_eq!(second.clusters[1].id.0, 1);
    let gone = again(&file("", &["acme"], ""), &second).unwrap_err();
    assert!(gone.to_string().contains("cluster `another` is gone"), "{gone}");
}

#[test]
fn secrets_come_from_files_variables_and_credentials() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pw"), "from file\r\n").unwrap();
    fs::write(dir.path().join("cred"), "from credential").unwrap();
    let credentials = dir.path().to_str().unwrap().to_owned();
    let env = move |name: &str| match name {
        "PW" => Some("from env".to_owned()),
        "CREDENTIALS_DIRECTORY" => Some(credentials.clone()),
        _ => None,
    };
    for (written, secret) in [
        ("{ file = \"pw\" }", "from file"),
        ("{ env = \"PW\" }", "from env"),
        ("{ credential = \"cred\" }", "from credential"),
        ("\"plain\"", "plain"),
    ] {
        let text = file("", &["acme"], &format!("server_auth = {{ password = {written} }}\n"));
        let loaded = config::load_text(&text, dir.path(), &env, None).unwrap();
        let ServerAuth::Password(password) = &loaded.settings.catalog.by_name("acme").unwrap().server_auth
        else {
            panic!("no password")
        };
        assert_eq!(password.expose(), secret);
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let env = |name: &str| {
        let value = match name {
            "TENANTRY_LISTEN__ADDRESS" => "127.0.0.1:7000",
            "TENANTRY_HTTP__ADDRESS" => "off",
            "TENANTRY_POOL__QUEUE_TIMEOUT" => "2s",
            "TENANTRY_TIER__WARM__CEILING" => "3",
            "TENANTRY_CLUSTER__MAIN__MAX_CONNECTIONS" => "30",
            "TENANTRY_CLUSTER__MAIN__ADMIN__USER" => "42",
            "TENANTRY_LISTEN__TLS__MODE" => "disable",
            "TENANTRY_LOGIN__TENANT_SOURCES" => "[\"database\"]",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let text = file("", &["acme"], "tier = \"warm\"");
    let settings = config::load_text(&text, Path::new(""), &env, None).unwrap().settings;
    assert_eq!(settings.listen.addresses, ["127.0.0.1:7000".parse().unwrap()]);
    assert_eq!(settings.http, None);
    let acme = settings.catalog.by_name("acme").unwrap();
    assert_eq!((acme.queue_timeout, acme.allowance.ceiling), (Duration::from_secs(2), 3));
    assert_eq!(settings.clusters[0].max_connections, MaxConnections::Fixed(30));
    assert_eq!(&*settings.clusters[0].admin.as_ref().unwrap().user, "42");
    assert_eq!(settings.tenant_sources, [TenantSource::Database]);
    let wrong = |name: &str| (name == "TENANTRY_POOL__MODE").then(|| "statement".to_owned());
    let error = config::load_text(&file("", &["acme"], ""), Path::new(""), &wrong, None).unwrap_err();
    assert!(error.to_string().contains("environment variable TENANTRY_POOL__MODE:1"), "{error}");
}

#[test]
fn a_directory_adds_tenants() {
    let dir = tempfile::tempdir().unwrap();
    let tenants = dir.path().join("tenants.d");
    fs::create_dir(&tenants).unwrap();
    let whole = file("", &["globex"], "");
    let (_, globex) = whole.split_once("[[tenant]]").unwrap();
    fs::write(tenants.join("globex.toml"), format!("[[tenant]]{globex}")).unwrap();
    fs::write(dir.path().join("main.toml"), file("tenants_dir = \"tenants.d\"", &["acme"], "")).unwrap();
    let settings = config::load(&dir.path().join("main.toml"), &nothing, None).unwrap();
    assert_eq!(settings.catalog.len(), 2);
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_an_error() {
    let error = config::load(Path::new("/nonexistent/tenantry.toml"), &nothing, None).unwrap_err();
    assert!(error.to_string().contains("cannot read `/nonexistent/tenantry.toml`"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(config::load(&path, &nothing, None).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn ten_thousand_tenants_are_read_in_one_go() {
    let names: Vec<String> = (0..10_000).map(|number| format!("t{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let loaded = load(&file("", &names, "")).unwrap();
    assert_eq!(loaded.settings.catalog.len(), 10_000);
    assert_eq!(loaded.warnings.len(), 1, "the floors: {:?}", loaded.warnings);
}

#[test]
fn every_key_is_documented_and_no_other() {
    let text = fs::read_to_string("docs/configuration.md").unwrap();
    let documented: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `").and_then(|rest| rest.split_once('`')))
        .map(|(key, _)| key.to_owned())
        .collect();
    let known: BTreeSet<String> = config::all_keys().into_iter().collect();
    let missing: Vec<_> = known.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}, unknown: {unknown:?}");
}

#[test]
fn every_key_that_is_fixed_at_the_start_is_documented_as_such() {
    let text = fs::read_to_string("docs/configuration.md").unwrap();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let key = line.split('`').nth(1).unwrap();
        let cells: Vec<&str> = line.split(" | ").collect();
        let reloadable = cells.last().unwrap().trim_end_matches(" |").trim();
        let fixed = config::reload::RESTART_KEYS.contains(&key);
        assert_eq!(reloadable == "restart", fixed, "{key}: {reloadable}");
    }
}

/// Pieces that make interesting files more often than arbitrary text does.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[listen]",
        "[pool]",
        "[cluster.main]",
        "[[tenant]]",
        "[[tenant.user]]",
        "[tier.hot]",
        "name = \"a\"",
        "= ",
        "url = \"postgres://h/d\"",
        "role = 'r'",
        "schema = \"s\"",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'''",
        "\"\"\"",
        "5",
        "limits = { reserve = 1 }",
        "password = \"x\"",
        "password",
        "scram = \"",
        "\u{e9}\u{1f600}",
        "://u:p@h",
        "max_connections = 3",
        "address = [\"127.0.0.1:1\"]",
        "settings.a = 1",
        "#",
        ".",
        ",",
        "\0",
        "-1",
        "1e400",
    ];
    prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => ".{0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        if let Err(error) = load(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn almost_sensible_text_never_panics(
        pieces in proptest::collection::vec((piece(), prop_oneof!["\n", " "]), 0..40)
    ) {
        let text: String = pieces.into_iter().map(|(piece, gap)| piece + &gap).collect();
        if let Err(error) = load(&text) {
            prop_assert!(!error.titles().is_empty());
        }
    }

    #[test]
    fn damage_to_a_good_file_never_panics(at in 0..600_usize, len in 0..30_usize, put in ".{0,8}") {
        let good = file("[listen.tls]\ncert = \"a\"\nkey = \"b\"\n", &["acme", "globex"], "[drain]\ntimeout = \"3s\"\n");
        let chars: Vec<char> = good.chars().collect();
        let at = at.min(chars.len());
        let (before, after) = (&chars[..at], &chars[(at + len).min(chars.len())..]);
        let damaged: String = before.iter().copied().chain(put.chars()).chain(after.iter().copied()).collect();
        let _ = load(&damaged);
    }
}

/// A mistake on a line with a secret shows the line and not the secret, whatever the mistake is.
#[test]
fn no_mistake_shows_a_secret() {
    let head = "[cluster.main]\nurl = \"postgres://localhost/app\"\nmax_connections = 40\n";
    let tenant = "[[tenant]]\nname = \"acme\"\nrole = \"acme\"\nschema = \"acme\"\n";
    let of_tenant = [
        "client_auth = \"SCRAM-SHA-256$LEAK\"",
        "server_auth = \"LEAKthree\"",
        "server_auth = { pasword = \"LEAKfour\" }",
        "server_auth = { password = LEAK9 }",
        "server_auth = { password = [\"LEAK18\"] }",
        "server_auth = { password: \"LEAKcolon\" }",
        "server_auth = { password = \"LEAKopen }",
        "client_auth = { scram = SCRAM-SHA-256$4096:LEAK==$LEAK=:LEAK= }",
        "client_auth = { scram = { verifier = \"LEAKvf\" } }",
        "limits = { ceiling = ten } # old password LEAKcomment",
    ];
    let of_file = [
        "[http]\ntoken = \"LEAK\"\n",
        "[cluster.b]\nurl = \"postgres://me@h/d?password=LEAK6&x=y\"\nmax_connections = 4\n",
        "[cluster.b]\nurl = \"host=h user=bob password=LEAKkv\"\nmax_connections = 4\n",
        "[cluster.b]\nurl = \"postgresql:/bob:LEAK10@h\"\nmax_connections = 4\n",
        "[cluster.b]\nurl = \"postgres://a:LEAK@h:x/d\"\nmax_connections = 4\nadmin = \"LEAKadmin\"\n",
    ];
    let files = of_tenant.map(|line| format!("{head}{tenant}{line}\n"));
    for text in files.into_iter().chain(of_file.map(|part| format!("{head}{part}{tenant}"))) {
        let error = load(&text).unwrap_err();
        let said = format!("{error}{}", error.titles().join("\n"));
        assert!(!said.contains("LEAK"), "{text}\n{said}");
        assert!(said.contains("-->"), "{said}");
    }
}
