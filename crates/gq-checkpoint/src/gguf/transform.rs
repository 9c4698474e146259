//! How values in a GGUF differ from those of a checkpoint: what a converter changed.

/// How values in GGUF differ from those of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transform {
    /// Not at all.
    None,
    /// Rows of each head are reordered: the halves that rotate together are interleaved.
    Interleave {
        /// Heads.
        heads: usize,
    },
    /// The 1 of `1 + weight` is already added.
    PlusOne,
}

impl Transform {
    /// Row of the GGUF tensor that holds row `row` of a checkpoint's, of `rows` in all.
    ///
    /// A head of n rows is stored as 0, n/2, 1, n/2 + 1, ...: pairs that rotate together become neighbors.
    pub(crate) fn stored_row(self, row: usize, rows: usize) -> usize {
        match self {
            Transform::Interleave { heads } => {
                let width = rows / heads.max(1);
                let (head, place) = (row / width.max(1), row % width.max(1));
                head * width + place % (width / 2).max(1) * 2 + place / (width / 2).max(1)
            }
            Transform::None | Transform::PlusOne => row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows() {
        let transform = Transform::Interleave { heads: 2 };
        let stored: Vec<_> = (0..12).map(|row| transform.stored_row(row, 12)).collect();
        assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
