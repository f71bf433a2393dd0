//! From the model to logins: who may log in to a tenant, and how Tenantry logs in for it.
//!
//! Owns the checks of verifiers and the rule that a tenant has somebody who can log in.

use std::sync::Arc;

use toml::Spanned;

use super::build::Builder;
use super::error::Problem;
use super::model::{self, ClientAuthModel, ServerAuthModel};
use super::scram::check_verifier;
use super::secret::SecretText;
use super::source::Span;
use super::values::SubjectModel;
use crate::tenant::{ClientAuth, PoolMode, REPLICA_SUFFIX, ServerAuth, User};

impl Builder<'_> {
    /// Login names: the tenant's own (with `client_auth`) and those of `[[tenant.user]]`.
    pub(super) fn users(&mut self, tenant: &Spanned<String>, model: &model::TenantModel) -> Vec<User> {
        let mut users: Vec<User> = Vec::new();
        if let Some(auth) = &model.client_auth {
            let name = tenant.get_ref().as_str().into();
            let auth = self.client_auth(tenant.get_ref(), auth);
            users.extend(auth.map(|auth| User { name, auth, mode: None }));
        }
        let further = model.user.as_deref().unwrap_or_default();
        for table in further {
            let Some(user) = self.user(table) else { continue };
            if users.iter().any(|known| known.name == user.name) {
                let title = format!("user `{}` of tenant `{}` is defined twice", user.name, tenant.get_ref());
                let span = table.get_ref().name.as_ref().map_or_else(|| table.span(), Spanned::span);
                self.problems.error(Problem::at(span, title, "again"));
            }
            users.push(user);
        }
        if model.client_auth.is_none() && further.is_empty() {
            let problem = Problem::at(
                tenant.span(),
                format!("nobody can log in to tenant `{}`", tenant.get_ref()),
                "no `client_auth` and no `[[tenant.user]]`",
            );
            let help = "add `client_auth = { scram = \"...\" }`; `tenantry hash-password` makes the verifier";
            self.missing(problem.help(help));
        }
        users
    }

    /// `[[tenant.user]]`
    fn user(&mut self, table: &Spanned<model::UserModel>) -> Option<User> {
        let model = table.get_ref();
        let (Some(name), Some(auth)) = (&model.name, &model.client_auth) else {
            let missing = if model.name.is_none() { "name" } else { "client_auth" };
            self.missing(Problem::at(table.span(), format!("a user has no `{missing}`"), ""));
            return None;
        };
        if name.get_ref().ends_with(REPLICA_SUFFIX) {
            let title = format!("no user can be called `{}`", name.get_ref());
            let problem = Problem::at(name.span(), title, "");
            self.problems.error(problem.help("what ends in `+replica` asks for a replica"));
        }
        let name = self.name("the user", name);
        let auth = self.client_auth(&name, auth)?;
        Some(User { name, auth, mode: model.mode.as_ref().map(|word| PoolMode::from(*word.get_ref())) })
    }

    /// `client_auth` of the user of that name.
    fn client_auth(&mut self, user: &str, auth: &Spanned<ClientAuthModel>) -> Option<ClientAuth> {
        let ClientAuthModel { scram, certificate, jwt } = auth.get_ref();
        let token = jwt.as_ref().and_then(|subject| self.token_subject(user, subject));
        match (scram, certificate, token) {
            (Some(text), None, None) => self.verifier(text).map(ClientAuth::Scram),
            (None, None, Some(subject)) => Some(ClientAuth::Token(subject)),
            (Some(text), None, Some(subject)) => {
                self.verifier(text).map(|verifier| ClientAuth::ScramOrToken(verifier, subject))
            }
            (None, Some(name), None) if name.get_ref().is_empty() => {
                self.problems.error(Problem::at(name.span(), "the certificate's common name is empty", ""));
                None
            }
            (None, Some(name), None) => {
                Some(ClientAuth::Certificate { common_name: name.get_ref().as_str().into() })
            }
            (_, Some(_), _) => {
                let title = "a certificate is the only way of a user that has one";
                self.problems.error(Problem::at(auth.span(), title, "more than one way"));
                None
            }
            (None, None, None) => {
                self.missing(Problem::at(auth.span(), "`client_auth` names no way to log in", "").help(
                    "`{ scram = \"...\" }`, `{ jwt = true }`, both of them, or `{ certificate = \"common name\" }`",
                ));
                None
            }
        }
    }

    /// `client_auth.jwt`
    fn token_subject(&mut self, user: &str, subject: &Spanned<SubjectModel>) -> Option<Arc<str>> {
        match subject.get_ref() {
            SubjectModel::Own => Some(user.into()),
            SubjectModel::Nobody => None,
            SubjectModel::Named(name) => {
                if name.is_empty() {
                    let title = "the user claim of a token cannot be empty";
                    self.problems.error(Problem::at(subject.span(), title, ""));
                }
                Some(name.as_str().into())
            }
        }
    }

    /// `client_auth.scram`
    fn verifier(&mut self, text: &Spanned<SecretText>) -> Option<Arc<str>> {
        let secret = self.world.secret(text, self.problems)?;
        match check_verifier(secret.expose()) {
            Err(why) => {
                let problem = Problem::at(text.span(), why, "not a SCRAM verifier")
                    .help("`tenantry hash-password` makes one; a password itself is never written here");
                self.problems.error(problem);
                None
            }
            Ok(iterations) => {
                if iterations < WEAK_BELOW {
                    let title = format!("{iterations} iterations protect a stolen verifier badly");
                    self.problems.warn(Problem::at(text.span(), title, "4096 or more are usual"));
                }
                Some(secret.expose().into())
            }
        }
    }

    /// `server_auth`
    pub(super) fn server_auth(&mut self, model: &model::TenantModel) -> ServerAuth {
        match model.server_auth.as_ref().map(Spanned::get_ref) {
            None | Some(ServerAuthModel::None) => ServerAuth::None,
            Some(ServerAuthModel::Password(text)) => {
                self.world.secret(text, self.problems).map_or(ServerAuth::None, ServerAuth::Password)
            }
        }
    }
}

/// The place of the first user that logs in with a certificate.
pub(super) fn certificate_span(model: &model::TenantModel) -> Option<Span> {
    auth_span(model, |auth| auth.certificate.is_some())
}

/// The place of the first user that logs in with a token.
pub(super) fn token_span(model: &model::TenantModel) -> Option<Span> {
    auth_span(model, |auth| {
        auth.jwt.as_ref().is_some_and(|subject| *subject.get_ref() != SubjectModel::Nobody)
    })
}

fn auth_span(model: &model::TenantModel, is_meant: impl Fn(&ClientAuthModel) -> bool) -> Option<Span> {
    let users = model.user.iter().flatten().map(|user| &user.get_ref().client_auth);
    let all = [&model.client_auth].into_iter().chain(users);
    all.flatten().find(|auth| is_meant(auth.get_ref())).map(Spanned::span)
}

/// PostgreSQL's default number of iterations.
const WEAK_BELOW: u32 = 4_096;
