//! Goal: what is shipped around the binary works: alerts and their tests, the container files, the systemd unit, the
//! sample tenants. Method: each file is judged by the tool or the code that will read it.
//!
//! `promtool` must be in the PATH. `hadolint`, `yamllint` and `systemd-analyze` may be missing on a developer's machine;
//! then the test says so. In CI (`CI`, or nextest's profile `ci`) the first two must be there.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test expects by failing, its helpers included")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use tenantry::auth::verifier::Verifier;
use tenantry::config::{self, Settings};
use tenantry::tenant::{ClientAuth, ServerAuth};
use tenantry::tenants_ops::sql::provision;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a tool in a directory of the repository and returns what it said; fails if the tool is not content.
fn run(program: &Path, args: &[&str], dir: &str) -> String {
    let output =
        Command::new(program).args(args).current_dir(root().join(dir)).output().unwrap_or_else(|error| {
            panic!("{}: {error} (tests/setup.sh test installs it)", program.display())
        });
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {}: {said}", program.display(), args.join(" "));
    said
}

fn promtool(args: &[&str]) -> String {
    run(Path::new("promtool"), args, "docker/prometheus")
}

/// A tool that may be missing, from the PATH or from where `tests/setup.sh` puts it.
fn optional(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let drivers = ["target/drivers/bin", "target/drivers/venv/bin"].map(|dir| root().join(dir));
    std::env::split_paths(&path).chain(drivers).map(|dir| dir.join(tool)).find(|file| file.is_file())
}

/// As [`optional`], but required in CI.
fn wanted(tool: &str) -> Option<PathBuf> {
    let found = optional(tool);
    let is_ci =
        std::env::var_os("CI").is_some() || std::env::var("NEXTEST_PROFILE").is_ok_and(|it| it == "ci");
    assert!(found.is_some() || !is_ci, "{tool} must be installed in CI");
    if found.is_none() {
        eprintln!("{tool} is not installed: its files were not checked");
    }
    found
}

// --- Prometheus ------------------------------------------------------------------------------------------------------

#[test]
fn prometheus_accepts_its_configuration_and_the_alerts() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "alerts.yml"]);
}

#[test]
fn the_alerts_pass_their_tests() {
    promtool(&["test", "rules", "alerts_test.yml"]);
}

fn alerts() -> Vec<String> {
    values(&text("docker/prometheus/alerts.yml"), "- alert: ")
}

/// What stands behind a prefix, on all lines that have it.
fn values(text: &str, prefix: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.trim().strip_prefix(prefix)).map(str::to_owned).collect()
}

#[test]
fn every_alert_is_tested_firing_and_not_firing() {
    let tests = text("docker/prometheus/alerts_test.yml");
    for alert in alerts() {
        let checks: Vec<_> = tests
            .split("- eval_time: ")
            .filter(|check| check.contains(&format!("alertname: {alert}\n")))
            .collect();
        assert!(
            checks.iter().any(|check| check.contains("exp_alerts: []")),
            "{alert} is never seen not firing"
        );
        assert!(checks.iter().any(|check| check.contains("exp_labels:")), "{alert} is never seen firing");
    }
}

#[test]
fn every_alert_has_a_page_that_says_what_to_do() {
    let pages = text("docs/alerts.md");
    let described: BTreeSet<_> =
        values(&pages, "## Tenantry").into_iter().map(|name| format!("Tenantry{name}")).collect();
    assert_eq!(described, alerts().into_iter().collect());
    for link in values(&text("docker/prometheus/alerts.yml"), "runbook: ") {
        let anchor = link.strip_prefix("docs/alerts.md#").expect("a link to docs/alerts.md");
        assert!(described.iter().any(|name| name.to_lowercase() == anchor), "{link}");
    }
}

/// `docs/metrics.md` is compared with the exposition by the test `telemetry`.
#[test]
fn every_metric_in_an_alert_exists() {
    let documented = text("docs/metrics.md");
    let alerts = text("docker/prometheus/alerts.yml");
    let expressions = values(&alerts, "expr: ").join("\n");
    let words = expressions.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let metrics: BTreeSet<_> = words.filter(|word| word.starts_with("tenantry_")).collect();
    assert!(metrics.len() >= 6, "{metrics:?}");
    for metric in metrics {
        assert!(documented.contains(&format!("| `{metric}` |")), "{metric} is not exported");
    }
}

// --- Containers ------------------------------------------------------------------------------------------------------

#[test]
fn the_dockerfile_is_clean() {
    if let Some(hadolint) = wanted("hadolint") {
        run(&hadolint, &["--failure-threshold", "style", "Dockerfile"], "docker");
    }
}

#[test]
fn the_image_has_no_root_and_no_shell() {
    let file = text("docker/Dockerfile");
    let (_, runtime) = file.rsplit_once("\nFROM ").unwrap();
    assert!(runtime.starts_with("gcr.io/distroless/cc-debian12:nonroot\n"));
    assert!(runtime.contains("\nUSER 65532:65532\n"));
    assert!(runtime.contains("\nSTOPSIGNAL SIGTERM\n"));
    // The shell form of any of these would need a shell.
    for instruction in ["RUN ", "CMD ", "ENTRYPOINT "] {
        for line in runtime.lines().map(str::trim_start).filter(|line| line.starts_with(instruction)) {
            assert!(line.starts_with(&format!("{instruction}[")), "{line}");
        }
    }
}

#[test]
fn the_builder_is_new_enough() {
    let version = |text: &str| -> (u32, u32) {
        let mut parts = text.trim_matches('"').split('.').map(|part| part.parse().unwrap());
        (parts.next().unwrap(), parts.next().unwrap())
    };
    let wanted = version(&values(&text("Cargo.toml"), "rust-version = ")[0]);
    let built_with = version(&values(&text("docker/Dockerfile"), "ARG RUST_VERSION=")[0]);
    assert!(built_with >= wanted, "{built_with:?} builds what needs {wanted:?}");
}

#[test]
fn the_yaml_files_are_clean() {
    let rules =
        "{extends: default, rules: {line-length: disable, document-start: disable, brackets: disable}}";
    if let Some(yamllint) = wanted("yamllint") {
        run(&yamllint, &["--strict", "-d", rules, "docker"], ".");
    }
}

#[test]
fn compose_understands_its_file() {
    // Only where Docker's plugin is installed; it needs no engine for this.
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    if plugin.is_ok_and(|output| output.status.success()) {
        run(Path::new("docker"), &["compose", "-f", "docker/compose.yml", "config", "--quiet"], ".");
    } else {
        eprintln!("docker compose is not installed: its file was not checked");
    }
}

#[test]
fn compose_publishes_nothing_beyond_this_machine_and_keeps_every_root_read_only() {
    let compose = text("docker/compose.yml");
    for port in compose.lines().map(str::trim).filter(|line| line.starts_with("- \"") && line.contains(':')) {
        assert!(port.starts_with("- \"127.0.0.1:"), "{port}");
    }
    let services = values(&compose, "image: ").len();
    assert_eq!(values(&compose, "read_only: ").iter().filter(|value| *value == "true").count(), services);
    assert_eq!(values(&compose, "cap_drop: ").iter().filter(|value| *value == "[ALL]").count(), services);
}

// --- The sample tenants of compose.yml -------------------------------------------------------------------------------

/// The configuration as the container sees it, with the secrets from where they are here.
fn sample() -> Settings {
    let secrets = root().join("docker/secrets");
    let text = text("docker/tenantry.toml").replace("/run/secrets", secrets.to_str().unwrap());
    config::load_text(&text, root(), &|_| None, None).unwrap_or_else(|error| panic!("{error}")).settings
}

#[test]
fn the_sample_configuration_is_valid_and_listens_where_compose_looks() {
    let settings = sample();
    let addresses: Vec<_> = settings.listen.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["0.0.0.0:6432"]);
    assert_eq!(settings.http.unwrap().to_string(), "0.0.0.0:9127");
    assert_eq!(settings.catalog.len(), 2);
    let compose = text("docker/compose.yml");
    let grace: u64 = values(&compose, "stop_grace_period: ")[0].trim_end_matches('s').parse().unwrap();
    assert!(grace > settings.drain.timeout.as_secs());
}

#[test]
fn the_init_scripts_are_what_tenant_sql_prints() {
    let settings = sample();
    for (file, tenant) in [("10-acme.sql", "acme"), ("20-globex.sql", "globex")] {
        let tenant = settings.catalog.by_name(tenant).unwrap();
        let ServerAuth::Password(password) = &tenant.server_auth else { panic!("a password") };
        let path = format!("docker/postgres/{file}");
        let script = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
        let verifier = verifier_in(&script);
        if let Some(verifier) = &verifier {
            assert_password(verifier, password.expose());
        }
        let printed = provision(tenant, verifier.as_deref());
        if std::env::var_os("TENANTRY_UPDATE_SAMPLES").is_some() {
            std::fs::write(root().join(&path), &printed).unwrap();
        } else {
            assert_eq!(script, printed, "{path}: run this test with TENANTRY_UPDATE_SAMPLES=1");
        }
        assert!(verifier.is_some(), "{path} sets no password");
    }
    let admin = settings.clusters[0].admin.as_ref().unwrap();
    let verifier = verifier_in(&text("docker/postgres/00-admin.sql")).unwrap();
    assert_password(&verifier, admin.password.as_ref().unwrap().expose());
}

#[test]
fn the_sample_passwords_in_the_comments_are_right() {
    let settings = sample();
    for name in ["acme", "globex"] {
        let user = &settings.catalog.by_name(name).unwrap().users[0];
        let ClientAuth::Scram(verifier) = &user.auth else { panic!("a verifier") };
        assert_password(verifier, &format!("sample-{name}"));
        assert!(
            text("docker/tenantry.toml")
                .contains(&format!("postgres://{name}:sample-{name}@127.0.0.1:6432/app"))
        );
    }
}

/// The first verifier in a script.
fn verifier_in(script: &str) -> Option<String> {
    let (_, rest) = script.split_once("PASSWORD '")?;
    Some(rest.split_once('\'')?.0.to_owned())
}

fn assert_password(verifier: &str, password: &str) {
    let verifier = Verifier::parse(verifier).unwrap();
    let made = Verifier::from_password(password, &verifier.salt, verifier.iterations);
    assert!(made == verifier, "the verifier belongs to another password than {password}");
}

// --- systemd ---------------------------------------------------------------------------------------------------------

#[test]
fn the_unit_is_as_closed_as_systemd_can_tell() {
    let Some(analyze) = optional("systemd-analyze") else {
        eprintln!("systemd-analyze is not installed: the unit was not checked");
        return;
    };
    // Exposure is counted in tenths here: at most 2.0 of 10.
    run(&analyze, &["security", "--offline=true", "--threshold=20", "./tenantry.service"], "docker/systemd");
}

#[test]
fn the_unit_gives_a_drain_its_time() {
    let unit = text("docker/systemd/tenantry.service");
    let stop: u64 = values(&unit, "TimeoutStopSec=")[0].trim_end_matches('s').parse().unwrap();
    assert!(stop > sample().drain.timeout.as_secs());
    assert!(unit.contains("\nType=notify-reload\n") && unit.contains("\nLimitNOFILE=1048576\n"));
}
