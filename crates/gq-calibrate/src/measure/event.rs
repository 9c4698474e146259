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
    /// Trials have made so many passes through a layer, each its own and the model's; all heads count as one.
    Trials {
        /// Done.
        done: usize,
        /// To do.
        of: usize,
    },
}
