//! Right kernels give the bits that their source says.

use super::{block, bytes, f32s, floats, i32s, module, noise};
use gq_ptx::{Argument, Checks, Launch, Machine, Order};
use half::f16;

#[test]
fn a_grid_multiplies_and_adds_in_one_rounding() {
    let (module, mut machine) = (module(), Machine::new());
    let (x, y) = (floats(1, 100), floats(2, 100));
    let a = 0.3f32;
    let (at_x, at_y) =
        (machine.upload(&bytes(&x, f32::to_le_bytes)), machine.upload(&bytes(&y, f32::to_le_bytes)));
    let arguments = [Argument::address(at_x), Argument::address(at_y), Argument::f32(a), Argument::u32(100)];
    let counters = machine.launch(&module, &Launch::new("axpy", 4, 32, &arguments)).unwrap();
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| a.mul_add(*x, *y)).collect();
    assert_eq!(f32s(&mut machine, at_y, 100), expected);
    assert_eq!(counters.global_requests, 4 * 3, "two loads and a store of four warps");
    assert_eq!(
        (counters.global_sectors, counters.ideal_sectors),
        (3 * 13, 3 * 13),
        "400 bytes are 12.5 sectors"
    );
    assert_eq!(counters.by_opcode["fma"], 4);
}

/// The sums of `rms` in the kernel's order.
fn rms(x: &[f32], threads: usize, eps: f32) -> Vec<f32> {
    let mut sums = vec![0f32; threads];
    for (quad, four) in x.chunks_exact(4).enumerate() {
        let squares = ((four[0] * four[0] + four[1] * four[1]) + four[2] * four[2]) + four[3] * four[3];
        sums[quad % threads] += squares;
    }
    let mut total = 0.0;
    for warp in sums.chunks_exact_mut(32) {
        for distance in [16, 8, 4, 2, 1] {
            let old = warp.to_vec();
            (0..32).for_each(|lane| warp[lane] = old[lane] + old[lane ^ distance]);
        }
        total += warp[0];
    }
    let factor = 1.0 / (total / x.len() as f32 + eps).sqrt();
    x.iter().map(|x| x * factor).collect()
}

#[test]
fn sums_through_shuffles_and_shared_memory_have_the_order_of_the_source() {
    let (module, x) = (module(), floats(3, 4 * 150));
    for order in [Order::Forward, Order::Reverse] {
        for checks in [Checks::All, Checks::NoRaces] {
            let mut machine = Machine::new();
            let (at_x, at_y) = (machine.upload(&bytes(&x, f32::to_le_bytes)), machine.allocate(x.len() * 4));
            let arguments =
                [Argument::address(at_x), Argument::address(at_y), Argument::u32(150), Argument::f32(1e-5)];
            let launch = Launch { order, checks, ..block("rms", 64, &arguments) };
            let counters = machine.launch(&module, &launch).unwrap();
            assert_eq!(f32s(&mut machine, at_y, x.len()), rms(&x, 64, 1e-5));
            assert_eq!(counters.barriers, 2);
            assert_eq!(counters.shared_wavefronts, counters.ideal_wavefronts, "no bank conflicts");
        }
    }
}

fn dot(x: i32, y: i32) -> i32 {
    let products = x.to_le_bytes().into_iter().zip(y.to_le_bytes());
    products.map(|(x, y)| i32::from(x as i8) * i32::from(y as i8)).sum()
}

fn permute(x: i32, y: i32, selector: u32) -> u32 {
    let both = (u64::from(y as u32) << 32 | u64::from(x as u32)).to_le_bytes();
    let byte = |nibble: u32| match both[(nibble & 7) as usize] {
        byte if nibble & 8 == 0 => byte,
        byte if byte < 128 => 0,
        _ => 255,
    };
    u32::from_le_bytes(std::array::from_fn(|place| byte(selector >> (4 * place) & 15)))
}

fn integers(x: i32, y: i32, i: u32) -> i32 {
    let mut r = dot(x, y).wrapping_add(7);
    r ^= permute(x, y, 0x5140).wrapping_add(permute(x, y, 0xba98)) as i32;
    let both = u64::from(y as u32) << 32 | u64::from(x as u32);
    r = r.wrapping_add((both >> (i & 31)) as i32);
    r ^= (x.count_ones() + y.leading_zeros()).wrapping_add((x as u32).reverse_bits()) as i32;
    r = r.wrapping_add(((i64::from(x) * i64::from(y)) >> 17) as i32);
    if y != 0 {
        r = r.wrapping_add(x.wrapping_div(y).wrapping_add(x.wrapping_rem(y)));
    }
    r ^= (x as u32 / 10).wrapping_add(x.min(y) as u32).wrapping_add((x as u32).max(y as u32)) as i32;
    r.wrapping_add(i32::from((x >> 8) as i8) + i32::from(y as i16))
}

#[test]
fn integers_of_every_kind() {
    let (module, mut machine) = (module(), Machine::new());
    let mut x: Vec<i32> = noise(4, 200).into_iter().map(|bits| bits as i32).collect();
    let mut y: Vec<i32> = noise(5, 200).into_iter().map(|bits| bits as i32).collect();
    x[..6].copy_from_slice(&[0, -1, i32::MAX, i32::MIN + 1, 128, -128]);
    y[..6].copy_from_slice(&[0, 0, -1, 7, i32::MIN, 1]);
    let (a, b) = (machine.upload(&bytes(&x, i32::to_le_bytes)), machine.upload(&bytes(&y, i32::to_le_bytes)));
    let out = machine.allocate(800);
    let arguments = [Argument::address(a), Argument::address(b), Argument::address(out), Argument::u32(200)];
    machine.launch(&module, &Launch::new("integers", 2, 128, &arguments)).unwrap();
    let expected: Vec<i32> = (0..200).map(|i| integers(x[i], y[i], i as u32)).collect();
    assert_eq!(i32s(&mut machine, out, 200), expected);
}

#[test]
fn halves_and_roundings() {
    let (module, mut machine) = (module(), Machine::new());
    let x: Vec<f16> = floats(6, 64).into_iter().map(|x| f16::from_f32(x * 5.0)).collect();
    let at = machine.upload(&bytes(&x, f16::to_le_bytes));
    let (y, rounded) = (machine.allocate(128), machine.allocate(128));
    let arguments =
        [Argument::address(at), Argument::address(y), Argument::address(rounded), Argument::u32(32)];
    machine.launch(&module, &block("halves", 32, &arguments)).unwrap();
    let pairs: Vec<(f32, f32)> = x.chunks_exact(2).map(|pair| (pair[0].to_f32(), pair[1].to_f32())).collect();
    let expected: Vec<i32> =
        pairs.iter().map(|(a, b)| (a * 8.0).round_ties_even() as i32 + *b as i32).collect();
    assert_eq!(i32s(&mut machine, rounded, 32), expected);
    let made: Vec<f16> =
        pairs.iter().flat_map(|(a, b)| [f16::from_f32(a * 1.5), f16::from_f32(b - 0.25)]).collect();
    assert_eq!(machine.read(y, 128).unwrap(), bytes(&made, f16::to_le_bytes));
}

#[test]
fn lanes_that_part_meet_again() {
    let (module, mut machine) = (module(), Machine::new());
    let start: Vec<i32> = (1..33).collect();
    let steps = |mut x: i32| {
        let mut n = 0;
        while x != 1 {
            x = if x % 2 == 1 { 3 * x + 1 } else { x / 2 };
            n += 1;
        }
        n
    };
    let expected: Vec<i32> = start.iter().map(|x| steps(*x)).collect();
    let at = machine.upload(&bytes(&start, i32::to_le_bytes));
    let (out, most) = (machine.allocate(128), machine.allocate(4));
    let arguments = [Argument::address(at), Argument::address(out), Argument::address(most)];
    machine.launch(&module, &block("collatz", 32, &arguments)).unwrap();
    assert_eq!(i32s(&mut machine, out, 32), expected);
    assert_eq!(i32s(&mut machine, most, 1), [111]);
}

#[test]
fn asynchronous_copies_arrive() {
    let (module, mut machine) = (module(), Machine::new());
    let x = noise(7, 4 * 64);
    let (at, out) = (machine.upload(&bytes(&x, u32::to_le_bytes)), machine.allocate(1024));
    let arguments = [Argument::address(at), Argument::address(out)];
    let launch = Launch { dynamic_shared: 1024, ..block("copies", 64, &arguments) };
    machine.launch(&module, &launch).unwrap();
    let mut expected = x[4..].to_vec();
    expected.extend(&x[..4]);
    assert_eq!(machine.read(out, 1024).unwrap(), bytes(&expected, u32::to_le_bytes));
}

#[test]
fn byte_matrices_multiply() {
    let (module, mut machine) = (module(), Machine::new());
    let (a, b) = (noise(8, 16 * 8), noise(9, 8 * 8));
    let (at_a, at_b) =
        (machine.upload(&bytes(&a, u32::to_le_bytes)), machine.upload(&bytes(&b, u32::to_le_bytes)));
    let out = machine.allocate(16 * 8 * 4);
    let arguments = [Argument::address(at_a), Argument::address(at_b), Argument::address(out)];
    machine.launch(&module, &block("product", 32, &arguments)).unwrap();
    let (a, b) = (bytes(&a, u32::to_le_bytes), bytes(&b, u32::to_le_bytes));
    let mut expected = Vec::new();
    for row in a.chunks_exact(32) {
        for column in b.chunks_exact(32) {
            expected.push(
                row.iter().zip(column).map(|(a, b)| i32::from(*a as i8) * i32::from(*b as i8)).sum::<i32>(),
            );
        }
    }
    assert_eq!(i32s(&mut machine, out, 128), expected);
}

#[test]
fn half_matrices_multiply() {
    let (module, mut machine) = (module(), Machine::new());
    let halves = |seed, count| floats(seed, count).into_iter().map(f16::from_f32).collect::<Vec<_>>();
    let (a, b) = (halves(10, 16 * 16), halves(11, 8 * 16));
    let (at_a, at_b) =
        (machine.upload(&bytes(&a, f16::to_le_bytes)), machine.upload(&bytes(&b, f16::to_le_bytes)));
    let out = machine.allocate(16 * 8 * 4);
    let arguments = [Argument::address(at_a), Argument::address(at_b), Argument::address(out)];
    machine.launch(&module, &block("half_product", 32, &arguments)).unwrap();
    let made = f32s(&mut machine, out, 128);
    for (row, a) in a.chunks_exact(16).enumerate() {
        for (column, b) in b.chunks_exact(16).enumerate() {
            let exact: f64 = a.iter().zip(b).map(|(a, b)| a.to_f64() * b.to_f64()).sum();
            let error = (f64::from(made[row * 8 + column]) - exact).abs();
            assert!(error <= 1e-6, "{row}, {column}: {error}");
        }
    }
}
