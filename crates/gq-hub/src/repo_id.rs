//! The name of a repository, once it is seen to be one.

/// A model repository: `org/name`, or `name` for the few that have no owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepoId(String);

impl RepoId {
    /// What `RepoId::new` has looked at.
    pub(crate) fn unchecked(id: &str) -> RepoId {
        RepoId(id.to_owned())
    }

    /// `org/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The owner, when the id names one.
    pub fn owner(&self) -> Option<&str> {
        self.0.split_once('/').map(|(owner, _)| owner)
    }

    /// The part after the owner.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }
}

impl std::fmt::Display for RepoId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
