//! Work of one thread inside work that is spread already.

use std::cell::Cell;

thread_local! {
    static SERIAL: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with what rounding a strip does in this crate ([`fixed_product`](crate::fixed_product), searches of strips)
/// in the calling thread alone; results are the same. Factorizations spread all the same.
///
/// For pieces that are spread over threads themselves: a thread that waits for others in the middle of a piece may take up
/// another piece meanwhile, and both hold their memory.
pub fn serially<T>(work: impl FnOnce() -> T) -> T {
    let before = SERIAL.replace(true);
    // Also where `work` panics.
    let _back = Back(before);
    work()
}

/// Whether work is to stay in this thread.
pub(crate) fn is_serial() -> bool {
    SERIAL.get()
}

struct Back(bool);

impl Drop for Back {
    fn drop(&mut self) {
        SERIAL.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_thread_alone_and_as_before_afterwards() {
        assert!(!is_serial());
        serially(|| {
            assert!(serially(is_serial) && is_serial());
            assert!(!std::thread::spawn(is_serial).join().unwrap(), "other threads are not asked");
        });
        assert!(!is_serial());
        assert!(std::panic::catch_unwind(|| serially(|| panic!("in the middle"))).is_err());
        assert!(!is_serial());
    }
}
