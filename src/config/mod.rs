//! Configuration: from TOML text to [`Settings`] that are true.
//!
//! ```text
//!  text ──parse──► model (what the file says, with spans) ──build──► Settings (what is true)
//!                     ▲                                        │
//!        environment overrides, tenant files         problems: all of them, each with its line
//! ```
//!
//! Owns the file format, defaults, units, secrets and every check that needs no server. Must not know sockets,
//! threads or a clock. `docs/configuration.md` lists every key; a test compares it with the model.

mod build;
pub mod check;
mod clusters;
mod duration;
mod environment;
mod error;
mod fields;
mod jwt;
mod load;
mod logins;
mod mask;
mod model;
pub mod names;
mod parts;
mod places;
mod proxies;
mod read;
pub mod reload;
mod scram;
mod secret;
pub mod settings;
mod source;
mod tenants;
mod url;
mod values;
mod wall;

pub use error::ConfigError;
pub use fields::all_keys;
pub use load::{Env, Loaded, load, load_strictly, load_text, load_with_warnings};
pub use places::{Place, Places};
pub use settings::{
    AdminLogin, ChannelBinding, Cluster, Drain, Driver, Endpoint, Host, Listen, ListenTls, Log, LogFormat,
    MaxConnections, MaxProtocol, Servers, Settings, SslMode, TargetSessionAttrs, TenantSource, Threads,
    TlsIdentity, TlsMode, TlsVersion, Trace, TrustedProxies,
};
pub use url::parse_endpoint;
