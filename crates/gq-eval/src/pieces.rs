//! Windows in pieces, so that logits in memory are bounded however long a window is.

use std::ops::Range;

/// Tokens of a piece: what a model runs at once anyway, so cutting here changes no figure.
const PIECE: usize = 512;

/// Some tokens of a window that are run together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Tokens, as positions in the window.
    pub(crate) tokens: Range<usize>,
    /// Those whose logits are wanted, as positions in the window; may be empty.
    pub(crate) rows: Range<usize>,
}

impl Piece {
    /// Wanted rows, counted from the piece's first token.
    pub(crate) fn local_rows(&self) -> Range<usize> {
        self.rows.start - self.tokens.start..self.rows.end - self.tokens.start
    }
}

/// Cuts a window of `len` tokens of which `rows` are wanted.
pub(crate) fn pieces(len: usize, rows: &Range<usize>) -> Vec<Piece> {
    let piece = |start: usize| {
        let tokens = start..(start + PIECE).min(len);
        let (from, to) =
            (rows.start.clamp(tokens.start, tokens.end), rows.end.clamp(tokens.start, tokens.end));
        Piece { tokens, rows: from..to.max(from) }
    };
    (0..len).step_by(PIECE).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wanted_row_is_in_one_piece() {
        for (len, rows) in [(512, 256..511), (1100, 550..1099), (1100, 0..1100), (3, 1..2), (1024, 512..1023)]
        {
            let pieces = pieces(len, &rows);
            let tokens: Vec<usize> = pieces.iter().flat_map(|piece| piece.tokens.clone()).collect();
            assert_eq!(tokens, (0..len).collect::<Vec<_>>());
            let wanted: Vec<usize> = pieces.iter().flat_map(|piece| piece.rows.clone()).collect();
            assert_eq!(wanted, rows.collect::<Vec<_>>());
            assert!(pieces.iter().all(|piece| piece.local_rows().end <= piece.tokens.len()));
        }
    }
}
