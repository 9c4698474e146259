//! Inner products of rows of scalar codes with int8 activations, 64 elements at a time.

use super::vector::load;
use crate::kernel::avx2::{combine_scales, scale_at};
use crate::kernel::{LEVEL_BIAS, TurboRows};
use crate::{Activations, packing::GROUP};
use std::arch::x86_64::*;

/// Elements of a vector.
const PAIR: usize = 2 * GROUP;

/// Rows whose products share each load of the activations.
const TOGETHER: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
pub(in crate::kernel) fn turbo_dot(rows: TurboRows<'_>, x: &Activations, out: &mut [f32]) {
    match rows.book.bits() {
        1 => dot_bits::<1>(rows, x, out),
        2 => dot_bits::<2>(rows, x, out),
        3 => dot_bits::<3>(rows, x, out),
        4 => dot_bits::<4>(rows, x, out),
        5 => dot_bits::<5>(rows, x, out),
        6 => dot_bits::<6>(rows, x, out),
        7 => dot_bits::<7>(rows, x, out),
        _ => dot_bits::<8>(rows, x, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn dot_bits<const BITS: usize>(rows: TurboRows<'_>, x: &Activations, out: &mut [f32]) {
    let tables = Tables::new::<BITS>(&rows.tables.levels);
    let unit = rows.book.unit();
    let mut parts = rows.rows();
    if rows.group_len < rows.cols {
        let mut scales = vec![0.0; x.scales.len()];
        for ((codes, row_scales), out) in parts.zip(out) {
            combine_scales(row_scales, rows.group_len / GROUP, &x.scales, &mut scales);
            let [sum] = dot_together::<BITS, 1>(&tables, [codes], x, &scales);
            *out = unit * sum;
        }
        return;
    }
    let (together, rest) = out.as_chunks_mut::<TOGETHER>();
    for out in together {
        let mut next = || parts.next().unwrap_or((&[], &[]));
        let parts = [next(), next(), next(), next()];
        let sums = dot_together::<BITS, TOGETHER>(&tables, parts.map(|(codes, _)| codes), x, &x.scales);
        for ((out, sum), (_, scales)) in out.iter_mut().zip(sums).zip(parts) {
            *out = scale_at(scales, 0) * unit * sum;
        }
    }
    for ((codes, scales), out) in parts.zip(rest) {
        let [sum] = dot_together::<BITS, 1>(&tables, [codes], x, &x.scales);
        *out = scale_at(scales, 0) * unit * sum;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
#[inline]
fn dot_together<const BITS: usize, const ROWS: usize>(
    tables: &Tables,
    rows: [&[u8]; ROWS],
    x: &Activations,
    scales: &[f32],
) -> [f32; ROWS] {
    let rows = rows.map(|codes| Row::<BITS>::new(codes, x.values.len()));
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let (pairs, rest) = x.values.as_chunks::<PAIR>();
    let (pair_scales, last_scale) = scales.as_chunks::<2>();
    for (pair, (x, scales)) in pairs.iter().zip(pair_scales).enumerate() {
        let x = Vector::new(&x.map(i8::cast_unsigned), *scales);
        for (sum, row) in sums.iter_mut().zip(&rows) {
            x.add(tables, row.codes(pair), sum);
        }
    }
    if let (Some(x), Some(&scale)) = (rest.first_chunk::<GROUP>(), last_scale.first()) {
        let mut values = [0; PAIR];
        values[..GROUP].copy_from_slice(&x.map(i8::cast_unsigned));
        let x = Vector::new(&values, [scale, 0.0]);
        for (sum, row) in sums.iter_mut().zip(&rows) {
            x.add(tables, row.last_codes(pairs.len()), sum);
        }
    }
    sums.map(|sum| _mm512_reduce_add_ps(sum))
}

/// 64 activations.
struct Vector {
    values: __m512i,
    /// What the products of levels and values start from, so that the bias of the levels is gone.
    start: __m512i,
    scales: __m512,
}

impl Vector {
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
    #[inline]
    fn new(values: &[u8; PAIR], [first, second]: [f32; 2]) -> Vector {
        let values = load(values);
        let zero = _mm512_setzero_si512();
        let bias = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(i8::MIN), values);
        let scales = _mm512_mask_blend_ps(0xFF00, _mm512_set1_ps(first), _mm512_set1_ps(second));
        Vector { values, start: _mm512_sub_epi32(zero, bias), scales }
    }

    /// Adds the products with 64 codes to `sum`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
    #[inline]
    fn add(&self, tables: &Tables, codes: __m512i, sum: &mut __m512) {
        let dot = |levels| _mm512_dpbusd_epi32(self.start, levels, self.values);
        let mut products = dot(tables.low(codes));
        if let Some(levels) = tables.high(codes) {
            products = _mm512_add_epi32(products, _mm512_slli_epi32::<6>(dot(levels)));
        }
        *sum = _mm512_fmadd_ps(self.scales, _mm512_cvtepi32_ps(products), *sum);
    }
}

/// Level plus [`LEVEL_BIAS`] of every code; above 5 bits, levels are `low + 64 * high`, both within 127 of zero.
pub(super) enum Tables {
    /// Codes of 8 bits are their levels.
    None,
    One(__m512i),
    /// Low, high.
    Two([__m512i; 2]),
    /// Low of the codes below 64 and above, high of these.
    Four([__m512i; 4]),
}

impl Tables {
    #[target_feature(enable = "avx512f")]
    pub(super) fn new<const BITS: usize>(levels: &[i16; 256]) -> Tables {
        let table = |first: usize, part: fn(i32) -> i32| {
            load(&std::array::from_fn(|i| (LEVEL_BIAS + part(levels[first + i].into())) as u8))
        };
        // Both parts have the level's sign.
        let (low, high) = (|level: i32| level % 64, |level: i32| level / 64);
        match BITS {
            8 => Tables::None,
            7 => Tables::Four([table(0, low), table(64, low), table(0, high), table(64, high)]),
            6 => Tables::Two([table(0, low), table(0, high)]),
            _ => Tables::One(table(0, |level| level)),
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    #[inline]
    pub(super) fn low(&self, codes: __m512i) -> __m512i {
        match self {
            Tables::None => _mm512_xor_si512(codes, _mm512_set1_epi8(i8::MIN)),
            Tables::One(low) | Tables::Two([low, _]) => _mm512_permutexvar_epi8(codes, *low),
            Tables::Four([a, b, ..]) => _mm512_permutex2var_epi8(*a, codes, *b),
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    #[inline]
    pub(super) fn high(&self, codes: __m512i) -> Option<__m512i> {
        match self {
            Tables::None | Tables::One(_) => None,
            Tables::Two([_, high]) => Some(_mm512_permutexvar_epi8(codes, *high)),
            Tables::Four([.., c, d]) => Some(_mm512_permutex2var_epi8(*c, codes, *d)),
        }
    }
}

/// The planes of one packed row; a plane that its width has not is empty.
pub(super) struct Row<'a, const BITS: usize> {
    eights: &'a [u8],
    fours: &'a [u8],
    twos: &'a [u8],
    ones: &'a [u8],
}

impl<'a, const BITS: usize> Row<'a, BITS> {
    #[inline]
    pub(super) fn new(codes: &'a [u8], cols: usize) -> Self {
        let has = |width: usize| if BITS & width != 0 { cols * width / 8 } else { 0 };
        let (eights, rest) = codes.split_at(has(8).min(codes.len()));
        let (fours, rest) = rest.split_at(has(4).min(rest.len()));
        let (twos, ones) = rest.split_at(has(2).min(rest.len()));
        Row { eights, fours, twos, ones }
    }

    /// The codes of 64 elements, one per byte; zeros beyond the row.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    #[inline]
    pub(super) fn codes(&self, pair: usize) -> __m512i {
        spread::<BITS>(
            self.eights.as_chunks().0.get(pair).unwrap_or(&[0; 64]),
            self.fours.as_chunks().0.get(pair).unwrap_or(&[0; 32]),
            self.twos.as_chunks().0.get(pair).unwrap_or(&[0; 16]),
            self.ones.as_chunks().0.get(pair).unwrap_or(&[0; 8]),
        )
    }

    /// The same for the last 32 elements, with zeros after them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(super) fn last_codes(&self, pair: usize) -> __m512i {
        spread::<BITS>(
            &padded(self.eights, pair),
            &padded(self.fours, pair),
            &padded(self.twos, pair),
            &padded(self.ones, pair),
        )
    }
}

/// What a plane has from a pair of groups on.
fn padded<const BYTES: usize>(plane: &[u8], pair: usize) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let rest = plane.get(pair * BYTES..).unwrap_or(&[]);
    let len = rest.len().min(BYTES);
    bytes[..len].copy_from_slice(&rest[..len]);
    bytes
}

/// Planes of 64 elements to one code per byte.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline]
fn spread<const BITS: usize>(
    eights: &[u8; 64],
    fours: &[u8; 32],
    twos: &[u8; 16],
    ones: &[u8; 8],
) -> __m512i {
    if BITS == 8 {
        return load(eights);
    }
    let mut codes = _mm512_setzero_si512();
    if BITS & 4 != 0 {
        // Each group's 16 bytes twice: lower halves, upper halves.
        // SAFETY: `fours` is 32 readable bytes.
        let bytes = _mm512_castsi256_si512(unsafe { _mm256_loadu_si256(fours.as_ptr().cast()) });
        let twice = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), bytes);
        let shifted = _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
        codes = _mm512_and_si512(shifted, _mm512_set1_epi8(0x0F));
    }
    if BITS & 2 != 0 {
        // Each group's 8 bytes four times, turned so that the bits of each are where they belong.
        // SAFETY: `twos` is 16 readable bytes.
        let bytes = _mm512_castsi128_si512(unsafe { _mm_loadu_si128(twos.as_ptr().cast()) });
        let four_times = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 0, 0, 1, 1, 1, 1), bytes);
        let (turn, mask) = match BITS & 4 {
            0 => (_mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6), 0x03),
            _ => (_mm512_setr_epi64(60, 62, 0, 2, 60, 62, 0, 2), 0x30),
        };
        let turned = _mm512_rorv_epi64(four_times, turn);
        codes = _mm512_or_si512(codes, _mm512_and_si512(turned, _mm512_set1_epi8(mask)));
    }
    if BITS & 1 != 0 {
        // Each group's 4 bytes eight times.
        let bytes = _mm512_set1_epi64(i64::from_le_bytes(*ones));
        let order = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        let eight_times = _mm512_permutexvar_epi32(order, bytes);
        let top = BITS as i32 - 1;
        let turn = _mm512_and_si512(
            _mm512_sub_epi32(
                _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7),
                _mm512_set1_epi32(top),
            ),
            _mm512_set1_epi32(31),
        );
        let turned = _mm512_rorv_epi32(eight_times, turn);
        codes = _mm512_or_si512(codes, _mm512_and_si512(turned, _mm512_set1_epi8(1 << top)));
    }
    codes
}
