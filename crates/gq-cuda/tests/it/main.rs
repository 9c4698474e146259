//! The committed PTX, executed by the interpreter, against the definitions: equal to the bit.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod attention;
mod device;
mod driver;
mod elements;
mod exact;
mod experts;
mod fused;
mod heads;
mod mutants;
mod norm;
mod product;
mod rotate;
mod rows;
mod sources;
mod stand_in;
mod top;
mod trellis;

/// Numbers without a pattern, the same on every machine.
fn noise(seed: u32, count: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..count).map(|_| next()).collect()
}

/// Floats of about -1 to 1.
fn floats(seed: u32, count: usize) -> Vec<f32> {
    noise(seed, count).into_iter().map(|bits| bits as i32 as f32 / 2f32.powi(31)).collect()
}

/// Floats of a bell shape, standard deviation about 1.
fn bell(seed: u32, count: usize) -> Vec<f32> {
    floats(seed, 4 * count).as_chunks::<4>().0.iter().map(|four| four.iter().sum::<f32>() * 0.866).collect()
}

/// Equal bits, NaN of any kind being equal.
#[track_caller]
fn assert_same(made: &[f32], defined: &[f32], what: &str) {
    assert_eq!(made.len(), defined.len(), "{what}");
    for (at, (made, defined)) in made.iter().zip(defined).enumerate() {
        let same = made.to_bits() == defined.to_bits() || made.is_nan() && defined.is_nan();
        assert!(same, "{what}: element {at} is {made:e}, defined as {defined:e}");
    }
}
