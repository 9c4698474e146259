//! Gradients, from the last record of a tape to the first.

use super::tape::{Gradients, Place, Record};
use super::{Deterministic, attention, experts, factors};
use gq_model::arithmetic::{elementwise, in_pieces, stored};
use gq_model::{Linear, Matrix, Norm};

impl Deterministic<'_> {
    /// Empties the tape. `gradients` starts with those of the results and ends with those of the leaves.
    ///
    /// `seen(weight, place, dy)` is called with the gradient `[tokens, rows]` at every product, and with that of
    /// looked-up rows, `[tokens, cols]`. Where a norm comes right after a product, a token's gradient is by the outputs
    /// over their root mean square, as [`Observation::weighed`](super::Observation::weighed) is.
    pub(crate) fn backward(
        &mut self,
        gradients: &mut Gradients,
        seen: &mut dyn FnMut(&Linear, Place, &Matrix),
    ) {
        let records = self.tape.take().map(|tape| tape.records).unwrap_or_default();
        for record in records.into_iter().rev() {
            self.back(record, gradients, seen);
        }
    }

    fn back(
        &mut self,
        record: Record,
        gradients: &mut Gradients,
        seen: &mut dyn FnMut(&Linear, Place, &Matrix),
    ) {
        let level = self.level;
        match record {
            Record::Linear { x, y, weight, plain, sizes } => {
                let Some(mut dy) = gradients.take(y) else { return };
                match sizes {
                    Some(sizes) => {
                        let mut normed = dy.clone();
                        elementwise::scale_rows(&mut normed, sizes);
                        seen(&weight, Place::Product, &normed);
                    }
                    None => seen(&weight, Place::Product, &dy),
                }
                let factors = self.overlay.factors_of(&weight);
                if let (Some(factors), Some(plain)) = (factors, plain) {
                    factors::back_product(&mut self.by_factor, &weight, factors, &plain, &mut dy);
                }
                let cols = weight.shape().cols;
                let mut dx = Matrix { width: cols, data: vec![0.0; dy.rows() * cols] };
                stored::back(level, &weight, 0..weight.shape().rows, &dy, &mut dx);
                gradients.add(x, dx);
            }
            Record::Embed { y, table } => {
                let Some(dy) = gradients.take(y) else { return };
                seen(&table, Place::Lookup, &dy);
            }
            Record::RmsNorm { x, y, norm } => {
                let Some(dy) = gradients.take(y) else { return };
                if let Some(factors) = self.overlay.factors {
                    factors::back_norm(&mut self.by_factor, &norm, factors, &x.matrix, &dy);
                }
                gradients.add(x.id, rms_norm(&x.matrix, &norm, dy));
            }
            Record::Rope { x, y, rope } => {
                let Some(dy) = gradients.take(y) else { return };
                let dx = match self.ropes.get(rope) {
                    Some(table) => table.apply_inverse(dy),
                    None => dy,
                };
                gradients.add(x, dx);
            }
            Record::Attention { q, k, v, y, layer } => {
                let Some(dy) = gradients.take(y) else { return };
                let by = attention::backward(level, &q.matrix, &k.matrix, &v.matrix, &layer, &dy);
                gradients.add(q.id, by.q);
                gradients.add(k.id, by.k);
                gradients.add(v.id, by.v);
            }
            Record::Gated { activation, gate, up, y } => {
                let Some(mut dy) = gradients.take(y) else { return };
                let mut by_gate = dy.clone();
                let by_expert = gate.by_expert;
                let inputs = gate.matrix.data.iter().zip(&up.matrix.data);
                for ((by_gate, by_up), (&gate, &up)) in by_gate.data.iter_mut().zip(&mut dy.data).zip(inputs)
                {
                    let (slope, factor, value) = elementwise::gated_slopes(activation, gate, up);
                    match by_expert {
                        // The order that experts' gradients have had from the beginning.
                        true => *by_gate = *by_gate * factor * slope,
                        false => *by_gate *= factor * slope,
                    }
                    *by_up *= value;
                }
                gradients.add(gate.id, by_gate);
                gradients.add(up.id, dy);
            }
            Record::Route { scores, routes, router } => {
                let Some(by_factor) = gradients.take(routes.id) else { return };
                let by_score = experts::route(&scores.matrix, &routes.routes, &router, &by_factor);
                gradients.add(scores.id, by_score);
            }
            Record::Grouped { x, routes, weight, y } => {
                let Some(dy) = gradients.take(y) else { return };
                gradients.add(x.id, experts::grouped(level, &x.matrix, &routes, &weight, &dy, seen));
            }
            Record::Combine { x, routes, y } => {
                let Some(dy) = gradients.take(y) else { return };
                let (dx, by_factor) = experts::combine(&x.matrix, &routes.routes, &dy);
                gradients.add(x.id, dx);
                gradients.add(routes.id, by_factor);
            }
            Record::Add { x, y, sum } => {
                let Some(d) = gradients.take(sum) else { return };
                gradients.add(x, d.clone());
                gradients.add(y, d);
            }
            Record::Scale { x, y, factor } => {
                let Some(dy) = gradients.take(y) else { return };
                gradients.add(x, elementwise::map(dy, |d| d * factor));
            }
            Record::Softcap { x, y, cap } => {
                let Some(mut dy) = gradients.take(y.id) else { return };
                for (d, &y) in dy.data.iter_mut().zip(&y.matrix.data) {
                    let t = y / cap;
                    *d *= 1.0 - t * t;
                }
                gradients.add(x, dy);
            }
            Record::Rows { x, y, rows, total } => {
                let Some(dy) = gradients.take(y) else { return };
                let mut dx = Matrix { width: dy.width, data: vec![0.0; total * dy.width] };
                dx.data[rows.start * dy.width..rows.end * dy.width].copy_from_slice(&dy.data);
                gradients.add(x, dx);
            }
            Record::Columns { x, y, columns, width } => {
                let Some(dy) = gradients.take(y) else { return };
                let mut dx = Matrix { width, data: vec![0.0; dy.rows() * width] };
                for (dx, dy) in dx.data.chunks_exact_mut(width).zip(dy.data.chunks_exact(dy.width)) {
                    dx[columns.clone()].copy_from_slice(dy);
                }
                gradients.add(x, dx);
            }
        }
    }
}

/// `y = x r w` with `r = 1 / sqrt(mean(x^2) + eps)`: `dx = r w dy - x r^3 mean(w dy x)`.
fn rms_norm(x: &Matrix, norm: &Norm, mut dy: Matrix) -> Matrix {
    in_pieces(&mut dy.data, norm.width, |first, part| {
        let rows = x.data[first..].chunks_exact(norm.width);
        for (dy, x) in part.chunks_exact_mut(norm.width).zip(rows) {
            if let Some(weight) = &norm.weight {
                dy.iter_mut().zip(weight).for_each(|(d, w)| *d *= w);
            }
            let n = norm.width as f64;
            let square: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let dot: f64 = x.iter().zip(dy.iter()).map(|(&x, &d)| f64::from(x) * f64::from(d)).sum();
            let r = 1.0 / (square / n + f64::from(norm.eps)).sqrt();
            let pull = r * r * r * dot / n;
            dy.iter_mut().zip(x).for_each(|(d, &x)| *d = (f64::from(*d) * r - f64::from(x) * pull) as f32);
        }
    });
    dy
}
