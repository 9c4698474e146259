//! Gated activations.

use super::Batch;
use crate::arithmetic::elementwise;
use crate::cuda::value::{Before, Value};
use crate::error::DeviceError;
use gq_checkpoint::{Activation, Curve};
use std::ops::Range;

impl Batch<'_> {
    pub(super) fn gate(
        &mut self,
        activation: Activation,
        gate: &Value,
        up: &Value,
    ) -> Result<Value, DeviceError> {
        let Activation { curve, limit, up_offset } = activation;
        let gelu = match curve {
            Curve::Swish { alpha: 1.0 } if limit.is_none() && up_offset == 0.0 => false,
            Curve::GeluTanh if limit.is_none() && up_offset == 0.0 => true,
            _ => {
                let (gate, up) = (self.host(gate)?, self.host(up)?);
                return self.runner.bring(&elementwise::gated(activation, gate, &up));
            }
        };
        let [gate, up] = [gate, up].map(|x| if x.before.is_some() { self.plain(x) } else { Ok(x.clone()) });
        let (gate, up) = (gate?, up?);
        let (rows, columns) = (gate.rows, gate.columns());
        let of_one = gate.address == up.address && gate.width == up.width && gate.parts == up.parts;
        // Columns of one matrix, the gate's first.
        if let (true, Some(Range { start: 0, .. }), Some(behind)) = (of_one, &gate.view, &up.view) {
            let before = Some(Before::Gated { gelu, up: behind.start, columns });
            return Ok(Value { view: None, before, ..gate });
        }
        let count = rows * columns;
        let adjacent = gate.is_whole() && up.is_whole() && up.address == gate.address + 4 * count as u64;
        let both = if adjacent {
            Value { rows: 1, width: 2 * count, ..gate.clone() }
        } else {
            let both = self.runner.value(1, 2 * count, 1)?;
            for (x, first) in [(&gate, 0), (&up, count)] {
                let half =
                    Value { address: both.address + 4 * first as u64, rows, width: columns, ..both.clone() };
                if x.view.is_some() && self.copy_columns(x, half.span())? {
                    continue;
                }
                let x = self.plain(x)?;
                self.copy(&x, &half)?;
            }
            both
        };
        let gated = Value { before: Some(Before::Gated { gelu, up: count, columns: count }), ..both };
        if rows == 1 {
            return Ok(gated);
        }
        let y = self.plain(&gated)?;
        Ok(Value { rows, width: columns, ..y })
    }
}
