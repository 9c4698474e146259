//! The largest logits, so that a sampler needs few of them.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::{Launch, LaunchError, Module, Span};

/// Logits that one block sorts.
const PIECE: usize = 4096;

/// The `keep` largest of rows of logits, in descending order, of equals the smallest id first.
#[derive(Clone, Copy, Debug)]
pub struct TopLogits {
    /// f32 `[rows, count]`.
    pub logits: Span,
    /// Two buffers of [`scratch_bytes`](TopLogits::scratch_bytes), each for values and then ids.
    pub scratch: [Span; 2],
    /// f32 `[rows, keep]`.
    pub values: Span,
    /// u32 `[rows, keep]`.
    pub ids: Span,
    /// Rows.
    pub rows: usize,
    /// Logits of a row.
    pub count: usize,
    /// At most 256.
    pub keep: usize,
}

impl TopLogits {
    /// Bytes of one scratch buffer; 0 where one pass is enough.
    pub fn scratch_bytes(rows: usize, count: usize, keep: usize) -> u64 {
        if count <= PIECE { 0 } else { bytes(&[rows, count.div_ceil(PIECE), keep], 8) }
    }

    /// The launches: each leaves the largest of every piece, until there is one.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launches(&self) -> Result<Vec<Launch>, LaunchError> {
        let (mut launches, mut count, mut turn) = (Vec::new(), self.count, 0);
        let mut from = (self.logits, None);
        loop {
            let mut call = Call::new(Module::Top, "largest_logits");
            let rows = call.check("rows", self.rows, 1, MOST_OTHER)?;
            call.check("kept", self.keep, 1, self.count.min(256))?;
            let pieces = count.div_ceil(PIECE);
            let input = bytes(&[self.rows, count], 4);
            call.span("logits", from.0, input, 4)?;
            call.optional("ids", from.1, input, 4)?;
            call.number("logits of a row", count, 1, MOST)?;
            call.u32(self.keep as u32);
            let output = bytes(&[self.rows, pieces, self.keep], 4);
            let to = if pieces == 1 {
                (self.values, self.ids)
            } else {
                let Span { address, bytes } = self.scratch[turn % 2];
                let values = Span { address, bytes: bytes.min(output) };
                (values, Span { address: address + output, bytes: bytes.saturating_sub(output) })
            };
            call.span("kept values", to.0, output, 4)?;
            call.span("kept ids", to.1, output, 4)?;
            launches.push(call.on([pieces as u32, rows, 1], 1024, 0));
            if pieces == 1 {
                return Ok(launches);
            }
            (from, count, turn) = ((to.0, Some(to.1)), pieces * self.keep, turn + 1);
        }
    }
}
