//! Options that commands share, and what they decide.

pub mod amounts;
pub mod budget;
pub mod calibration;
pub mod decision;
pub mod groups;
pub mod kinds;
pub mod recipe;
pub mod resolve;
