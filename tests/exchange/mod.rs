//! The parts of the simulation: a model of Postgres, scripts for clients, the world that plays them, what may differ.

mod asked;
mod author;
mod backend;
mod compare;
mod copy;
mod garbage;
mod messages;
mod rng;
mod runs;
mod sql;
mod wild;
mod world;
