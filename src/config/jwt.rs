//! From the model to settings: the issuer of tokens and its keys.
//!
//! Owns the defaults of `[jwt]`, and the report of a file of keys that is of no use. What makes a key good is the tenant
//! layer's.

use std::sync::Arc;

use toml::Spanned;

use super::build::Builder;
use super::error::Problem;
use super::model::{self, Section, Value};
use super::values::OneOrMany;
use crate::tenant::issuer::{Algorithm, Issuer, KeySet, KeysError, TokenAs};

impl Builder<'_> {
    /// `[jwt]`
    pub(super) fn issuer(&mut self, section: &Section<model::JwtModel>) -> Option<Issuer> {
        let model = &section.value;
        self.damaged = section.damaged;
        for (key, is_there) in [
            ("issuer", model.issuer.is_some()),
            ("audience", model.audience.is_some()),
            ("keys", model.keys.is_some()),
        ] {
            if !is_there {
                let problem = Problem::at(section.span.clone(), format!("`[jwt]` has no `{key}`"), "");
                self.missing(
                    problem.help("`issuer`, `audience` and `keys` say whose tokens are taken, and for whom"),
                );
            }
        }
        self.damaged = false;
        let algorithms = self.algorithms(&model.algorithms);
        let keys = model.keys.as_ref().and_then(|path| self.keys(path, &algorithms));
        let audiences = self.texts("jwt.audience", &model.audience);
        let scopes = self.texts("jwt.scope", &model.scope);
        let name = self.text("jwt.issuer", &model.issuer, "");
        Some(Issuer {
            name,
            audiences,
            scopes,
            algorithms,
            keys: keys?,
            tenant_claim: self.text("jwt.tenant_claim", &model.tenant_claim, "tenant"),
            user_claim: self.text("jwt.user_claim", &model.user_claim, "sub"),
            leeway_s: model.leeway.as_ref().map_or(LEEWAY_S, |leeway| leeway.get_ref().0.as_secs()),
            token_as: model.token_as.as_ref().map_or(TokenAs::OauthBearer, |word| (*word.get_ref()).into()),
            ends_sessions: model.ends_sessions.as_ref().is_some_and(|ends| *ends.get_ref()),
        })
    }

    /// `jwt.algorithms`
    fn algorithms(&mut self, value: &Value<Vec<Spanned<model::AlgorithmModel>>>) -> Vec<Algorithm> {
        let Some(list) = value else { return DEFAULT_ALGORITHMS.to_vec() };
        if list.get_ref().is_empty() {
            self.problems.error(Problem::at(
                list.span(),
                "without an algorithm no token can be checked",
                "empty",
            ));
        }
        list.get_ref().iter().map(|word| (*word.get_ref()).into()).collect()
    }

    /// `jwt.keys`
    fn keys(&mut self, path: &Spanned<std::path::PathBuf>, algorithms: &[Algorithm]) -> Option<KeySet> {
        let file = self.world.path(path.get_ref());
        let shown = file.display();
        let text = match (self.world.read)(&file) {
            Ok(text) => text,
            Err(error) => {
                let title = format!("cannot read the keys `{shown}`: {error}");
                self.problems.error(Problem::at(path.span(), title, "these keys"));
                return None;
            }
        };
        match KeySet::parse(&text, algorithms) {
            Ok(keys) => Some(keys),
            Err(why) => {
                let title = format!("the keys `{shown}` are of no use: {why}");
                let help = match why {
                    KeysError::Unreadable(_) => {
                        "take what the issuer shows at its `jwks_uri`, or its public key in PEM"
                    }
                    KeysError::Secret => "take what the issuer shows at its `jwks_uri`",
                    KeysError::None => "`jwt.algorithms` lists what is accepted",
                };
                self.problems.error(Problem::at(path.span(), title, "these keys").help(help));
                None
            }
        }
    }

    /// A text that is not empty; an empty one would be found in tokens that lack it.
    fn text(&mut self, key: &str, value: &Value<String>, default: &str) -> Arc<str> {
        let Some(text) = value else { return default.into() };
        if text.get_ref().is_empty() {
            self.problems.error(Problem::at(text.span(), format!("`{key}` is empty"), ""));
        }
        text.get_ref().as_str().into()
    }

    /// Texts of which none is empty.
    fn texts(&mut self, key: &str, value: &Value<OneOrMany>) -> Vec<Arc<str>> {
        let Some(value) = value else { return Vec::new() };
        let texts = OneOrMany::list(value);
        if texts.is_empty() {
            self.problems.error(Problem::at(value.span(), format!("`{key}` is empty"), ""));
        }
        texts.into_iter().map(|text| self.text(key, &Some(text), "")).collect()
    }
}

/// What issuers use.
const DEFAULT_ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// How far clocks are apart that are set by NTP, and much more.
const LEEWAY_S: u64 = 30;
