//! SIGBUS: a mapped file was cut, or its disk fails, and a thread read where nothing is any more.
//!
//! Nothing can be returned from there, and a handler may do almost nothing: it wakes a thread that can say what happened
//! and end the process, and holds the one that failed.
//!
//! On Linux only: elsewhere the signal ends the process, and the shell says so.

use std::fs::File;
use std::io::Result;

/// Takes SIGBUS from now on. The file that is returned gets a byte at the first one; whoever reads it has five seconds
/// to end the process, which then ends by itself with exit code 4.
///
/// # Errors
/// When the system refuses.
#[cfg(target_os = "linux")]
pub fn watch_bus_errors() -> Result<File> {
    linux::watch()
}

/// The signal does here what it does in any program.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn watch_bus_errors() -> Result<File> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod linux {
    use std::fs::File;
    use std::io::{Error, Result};
    use std::os::fd::{IntoRawFd, OwnedFd};
    use std::sync::atomic::{AtomicI32, Ordering};

    /// Where the handler writes its byte.
    static WAKE: AtomicI32 = AtomicI32::new(-1);

    pub(super) fn watch() -> Result<File> {
        let (reader, writer) = std::io::pipe()?;
        // It stays open as long as the process lives.
        let writer = OwnedFd::from(writer).into_raw_fd();
        WAKE.store(writer, Ordering::Release);
        // SAFETY: All zeros are a valid `sigaction`; its handler has the signature that SA_SIGINFO asks for and calls only
        // functions that are safe in handlers. While it runs, no other signal is taken by its thread: none can keep it
        // from ending the process. The alternate stack is the one that the standard library gave each thread.
        let refused = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
        };
        match refused {
            0 => Ok(File::from(OwnedFd::from(reader))),
            _ => Err(Error::last_os_error()),
        }
    }

    extern "C" fn handle(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let byte = 1u8;
        // SAFETY: `write`, `poll` and `_exit` are async-signal-safe, as is reading `errno` of one's own thread; the byte
        // outlives the call, and no file is polled.
        unsafe {
            loop {
                let written = libc::write(WAKE.load(Ordering::Acquire), (&raw const byte).cast(), 1);
                if written != -1 || *libc::__errno_location() != libc::EINTR {
                    break;
                }
            }
            libc::poll(std::ptr::null_mut(), 0, 5_000);
            libc::_exit(4)
        }
    }
}
