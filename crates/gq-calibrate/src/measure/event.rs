//! What is reported while measuring.

/// What is reported while measuring.
#[derive(Clone, Copy, Debug)]
pub enum CalibrateEvent {
    /// A measurement that was begun earlier is taken up: its gradients are there, and so many layers.
    Resumed {
        /// Layers whose moments are there; the head counts as one.
        layers: usize,
        /// Layers of all.
        of: usize,
    },
    /// Gradients of so many sequences are there.
    Gradients {
        /// Done.
        done: usize,
        /// To do.
        of: usize,
    },
    /// Moments of so many layers are there; the head counts as one.
    Moments {
        /// Done.
        done: usize,
        /// To do.
        of: usize,
    },
    /// Trials are through some layers.
    Trials {
        /// Layers whose weights are rounded.
        rounded: Part,
        /// Passes through a layer, each trial's own and the model's: early layers have few, since trials are the model itself
        /// up to the first layer that they change.
        passes: Part,
    },
    /// The logits of all trials are there.
    Logits,
}

/// How much of something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Done.
    pub done: usize,
    /// To do, with what is done.
    pub of: usize,
}

impl Part {
    /// 0 to 1; of nothing, all is done.
    pub fn share(self) -> f64 {
        if self.of == 0 { 1.0 } else { self.done as f64 / self.of as f64 }
    }
}
