//! Who a client is, and how it is proved; and how the proxy proves itself to Postgres. Pure: nonces and salts are
//! arguments.
//!
//! | module | what |
//! |---|---|
//! | [`resolve`] | which tenant and user a client claims to be |
//! | [`identity`] | a claim and a proof, as types |
//! | [`refusal`] | why a login fails, and the one face all reasons show |
//! | [`bearer`] | a client's proof by token |
//! | [`verifier`] | what is stored instead of a password |
//! | [`scram_server`] | a client's proof by password |
//! | [`scram_client`] | the proxy's own proof to Postgres |
//! | [`throttle`] | slowing down those who guess |

pub mod bearer;
pub mod identity;
pub mod refusal;
pub mod resolve;
pub mod scram_client;
pub mod scram_server;
pub mod throttle;
pub mod verifier;

#[cfg(test)]
mod fixtures;
