//! The checks are checked: every line of every kernel that synchronizes is taken out, one at a time, and each time a fault
//! is found or the result differs. None is without effect.

use super::{bell, noise};
use crate::device::Interpreter;
use gq_cuda::*;
use gq_ptx::{Machine, Order};
use gq_tensor::{DType, Encoding};
use std::collections::BTreeMap;

/// A launch, memory as it is before it, and what it writes.
struct Scenario {
    machine: Machine,
    launch: Launch,
    outputs: Vec<Span>,
}

/// Memory in the making.
#[derive(Default)]
struct Memory(Interpreter);

impl Memory {
    fn bytes(&mut self, count: usize) -> Span {
        let bytes: Vec<u8> = noise(count as u32, count).into_iter().map(|word| (word >> 13) as u8).collect();
        self.0.upload(&bytes)
    }

    /// f16 or f32 of no extreme size.
    fn halves(&mut self, count: usize) -> Span {
        let bytes: Vec<u8> =
            bell(1, count).into_iter().flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect();
        self.0.upload(&bytes)
    }

    fn floats(&mut self, count: usize) -> Span {
        self.0.upload_f32(&bell(2, count))
    }

    fn numbers(&mut self, values: &[u32]) -> Span {
        self.0.upload_u32(values)
    }

    fn output(&mut self, bytes: usize) -> Span {
        self.0.allocate(bytes)
    }

    fn scenario(self, launch: Result<Launch, LaunchError>, outputs: Vec<Span>) -> Scenario {
        Scenario { machine: self.0.machine, launch: launch.unwrap(), outputs }
    }
}

fn products(out: &mut Vec<Scenario>) {
    let (rows, cols) = (3, 2048);
    let names = [
        "tq1", "tq2", "tq3", "tq4", "tq5", "tq6", "tq7", "tq8", "mxfp4", "grid4", "grid4m", "grid5", "grid5m",
    ];
    for name in names.into_iter().chain(["grid6"]) {
        let (code, form) = PlaneCode::of(Encoding::from_name(name).unwrap()).unwrap();
        for tokens in [1, 3, 8, 9] {
            let mut memory = Memory::default();
            let y = memory.output(4 * tokens * rows);
            let product = PlaneProduct {
                code,
                form,
                codes: memory.bytes(rows * cols),
                scales: memory.bytes(rows * cols),
                values: memory.bytes(tokens * cols),
                steps: memory.floats(tokens * cols / 32),
                y,
                rows,
                cols,
                tokens,
                experts: None,
            };
            out.push(memory.scenario(product.launch(), vec![y]));
        }
    }
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for tokens in [1, 3, 8] {
            let mut memory = Memory::default();
            let y = memory.output(4 * tokens * rows);
            let (weights, x) = (memory.bytes(4 * rows * cols), memory.floats(tokens * cols));
            let product = ExactProduct { dtype, weights, x, y, rows, cols, tokens, experts: None };
            out.push(memory.scenario(product.launch(), vec![y]));
        }
    }
    for name in ["tt2", "tt3", "tt4", "tt5", "tt6"] {
        let code = TrellisCode::of(Encoding::from_name(name).unwrap()).unwrap();
        let (rows, cols) = (256, 320);
        for tokens in [1, 8, 9] {
            let mut memory = Memory::default();
            let y = memory.output(4 * tokens * rows);
            let product = TrellisProduct {
                code,
                codes: memory.bytes(rows * cols),
                scales: memory.halves(rows),
                values: memory.bytes(tokens * cols),
                steps: memory.floats(tokens * cols / 32),
                y,
                rows,
                cols,
                tokens,
                experts: None,
            };
            out.push(memory.scenario(product.launch(), vec![y]));
        }
    }
}

fn rotations(out: &mut Vec<Scenario>) {
    // One block of 32; two primes after which threads read each other's; stages one and two at a time.
    for cols in [96, 960, 1024, 2048] {
        let tables = RotationTables::new(1, cols).unwrap();
        let mut memory = Memory::default();
        let [signs, factors] = tables.bytes().map(|bytes| memory.0.upload(&bytes));
        let (x, values, steps) = (memory.floats(cols), memory.output(cols), memory.output(cols / 8));
        let rotate = Rotate { x: Parts::one(x), signs, factors, values, steps, rows: 1 };
        out.push(memory.scenario(rotate.launch(&tables), vec![values, steps]));

        let mut memory = Memory::default();
        let [signs, factors] = tables.bytes().map(|bytes| memory.0.upload(&bytes));
        let (x, y) = (memory.floats(cols), memory.output(4 * cols));
        out.push(memory.scenario(RotateBack { x, signs, factors, y, rows: 1 }.launch(&tables), vec![y]));
    }
    // With what comes before them.
    for (cols, posted) in [(960, true), (2048, true), (2048, false)] {
        let tables = RotationTables::new(1, cols).unwrap();
        let mut memory = Memory::default();
        let [signs, factors] = tables.bytes().map(|bytes| memory.0.upload(&bytes));
        let (x, residual, values, steps) =
            (memory.floats(cols), memory.floats(cols), memory.output(cols), memory.output(cols / 8));
        let norm = HeadNorm { weight: None, eps: 1e-5 };
        let joined = Some(Joined { norm: posted.then_some(norm), residual, scale: 1.0 });
        let rotate = NormRotate { x: Parts::one(x), joined, norm, signs, factors, values, steps, rows: 1 };
        out.push(memory.scenario(rotate.launch(&tables), vec![values, steps, residual]));
    }
    for cols in [96, 960, 1024, 2048] {
        let tables = RotationTables::new(1, cols).unwrap();
        let mut memory = Memory::default();
        let [signs, factors] = tables.bytes().map(|bytes| memory.0.upload(&bytes));
        let (x, values, steps) = (memory.floats(2 * cols), memory.output(cols), memory.output(cols / 8));
        let (x, width, up, gelu) = (Parts::one(x), 2 * cols, cols, true);
        let rotate = GatedRotate { x, width, up, gelu, signs, factors, values, steps, rows: 1 };
        out.push(memory.scenario(rotate.launch(&tables), vec![values, steps]));
        let mut memory = Memory::default();
        let [signs, factors] = tables.bytes().map(|bytes| memory.0.upload(&bytes));
        let (x, values, steps) = (memory.floats(cols), memory.output(cols), memory.output(cols / 8));
        let norm = HeadNorm { weight: None, eps: 1e-5 };
        let x = Parts::one(x);
        let rotate = NormRotate { x, joined: None, norm, signs, factors, values, steps, rows: 1 };
        out.push(memory.scenario(rotate.launch(&tables), vec![values, steps]));
    }
    // In two launches: stages one and two at a time in both, and two primes. With as many threads as are launched, most
    // threads read in the next stage what they wrote in the last; with three warps they do not.
    for cols in [960, 1024, 2048, 32768, 15 * 4096] {
        let tables = RotationTables::new(1, cols).unwrap();
        for which in [0, 1] {
            let mut memory = Memory::default();
            let [signs, factors] = tables.bytes().map(|bytes| memory.0.upload(&bytes));
            let (x, values, steps) = (memory.floats(cols), memory.output(cols), memory.output(cols / 8));
            let between = if which == 0 { memory.output(4 * cols) } else { memory.floats(cols) };
            let rotate = Rotate { x: Parts::one(x), signs, factors, values, steps, rows: 1 };
            let launches = RotateWide { rotate, between }.launches(&tables).unwrap();
            let [first, second] = launches.map(|launch| Launch { threads: 96, ..launch });
            let (launch, outputs) =
                if which == 0 { (first, vec![between]) } else { (second, vec![values, steps]) };
            out.push(memory.scenario(Ok(launch), outputs));
        }
    }
}

fn heads_and_attention(out: &mut Vec<Scenario>) {
    let (tokens, heads, slots) = (1, 4, 64);
    for dim in [64, 128, 256, 512] {
        for kept in [Kept::F32, Kept::F16, Kept::Q8] {
            let (rows_bytes, scale_bytes) = CacheRows::bytes(kept, 1, slots, dim);
            let mut memory = Memory::default();
            let mut cache = || {
                let rows = match kept {
                    Kept::F32 => memory.floats(rows_bytes as usize / 4),
                    Kept::F16 => memory.halves(rows_bytes as usize / 2),
                    Kept::Q8 => memory.bytes(rows_bytes as usize),
                };
                let scales = Some(memory.halves(scale_bytes as usize / 2));
                CacheRows { kept, rows, scales, slots }
            };
            let (keys, values) = (cache(), cache());
            let partial = memory.output(4 * heads * (dim + 2));
            let attention = Attention {
                q: memory.floats(heads * dim),
                keys,
                values,
                positions: memory.numbers(&[40]),
                partial,
                sinks: None,
                y: memory.output(4 * heads * dim),
                tokens,
                heads,
                kv_heads: 1,
                dim,
                window: None,
                longest: slots,
                scale: 0.1,
                softcap: None,
            };
            let [first, _] = attention.launches().unwrap();
            out.push(memory.scenario(Ok(first), vec![partial]));
        }
    }
    for kept in [None, Some(Kept::F32), Some(Kept::F16), Some(Kept::Q8)] {
        let (heads, dim) = (2, 80);
        let mut memory = Memory::default();
        let (rows, scales) = CacheRows::bytes(kept.unwrap_or(Kept::F32), heads, 1, dim);
        let (rows, scales) = (memory.output(rows as usize), memory.output(scales as usize));
        let positions = memory.numbers(&[0]);
        let cache = |kept| CacheRows { kept, rows, scales: Some(scales), slots: 1 };
        let kernel = Heads {
            x: Parts::one(memory.floats(heads * dim)),
            width: heads * dim,
            first: 0,
            norm: Some(HeadNorm { weight: None, eps: 1e-6 }),
            turns: Some([memory.floats(dim / 2), memory.floats(dim / 2)]),
            to: kept.map_or(HeadsTo::Rows(rows), |kept| HeadsTo::Cache { cache: cache(kept), positions }),
            tokens: 1,
            heads,
            dim,
        };
        out.push(memory.scenario(kernel.launch(), vec![rows, scales]));
    }
    for kept in [Kept::F32, Kept::F16, Kept::Q8] {
        let (heads, dim) = (2, 80);
        let mut memory = Memory::default();
        let (bytes, scale_bytes) = CacheRows::bytes(kept, heads, 1, dim);
        let rows = memory.output(4 * heads * dim);
        let mut cache = || CacheRows {
            kept,
            rows: memory.output(bytes as usize),
            scales: Some(memory.output(scale_bytes as usize)),
            slots: 1,
        };
        let (keys, values) = (cache(), cache());
        let norm = Some(HeadNorm { weight: None, eps: 1e-6 });
        let mut within =
            || HeadsIn { x: Parts::one(memory.floats(heads * dim)), width: heads * dim, first: 0, norm };
        let (q, k, v) = (within(), within(), within());
        let turns = Some([memory.floats(dim / 2), memory.floats(dim / 2)]);
        let positions = memory.numbers(&[0]);
        let (tokens, kv_heads) = (1, heads);
        let all = AllHeads { q, k, v, turns, rows, keys, values, positions, tokens, heads, kv_heads, dim };
        let caches = [keys, values].into_iter().flat_map(|cache| [Some(cache.rows), cache.scales]);
        out.push(memory.scenario(all.launch(), caches.flatten().chain([rows]).collect()));
    }
}

fn others(out: &mut Vec<Scenario>) {
    let mut memory = Memory::default();
    let (x, y) = (memory.floats(300), memory.output(1200));
    let norm = RmsNorm { x: Parts::one(x), residual: None, weight: None, y, rows: 1, width: 300, eps: 1e-6 };
    out.push(memory.scenario(norm.launch(), vec![y]));

    let mut memory = Memory::default();
    let (ids, factors) = (memory.output(32), memory.output(32));
    let choose = ChooseExperts {
        scores: Parts::one(memory.floats(130)),
        scales: memory.floats(130),
        ids,
        factors,
        tokens: 1,
        experts: 130,
        top: 8,
    };
    out.push(memory.scenario(choose.launch(), vec![ids, factors]));

    let mut memory = Memory::default();
    let (logits, values, ids) = (memory.floats(300), memory.output(160), memory.output(160));
    let scratch = [memory.output(0), memory.output(0)];
    let top = TopLogits { logits, scratch, values, ids, rows: 1, count: 300, keep: 40 };
    out.push(memory.scenario(Ok(top.launches().unwrap().remove(0)), vec![values, ids]));
}

/// The lines of one kernel, and what stands outside of kernels.
fn only(text: &str, kernel: &str) -> Vec<String> {
    let (mut inside, mut wanted) = (false, true);
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.contains(".entry ") {
            (inside, wanted) = (true, line.contains(&format!(".entry {kernel}(")));
        }
        if !inside || wanted {
            lines.push(line.to_owned());
        }
        if line == "}" {
            (inside, wanted) = (false, true);
        }
    }
    lines
}

fn synchronizes(line: &str) -> bool {
    ["bar.sync", "bar.warp.sync", "cp.async.wait"].iter().any(|opcode| line.trim_start().starts_with(opcode))
}

/// What a launch of a module leaves, in both orders; `None`: a fault.
fn outcome(module: &gq_ptx::Module, scenario: &Scenario) -> Option<Vec<Vec<u8>>> {
    let mut results = Vec::new();
    for order in [Order::Forward, Order::Reverse] {
        let mut machine = scenario.machine.clone();
        let launch = &scenario.launch;
        let arguments: Vec<_> =
            launch.arguments.iter().map(|argument| gq_ptx::Argument::bytes(&argument.bytes())).collect();
        let launch = gq_ptx::Launch {
            grid: launch.grid,
            dynamic_shared: launch.shared,
            order,
            most_instructions: 1 << 22,
            ..gq_ptx::Launch::new(launch.kernel, 1, launch.threads, &arguments)
        };
        machine.launch(module, &launch).ok()?;
        for span in &scenario.outputs {
            results.push(machine.read(span.address, span.bytes as usize).ok()?);
        }
    }
    Some(results)
}

#[test]
fn every_synchronizing_line_is_missed() {
    let mut scenarios = Vec::new();
    products(&mut scenarios);
    rotations(&mut scenarios);
    heads_and_attention(&mut scenarios);
    others(&mut scenarios);
    let mut by_kernel: BTreeMap<(Module, &str), Vec<Scenario>> = BTreeMap::new();
    for scenario in scenarios {
        by_kernel.entry((scenario.launch.module, scenario.launch.kernel)).or_default().push(scenario);
    }
    // Every kernel that synchronizes has a scenario.
    for module in Module::ALL {
        let mut kernel = "";
        for line in module.text().lines() {
            if let Some((_, rest)) = line.split_once(".entry ") {
                kernel = rest.trim_end_matches('(');
            }
            assert!(
                !synchronizes(line) || by_kernel.contains_key(&(module, kernel)),
                "{kernel} has no scenario"
            );
        }
    }
    let (mut removed, mut survivors) = (0, Vec::new());
    for ((module, kernel), scenarios) in &by_kernel {
        let lines = only(module.text(), kernel);
        let whole = gq_ptx::Module::parse(&lines.join("\n")).unwrap();
        let expected: Vec<_> = scenarios.iter().map(|one| outcome(&whole, one).unwrap()).collect();
        let places = lines.iter().enumerate().filter(|(_, line)| synchronizes(line)).map(|(place, _)| place);
        for (number, place) in places.enumerate() {
            let mut without = lines.clone();
            // A label may stand in front of it: the statement stays one.
            without[place] = String::new();
            let module = gq_ptx::Module::parse(&without.join("\n")).unwrap();
            let outcomes = scenarios.iter().map(|one| outcome(&module, one));
            let caught = outcomes.zip(&expected).any(|(made, expected)| made.as_ref() != Some(expected));
            removed += 1;
            if !caught {
                survivors.push((*kernel, number));
            }
        }
    }
    assert_eq!(survivors, [], "of {removed} lines");
    assert!(removed > 100, "{removed} lines");
}
