//! Policy, plan, execution, journal and report of a conversion.
//!
//! This crate does not know the network or a terminal.
