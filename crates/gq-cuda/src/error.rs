//! Launches that are refused.

use thiserror::Error;

/// A launch whose shapes or sizes do not fit its kernel.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LaunchError {
    /// A range of memory is too short.
    #[error("{kernel}: {what} takes {needed} bytes, {actual} are there")]
    Bytes {
        /// Kernel.
        kernel: &'static str,
        /// Parameter.
        what: &'static str,
        /// Bytes that the shape calls for.
        needed: u64,
        /// Bytes given.
        actual: u64,
    },
    /// An address that loads of the kernel's width do not take.
    #[error("{kernel}: {what} begins at {address:#x}, which is no multiple of {align}")]
    Align {
        /// Kernel.
        kernel: &'static str,
        /// Parameter.
        what: &'static str,
        /// Address given.
        address: u64,
        /// What it must be a multiple of.
        align: u64,
    },
    /// A number out of range.
    #[error("{kernel}: {what} is {actual}, the kernel takes {least} to {most}")]
    Range {
        /// Kernel.
        kernel: &'static str,
        /// Parameter.
        what: &'static str,
        /// Given.
        actual: usize,
        /// Least.
        least: usize,
        /// Most.
        most: usize,
    },
    /// A number that does not divide.
    #[error("{kernel}: {what} is {actual}, the kernel takes multiples of {of}")]
    Multiple {
        /// Kernel.
        kernel: &'static str,
        /// Parameter.
        what: &'static str,
        /// Given.
        actual: usize,
        /// What it must be a multiple of.
        of: usize,
    },
}
