//! The scale and minimum of a sub-block that cost least.

use super::table::{BlockCode, Scales};
use super::trial::{LANES, Lanes, Rounded, Scale, SubBlock, WIDEST};
use half::f16;

/// Where the ends of the levels are moved to, in units of [`Levels::move_of_ends`](super::table::Levels::move_of_ends).
const MOVES: [f32; 13] = [-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

/// The same of the other end, which the value of largest magnitude seldom belongs on.
const OTHER_END: [f32; 3] = [-3.0, 0.0, 3.0];

/// How often scales are improved by least squares in the end.
const REFITS: usize = 3;

/// Whether minima may have either sign or none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Minimum {
    None,
    Signed,
    Subtracted,
}

impl BlockCode {
    fn minimum(self) -> Minimum {
        match self.scales {
            Scales::Half | Scales::Coded { .. } => Minimum::None,
            Scales::HalfAndMin => Minimum::Signed,
            Scales::CodedAndMin { .. } => Minimum::Subtracted,
        }
    }

    /// As it is stored, where it is stored in half precision.
    fn storable(self, scale: Scale) -> Scale {
        let half = |value: f32| f16::from_f32(value).to_f32();
        match self.scales {
            Scales::Half | Scales::HalfAndMin => {
                Scale { step: scale.step.map(half), min: scale.min.map(half) }
            }
            Scales::Coded { .. } | Scales::CodedAndMin { .. } => scale,
        }
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
    unrounded: [Lanes; WIDEST],
    ones: [f32; WIDEST],
    ones_squared: f32,
}

impl<'a> LeastSquares<'a> {
    fn new(code: BlockCode, part: &SubBlock<'a>) -> LeastSquares<'a> {
        let ones = part.of_ones();
        let ones_squared = part.costs.iter().zip(ones).map(|(cost, one)| cost * one * one).sum();
        let unrounded = part.unrounded();
        LeastSquares { costs: part.costs, minimum: code.minimum(), unrounded, ones, ones_squared }
    }

    /// The best scale for the same levels, and what they would cost at it.
    ///
    /// With residuals r, levels (fed back) p in units of their scale's present value and ones c, `r - x p + y c` is least
    /// where the step grows by its part x and the minimum by y.
    fn solve(&self, rounded: &Rounded, scale: &Scale) -> (Lanes, Scale) {
        let [mut rp, mut rc, mut pp, mut pc] = [[0.0f32; LANES]; 4];
        for (j, &cost) in self.costs.iter().enumerate() {
            let (one, residual) = (self.ones[j], &rounded.residuals[j]);
            for lane in 0..LANES {
                let r = residual[lane];
                let p = self.unrounded[j][lane] - r + scale.min[lane] * one;
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
            if self.minimum != Minimum::None && determinant > 1e-5 * pp * cc {
                (x, y) = ((rp * cc - rc * pc) / determinant, (rp * pc - rc * pp) / determinant);
                if self.minimum == Minimum::Subtracted && scale.min[lane] + y < 0.0 {
                    y = -scale.min[lane];
                    x = (rp + y * pc) / pp;
                }
            }
            costs[lane] += x * x * pp + y * y * cc - 2.0 * (x * rp - y * rc + x * y * pc);
            better.step[lane] *= 1.0 + x;
            better.min[lane] += y;
        }
        (costs, better)
    }
}

/// The best scale and minimum of a sub-block on its own: as stored where they are in half precision, else as they are.
pub(super) fn fit(code: BlockCode, part: &SubBlock<'_>, rounded: &mut Rounded) -> Scale {
    let squares = LeastSquares::new(code, part);
    let (mut best, mut refit) = (Best::new(), Best::new());
    for scale in starts(code, part.targets) {
        let scale = code.storable(scale);
        part.round(code.levels, &scale, rounded);
        best.offer(&rounded.cost, &scale);
        let (cost, better) = squares.solve(rounded, &scale);
        refit.offer(&cost, &better);
    }
    let mut next = refit.scale;
    for _ in 0..REFITS {
        let scale = code.storable(next);
        part.round(code.levels, &scale, rounded);
        best.offer(&rounded.cost, &scale);
        next = squares.solve(rounded, &scale).1;
    }
    best.scale
}

/// Scales at which the ends of the levels lie on, or close to, the ends of the targets.
fn starts(code: BlockCode, targets: &[Lanes]) -> Vec<Scale> {
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for target in targets {
        for lane in 0..LANES {
            low[lane] = low[lane].min(target[lane]);
            high[lane] = high[lane].max(target[lane]);
        }
    }
    let (first, last) = code.levels.ends();
    let moved = code.levels.move_of_ends();
    if code.minimum() == Minimum::None {
        let extreme: Lanes =
            std::array::from_fn(|lane| if high[lane] > -low[lane] { high[lane] } else { low[lane] });
        let ends =
            MOVES.map(|by| first + by * moved).into_iter().chain(OTHER_END.map(|by| last + by * moved));
        return ends.map(|end| Scale { step: extreme.map(|value| value / end), min: [0.0; LANES] }).collect();
    }
    if code.minimum() == Minimum::Subtracted {
        low = low.map(|low| low.min(0.0));
    }
    let start = |by: f32| {
        let step = std::array::from_fn(|lane| (high[lane] - low[lane]).max(0.0) / (last + by * moved));
        Scale { step, min: low.map(|low| -low) }
    };
    MOVES.map(start).to_vec()
}
