//! `shfl.sync`: values of other lanes.

use crate::fault::FaultKind;
use crate::instruction::Shuffle;
use crate::lanes::{Result, lanes};
use crate::types::Row;

/// Each lane's value of another, and which lanes had one in their segment.
pub(crate) fn shuffled(how: Shuffle, from: &Row, lane: &Row, clamp: &Row, active: u32) -> Result<(Row, u32)> {
    let (mut out, mut inside) = (*from, 0);
    for own in lanes(active) {
        let (by, limits) = ((lane[own] & 31) as u32, clamp[own] as u32);
        let (clamp, segment) = (limits & 31, limits >> 8 & 31);
        let own_lane = own as u32;
        let most = (own_lane & segment) | (clamp & !segment);
        let (source, valid) = match how {
            Shuffle::Up => (own_lane.wrapping_sub(by), own_lane as i32 - by as i32 >= most as i32),
            Shuffle::Down => (own_lane + by, own_lane + by <= most),
            Shuffle::Butterfly => (own_lane ^ by, own_lane ^ by <= most),
            Shuffle::Index => {
                let source = (own_lane & segment) | (by & !segment);
                (source, source <= most)
            }
        };
        let source = if valid { source } else { own_lane };
        if active >> source & 1 == 0 {
            return Err((Some(own), FaultKind::ShuffleSource { lane: source }));
        }
        out[own] = from[source as usize] & u64::from(u32::MAX);
        inside |= u32::from(valid) << own;
    }
    Ok((out, inside))
}
