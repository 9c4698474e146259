//! The interpreter as a device.

use gq_cuda::{Argument, Buffer, Device, Gpu, Launch, Module, Span};
use gq_ptx::{Counters, Fault, Machine, Order};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Parsed modules, shared by all tests.
static PARSED: Mutex<BTreeMap<Module, Arc<gq_ptx::Module>>> = Mutex::new(BTreeMap::new());

fn parsed(module: Module) -> Arc<gq_ptx::Module> {
    let mut all = PARSED.lock().unwrap();
    let parse = || Arc::new(gq_ptx::Module::parse(module.text()).unwrap());
    all.entry(module).or_insert_with(parse).clone()
}

/// Memory, and launches of the committed PTX or of a changed one.
#[derive(Default)]
pub(crate) struct Interpreter {
    pub(crate) machine: Machine,
    pub(crate) reverse: bool,
    pub(crate) changed: Option<Arc<gq_ptx::Module>>,
    pub(crate) counters: Counters,
}

impl Device for Interpreter {
    type Error = Fault;

    fn launch(&mut self, launch: &Launch) -> Result<(), Fault> {
        let bytes = |argument: &Argument| gq_ptx::Argument::bytes(&argument.bytes());
        let arguments: Vec<_> = launch.arguments.iter().map(bytes).collect();
        let on_card = match self.changed {
            None => OnCard::begin(&self.machine, launch),
            Some(_) => None,
        };
        let module = self.changed.clone().unwrap_or_else(|| parsed(launch.module));
        let ran = self.machine.launch(
            &module,
            &gq_ptx::Launch {
                grid: launch.grid,
                dynamic_shared: launch.shared,
                order: if self.reverse { Order::Reverse } else { Order::Forward },
                most_instructions: 1 << 24,
                ..gq_ptx::Launch::new(launch.kernel, 1, launch.threads, &arguments)
            },
        )?;
        self.counters.add(&ran);
        if let Some(on_card) = on_card {
            on_card.compare(&self.machine, launch);
        }
        Ok(())
    }
}

/// The same launch on the driver's first device, on copies of the same memory, where `GQ_BESIDE` asks for it
/// (`scripts/gpu_check.sh`).
struct OnCard {
    gpu: Gpu,
    copies: BTreeMap<u64, Buffer>,
}

impl OnCard {
    fn begin(machine: &Machine, launch: &Launch) -> Option<OnCard> {
        std::env::var_os("GQ_BESIDE")?;
        let mut gpu = Gpu::open(0).unwrap();
        let mut copies = BTreeMap::new();
        let mut here = launch.clone();
        for argument in &mut here.arguments {
            let Argument::Address(address) = argument else { continue };
            let from = machine.beginning(*address);
            let Some((bytes, _)) = machine.holds(from) else { continue };
            let copy = copies.entry(from).or_insert_with(|| gpu.upload(bytes).unwrap());
            *address = copy.span().address + (*address - from);
        }
        gpu.launch(&here).unwrap();
        Some(OnCard { gpu, copies })
    }

    /// Everything that the interpreter has written is what the device has, NaN of any kind being equal.
    #[allow(clippy::print_stderr)] // `scripts/gpu_check.sh` counts these lines
    fn compare(&self, machine: &Machine, launch: &Launch) {
        for (from, copy) in &self.copies {
            let there = self.gpu.read(copy).unwrap();
            let (bytes, written) = machine.holds(*from).unwrap();
            let word = |bytes: &[u8], at: usize| {
                let four = bytes.get(at / 4 * 4..at / 4 * 4 + 4).and_then(|four| four.try_into().ok());
                four.map_or(0.0, f32::from_le_bytes)
            };
            let differs = |at: &usize| {
                written[*at]
                    && bytes[*at] != there[*at]
                    && !(word(bytes, *at).is_nan() && word(&there, *at).is_nan())
            };
            let first = (0..bytes.len()).find(differs);
            let verdict = first.map_or("equal".to_owned(), |at| format!("NOT EQUAL at byte {at}"));
            eprintln!("card: {} {:?}: {verdict}", launch.kernel, launch.grid);
            assert!(first.is_none(), "{} on the device differs from the interpreter", launch.kernel);
        }
    }
}

impl Interpreter {
    /// With the order of warps and blocks reversed.
    pub(crate) fn reversed() -> Interpreter {
        Interpreter { reverse: true, ..Interpreter::default() }
    }

    pub(crate) fn upload(&mut self, bytes: &[u8]) -> Span {
        Span { address: self.machine.upload(bytes), bytes: bytes.len() as u64 }
    }

    pub(crate) fn upload_f32(&mut self, values: &[f32]) -> Span {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.upload(&bytes)
    }

    pub(crate) fn upload_u32(&mut self, values: &[u32]) -> Span {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.upload(&bytes)
    }

    pub(crate) fn upload_i8(&mut self, values: &[i8]) -> Span {
        let bytes: Vec<u8> = values.iter().map(|value| *value as u8).collect();
        self.upload(&bytes)
    }

    pub(crate) fn allocate(&mut self, bytes: usize) -> Span {
        Span { address: self.machine.allocate(bytes), bytes: bytes as u64 }
    }

    /// Everything in a range, all of which must have been written.
    pub(crate) fn read(&mut self, span: Span) -> Vec<u8> {
        self.machine.read(span.address, span.bytes as usize).unwrap()
    }

    pub(crate) fn read_f32(&mut self, span: Span) -> Vec<f32> {
        self.read(span).as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }

    pub(crate) fn read_i8(&mut self, span: Span) -> Vec<i8> {
        self.read(span).into_iter().map(|byte| byte as i8).collect()
    }

    pub(crate) fn run(&mut self, launch: Result<Launch, gq_cuda::LaunchError>) {
        Device::launch(self, &launch.unwrap()).map_err(|fault| fault.to_string()).unwrap();
    }
}
