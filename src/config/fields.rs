//! The names of all keys, read off the model itself.
//!
//! Owns the list that `docs/configuration.md`, the environment overrides and the tests are checked against, so that
//! none of them can forget a key.

use serde::de::{self, Deserialize, Deserializer, Visitor, value::Error};

use super::model;

/// The fields of a model struct, as serde sees them.
pub(super) fn fields<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // The probe remembers the fields it is asked for and then fails: there is nothing to deserialize.
    let _ = T::deserialize(Probe(&mut found));
    found
}

/// Every key of the configuration, as a path: `listen.tls.mode`, `cluster.NAME.url`, `tenant.user.name`.
#[must_use]
pub fn all_keys() -> Vec<String> {
    let mut keys = vec!["tenants_dir".to_owned()];
    let sections = [
        ("listen", fields::<model::ListenModel>()),
        ("listen.proxy_protocol", fields::<model::ProxyProtocolModel>()),
        ("listen.tls", fields::<model::TlsModel>()),
        ("http", fields::<model::HttpModel>()),
        ("threads", fields::<model::ThreadsModel>()),
        ("pool", fields::<model::PoolModel>()),
        ("login", fields::<model::LoginModel>()),
        ("jwt", fields::<model::JwtModel>()),
        ("tiering", fields::<model::TieringModel>()),
        ("tier.NAME", fields::<model::TierModel>()),
        ("cluster.NAME", fields::<model::ClusterModel>()),
        ("cluster.NAME.admin", fields::<model::AdminModel>()),
        ("tenant", fields::<model::TenantModel>()),
        ("tenant.limits", fields::<model::LimitsModel>()),
        ("tenant.user", fields::<model::UserModel>()),
        ("drain", fields::<model::DrainModel>()),
        ("log", fields::<model::LogModel>()),
        ("metrics", fields::<model::MetricsModel>()),
        ("trace", fields::<model::TraceModel>()),
    ];
    for (section, names) in sections {
        keys.extend(names.iter().map(|name| format!("{section}.{name}")));
    }
    keys
}

/// A deserializer that only listens.
struct Probe<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("only structs have fields"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(de::Error::custom("nothing to read"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_tells_its_keys() {
        let keys = all_keys();
        for key in ["listen.tls.mode", "pool.queue_timeout", "cluster.NAME.url", "tenant.user.client_auth"] {
            assert!(keys.iter().any(|found| found == key), "{key} is missing in {keys:?}");
        }
        assert!(keys.len() > 60);
    }
}
