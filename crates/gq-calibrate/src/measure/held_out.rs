//! Which sequences are held out: moments, trials and comparisons of whole files are judged on them.

/// Every so many sequences, one is held out.
pub(crate) const HELD_OUT: usize = 12;

/// Whether a sequence is held out, of so many: some always are.
pub fn is_held_out(index: usize, sequences: usize) -> bool {
    index % HELD_OUT == HELD_OUT - 1 || (index + 1 == sequences && index < HELD_OUT)
}

/// Most held-out sequences that whole files are compared on.
const COMPARED: usize = 12;

/// Tokens that whole files are compared on, of so many sequences of `ctx` tokens.
pub fn compared_tokens(sequences: usize, ctx: usize) -> usize {
    let held = (0..sequences).filter(|&index| is_held_out(index, sequences)).count();
    held.div_ceil(held.div_ceil(COMPARED).max(1)) * ctx
}

/// Held-out sequences to compare whole files on, spread over all of them.
pub fn compared(sequences: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let held = sequences.iter().enumerate().filter(|(index, _)| is_held_out(*index, sequences.len()));
    let held: Vec<&Vec<u32>> = held.map(|(_, sequence)| sequence).collect();
    let step = held.len().div_ceil(COMPARED).max(1);
    held.into_iter().step_by(step).cloned().collect()
}
