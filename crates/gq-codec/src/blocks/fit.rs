//! The scale and minimum of a sub-block that cost least.

use super::levels::Levels;
use super::trial::{LANES, Lanes, Rounded, Scale, SubBlock};
use half::{bf16, f16};

/// Where the ends of the levels are moved to, in units of [`Levels::move_of_ends`](super::levels::Levels::move_of_ends).
const MOVES: [f32; 13] = [-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

/// The same of the other end, which the value of largest magnitude seldom belongs on.
const OTHER_END: [f32; 3] = [-3.0, 0.0, 3.0];

/// How often scales are improved by least squares in the end.
const REFITS: usize = 3;

/// What the values of a sub-block may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Form {
    pub(super) levels: Levels,
    pub(super) minimum: Minimum,
    pub(super) stored: Stored,
}

/// Which minima there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Minimum {
    None,
    /// Of either sign.
    Signed,
    /// Subtracted, from 0 on.
    Subtracted,
    /// A whole number of steps is subtracted, from 0 to this.
    Zero {
        top: f32,
    },
}

/// What a scale is rounded to as it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stored {
    /// Nothing yet: integers times another scale are chosen later.
    Later,
    /// Half precision.
    Half,
    /// The upper half of single precision.
    Brain,
}

impl Form {
    /// A scale and minimum as they are stored, the minimum moved by so many steps where it is counted in steps.
    fn storable(self, scale: Scale, moved: f32) -> Scale {
        let step = match self.stored {
            Stored::Later => scale.step,
            Stored::Half => scale.step.map(|step| f16::from_f32(step).to_f32()),
            Stored::Brain => scale.step.map(|step| bf16::from_f32(step).to_f32()),
        };
        let min = match (self.minimum, self.stored) {
            (Minimum::Zero { top }, _) => std::array::from_fn(|lane| {
                let zero = if step[lane] == 0.0 { 0.0 } else { scale.min[lane] / step[lane] };
                (zero.round() + moved).clamp(0.0, top) * step[lane]
            }),
            (_, Stored::Half) => scale.min.map(|min| f16::from_f32(min).to_f32()),
            _ => scale.min,
        };
        Scale { step, min }
    }
}

/// Scales so far, and what they cost each row.
struct Best {
    cost: Lanes,
    scale: Scale,
}

impl Best {
    /// Zeros, at any cost.
    fn new() -> Best {
        let zeros = [0.0; LANES];
        Best { cost: [f32::INFINITY; LANES], scale: Scale { step: zeros, min: zeros } }
    }

    /// Takes over where it costs less; what is no number never does.
    fn offer(&mut self, cost: &Lanes, scale: &Scale) {
        for (lane, &cost) in cost.iter().enumerate() {
            if cost < self.cost[lane] {
                self.cost[lane] = cost;
                self.scale.step[lane] = scale.step[lane];
                self.scale.min[lane] = scale.min[lane];
            }
        }
    }
}

/// Least squares of scales for levels that are given.
struct LeastSquares<'a> {
    costs: &'a [f32],
    minimum: Minimum,
    /// Targets if every level were 0, and what a minimum of one adds.
    unrounded: Vec<Lanes>,
    ones: Vec<f32>,
    ones_squared: f32,
}

impl<'a> LeastSquares<'a> {
    fn new(form: Form, part: &SubBlock<'a>) -> LeastSquares<'a> {
        let ones = part.of_ones();
        let ones_squared = part.costs.iter().zip(&ones).map(|(cost, one)| cost * one * one).sum();
        let unrounded = part.unrounded();
        LeastSquares { costs: part.costs, minimum: form.minimum, unrounded, ones, ones_squared }
    }

    /// The best scale for the same levels, and what they would cost at it.
    ///
    /// With residuals r, levels (fed back) p in units of their scale's present value and ones c, `r - x p + y c` is least
    /// where the step grows by its part x and the minimum by y. A minimum of so many steps grows with the step: p are levels
    /// less that many then.
    fn solve(&self, rounded: &Rounded, scale: &Scale) -> (Lanes, Scale) {
        let [mut rp, mut rc, mut pp, mut pc] = [[0.0f32; LANES]; 4];
        let of_min = if matches!(self.minimum, Minimum::Zero { .. }) { 0.0 } else { 1.0 };
        for (j, &cost) in self.costs.iter().enumerate() {
            let (one, residual) = (self.ones[j], &rounded.residuals[j]);
            for lane in 0..LANES {
                let r = residual[lane];
                let p = self.unrounded[j][lane] - r + of_min * scale.min[lane] * one;
                rp[lane] += cost * r * p;
                pp[lane] += cost * p * p;
                rc[lane] += cost * r * one;
                pc[lane] += cost * p * one;
            }
        }
        let (mut costs, mut better, cc) = (rounded.cost, *scale, self.ones_squared);
        for lane in 0..LANES {
            let (rp, rc, pp, pc) = (rp[lane], rc[lane], pp[lane], pc[lane]);
            if pp <= 0.0 {
                continue;
            }
            let determinant = pp * cc - pc * pc;
            let (mut x, mut y) = (rp / pp, 0.0);
            let has_own = matches!(self.minimum, Minimum::Signed | Minimum::Subtracted);
            if has_own && determinant > 1e-5 * pp * cc {
                (x, y) = ((rp * cc - rc * pc) / determinant, (rp * pc - rc * pp) / determinant);
                if self.minimum == Minimum::Subtracted && scale.min[lane] + y < 0.0 {
                    y = -scale.min[lane];
                    x = (rp + y * pc) / pp;
                }
            }
            costs[lane] += x * x * pp + y * y * cc - 2.0 * (x * rp - y * rc + x * y * pc);
            better.step[lane] *= 1.0 + x;
            better.min[lane] += if of_min == 0.0 { x * scale.min[lane] } else { y };
        }
        (costs, better)
    }
}

/// The best scale and minimum of a sub-block on its own: as they are stored, where they are stored by themselves.
pub(super) fn fit(form: Form, part: &SubBlock<'_>, rounded: &mut Rounded) -> Scale {
    let squares = LeastSquares::new(form, part);
    let (mut best, mut refit) = (Best::new(), Best::new());
    for scale in starts(form, part.targets) {
        let scale = form.storable(scale, 0.0);
        part.round(form.levels, &scale, rounded);
        best.offer(&rounded.cost, &scale);
        let (cost, better) = squares.solve(rounded, &scale);
        refit.offer(&cost, &better);
    }
    let mut next = refit.scale;
    for _ in 0..REFITS {
        let scale = form.storable(next, 0.0);
        part.round(form.levels, &scale, rounded);
        best.offer(&rounded.cost, &scale);
        next = squares.solve(rounded, &scale).1;
    }
    if matches!(form.minimum, Minimum::Zero { .. }) {
        for moved in [-1.0, 1.0] {
            let mut scale = form.storable(best.scale, moved);
            for _ in 0..2 {
                part.round(form.levels, &scale, rounded);
                best.offer(&rounded.cost, &scale);
                scale = form.storable(squares.solve(rounded, &scale).1, 0.0);
            }
        }
    }
    best.scale
}

/// Scales at which the ends of the levels lie on, or close to, the ends of the targets.
fn starts(form: Form, targets: &[Lanes]) -> Vec<Scale> {
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for target in targets {
        for lane in 0..LANES {
            low[lane] = low[lane].min(target[lane]);
            high[lane] = high[lane].max(target[lane]);
        }
    }
    let (first, last) = form.levels.ends();
    let moved = form.levels.move_of_ends();
    match form.minimum {
        Minimum::None => {
            let extreme: Lanes =
                std::array::from_fn(|lane| if high[lane] > -low[lane] { high[lane] } else { low[lane] });
            let ends =
                MOVES.map(|by| first + by * moved).into_iter().chain(OTHER_END.map(|by| last + by * moved));
            let start = |end: f32| Scale { step: extreme.map(|value| value / end), min: [0.0; LANES] };
            return ends.map(start).collect();
        }
        Minimum::Signed => {}
        Minimum::Subtracted => low = low.map(|low| low.min(0.0)),
        Minimum::Zero { .. } => {
            low = low.map(|low| low.min(0.0));
            high = high.map(|high| high.max(0.0));
        }
    }
    let start = |by: f32| {
        let step = std::array::from_fn(|lane| (high[lane] - low[lane]).max(0.0) / (last + by * moved));
        Scale { step, min: low.map(|low| -low) }
    };
    MOVES.map(start).to_vec()
}
