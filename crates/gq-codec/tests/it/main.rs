//! Behaviour of the codecs, seen from outside.

mod source;
