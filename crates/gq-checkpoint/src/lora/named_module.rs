//! A module and the adapter that it is of.

use super::Adapter;
use super::modules::Module;

/// A module of an adapter.
#[derive(Clone, Copy)]
pub(super) struct NamedModule<'a> {
    pub adapter: &'a Adapter,
    /// Its name in the base model.
    pub name: &'a str,
    pub module: &'a Module,
}
