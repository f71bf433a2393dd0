//! Bytes in, values out: the PostgreSQL frontend/backend protocol, versions 3.0 and 3.2.
//!
//! Owns layouts and length checks. Must not do I/O, nor know what a message means for a session.
//!
//! | module | what |
//! |---|---|
//! | [`proxy_header`] | what a load balancer sends before anything else |
//! | [`startup`] | the untagged packets that open a connection |
//! | [`options`] | the startup parameter `options` |
//! | [`messages`] | single messages that the proxy writes or reads itself |
//! | [`frame`] | headers of messages that only pass through |
//! | [`walk`] | where the messages of a stream begin and end |

pub mod frame;
pub mod messages;
pub mod options;
pub mod proxy_header;
pub mod startup;
pub mod walk;
