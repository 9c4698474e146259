//! A `.gq` file, mapped and used in place.

use crate::digest::Digest;
use crate::entry::TensorEntry;
use crate::error::{ContainerError, VerifyError};
use crate::header::Header;
use crate::layout::HEADER_BYTES;
use crate::layout::slice;
use crate::provenance::Provenance;
use crate::rule::FormatError;
use crate::text::TextEntry;
use crate::text_kind::TextKind;
use crate::validate::{Layout, validate};
use gq_files::{Change, Mapped};
use gq_tensor::{CodedRows, ShapeMismatch};
use std::fs::File;
use std::path::{Path, PathBuf};

/// An open `.gq` file. Payloads are read from the map, never copied.
#[derive(Debug)]
pub struct Container {
    path: PathBuf,
    map: Mapped,
    layout: Layout,
}

impl Container {
    /// Maps and validates the file at `path`. It must not be changed or cut while it is open.
    ///
    /// # Errors
    /// When the operating system refuses or a rule of the format is broken.
    pub fn open(path: &Path) -> Result<Container, ContainerError> {
        let failed = |source| ContainerError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // Mapping a directory fails with a message that says nothing about directories.
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        let map = Mapped::new(path, &file).map_err(failed)?;
        let layout = validate(&map);
        let layout = layout.map_err(|source| ContainerError::Format { path: path.to_owned(), source })?;
        Ok(Container { path: path.to_owned(), map, layout })
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses what was read of a file that was written to or cut meanwhile. A file that took its name is another one, and
    /// leaves this one as it is.
    ///
    /// # Errors
    /// [`ContainerError::Changed`] with what differs first.
    pub fn check_unchanged(&self) -> Result<(), ContainerError> {
        self.refuse_change(self.map.change())
    }

    /// The same where the file is going to be replaced: its name must not be another file's by now.
    ///
    /// # Errors
    /// [`ContainerError::Changed`] with what differs first.
    pub fn check_still_named(&self) -> Result<(), ContainerError> {
        self.refuse_change(self.map.change_of_name())
    }

    fn refuse_change(&self, found: std::io::Result<Option<Change>>) -> Result<(), ContainerError> {
        let path = self.path.clone();
        match found {
            Ok(None) => Ok(()),
            Ok(Some(Change { what, was, is })) => {
                Err(ContainerError::Changed { path, what, limit: was, actual: is })
            }
            Err(source) => Err(ContainerError::Io { path, source }),
        }
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// The header.
    pub fn header(&self) -> &Header {
        self.layout.header()
    }

    /// Digest of all tensors; the same whatever texts ride along.
    pub fn payload_sha256(&self) -> Digest {
        self.header().payload_sha256
    }

    /// Digest that stands for every byte of the file (it is not the digest of the file as a whole).
    pub fn file_sha256(&self) -> Digest {
        self.header().file_sha256
    }

    /// What the file holds, and where.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The mapped file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Every tensor, in file order.
    pub fn tensors(&self) -> &[TensorEntry] {
        self.layout.tensors()
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.layout.tensor(name)
    }

    /// A tensor's bytes, in place; empty if the entry is another file's and lies outside of this one.
    pub fn payload(&self, tensor: &TensorEntry) -> &[u8] {
        slice(&self.map, tensor.offset, tensor.bytes)
    }

    /// All payloads with their padding: what lies between header and tensor table.
    pub(crate) fn payloads(&self) -> &[u8] {
        let begin = HEADER_BYTES as u64;
        slice(&self.map, begin, self.header().table_offset.saturating_sub(begin))
    }

    /// A tensor as the matrix that is stored: leading dimensions multiplied are its rows.
    ///
    /// # Errors
    /// Only when the entry is another file's.
    pub fn matrix(&self, tensor: &TensorEntry) -> Result<CodedRows<'_>, ShapeMismatch> {
        tensor.matrix(self.payload(tensor))
    }

    /// Every text, in file order.
    pub fn texts(&self) -> &[TextEntry] {
        self.layout.texts()
    }

    /// The text of this kind; `None` when there is none.
    ///
    /// # Errors
    /// When it does not decompress to the declared length or is not UTF-8.
    pub fn text(&self, kind: TextKind) -> Result<Option<String>, FormatError> {
        self.layout.text(&self.map, kind)
    }

    /// Where the file comes from; `None` when it does not say.
    ///
    /// # Errors
    /// When the text cannot be read or is not the JSON it should be.
    pub fn provenance(&self) -> Result<Option<Provenance>, FormatError> {
        self.layout.provenance(&self.map)
    }

    /// Recomputes every tensor's digest and reads every text; `progress` gets the bytes of each step and the
    /// tensor they are of.
    ///
    /// # Errors
    /// All damaged tensors, or else the first text that cannot be read.
    pub fn verify(&self, progress: impl FnMut(&TensorEntry, u64)) -> Result<(), VerifyError> {
        self.layout.verify(&self.map, progress)
    }
}
