//! How one tenant logs in: its startup packet, its secret and the keys derived from it.
//!
//! Owns what is the same for all server logins of a tenant. A changed tenant gets a new profile.

use std::sync::Arc;

use super::connector::Connector;
use super::keys::KeyCache;
use super::startup::{self, ClientWishes, StartupRefusal, Wishes};
use crate::config::settings::AdminLogin;
use crate::tenant::{Replication, Secret, ServerAuth, Tenant};

/// A login of one role on one cluster. Cloning shares it, and the keys in it.
#[derive(Clone, Debug)]
pub struct Profile(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connector: Connector,
    startup: Result<Vec<u8>, StartupRefusal>,
    password: Option<Secret>,
    keys: Arc<KeyCache>,
}

impl Profile {
    /// The login of a tenant's role.
    #[must_use]
    pub fn new(connector: &Connector, tenant: &Tenant) -> Self {
        let wishes = wishes(connector, tenant, None);
        let password = match &tenant.server_auth {
            ServerAuth::Password(password) => Some(password.clone()),
            ServerAuth::None => None,
        };
        Self::build(connector, &wishes, password)
    }

    /// The same login for a replication connection of one client, with its settings.
    #[must_use]
    pub fn for_replication(
        &self,
        tenant: &Tenant,
        replication: Replication,
        settings: &[(Box<str>, Box<str>)],
    ) -> Self {
        let connector = &self.0.connector;
        let wishes = wishes(connector, tenant, Some(ClientWishes { replication, settings }));
        let (connector, startup) = (connector.clone(), startup::packet(&wishes));
        let (password, keys) = (self.0.password.clone(), self.0.keys.clone());
        Self(Arc::new(Shared { connector, startup, password, keys }))
    }

    /// The same login by a connector to the same place, with the keys that have been derived.
    #[must_use]
    pub fn connecting_by(&self, connector: &Connector) -> Self {
        let Shared { startup, password, keys, .. } = &*self.0;
        let (startup, password, keys) = (startup.clone(), password.clone(), keys.clone());
        Self(Arc::new(Shared { connector: connector.clone(), startup, password, keys }))
    }

    /// The proxy's own login.
    #[must_use]
    pub fn for_admin(connector: &Connector, login: &AdminLogin) -> Self {
        let wishes = Wishes {
            role: &login.user,
            database: &login.database,
            search_path: None,
            settings: &[],
            protocol: connector.protocol(),
            replication: None,
        };
        Self::build(connector, &wishes, login.password.clone())
    }

    /// Key derivations (PBKDF2) done for this profile so far: one per password, however many logins.
    #[must_use]
    pub fn key_derivations(&self) -> u64 {
        self.0.keys.derived()
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.0.connector
    }

    pub(super) fn startup(&self) -> Result<&[u8], StartupRefusal> {
        self.0.startup.as_deref().map_err(|refusal| *refusal)
    }

    pub(super) fn password(&self) -> Option<&Secret> {
        self.0.password.as_ref()
    }

    pub(super) fn keys(&self) -> &KeyCache {
        &self.0.keys
    }

    fn build(connector: &Connector, wishes: &Wishes<'_>, password: Option<Secret>) -> Self {
        let startup = startup::packet(wishes);
        Self(Arc::new(Shared { connector: connector.clone(), startup, password, keys: Arc::default() }))
    }
}

/// What a server of this tenant is logged in with.
fn wishes<'a>(
    connector: &Connector,
    tenant: &'a Tenant,
    replication: Option<ClientWishes<'a>>,
) -> Wishes<'a> {
    Wishes {
        role: &tenant.role,
        database: &tenant.database,
        search_path: Some(&tenant.search_path),
        settings: &tenant.settings,
        protocol: connector.protocol(),
        replication,
    }
}
