//! Fields of a `config.json`, read one by one, and the spellings of rotary embeddings in it.

mod fields;
mod rope;

pub(crate) use fields::{Fields, Reading, shown};
pub(crate) use rope::{Around, OfPhi, RopeParameters, check_factors, period, rope_spec};
