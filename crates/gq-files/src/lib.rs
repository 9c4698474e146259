//! Files as the operating system has them: how one is begun and gets its name, which one a path means, the space that
//! is left, maps that know when their file was cut, what the allocator keeps,
//! and how paths and foreign texts are shown.
//!
//! This crate does not know what is in a file, a model or a terminal.

mod allocator;
mod begin;
mod begun;
mod bus;
mod escape;
mod identity;
mod map;
mod place;
mod reuse;
mod space;
mod stamp;

pub use allocator::{MAPPED_ALONE, return_large_buffers, return_small_pieces};
pub use begin::{begin, foreign, is_held, open_locked, open_own};
pub use begun::{is_begun, note_begun, note_open, remove, remove_begun};
pub use bus::watch_bus_errors;
pub use escape::{Escaped, EscapedPath, Sentence};
pub use identity::{Identity, Kind, kind};
pub use map::{Cut, Mapped, cut, mapped};
pub use place::{
    Existing, Held, Placed, hold_while_naming, partial_path, place, put_in_place, sibling, write_placed,
    write_whole,
};
pub use reuse::Reuser;
pub use space::{free_bytes, may_write};
pub use stamp::{Change, Stamp};
