//! The folder of the user where what can be made again is kept.

/// Where what can be made again is kept; nowhere when the user has no cache.
pub fn dir() -> Option<std::path::PathBuf> {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(std::path::PathBuf::from);
    let user = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    Some(user?.join("gq"))
}
