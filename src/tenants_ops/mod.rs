//! Tenants in the database: the SQL that makes one, and the search for holes in the walls between them.
//!
//! Owns what a tenant's role, schema and grants must look like. Must not know clients, pools or budgets.

pub mod sql;
pub mod wall;
