//! Whether there is room and leave to write.

use std::path::Path;

/// Bytes that this user may still write to the file system of `folder`; `None` where nobody can tell.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(folder).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Whether this user may make files in `folder`.
///
/// # Errors
/// Why not: no permission, a read-only file system, no such folder.
pub fn may_write(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::fs::{Access, access};
        access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    }
    #[cfg(not(unix))]
    std::fs::metadata(folder)?;
    Ok(())
}
