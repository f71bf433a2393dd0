//! Loading: files, directory, environment, and the steps from text to [`Settings`].
//!
//! Owns the order of the steps and every access to the file system that a configuration needs. The only file of
//! `config` that does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use toml::Spanned;

use super::build::{Builder, directory};
use super::clusters::BuiltCluster;
use super::environment;
use super::error::{ConfigError, Problem, Problems};
use super::model::{ClusterModel, Model, Section, TenantModel};
use super::parts::parts;
use super::places::Places;
use super::secret::World;
use super::settings::{MaxConnections, Settings};
use super::source::Sources;
use super::tenants::{BuiltTenant, Defaults};
use super::{check, read, wall};
use crate::tenant::{Catalog, PoolMode, Tenant, Tiering};

/// A value of the environment by its name.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Settings, and what is unwise about them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings as text, with line and caret.
    pub warnings: Vec<String>,
    /// Where the certificates are named, which are not loaded yet.
    pub places: Places,
}

/// Loads a file. With `previous`, tenants and clusters keep their numbers.
///
/// # Errors
/// Everything that is wrong with it, in one error.
pub fn load(path: &Path, env: Env<'_>, previous: Option<&Settings>) -> Result<Settings, ConfigError> {
    load_with_warnings(path, env, previous).map(|loaded| loaded.settings)
}

/// As [`load`], with warnings.
///
/// # Errors
/// Everything that is wrong with it, in one error.
pub fn load_with_warnings(
    path: &Path,
    env: Env<'_>,
    previous: Option<&Settings>,
) -> Result<Loaded, ConfigError> {
    load_strictly(path, env, &[], previous)
}

/// As [`load_with_warnings`]; a variable among `variables` that is spelled like an override and overrides nothing is
/// an error.
///
/// # Errors
/// Everything that is wrong with it, in one error.
pub fn load_strictly(
    path: &Path,
    env: Env<'_>,
    variables: &[String],
    previous: Option<&Settings>,
) -> Result<Loaded, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigError::plain(format!("cannot read `{}`: {error}", path.display())))?;
    let name = path.display().to_string();
    let world = World { env, variables, read: &|path| fs::read_to_string(path), base: directory(path) };
    Loading::new(&world, previous).run(&name, &text)
}

/// As [`load_with_warnings`], from a text; relative paths start at `base`.
///
/// # Errors
/// Everything that is wrong with it, in one error.
pub fn load_text(
    text: &str,
    base: &Path,
    env: Env<'_>,
    previous: Option<&Settings>,
) -> Result<Loaded, ConfigError> {
    let world = World { env, variables: &[], read: &|path| fs::read_to_string(path), base };
    Loading::new(&world, previous).run("tenantry.toml", text)
}

/// `[cluster.NAME]`
type NamedCluster = (Spanned<String>, Section<ClusterModel>);

/// Texts of which only tenants are still to be read, each with the number of its first byte.
struct Unread<'t> {
    /// Of the main file.
    parts: Vec<(usize, &'t str)>,
    files: Vec<(usize, String)>,
}

/// One load in progress.
struct Loading<'a> {
    world: &'a World<'a>,
    previous: Option<&'a Settings>,
    sources: Sources,
    problems: Problems,
}

impl<'a> Loading<'a> {
    /// Nothing read yet.
    fn new(world: &'a World<'a>, previous: Option<&'a Settings>) -> Self {
        Self { world, previous, sources: Sources::default(), problems: Problems::default() }
    }

    /// All steps.
    fn run(mut self, name: &str, text: &str) -> Result<Loaded, ConfigError> {
        let mut built = None;
        // After a syntax error nobody knows what the rest was meant to be.
        if let Some((mut model, parts)) = self.main_file(name, text) {
            let unread = Unread { parts, files: self.tenant_files(&mut model) };
            built = self.build(&model, &unread).map(|settings| (settings, model));
        }
        let warnings = self.problems.finish(&self.sources)?;
        let incomplete = || ConfigError::plain("the configuration is incomplete".to_owned());
        let (settings, model) = built.ok_or_else(incomplete)?;
        let places = Places::new(&model, |path| self.world.path(path), self.sources);
        Ok(Loaded { settings, warnings, places })
    }

    /// Reads the main file, up to the parts of a long one, and what the environment puts over it.
    fn main_file<'t>(&mut self, name: &str, text: &'t str) -> Option<(Model, Vec<(usize, &'t str)>)> {
        let base = self.sources.add(name, text);
        let (first, mut others) = parts(text);
        others.iter_mut().for_each(|(start, _)| *start = start.saturating_add(base));
        let mut table = read::parse(first, base, &mut self.problems);
        let overrides = environment::overrides(&table, self.world.env);
        for one in &overrides {
            let base = self.sources.add(format!("environment variable {}", one.variable), &one.line);
            let line = read::parse(&one.line, base, &mut self.problems);
            environment::apply(&mut table, line, one.path());
        }
        let (mut model, mut found) = (Model::default(), Problems::default());
        let strangers = environment::strangers(&table, self.world.variables);
        strangers.into_iter().for_each(|problem| found.error(problem));
        read::main_file(table, &mut model, &mut found);
        if !self.problems.is_ok() {
            // Whatever else was found may be a consequence.
            return None;
        }
        self.problems.extend(found);
        Some((model, others))
    }

    /// Reads the tenants' directory, in the order of the files' names. Each text with the number of its first byte.
    fn tenant_files(&mut self, model: &mut Model) -> Vec<(usize, String)> {
        let Some(dir) = model.tenants_dir.take() else { return Vec::new() };
        let path = self.world.path(dir.get_ref());
        let files = match toml_files(&path) {
            Ok(files) => files,
            Err(error) => {
                let title = format!("cannot read the directory `{}`: {error}", path.display());
                self.problems.error(Problem::at(dir.span(), title, ""));
                return Vec::new();
            }
        };
        let mut texts = Vec::with_capacity(files.len());
        for file in files {
            match (self.world.read)(&file) {
                Ok(text) => texts.push((self.sources.add(file.display().to_string(), &text), text)),
                Err(error) => {
                    let title = format!("cannot read `{}`: {error}", file.display());
                    self.problems.error(Problem::at(dir.span(), title, "from this directory"));
                }
            }
        }
        texts
    }

    /// The tenants. What the parser and the model keep of one is several KiB: so each part is read and built before the
    /// next. `None` with the errors of syntax in parts of the main file: all others may be a consequence.
    fn tenants(
        &mut self,
        first: &[Section<TenantModel>],
        unread: &Unread<'_>,
        defaults: &Defaults<'_>,
    ) -> Option<Vec<BuiltTenant>> {
        let mut builder = Builder::new(self.world, &mut self.problems);
        let mut tenants: Vec<_> =
            first.iter().filter_map(|section| builder.tenant(section, defaults)).collect();
        let mut syntax = Problems::default();
        for (base, part) in &unread.parts {
            let mut model = Model::default();
            read::main_file(read::parse(part, *base, &mut syntax), &mut model, builder.problems);
            tenants.extend(model.tenants.iter().filter_map(|section| builder.tenant(section, defaults)));
        }
        if !syntax.is_ok() {
            self.problems = syntax;
            return None;
        }
        for (base, text) in &unread.files {
            let mut model = Model::default();
            let table = read::parse(text, *base, builder.problems);
            read::tenant_file(table, &mut model, builder.problems);
            tenants.extend(model.tenants.iter().filter_map(|section| builder.tenant(section, defaults)));
        }
        Some(tenants)
    }

    /// Gives the model its meaning. `None` only with an error reported.
    fn build(&mut self, model: &Model, unread: &Unread<'_>) -> Option<Settings> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let clusters = self.clusters(&model.clusters);
        let mut builder = Builder::new(self.world, &mut self.problems);
        let listen = builder.listen(&model.listen);
        let http = builder.http(&model.http);
        let http_token = builder.http_token(&model.http);
        let threads = builder.threads(&model.threads, cores, &clusters);
        let servers = builder.servers(&model.pool);
        let (tenant_sources, sni_domain) = builder.login(&model.login);
        let issuer = model.jwt.as_ref().and_then(|section| builder.issuer(section)).map(Arc::new);
        let drain = builder.drain(&model.drain);
        let log = builder.log(&model.log);
        let trace = builder.trace(&model.trace);
        let tiering = model.tiering.mode.as_ref().map_or(Tiering::Demand, |mode| (*mode.get_ref()).into());
        let defaults = Defaults {
            tiering,
            cluster_index: index(&clusters),
            clusters: &clusters,
            tiers: &model.tiers,
            mode: model.pool.mode.as_ref().map_or(PoolMode::Transaction, |word| (*word.get_ref()).into()),
            queue_timeout: builder.positive_duration(
                "pool.queue_timeout",
                &model.pool.queue_timeout,
                QUEUE_TIMEOUT_S,
            ),
            pool: &model.pool,
            max_clients: builder.positive(
                "pool.max_clients_per_tenant",
                &model.pool.max_clients_per_tenant,
                MAX_CLIENTS_PER_TENANT,
            ),
            threads: threads.workers,
        };
        let tenants = self.tenants(&model.tenants, unread, &defaults)?;
        wall::check(&tenants, &clusters, &mut self.problems);
        wall::certificates(&tenants, &listen.tls, &mut self.problems);
        wall::tokens(&tenants, model.jwt.is_some(), &listen, &mut self.problems);
        wall::ambiguities(&tenants, &tenant_sources, &mut self.problems);
        wall::host_names(&tenants, &tenant_sources, &mut self.problems);
        self.sums(&clusters, threads.workers, &tenants);
        let catalog = self.catalog(tenants)?;
        Some(Settings {
            listen,
            http,
            http_token,
            threads,
            servers,
            tenant_sources,
            sni_domain,
            issuer,
            clusters: clusters.into_iter().map(|built| Arc::new(built.cluster)).collect(),
            tiering,
            catalog: Arc::new(catalog),
            drain,
            log,
            metrics_top_tenants: top_tenants(model.metrics.top_tenants.as_ref()),
            trace,
        })
    }

    /// The clusters. Those known before keep their numbers; a number is an index, so none may disappear.
    fn clusters(&mut self, models: &[NamedCluster]) -> Vec<BuiltCluster> {
        let mut models: Vec<&NamedCluster> = models.iter().collect();
        let before: HashMap<&str, usize> = self
            .previous
            .map(|previous| {
                previous.clusters.iter().enumerate().map(|(index, cluster)| (&*cluster.name, index)).collect()
            })
            .unwrap_or_default();
        models.sort_by_key(|(name, _)| before.get(name.get_ref().as_str()).copied().unwrap_or(usize::MAX));
        for name in before.keys().filter(|name| !models.iter().any(|(model, _)| model.get_ref() == **name)) {
            let problem =
                Problem::nowhere(format!("cluster `{name}` is gone: a reload cannot remove a cluster"))
                    .help("remove its tenants now, and the cluster with the next restart");
            self.problems.error(problem);
        }
        if models.is_empty() {
            let problem = Problem::nowhere("there is no cluster")
                .help("add `[cluster.main]` with `url = \"postgres://host:5432/database\"`");
            self.problems.error(problem);
        }
        let mut builder = Builder::new(self.world, &mut self.problems);
        let mut clusters: Vec<_> = models
            .iter()
            .enumerate()
            .map(|(index, (name, section))| builder.cluster(index, name, section))
            .collect();
        builder.primaries(&mut clusters);
        clusters
    }

    /// Sums of the clusters whose budget is a number.
    fn sums(&mut self, clusters: &[BuiltCluster], workers: usize, tenants: &[BuiltTenant]) {
        for built in clusters {
            let MaxConnections::Fixed(budget) = built.cluster.max_connections else { continue };
            let tenants = tenants.iter().map(|built| &built.tenant);
            match check::sums(&built.cluster, budget, workers, tenants) {
                Err(error) => {
                    self.problems.error(Problem::at(
                        built.budget_span.clone(),
                        error.to_string(),
                        "the budget",
                    ));
                }
                Ok(warnings) => warnings.into_iter().for_each(|warning| {
                    self.problems.warn(Problem::at(built.budget_span.clone(), warning.text, "the budget"));
                }),
            }
        }
    }

    /// The next snapshot of the catalog.
    fn catalog(&mut self, tenants: Vec<BuiltTenant>) -> Option<Catalog> {
        let tenants: Vec<Tenant> = tenants.into_iter().map(|built| built.tenant).collect();
        let empty = Catalog::default();
        let previous = self.previous.map_or(&empty, |previous| &previous.catalog);
        match previous.next(tenants) {
            Ok(catalog) => Some(catalog),
            // A name that is there twice was reported with its places.
            Err(_) if !self.problems.is_ok() => None,
            Err(error) => {
                self.problems.error(Problem::nowhere(error.to_string()));
                None
            }
        }
    }
}

/// Clusters' places in the list by name.
fn index(clusters: &[BuiltCluster]) -> HashMap<&str, usize> {
    clusters.iter().enumerate().map(|(index, built)| (&*built.cluster.name, index)).collect()
}

/// `metrics.top_tenants`
fn top_tenants(value: Option<&Spanned<u32>>) -> usize {
    usize::try_from(value.map_or(TOP_TENANTS, |value| *value.get_ref())).unwrap_or(usize::MAX)
}

/// The `*.toml` files of a directory by name; hidden ones are left out (editors and ConfigMaps make them).
fn toml_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `pool.queue_timeout` in seconds.
const QUEUE_TIMEOUT_S: u64 = 5;

/// `pool.max_clients_per_tenant`
const MAX_CLIENTS_PER_TENANT: u32 = 1_000;

/// `metrics.top_tenants`
const TOP_TENANTS: u32 = 500;
