//! Tests of the container from outside.

mod allocations;
mod forge;
mod golden;
mod listing;
mod malformed;
mod mutation;
mod writer;
