//! Parts of the simulation: the world and its checkers, loads, the naive reference, and the tests by method.

mod chaos;
mod cluster;
mod differential;
mod evictions;
mod exchange;
mod exhaustive;
mod fairness;
mod long_holds;
mod reference;
mod rng;
mod scenarios;
mod shares;
mod stops;
mod world;
