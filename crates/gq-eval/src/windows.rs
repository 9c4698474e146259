//! Text cut into windows as llama-perplexity does it.

/// Windows of a tokenized text and the positions that are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    windows: Vec<Vec<u32>>,
    ctx: usize,
}

/// A text that gives no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A window in which nothing would be scored.
    #[error("a window of {actual} tokens has nothing to score, at least {limit} are needed")]
    Short {
        /// Least window.
        limit: usize,
        /// Window asked for.
        actual: usize,
    },
    /// A text shorter than one window.
    #[error("the text has {actual} tokens, one window needs {limit}")]
    Text {
        /// Tokens of a window.
        limit: usize,
        /// Tokens there are.
        actual: usize,
    },
}

impl Windows {
    /// Cuts `tokens` (without BOS) into windows of `ctx`, at most `count` of them; the rest is left out.
    ///
    /// With `bos`, it stands in front of the text once, and replaces the first token of every window.
    ///
    /// # Errors
    /// When there is not one whole window, or it would score nothing.
    pub fn new(
        tokens: &[u32],
        ctx: usize,
        count: Option<usize>,
        bos: Option<u32>,
    ) -> Result<Windows, WindowError> {
        if ctx < 4 {
            return Err(WindowError::Short { limit: 4, actual: ctx });
        }
        let tokens: Vec<u32> = bos.into_iter().chain(tokens.iter().copied()).collect();
        let mut windows: Vec<Vec<u32>> =
            tokens.chunks_exact(ctx).take(count.unwrap_or(usize::MAX)).map(<[u32]>::to_vec).collect();
        if windows.is_empty() {
            return Err(WindowError::Text { limit: ctx, actual: tokens.len() });
        }
        if let Some(bos) = bos {
            windows.iter_mut().filter_map(|window| window.first_mut()).for_each(|first| *first = bos);
        }
        Ok(Windows { windows, ctx })
    }

    /// The windows, `ctx` tokens each.
    pub fn windows(&self) -> &[Vec<u32>] {
        &self.windows
    }

    /// Positions whose logits are scored: they predict tokens ctx/2 + 1 … ctx - 1.
    pub fn scored(&self) -> std::ops::Range<usize> {
        self.ctx / 2..self.ctx - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_dropped_and_bos_replaces_the_first_of_each_window() {
        let tokens: Vec<u32> = (10..30).collect();
        let w = Windows::new(&tokens, 8, None, Some(1)).unwrap();
        assert_eq!(w.windows(), [vec![1, 10, 11, 12, 13, 14, 15, 16], vec![1, 18, 19, 20, 21, 22, 23, 24]]);
        assert_eq!(w.scored(), 4..7);
        let w = Windows::new(&tokens, 8, Some(1), None).unwrap();
        assert_eq!(w.windows(), [(10..18).collect::<Vec<u32>>()]);
        let of_512 = Windows::new(&vec![0; 512], 512, None, None).unwrap();
        assert_eq!(of_512.scored().len(), 255);
    }

    #[test]
    fn too_little_is_an_error() {
        assert_eq!(Windows::new(&[1, 2, 3], 8, None, None), Err(WindowError::Text { limit: 8, actual: 3 }));
        assert_eq!(Windows::new(&[1; 9], 2, None, None), Err(WindowError::Short { limit: 4, actual: 2 }));
    }
}
