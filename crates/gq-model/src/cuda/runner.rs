//! A GPU with a model's weights, caches and scratch memory.

use super::Asked;
use super::arena::{Arena, Block};
use super::plan::{DevicePlan, input_bytes, kept_as, layer_bytes, scratch_bytes};
use super::store::Store;
use super::value::Value;
use super::weights::{Wanted, Weights};
use crate::cache::{DeviceShape, KvCache, Token};
use crate::cpu::ActivationMode;
use crate::error::DeviceError;
use crate::matrix::Matrix;
use gq_checkpoint::ModelSpec;
use gq_cuda::{Buffer, CacheRows, Device, Gpu, GpuFacts, Launch, LaunchError, Span};
use gq_tensor::Isa;
use std::fmt;
use std::sync::{Arc, Weak};

/// A device that a model runs on.
pub struct Runner {
    pub(super) weights: Weights,
    caches: Vec<DeviceCache>,
    pub(super) inputs: Buffer,
    scratch: Buffer,
    pub(super) arena: Arena,
    pub(super) gpu: Gpu,
    facts: GpuFacts,
    plan: DevicePlan,
    /// For what is decoded on the host.
    pub(super) level: Isa,
    /// Kernels that were queued.
    pub(crate) launches: u64,
}

/// Keys and values of one sequence.
pub(super) struct DeviceCache {
    pub(super) token: Weak<Token>,
    /// Keys and values of each layer that has its own.
    layers: Vec<Option<[CacheRows; 2]>>,
    /// What holds them.
    _rows: Store,
}

impl DeviceCache {
    /// Keys and values of a layer.
    pub(super) fn layer(&self, layer: usize) -> Option<[CacheRows; 2]> {
        *self.layers.get(layer)?
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("gpu", &self.facts).field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Runner {
    /// Brings weights to a device, when there is room for them and for everything else.
    ///
    /// # Errors
    /// Without room for all of it, when the driver refuses, or for f32 activations of codes.
    pub(super) fn new(
        gpu: Gpu,
        spec: &ModelSpec,
        wanted: &Wanted,
        Asked { context, kv, activations, level }: Asked,
    ) -> Result<Runner, DeviceError> {
        let coded = |linear: &&crate::Linear| !linear.encoding().is_exact() && !linear.precise;
        if activations == ActivationMode::F32
            && let Some(coded) = wanted.matrices.values().find(coded)
        {
            return Err(DeviceError::Activations { tensor: coded.name().to_owned() });
        }
        let facts = gpu.facts()?;
        let plan = DevicePlan::new(spec, wanted.bytes(), context, kv);
        if plan.total() > facts.free {
            let DevicePlan { context, weights, cache, scratch } = plan;
            let (needed, free, total) = (plan.total(), facts.free, facts.total);
            return Err(DeviceError::Room { needed, weights, cache, context, scratch, free, total });
        }
        let weights = Weights::bring(&gpu, wanted)?;
        let size = scratch_bytes(spec, context);
        let (inputs, scratch) = (gpu.reserve(input_bytes(spec) as usize)?, gpu.reserve(size as usize)?);
        gpu.wait()?;
        Ok(Runner {
            weights,
            caches: Vec::new(),
            inputs,
            scratch,
            arena: Arena::new(size),
            gpu,
            facts,
            plan,
            level,
            launches: 0,
        })
    }

    /// The GPU of this number with so much scratch memory, and as much for what batches bring; weights are brought when they
    /// are first used.
    ///
    /// # Errors
    /// Without such a GPU, or without room.
    pub fn bare(number: usize, scratch: usize, level: Isa) -> Result<Runner, DeviceError> {
        let gpu = Gpu::open(number)?;
        let plan = DevicePlan { scratch: 2 * scratch as u64, ..DevicePlan::default() };
        Ok(Runner {
            weights: Weights::default(),
            caches: Vec::new(),
            inputs: gpu.reserve(scratch)?,
            scratch: gpu.reserve(scratch)?,
            arena: Arena::new(scratch as u64),
            facts: gpu.facts()?,
            gpu,
            plan,
            level,
            launches: 0,
        })
    }

    /// What was planned.
    pub(crate) fn plan(&self) -> DevicePlan {
        self.plan
    }

    /// The device.
    pub(crate) fn facts(&self) -> &GpuFacts {
        &self.facts
    }

    /// Bytes of weights that are there, and bytes that were planned for them.
    pub(crate) fn weights_filled(&self) -> (u64, Option<u64>) {
        self.weights.filled()
    }

    /// Most bytes of scratch memory that were in use, and bytes of it.
    pub(crate) fn scratch_used(&self) -> (u64, u64) {
        (self.arena.peak(), self.arena.size())
    }

    /// Where a cache is among those here; one that is new is made, those that nobody holds are freed.
    pub(super) fn cache(&mut self, cache: &KvCache) -> Result<usize, DeviceError> {
        let token = cache.token().ok_or(DeviceError::Missing)?;
        let is = |token: &Arc<Token>, known: &Weak<Token>| Weak::as_ptr(known) == Arc::as_ptr(token);
        if let Some(place) = self.caches.iter().position(|known| is(token, &known.token)) {
            return Ok(place);
        }
        self.caches.retain(|known| known.token.strong_count() > 0);
        let kept = kept_as(cache.kind());
        let bytes = cache.device_shapes().flatten().map(|shape| layer_bytes(shape, kept)).sum();
        let (gpu, mut store) = (&self.gpu, Store::planned(&self.gpu, bytes)?);
        let mut layers = Vec::new();
        for shape in cache.device_shapes() {
            let mut rows = |shape: DeviceShape| -> Result<CacheRows, DeviceError> {
                let (rows, scales) = CacheRows::bytes(kept, shape.heads, shape.slots, shape.dim);
                let rows = store.take(gpu, rows as usize)?.span;
                let scales = (scales > 0).then(|| store.take(gpu, scales as usize)).transpose()?;
                Ok(CacheRows { kept, rows, scales: scales.map(|place| place.span), slots: shape.slots })
            };
            layers.push(match shape {
                None => None,
                Some(shape) => Some([rows(shape)?, rows(shape)?]),
            });
        }
        self.caches.push(DeviceCache { token: Arc::downgrade(token), layers, _rows: store });
        Ok(self.caches.len() - 1)
    }

    pub(super) fn cached(&self, place: usize) -> Result<&DeviceCache, DeviceError> {
        self.caches.get(place).ok_or(DeviceError::Missing)
    }

    pub(super) fn launch(&mut self, launch: Result<Launch, LaunchError>) -> Result<(), DeviceError> {
        self.gpu.launch(&launch?)?;
        self.launches += 1;
        Ok(())
    }

    /// Scratch memory.
    pub(super) fn take(&self, bytes: u64) -> Result<Arc<Block>, DeviceError> {
        let block = self.arena.take(bytes);
        let limit = self.arena.size();
        block.map(Arc::new).ok_or(DeviceError::Scratch { needed: bytes, limit })
    }

    /// Where a block is on the device.
    pub(super) fn span(&self, block: &Block) -> Span {
        Span { address: self.scratch.span().address + block.at(), bytes: block.bytes() }
    }

    /// An unwritten value `[rows, width]` of so many parts.
    pub(super) fn value(&self, rows: usize, width: usize, parts: usize) -> Result<Value, DeviceError> {
        let block = self.take(4 * (rows * width * parts) as u64)?;
        let address = self.span(&block).address;
        Ok(Value { address, hold: Some(block), rows, width, parts, view: None, before: None })
    }

    /// A value of numbers from the host.
    pub(super) fn bring(&mut self, x: &Matrix) -> Result<Value, DeviceError> {
        let value = self.value(x.rows(), x.width, 1)?;
        let bytes: Vec<u8> = x.data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.write(value.address, &bytes)?;
        Ok(value)
    }

    /// Bytes to scratch memory.
    pub(super) fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let at = address.checked_sub(self.scratch.span().address).ok_or(DeviceError::Missing)?;
        Ok(self.gpu.write(&mut self.scratch, at as usize, bytes)?)
    }

    /// Bytes of scratch memory or of what a batch brought, when everything before is done.
    pub(super) fn read(&self, address: u64, bytes: u64) -> Result<Vec<u8>, DeviceError> {
        let place = |buffer: &Buffer| {
            let at = address.checked_sub(buffer.span().address)?;
            (at + bytes <= buffer.span().bytes).then_some(at as usize..(at + bytes) as usize)
        };
        let found =
            [&self.scratch, &self.inputs].into_iter().find_map(|buffer| Some((buffer, place(buffer)?)));
        let (buffer, part) = found.ok_or(DeviceError::Missing)?;
        Ok(self.gpu.read_part(buffer, part)?)
    }
}
