//! Releases: several sizes of one model in a folder, with everything that a reader needs to trust them.
//!
//! What is written depends on the source, the recipe, the text, this version and the instruction set only: no times, no
//! paths, no machine.

pub mod card;
pub mod describe;
pub mod job;
pub mod make;
pub mod manifest;
pub mod recipe;
pub mod verify;
pub mod work;

/// The release's description, for programs.
pub const MANIFEST: &str = "release.json";
/// The model card.
pub const CARD: &str = "README.md";
/// The page with plots.
pub const PAGE: &str = "report.html";
