//! Single protocol messages as values: those the proxy writes itself, and those of a login that it reads.
//!
//! Owns their layout (PostgreSQL manual, "Message Formats"). Must not know when a message is due, nor the relay:
//! messages that only pass through are never looked at here (`wire::frame`).

mod build;
mod read;

pub use build::{
    put_authentication_cleartext_password, put_authentication_ok, put_authentication_sasl,
    put_authentication_sasl_continue, put_authentication_sasl_final, put_backend_key_data,
    put_close_complete, put_command_complete, put_error, put_negotiate_protocol_version, put_notice,
    put_parameter_status, put_parse_complete, put_ready_for_query, put_sasl_initial_response,
    put_sasl_response, put_server_error_as_fatal, put_terminate,
};
pub use read::{
    Authentication, ErrorFields, Mechanisms, Message, MessageError, SaslInitial, parse_authentication,
    parse_backend_key_data, parse_error_fields, parse_negotiate_protocol_version, parse_parameter_status,
    parse_sasl_initial, split_message,
};
