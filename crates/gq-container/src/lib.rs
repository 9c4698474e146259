//! The `.gq` file: header, table, sections, limits, validation, reader, streaming writer, digests.
//!
//! The bytes are defined in `formats/container.md`. [`validate`] is the only reader of foreign bytes;
//! [`Container`] maps a file and uses it in place; [`Writer`] streams one to disk and can be taken up again.
//!
//! This crate does not know what any encoding means (only how many bytes it takes) or what a model is.

mod container;
mod digest;
mod edit;
mod entry;
mod error;
mod header;
pub mod layout;
pub mod limits;
mod provenance;
mod rule;
mod text;
mod text_kind;
mod validate;
mod verify;
mod writer;

pub use container::Container;
pub use digest::{Digest, Hasher};
pub use entry::{TensorEntry, TensorSpec};
pub use error::{ContainerError, Damage, VerifyError, WriteError, WriteRule};
pub use gq_files::partial_path;
pub use header::Header;
pub use provenance::{
    Provenance, ProvenanceError, RoundedAgain, ScalesTuned, Source, SourceAdapter, SourceFile, SourceTexts,
};
pub use rule::{FormatError, TensorRule, TextRule};
pub use text::{StoredText, TextCoding, TextEntry};
pub use text_kind::TextKind;
pub use validate::{Layout, validate};
pub use writer::{Finished, Sealed, Writer, put_in_place};
